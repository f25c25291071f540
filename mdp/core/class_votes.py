"""What classes of different datasets are to each other, by what the pixels of one are called by the other's classifier.

Every dataset has a classifier among its own classes, which looks at photos of all datasets.  What it calls a foreign
class misleads in two ways, and both are known from home: it mistakes its own classes for each other, and it calls some
of them too often.  So its own mistakes are undone first: what remains is what a foreign class is made of.  A class that
is mostly another one lies within it; two within each other are equal, unless a third lies there too.
Shape legend: C classes of the union, K classes of one dataset, R classes that are called something.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.bounds import Bounds, Positive, Share, check_bounds
from mdp.core.float64 import in_float64
from mdp.core.labels import LabelUnion
from mdp.core.relation_scores import same_names

ALIKE = 0.7  # cosine of two names' vectors from which on they say something; chosen, as for relations of words


@dataclass(frozen=True, kw_only=True)
class VoteSettings:
    """When votes are a relation; all of it is chosen."""

    within: Share = 0.5  # share of a class that is another one from which on it lies within it: most of it
    returned: Share = 0.2  # of what its size says that must be called it in return: less is no more than mistakes
    overlap: Share = 0.25  # share of each that is the other from which on two classes overlap
    rounds: Positive = 200  # of undoing mistakes
    photos: Positive = 5  # a class seen in fewer neither votes nor is voted for
    names: Annotated[float, Bounds(0, 100)] = 0.0  # weight of what names say, in units of all votes of a class

    def __post_init__(self) -> None:
        check_bounds(self)


def name_prior(union: LabelUnion, vectors: Tensor | None) -> Tensor:
    """How alike the names of classes of different datasets are, (C, C) float64: 1 with the same letters, or else 0.

    With `vectors` (C, E) of the names their cosine, from `ALIKE` on.

    >>> from mdp.label_space import LabelSpace
    >>> spaces = [LabelSpace(name="a", classes=("wall", "sky")), LabelSpace(name="b", classes=("Wall",))]
    >>> name_prior(LabelUnion(spaces), None).tolist()
    [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    """
    found = torch.zeros(union.size, union.size, dtype=torch.float64)
    if vectors is not None:
        unit = F.normalize(in_float64(vectors), dim=1)
        cosine = unit @ unit.T
        owner = torch.tensor([number for number, space in enumerate(union.spaces) for _ in space.classes])
        found = torch.where((cosine >= ALIKE) & (owner[:, None] != owner), cosine, 0.0)
    for _, first, second in same_names(union):
        found[first, second] = found[second, first] = 1.0
    return found


class VotedRelation(NamedTuple):
    """What the first class is of the second."""

    kind: str  # equal, part or overlap, as in `class_relations`
    first: int
    second: int
    forward: float  # share of the first that is the second
    backward: float  # share of the second that is the first

    @property
    def related(self) -> float:
        """Their mean: how much the two have to do with each other."""
        return (self.forward + self.backward) / 2


def vote_shares(votes: Tensor, dataset: Tensor) -> Tensor:
    """Counts (C, C) of pixels of the row's class that are called the column's, as shares among its dataset's classes.

    `dataset` (C,) is the number, from 0, of the dataset of each class; a row's shares add up to one for each of them,
    or are zero where nothing was called.  Raises ValueError for another shape, and for counts below zero or not finite.

    >>> vote_shares(torch.tensor([[4.0, 3.0, 1.0], [0.0, 2.0, 2.0], [0.0, 0.0, 0.0]]), torch.tensor([0, 1, 1]))[0]
    tensor([1.0000, 0.7500, 0.2500], dtype=torch.float64)
    """
    classes = len(dataset)
    if votes.shape != (classes, classes):
        raise ValueError(f"votes of {classes} classes: expected {(classes, classes)}, got {tuple(votes.shape)}")
    counts = votes.double()
    if not bool(((counts >= 0) & counts.isfinite()).all()):
        raise ValueError("votes: expected counts of zero or more, got others")
    same = (dataset[:, None] == dataset).double()
    total = counts @ same  # (C, C): of the row's class among all classes of the column's dataset
    return counts / torch.where(total > 0, total, 1.0)


def made_of(shares: Tensor, mistakes: Tensor, rounds: int, prior: Tensor | None = None) -> Tensor:
    """What classes (R) are made of, (R, K): shares whose votes, after the classifier's mistakes, are the likeliest.

    `shares` (R, K) are what the classifier calls them, `mistakes` (K, K) what it calls its own classes, a row each; a
    class of its own without votes is no candidate.  The shares are those of a mixture whose parts are known, found by
    expectation and maximisation from equal shares (Saerens et al., Neural Computation 2002).  `prior` (R, K) are
    votes that are there beforehand, in units of all votes of a class.  Rows without votes stay zero.

    >>> mistakes = torch.tensor([[0.75, 0.25], [0.25, 0.75]], dtype=torch.float64)
    >>> made_of(torch.tensor([[0.75, 0.25], [0.5, 0.5]], dtype=torch.float64), mistakes, 200).round(decimals=2).tolist()
    [[1.0, 0.0], [0.5, 0.5]]
    """
    candidates = (mistakes.sum(1) > 0).double()  # (K,)
    voted = (shares.sum(1, keepdim=True) > 0).double()  # (R, 1)
    found = voted * candidates / candidates.sum().clamp(min=1)  # (R, K)
    before = torch.zeros_like(found) if prior is None else prior.double() * voted * candidates
    for _ in range(rounds):
        called = found @ mistakes  # (R, K): the votes that these shares would give
        ratio = torch.where(called > 0, shares / torch.where(called > 0, called, 1.0), 0.0)
        weights = found * (ratio @ mistakes.T) + before  # (R, K)
        # votes for what no candidate is ever called explain nothing, and are left out of the sum
        total = weights.sum(1, keepdim=True)
        found = weights / torch.where(total > 0, total, 1.0)
    return found


def compositions(votes: Tensor, dataset: Tensor, rounds: int, prior: Tensor | None = None) -> Tensor:
    """What every class is made of, in classes of every other dataset, (C, C) float64; zeros within a dataset.

    `votes` (C, C) are pixels of the row's class by what they are called, by its own dataset's classifier too.
    Raises what `vote_shares` raises.
    """
    shares = vote_shares(votes, dataset)
    found = torch.zeros_like(shares)
    for number in range(int(dataset.max()) + 1 if len(dataset) else 0):
        own = (dataset == number).nonzero()[:, 0]
        other = (dataset != number).nonzero()[:, 0]
        before = None if prior is None else prior[other][:, own]
        mixed = made_of(shares[other][:, own], shares[own][:, own], rounds, before)
        found[other[:, None], own] = mixed
    return found


def class_sizes(votes: Tensor, dataset: Tensor) -> Tensor:
    """The share of the labelled pixels of its dataset that each class has, (C,), from votes (C, C).

    >>> class_sizes(torch.tensor([[4.0, 3.0, 1.0], [0.0, 2.0, 4.0], [1.0, 1.0, 1.0]]), torch.tensor([0, 1, 1])).tolist()
    [1.0, 0.75, 0.25]
    """
    same = (dataset[:, None] == dataset).double()
    pixels = (votes.double() * same).sum(1)  # (C,)
    total = same @ pixels
    return pixels / torch.where(total > 0, total, 1.0)


def containment(parts: Tensor, sizes: Tensor, dataset: Tensor, settings: VoteSettings) -> Tensor:
    """Whether the row's class lies within the column's, (C, C) bool, by what classes are made of (C, C).

    Most of it is the other; and of the other as much is called it in return as a class of its size (C,) may expect, or
    a certain share of that, and more than of other classes: what nothing in the other dataset is like is called
    something there too, and is not called back.
    """
    same = (dataset[:, None] == dataset).double()
    voted = (parts.sum(1) > 0).double()  # (C,)
    members = same @ voted  # (C,): of each class's dataset
    usual = same @ (parts * voted[:, None]) / members.clamp(min=1)[:, None]  # (C, C): of the row's dataset, by column
    returned = parts.T  # (C, C): share of the column's class that is the row's
    fitting = sizes[:, None] / torch.where(sizes > 0, sizes, torch.inf)  # (C, C): if the row's lies in the column's
    unusual = (returned > usual.T) | (members[None, :] <= 1)  # where it has one class, that is what is usual
    return (parts > settings.within) & (returned >= settings.returned * fitting.clamp(max=1)) & unusual & (returned > 0)


def largest_share(parts: Tensor, dataset: Tensor) -> Tensor:
    """Whether the row's class is more of the column's than of any other class of the column's dataset, (C, C) bool."""
    found = torch.zeros_like(parts, dtype=torch.bool)
    for number in range(int(dataset.max()) + 1 if len(dataset) else 0):
        own = dataset == number
        most = parts.masked_fill(~own, -1).max(1, keepdim=True).values  # (C, 1)
        found |= own & (parts == most) & (parts > 0)
    return found


def voted_relations(parts: Tensor, sizes: Tensor, dataset: Tensor, settings: VoteSettings) -> tuple[VotedRelation, ...]:
    """The relations of classes of different datasets by what they are made of (C, C) and their sizes (C,).

    Equal: one lies within the other, each is the other's largest share, and nothing else lies within either.  Part: it
    lies within the other otherwise; of two within each other, the one that has company there.  Overlap: neither lies
    within the other, and some of each is the other; or both have company in each other.
    """
    within = containment(parts, sizes, dataset, settings)
    largest = largest_share(parts, dataset)
    mutual = largest & largest.T & (torch.minimum(parts, parts.T) >= settings.overlap)  # (C, C), symmetric
    same = (dataset[:, None] == dataset).double()
    company = same @ within.double()  # (C, C): classes of the row's dataset that lie within the column's class
    found = []
    for first, second in ((parts > 0) & (dataset[:, None] < dataset)).nonzero().tolist():
        forward, backward = float(parts[first, second]), float(parts[second, first])
        ahead, back = bool(within[first, second]), bool(within[second, first])
        beside, under = int(company[first, second]) > ahead, int(company[second, first]) > back  # the first, the second
        if (ahead or back) and bool(mutual[first, second]) and not beside and not under:
            found.append(VotedRelation("equal", first, second, forward, backward))
        elif ahead and back and beside == under:
            found.append(VotedRelation("overlap", first, second, forward, backward))
        elif ahead and (beside or not back):
            found.append(VotedRelation("part", first, second, forward, backward))
        elif back:
            found.append(VotedRelation("part", second, first, backward, forward))
        elif min(forward, backward) >= settings.overlap:
            found.append(VotedRelation("overlap", first, second, forward, backward))
    return tuple(sorted(found, key=lambda item: (-item.related, item.first, item.second)))
