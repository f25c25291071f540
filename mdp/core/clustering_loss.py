"""Swapped prediction (SwAV, arXiv 2006.09882): each view of an image is to say the prototypes that another one has.

Shape legend: B images, V views, K prototypes, Q rows of a queue.
"""

import torch
from torch import Tensor

from mdp.core.sinkhorn import sinkhorn, sinkhorn_


def codes(scores: Tensor, queued: Tensor | None = None, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Shares (B, K) of images among prototypes, from their cosines (B, K); without gradient.

    Those of earlier images, `queued` (Q, K), take part in using all prototypes alike where a batch alone is too small.

    >>> codes(torch.zeros(2, 4)).sum(1).tolist()
    [1.0, 1.0]
    """
    if queued is None:
        return sinkhorn(scores, epsilon, iterations)
    together = torch.cat([queued, scores]).detach().float()  # (Q + B, K) a copy, which nobody else has
    return sinkhorn_(together, epsilon, iterations)[-len(scores) :]


def swapped_loss(codes: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """The cross-entropy of views (V, B, K) to the codes (C, B, K) of the first C of them, of each image: (B,).

    The mean over the codes, and for each over the views that it is not of.  A cross-entropy is linear in its target, so
    that each view is compared once, with the sum of the codes of others.

    Raises ValueError unless there are more views than one, and as many as codes.
    """
    count, views = len(codes), len(scores)
    if not (views > 1 and 1 <= count <= views):
        raise ValueError(
            f"codes of {count} views and scores of {views}: expected two views or more, none without scores"
        )
    whole = codes.sum(0)  # (B, K)
    losses = [
        cross_entropy_to(whole - codes[view] if view < count else whole, scores[view], temperature)
        for view in range(views)
    ]
    return torch.stack(losses).sum(0) / (count * (views - 1))


def cross_entropy_to(targets: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """-sum_k targets log softmax(scores / temperature) of rows (..., K): (...)."""
    return -(targets * (scores.float() / temperature).log_softmax(-1)).sum(-1)
