"""Which classes of which datasets are the same thing, read off their prototypes (ours; not in the paper).

Cosines of prototypes are all high, so two things are asked of a relation: that the classes lie to the same side of the
mean prototype, and that each is nearer to the other than to its usual neighbours (docs/atlas.md: what else was tried).
Shape legend: C classes of the union, D embedding channels, S datasets.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mdp.core.bounds import Bounds, Positive, check_bounds
from mdp.core.prototype_bank import Prototypes


@dataclass(frozen=True, kw_only=True)
class RelationSettings:
    """Bounds on what counts as a relation; all of them are chosen."""

    # the nearest alone is never unusual
    neighbours: Annotated[int, Bounds(2, 10**6)] = (
        10  # in the other dataset, whose mean is the usual: 3, 10 and all were measured
    )
    crops: Positive = 20  # fewer are not relied on: halves of a bank agree by 0.8 from 10 crops each, by 0.45 below

    def __post_init__(self) -> None:
        check_bounds(self)


class ClassPair(NamedTuple):
    """Two classes of two datasets, each the other's nearest there."""

    first: int
    second: int
    similarity: float  # cosine of the centred prototypes
    score: float  # cosine of the plain ones, above that of the usual neighbours
    margin: float  # score above that of the best rival of either; NaN when there is none
    crops: int  # behind the prototype that has fewer


class ClassGroup(NamedTuple):
    """Several classes of one dataset whose nearest in another is the same class: its parts, or it their whole."""

    whole: int
    parts: tuple[int, ...]
    similarity: tuple[float, ...]  # of each part to the whole


class Relations(NamedTuple):
    """A map of all classes: what is the same, what falls under what, and what cannot be said."""

    similarity: Tensor  # (C, C) float64, NaN where a class has no prototype
    pairs: tuple[ClassPair, ...]  # the best score first
    groups: tuple[ClassGroup, ...]  # in order of the whole
    alone: tuple[int, ...]  # in no pair and no group, with crops enough
    unsure: tuple[int, ...]  # classes with too few crops
    absent: tuple[int, ...]  # classes without a prototype
    order: tuple[int, ...]  # all with a prototype, similar ones beside each other


def find_relations(known: Prototypes, dataset: Tensor, crops: Tensor, settings: RelationSettings) -> Relations:
    """The relations of all classes.

    `dataset` (C,) is the number, from 0, of the dataset of each class, `crops` (C,) how many are behind its prototype.

    Raises ValueError when there are no classes, the shapes differ or a present prototype is not finite.
    """
    _expect_fit(known, dataset, crops)
    similarity = centred_cosines(known)  # (C, C)
    sure = known.present & (crops >= settings.crops)
    nearest = nearest_classes(corrected(class_cosines(known), dataset, sure, settings.neighbours), dataset)
    pairs = mutual_pairs(similarity, nearest, dataset, crops)
    groups = shared_nearest(similarity, nearest, dataset)
    related = {pair[side] for pair in pairs for side in (0, 1)}
    related |= {label for group in groups for label in (group.whole, *group.parts)}
    alone = tuple(label for label in _numbers(sure) if label not in related)
    there = _numbers(known.present)
    rows = known.present.nonzero()[:, 0]
    order = cluster_order((1 - similarity[rows][:, rows]).numpy())
    return Relations(
        similarity,
        pairs,
        groups,
        alone,
        _numbers(known.present & ~sure),
        _numbers(~known.present),
        tuple(there[place] for place in order),
    )


def _expect_fit(known: Prototypes, dataset: Tensor, crops: Tensor) -> None:
    classes = len(known.vectors)
    if not classes:
        raise ValueError("expected the prototypes of some classes, got none")
    if not len(known.present) == len(dataset) == len(crops) == classes:
        shapes = [tuple(t.shape) for t in (known.present, dataset, crops)]
        raise ValueError(f"{classes} prototypes, but presence, datasets and crops of shapes {shapes}")
    if not bool(known.vectors[known.present].isfinite().all()):
        raise ValueError("expected finite prototypes, got NaN or infinity")


def _numbers(chosen: Tensor) -> tuple[int, ...]:
    return tuple(chosen.nonzero()[:, 0].tolist())


# How alike two classes are


def class_cosines(known: Prototypes) -> Tensor:
    """Cosines (C, C), float64, of the prototypes; NaN where a class has none."""
    vectors = F.normalize(known.vectors.double(), dim=1)  # (C, D)
    cosines = (vectors @ vectors.T).clamp(-1, 1)
    return cosines.masked_fill(~(known.present[:, None] & known.present), torch.nan)


def centred_cosines(known: Prototypes) -> Tensor:
    """The same of the prototypes, at unit length, less their mean: 0 is what is usual, and not the cosine of it."""
    vectors = F.normalize(known.vectors.double(), dim=1)  # (C, D)
    mean = vectors[known.present].sum(0) / known.present.sum().clamp(min=1)
    return class_cosines(Prototypes(vectors - mean, known.present))


def _of_datasets(dataset: Tensor) -> list[Tensor]:
    """For every dataset, which classes are its own."""
    return [dataset == number for number in range(int(dataset.max()) + 1)]


def corrected(cosines: Tensor, dataset: Tensor, sure: Tensor, neighbours: int) -> Tensor:
    """Cosines (C, C) above the mean of both classes' usual neighbours; -inf within a dataset and where not `sure`.

    The usual neighbours of a class are the `neighbours` nearest classes of the other's dataset, so that a class that
    is near to everything is nobody's relative (CSLS; Conneau et al., ICLR 2018, without its factor of two).
    """
    allowed = (dataset[:, None] != dataset) & sure[:, None] & sure
    open_to = cosines.masked_fill(~allowed, -torch.inf)  # (C, C)
    reach = torch.zeros_like(open_to)  # (C, C): of the row's class, among the classes of the column's dataset
    for own in _of_datasets(dataset):
        count = min(neighbours, int((own & sure).sum()))
        if count:
            reach[:, own] = open_to[:, own].topk(count, dim=1).values.mean(1, keepdim=True)
    usual = ((reach + reach.T) / 2).masked_fill(~allowed, 0.0)
    return open_to - usual


# What is the same, and what falls under what


class Nearest(NamedTuple):
    """For every class and every dataset, the class there with the best score; -inf where there is none."""

    label: Tensor  # (C, S) int64
    score: Tensor  # (C, S)
    second: Tensor  # (C, S): the score of the next one


def nearest_classes(scores: Tensor, dataset: Tensor) -> Nearest:
    """The nearest of every class in every dataset, by `scores` (C, C) of which -inf is no candidate."""
    labels, best, second = [], [], []
    for own in _of_datasets(dataset):
        among = scores.masked_fill(~own, -torch.inf)
        found = among.topk(min(2, len(scores)), dim=1)
        labels.append(found.indices[:, 0])
        best.append(found.values[:, 0])
        second.append(found.values[:, -1] if found.values.shape[1] > 1 else torch.full_like(best[-1], -torch.inf))
    return Nearest(torch.stack(labels, 1), torch.stack(best, 1), torch.stack(second, 1))


def mutual_pairs(similarity: Tensor, nearest: Nearest, dataset: Tensor, crops: Tensor) -> tuple[ClassPair, ...]:
    """Pairs of classes that are each other's nearest of all in the other's dataset, and alike; best score first."""
    labels, best, second, own = (part.tolist() for part in (*nearest, dataset))
    found = []
    for first, there in _related(similarity, nearest):
        other = labels[first][there]
        if first < other and labels[other][own[first]] == first:
            score, rival = best[first][there], max(second[first][there], second[other][own[first]])
            margin = score - rival if rival > -torch.inf else float("nan")
            fewer = int(min(crops[first], crops[other]))
            found.append(ClassPair(first, other, float(similarity[first, other]), score, margin, fewer))
    return tuple(sorted(found, key=lambda pair: -pair.score))


def shared_nearest(similarity: Tensor, nearest: Nearest, dataset: Tensor) -> tuple[ClassGroup, ...]:
    """Two or more classes of a dataset that have the same nearest in another, as parts of it."""
    parts: dict[tuple[int, int], list[int]] = {}
    for part, there in _related(similarity, nearest):
        parts.setdefault((int(nearest.label[part, there]), int(dataset[part])), []).append(part)
    return tuple(
        ClassGroup(whole, tuple(own), tuple(similarity[own, whole].tolist()))
        for (whole, _), own in sorted(parts.items())
        if len(own) > 1
    )


def _related(similarity: Tensor, nearest: Nearest) -> list[tuple[int, int]]:
    """Class and dataset wherever the nearest class there is nearer than usual, and to the same side of the mean."""
    alike = similarity.gather(1, nearest.label) > 0  # (C, S)
    found: list[tuple[int, int]] = ((nearest.score > 0) & alike).nonzero().tolist()
    return found


# Which classes stand beside each other


class Merge(NamedTuple):
    """Two clusters that become one, their members in order, at their mean distance."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    distance: float


def average_linkage(distance: NDArray[np.float64]) -> list[Merge]:
    """All merges of agglomerative clustering by mean distance (C, C), nearest clusters first.

    By chains of nearest neighbours, in O(C^2) (Murtagh, The Computer Journal 1983): each step goes to the nearest
    cluster of the last one, and two that are each other's nearest merge.  Members are turned so that those that touch
    are near.

    >>> [(*merge.left, *merge.right) for merge in average_linkage(np.array([[0, 9.0, 1], [9, 0, 5], [1, 5, 0]]))]
    [(2, 0), (1, 2, 0)]
    """
    count = len(distance)
    between = distance.astype(np.float64)  # a copy, (C, C)
    np.fill_diagonal(between, np.inf)
    members: dict[int, tuple[int, ...]] = {label: (label,) for label in range(count)}
    merges, chain = [], list[int]()
    while len(members) > 1:
        if not chain:
            chain = [min(members)]
        last = chain[-1]
        near = int(between[last].argmin())
        if len(chain) == 1 or between[last, near] < between[last, chain[-2]]:
            chain.append(near)
            continue
        gone, kept = chain.pop(), chain.pop()
        one, two = members.pop(gone), members.pop(kept)
        left, right = _turned(distance, one, two)
        merges.append(Merge(left, right, float(between[gone, kept])))
        _merge_(between, gone, kept, len(one) / (len(one) + len(two)))
        members[kept] = (*left, *right)
    return sorted(merges, key=lambda merge: merge.distance)


def _merge_(between: NDArray[np.float64], gone: int, kept: int, share: float) -> None:
    """Puts the mean of two rows, weighted by the members, in the place of one; the other is out of reach from now."""
    mean = share * between[gone] + (1 - share) * between[kept]
    mean[[gone, kept]] = np.inf
    between[kept] = between[:, kept] = mean
    between[gone] = between[:, gone] = np.inf


def _turned(
    distance: NDArray[np.float64], one: tuple[int, ...], two: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Both clusters, turned so that the members that touch are as near as can be."""
    ways = [(left, right) for left in (one, one[::-1]) for right in (two, two[::-1])]
    return min(ways, key=lambda way: float(distance[way[0][-1], way[1][0]]))


def cluster_order(distance: NDArray[np.float64]) -> tuple[int, ...]:
    """All of them in an order in which every cluster of `average_linkage` stands together."""
    merges = average_linkage(distance)
    if not merges:
        return tuple(range(len(distance)))
    whole = max(merges, key=lambda merge: len(merge.left) + len(merge.right))
    return (*whole.left, *whole.right)
