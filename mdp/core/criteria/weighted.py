"""Cross-entropy with a weight for each class and smoothed labels (Szegedy et al. 2016, arXiv 1512.00567, section 7).

Shape legend: B images, C classes, H x W image.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.contrast import mean_over
from mdp.core.labels import IGNORE


def balanced_weights(pixels: Tensor) -> Tensor:
    """Weights (C,) float32 by which every class weighs the same: inverse to its share of the pixels (C,).

    Pixels weigh 1 on average; a class without pixels gets weight 0, and the others are those of a training without it.
    Raises ValueError for counts below 0, or where there is no pixel at all.

    >>> balanced_weights(torch.tensor([6, 2, 0]))
    tensor([0.6667, 2.0000, 0.0000])
    """
    counts = pixels.double()
    if (counts < 0).any() or not (counts > 0).any():
        raise ValueError(f"balanced weights: expected numbers of pixels, some above 0, got {pixels.tolist()[:10]}")
    present = counts > 0
    weights = torch.where(present, counts.sum() / (present.sum() * counts.clamp(min=1)), 0)
    return weights.float()


def total_weight(labels: Tensor, weights: Tensor) -> Tensor:
    """The weights (C,) of the classes of all valid pixels of labels (B, H, W), summed: a mean's divisor.

    Sums of parts and of processes add up to that of the batch.

    >>> total_weight(torch.tensor([[[0, 1, -1]]]), torch.tensor([0.5, 2.0]))
    tensor(2.5000)
    """
    counts = torch.bincount(labels[labels != IGNORE].flatten(), minlength=len(weights))
    return (counts.double() * weights.double()).sum().float()


def weighted_cross_entropy(
    logits: Tensor, labels: Tensor, total: Tensor, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of logits (B, C, H, W) and labels (B, H, W), in float32, summed and divided by `total`.

    A pixel's target is 1 - smoothing + smoothing / C for its class and smoothing / C for the others, and the term of
    class c counts `weights[c]` times (None: once).  `total` is a number of pixels, or `total_weight` as torch has it.
    Raises ValueError for a smoothing outside 0 to 1, or another number of weights than of classes.

    >>> logits, labels = torch.zeros(1, 2, 1, 1), torch.tensor([[[1]]])
    >>> weighted_cross_entropy(logits, labels, torch.tensor(1), torch.tensor([1.0, 3.0]))  # 3 log 2
    tensor(2.0794)
    """
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing: expected a share of 0 to 1, got {smoothing}")
    if weights is not None and weights.shape != logits.shape[1:2]:
        raise ValueError(f"weights: expected one for each of {logits.shape[1]} classes, got {list(weights.shape)}")
    weights = None if weights is None else weights.to(logits.device, torch.float32)
    losses = F.cross_entropy(
        logits.float(), labels, weights, ignore_index=IGNORE, reduction="none", label_smoothing=smoothing
    )  # (B, H, W)
    return mean_over(losses.sum(), total.float())
