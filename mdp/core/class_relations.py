"""What is known about classes of different datasets, and what a loss makes of it.

Classes that are equal share one prototype and do not compete.  A part and its whole do not compete either: a pixel of
the part is of the whole too, and one of the whole may be of the part.  Only the first is sure, so only pixels of the
part are pulled to the other's prototype as well.  Classes that overlap merely do not compete.
Shape legend: C classes of the union, W wholes a class, D embedding channels, N pixels, K targets a pixel.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.prototype_bank import ClassSums
from mdp.core.targets import Targets

KINDS = ("equal", "part", "overlap")


class Relation(NamedTuple):
    """What the first class is of the second: `equal` to it, a `part` of it, or they `overlap`."""

    kind: str
    first: int  # class of the union
    second: int


class RelationTables(NamedTuple):
    """Relations as a loss needs them."""

    rivals: Tensor  # (C, C) bool, symmetric: whether two classes compete; each with itself
    groups: Tensor  # (C,) int64: the least of the classes that this one is equal to, itself among them
    wholes: Tensor  # (C, W) int64: what each class is a part of, one of each group; -1 for none


def relation_tables(relations: Sequence[Relation], classes: int) -> RelationTables:
    """The tables of relations between `classes` classes; being equal is passed on, and with it all other relations.

    Raises ValueError for an unknown kind, for a number that is no class, and for a class related to itself.

    >>> tables = relation_tables([Relation("equal", 0, 2), Relation("part", 1, 2)], 4)
    >>> tables.groups.tolist(), tables.wholes.tolist()
    ([0, 1, 0, 3], [[-1], [0], [-1], [-1]])
    >>> tables.rivals.int().tolist()
    [[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]]
    """
    tables = {kind: torch.eye(classes, dtype=torch.bool) & (kind == "equal") for kind in KINDS}  # (C, C) each
    for kind, first, second in relations:
        if kind not in tables:
            raise ValueError(f"relation {kind!r}: expected one of {', '.join(KINDS)}")
        if not (0 <= first < classes and 0 <= second < classes) or first == second:
            raise ValueError(f"relation of {first} and {second}: expected two of {classes} classes")
        tables[kind][first, second] = True
    equal = _closed(tables["equal"])
    groups = equal.int().argmax(1)  # (C,): the first that it is equal to
    part = _product(equal, tables["part"], equal) & ~equal
    related = part | part.T | _product(equal, tables["overlap"] | tables["overlap"].T, equal) | equal
    rivals = ~related | torch.eye(classes, dtype=torch.bool)
    heads = part & (groups == torch.arange(classes))  # (C, C): one column a group
    width = int(heads.sum(1).max()) if classes else 0
    wholes = torch.full((classes, width), -1)
    for number, row in enumerate(heads):
        found = row.nonzero().flatten()
        wholes[number, : len(found)] = found
    return RelationTables(rivals, groups, wholes)


def once_each(rivals: Tensor, groups: Tensor) -> Tensor:
    """Rivals (C, C) of which every group competes once in a row: equal classes have one prototype.

    >>> once_each(torch.ones(3, 3, dtype=torch.bool), torch.tensor([0, 1, 1])).int().tolist()[0]
    [1, 1, 0]
    """
    earlier = (groups[:, None] == groups).triu(1)  # (C, C): of one group, and the row's number is less
    return rivals & ~_product(rivals, earlier)


def _product(*factors: Tensor) -> Tensor:
    """Whether one can go from a row to a column by one entry of each table after the other."""
    total = factors[0].float()
    for factor in factors[1:]:
        total = (total @ factor.float() > 0).float()
    return total > 0


def _closed(table: Tensor) -> Tensor:
    """The equivalence that holds these pairs."""
    found = table | table.T
    while True:
        further = _product(found, found)
        if torch.equal(further, found):
            return found
        found = further


def pooled_sums(sums: ClassSums, groups: Tensor) -> ClassSums:
    """Class sums (C, D) in which classes of one group have those of all of them together."""
    totals = torch.zeros_like(sums.sums).index_add_(0, groups, sums.sums)
    counts = torch.zeros_like(sums.counts).index_add_(0, groups, sums.counts)
    return ClassSums(totals[groups], counts[groups])


def pooled_vectors(vectors: Tensor, groups: Tensor) -> Tensor:
    """Unit vectors (C, D) in which classes of one group have the direction of their sum; with gradient."""
    totals = torch.zeros_like(vectors).index_add(0, groups, vectors)
    return F.normalize(totals, dim=1)[groups]


def with_wholes(targets: Targets, wholes: Tensor, weight: float) -> Targets:
    """Adds a pull towards what each target class is a part of: of its weight times `weight`, shared among its wholes.

    >>> from mdp.core.targets import hard_targets
    >>> targets = with_wholes(hard_targets(torch.tensor([1, 0])), torch.tensor([[-1], [0]]), 0.5)
    >>> targets.classes.tolist(), targets.weights.tolist()
    ([[1, 0], [0, 0]], [[1.0, 0.5], [1.0, 0.0]])
    """
    found = wholes[targets.classes]  # (N, K, W)
    there = found >= 0
    share = weight / there.sum(2, keepdim=True).clamp(min=1) * targets.weights[..., None]  # (N, K, 1)
    pulls = (there * share).flatten(1)  # (N, K W)
    classes = found.clamp(min=0).flatten(1)
    return targets._replace(
        classes=torch.cat([targets.classes, classes], 1), weights=torch.cat([targets.weights, pulls], 1)
    )
