"""Sinkhorn's algorithm (Cuturi 2013): shares of rows among columns, such that all columns are used alike.

Shape legend: B rows, K columns.
"""

import torch
from torch import Tensor


def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Shares (B, K) float32, in proportion to exp(scores / epsilon), times a factor a row and a factor a column.

    In turns the columns get the sum B / K, then the rows the sum 1: each row ends as a distribution (SwAV, arXiv
    2006.09882, section 3.1; epsilon 0.05 and 3 turns are its).  The greatest score is taken off first, which changes
    nothing but keeps exp finite: scores that lie less than 80 epsilon apart do not underflow.  The factors are found by
    products with the one copy, which is scaled once, at the end.

    >>> sinkhorn(torch.zeros(2, 4)).tolist()
    [[0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]]
    """
    return sinkhorn_(scores.detach().to(torch.float32, copy=True), epsilon, iterations)


def sinkhorn_(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """`sinkhorn` of float32 scores, in their place."""
    with torch.no_grad(), torch.autocast(scores.device.type, enabled=False):
        shares = scores.sub_(scores.max()).div_(epsilon).exp_()  # (B, K)
        rows, alike = torch.ones_like(shares[:, 0]), shares.shape[0] / shares.shape[1]  # (B,)
        for _ in range(iterations):
            columns = alike / (rows @ shares)  # (K,)
            rows = 1 / (shares @ columns)  # (B,)
        return shares.mul_(columns).mul_(rows[:, None])
