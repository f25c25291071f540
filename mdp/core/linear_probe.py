"""Linear classifiers on frozen features: logistic regression, support vector machines, and their average precision.

Both objectives are smooth and convex; L-BFGS with the strong Wolfe conditions finds their minimum in float64, so that
the answer is a function of the rows alone.  They are scikit-learn's, whose numbers papers report (arXiv 2106.05967,
appendix A.2, after arXiv 2011.13377; arXiv 1905.01235 for the machines).
Shape legend: N images, D features, C classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

PENALTIES = 45  # values between 1e-5 and 1e5, evenly spaced in their logarithm: the paper's
_ITERATIONS = 1000  # of L-BFGS at most: scikit-learn's default is 100, too few for small penalties
_MEMORY = 10  # pairs that L-BFGS keeps
_TOLERANCE = 1e-7  # of the gradient, of an objective that is divided by the number of images


class Linear(NamedTuple):
    """A linear classifier."""

    weight: Tensor  # (C, D) float64
    bias: Tensor  # (C,) float64

    def scores(self, rows: Tensor) -> Tensor:
        """(N, D) -> (N, C) float64."""
        return rows.double() @ self.weight.T + self.bias


def penalties(count: int = PENALTIES) -> list[float]:
    """The values that a validation chooses from, the largest first.

    >>> values = penalties()
    >>> len(values), values[0], values[22], values[-1]
    (45, 100000.0, 1.0, 1e-05)
    """
    return [float(f"{10 ** (5 - 10 * i / (count - 1)):.12g}") for i in range(count)]


def logistic_regression(
    rows: Tensor, labels: Tensor, classes: int, penalty: float, start: Linear | None = None
) -> Linear:
    """The minimum of the summed cross-entropy plus `penalty` / 2 times the squared weights, biases left out.

    Of rows (N, D) with labels (N,) int64.  scikit-learn's C is 1 / `penalty`.  `start` is a guess that saves
    iterations, such as the answer for the next larger penalty.
    """
    inputs, count = rows.double(), len(rows)
    onto = F.one_hot(labels, classes).double()  # (N, C)

    def objective(found: Linear) -> tuple[Tensor, Linear]:
        scores = found.scores(inputs)
        logs = F.log_softmax(scores, 1)
        away = (logs.exp() - onto) / count  # (N, C)
        value = -(logs * onto).sum() / count + penalty / (2 * count) * found.weight.square().sum()
        return value, Linear(away.T @ inputs + penalty / count * found.weight, away.sum(0))

    return _minimum(objective, start or _zeros(classes, rows))


def binary_logistic_regressions(rows: Tensor, positives: Tensor, penalty: float, start: Linear | None = None) -> Linear:
    """A logistic regression of each class against the rest, of rows (N, D) and positives (N, C) bool."""
    inputs, count, onto = rows.double(), len(rows), positives.double()

    def objective(found: Linear) -> tuple[Tensor, Linear]:
        scores = found.scores(inputs)
        away = (scores.sigmoid() - onto) / count  # (N, C)
        value = F.binary_cross_entropy_with_logits(scores, onto, reduction="sum") / count
        value = value + penalty / (2 * count) * found.weight.square().sum()
        return value, Linear(away.T @ inputs + penalty / count * found.weight, away.sum(0))

    return _minimum(objective, start or _zeros(positives.shape[1], rows))


def support_vector_machines(rows: Tensor, positives: Tensor, cost: float = 0.5, positive_weight: float = 2.0) -> Linear:
    """A linear machine of each class against the rest with squared hinge loss, of rows (N, D), positives (N, C) bool.

    Minimises half the squared weights and biases plus `cost` times the loss, in which positives count
    `positive_weight`: LIBLINEAR's, where the bias is the weight of a feature that is always 1.
    """
    inputs, count = rows.double(), len(rows)
    signs = torch.where(positives, 1.0, -1.0).double()  # (N, C)
    weights = cost * torch.where(positives, positive_weight, 1.0).double()

    def objective(found: Linear) -> tuple[Tensor, Linear]:
        short = (1 - signs * found.scores(inputs)).clamp(min=0)  # (N, C)
        away = -2 * weights * signs * short / count
        value = (weights * short.square()).sum() + (found.weight.square().sum() + found.bias.square().sum()) / 2
        gradient = Linear(away.T @ inputs + found.weight / count, away.sum(0) + found.bias / count)
        return value / count, gradient

    return _minimum(objective, _zeros(positives.shape[1], rows))


def _zeros(classes: int, rows: Tensor) -> Linear:
    weight = torch.zeros(classes, rows.shape[1], dtype=torch.float64, device=rows.device)
    return Linear(weight, weight.new_zeros(classes))


def _minimum(objective: Callable[[Linear], tuple[Tensor, Linear]], start: Linear) -> Linear:
    """Where a smooth convex objective, which gives its value and gradient, is least."""
    found = Linear(start.weight.clone(), start.bias.clone())
    optimizer = torch.optim.LBFGS(
        list(found), max_iter=_ITERATIONS, max_eval=2 * _ITERATIONS, history_size=_MEMORY,
        tolerance_grad=_TOLERANCE, tolerance_change=0, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> float:
        value, gradient = objective(found)
        found.weight.grad, found.bias.grad = gradient
        return float(value)

    with torch.no_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return Linear(found.weight.detach(), found.bias.detach())


def average_precision(scores: Tensor, positives: Tensor) -> Tensor:
    """The average precision (C,) float64 of scores (N, C) for positives (N, C) bool; NaN for a class without any.

    The mean of the precision at each positive, images with equal scores counted together (scikit-learn's).

    >>> average_precision(torch.tensor([[0.9], [0.8], [0.1]]), torch.tensor([[True], [False], [True]])).tolist()
    [0.8333333333333333]
    """
    return torch.stack([_precision(own, right) for own, right in zip(scores.T, positives.T, strict=True)])


def _precision(scores: Tensor, positives: Tensor) -> Tensor:
    order = scores.argsort(descending=True, stable=True)
    ranked, hits = scores[order], positives[order].double().cumsum(0)  # (N,)
    _, tie = torch.unique_consecutive(ranked, return_inverse=True)
    last = torch.bincount(tie).cumsum(0) - 1  # where each group of equal scores ends
    precision = hits / torch.arange(1, len(hits) + 1, device=hits.device)
    return (precision[last][tie] * positives[order]).sum() / hits[-1]  # 0 / 0 without a positive
