"""How well relations between classes agree with what people say of them."""

from collections.abc import Iterable
from typing import NamedTuple

from mdp.core.class_relations import KINDS, Relation
from mdp.core.classifier_init import plain_name
from mdp.core.labels import LabelUnion

ANY = "any"  # two classes have something to do with each other, whatever it is


class Agreement(NamedTuple):
    """Counts of pairs of classes; shares of nothing are NaN."""

    right: int  # of those that are suggested
    suggested: int
    true: int

    @property
    def precision(self) -> float:
        """The share of what is suggested that is true."""
        return self.right / self.suggested if self.suggested else float("nan")

    @property
    def recall(self) -> float:
        """The share of what is true that is suggested."""
        return self.right / self.true if self.true else float("nan")

    @property
    def f1(self) -> float:
        """The harmonic mean of both."""
        return 2 * self.right / (self.suggested + self.true) if self.suggested + self.true else float("nan")


def agreements(suggested: Iterable[Relation], truth: Iterable[Relation]) -> dict[str, Agreement]:
    """The agreement for each kind of relation, and for `any`, in which a pair counts whatever is said of it.

    >>> suggested, truth = [("equal", 0, 3), ("part", 1, 4)], [("equal", 3, 0), ("part", 4, 1)]
    >>> found = agreements([Relation(*r) for r in suggested], [Relation(*r) for r in truth])
    >>> [(kind, *found[kind]) for kind in ("equal", "part", "any")]
    [('equal', 1, 1, 1), ('part', 0, 1, 1), ('any', 2, 2, 2)]
    """
    sides = [{kind: _pairs(relations, kind) for kind in (*KINDS, ANY)} for relations in (list(suggested), list(truth))]
    return {
        kind: Agreement(len(sides[0][kind] & sides[1][kind]), len(sides[0][kind]), len(sides[1][kind]))
        for kind in (*KINDS, ANY)
    }


def _pairs(relations: list[Relation], kind: str) -> set[tuple[int, int]]:
    """The pairs of a kind: a part comes before its whole, other kinds look the same from both sides."""
    chosen = [relation for relation in relations if kind in (relation.kind, ANY)]
    return {(r.first, r.second) if kind == "part" else (min(r[1:]), max(r[1:])) for r in chosen}


def same_names(union: LabelUnion) -> list[Relation]:
    """What names alone say: classes of two datasets are equal where their names have the same letters."""
    owner = [space.name for space in union.spaces for _ in space.classes]
    names = [plain_name(name) for name in union.names]
    return [
        Relation("equal", first, second)
        for first in range(union.size)
        for second in range(first + 1, union.size)
        if names[first] == names[second] and owner[first] != owner[second]
    ]


def between(relations: Iterable[Relation], union: LabelUnion, truth: Iterable[Relation]) -> list[Relation]:
    """Those between two datasets of which the truth says anything: of others it is silent, not in denial."""
    owner = [space.name for space in union.spaces for _ in space.classes]
    told = {frozenset((owner[r.first], owner[r.second])) for r in truth}
    return [r for r in relations if frozenset((owner[r.first], owner[r.second])) in told]
