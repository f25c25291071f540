"""Class names as vectors of a text model: a start for prototypes, and a hint at which classes are related.

Shape legend: C classes, E channels of the text model, D embedding channels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.class_relations import Relation
from mdp.core.float64 import in_float64
from mdp.core.labels import LabelUnion


def directions(vectors: Tensor, channels: int) -> Tensor:
    """Vectors (C, E) as unit vectors (C, D) whose cosines are as near to theirs as D channels allow.

    The leading singular directions, which give the nearest table of dot products of that rank; exact from D = C on.
    Raises ValueError for a vector without a direction.

    >>> directions(torch.tensor([[3.0, 0, 0], [1, 1, 0]]), 2).square().sum(1).round(decimals=4).tolist()
    [1.0, 1.0]
    """
    if not bool(vectors.isfinite().all()) or not bool(vectors.any(1).all()):
        raise ValueError("expected vectors that are finite and not zero")
    unit = F.normalize(in_float64(vectors), dim=1)
    left, values, right = torch.linalg.svd(unit, full_matrices=False)
    # the sign of a singular direction is free: fixed by its largest entry, so that it is the same on every machine
    largest = right.gather(1, right.abs().argmax(1, keepdim=True)).sign()[:, 0]
    found = (left * values * largest)[:, :channels]  # (C, at most D)
    return F.normalize(F.pad(found, (0, channels - found.shape[1])), dim=1).float()


def alike_names(vectors: Tensor, union: LabelUnion, least: float) -> list[Relation]:
    """Pairs of classes of different datasets whose names have a cosine of `least` or more: they may overlap."""
    unit = F.normalize(vectors, dim=1)
    cosine = unit @ unit.T  # (C, C)
    owner = torch.tensor([number for number, space in enumerate(union.spaces) for _ in space.classes])
    pairs = ((cosine >= least) & (owner[:, None] < owner)).nonzero()
    return [Relation("overlap", int(first), int(second)) for first, second in pairs]
