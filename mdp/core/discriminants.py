"""Linear discriminant analysis: class means, the spread within classes, and the probabilities that follow from them.

Classes are Gaussians with means of their own and one covariance; what is needed of the rows are counts, sums and sums
of products, which add up.  So the rows of any part are left out by subtraction, and no row is kept.
Shape legend: N rows, D features, C classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.linear_probe import Linear

SHRINKAGE = 0.01  # of the covariance towards a multiple of the identity; chosen


class Moments(NamedTuple):
    """What is known of labelled rows."""

    counts: Tensor  # (C,) float64
    sums: Tensor  # (C, D) float64
    products: Tensor  # (D, D) float64: the sum of row times row


def no_rows(classes: int, features: int) -> Moments:
    """The moments of no row."""
    shapes = (classes,), (classes, features), (features, features)
    return Moments(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes))


def moments(rows: Tensor, labels: Tensor, classes: int) -> Moments:
    """The moments of rows (N, D) with labels (N,) int64.

    >>> moments(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1]), 2).sums.tolist()
    [[3.0], [4.0]]
    """
    rows = rows.double()
    onto = F.one_hot(labels, classes).double()  # (N, C)
    return Moments(onto.sum(0), onto.T @ rows, rows.T @ rows)


def together(first: Moments, second: Moments, sign: int = 1) -> Moments:
    """The moments of both; with -1, of the first without the second, which are part of it."""
    return Moments(*(a + sign * b for a, b in zip(first, second, strict=True)))


def discriminant(known: Moments, shrinkage: float = SHRINKAGE, weighted: bool = True) -> Linear:
    """The classifier whose scores' softmax are the class probabilities of such rows.

    The covariance within classes S becomes (1 - s) S + s tr(S) / D; classes weigh by their share of the rows, or all
    alike where not `weighted`, and one without rows has a bias of minus infinity.  Raises ValueError without any row,
    and for a shrinkage outside 0..1.
    """
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage: expected 0 to 1, got {shrinkage}")
    total = known.counts.sum()
    if not total > 0:
        raise ValueError("moments: expected a labelled row or more, got none")
    means = known.sums / known.counts.clamp(min=1)[:, None]  # (C, D)
    within = (known.products - known.sums.T @ means) / total  # (D, D)
    size = len(within)
    ridge = shrinkage * within.diagonal().sum().clamp(min=1e-12) / size
    within = (1 - shrinkage) * within + ridge * torch.eye(size, dtype=within.dtype)
    weight = torch.linalg.lstsq(within, means.T, driver="gelsd").solution.T  # (C, D): S may lack rank
    shares = known.counts / total if weighted else (known.counts > 0).double()
    return Linear(weight, shares.log() - (means * weight).sum(1) / 2)
