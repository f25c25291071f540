"""Comparing two ways of training by what came out: counts in, differences and their noise out.

A run's score is kept as pixel counts of a few blocks of consecutive test images, so that mIoU can be computed again for
any resampling of them.  Blocks, because neighbouring frames of a video are not independent images.
Shape legend: S seeds, K blocks of images, C classes; the last axis is (hits, labelled pixels, predicted pixels).
"""

from typing import NamedTuple

import torch
from torch import Tensor

_TOGETHER = 100  # replicates of one multiplication: enough to be quick, 8 MB for 10,000 images


class Difference(NamedTuple):
    """A minus B, in mIoU (0..1), paired by seed."""

    mean: float
    low: float  # 2.5 % of the bootstrap
    high: float  # 97.5 %


def block_counts(confusions: Tensor) -> Tensor:
    """(..., C, C) confusion matrices -> (..., C, 3) int64: hits, labelled and predicted pixels of each class.

    >>> block_counts(torch.tensor([[3, 1], [0, 4]])).tolist()
    [[3, 4, 3], [4, 4, 5]]
    """
    hits = confusions.diagonal(dim1=-2, dim2=-1)
    return torch.stack([hits, confusions.sum(-1), confusions.sum(-2)], -1)


def count_iou(counts: Tensor) -> Tensor:
    """IoU (..., C) float64 of counts (..., C, 3); NaN where a class is neither labelled nor predicted."""
    hits, labelled, predicted = counts.double().unbind(-1)  # each (..., C)
    return hits / (labelled + predicted - hits)


def count_miou(counts: Tensor) -> Tensor:
    """mIoU (...,) float64 of counts (..., C, 3), by the rule of `metrics.mean_iou`."""
    return count_iou(counts).nanmean(-1)


class Interval(NamedTuple):
    """Where a score lies, in 0..1, had other images been drawn."""

    low: float  # 2.5 % of the bootstrap
    high: float  # 97.5 %


def miou_interval(counts: Tensor, rng: torch.Generator, replicates: int = 2000) -> Interval:
    """The 95 % percentile bootstrap interval of the mIoU of images, or groups of them, with counts (N, C, 3).

    A replicate draws N images with replacement and takes the mIoU of their summed counts.  It says how much the score
    depends on the choice of test images, if these are independent of each other; frames of a video are not.

    Raises ValueError for fewer than two images.

    >>> same = torch.tensor([[[3, 4, 4]]] * 2)
    >>> miou_interval(same, torch.Generator())
    Interval(low=0.6, high=0.6)
    """
    images = len(counts)
    if images < 2:
        raise ValueError(f"an interval needs two images or more, got {images}")
    rows = counts.double().flatten(1)  # (N, 3 C)
    scores = []
    for first in range(0, replicates, _TOGETHER):
        count = min(_TOGETHER, replicates - first)
        drawn = torch.randint(images, (count, images), generator=rng)  # (R, N)
        times = rows.new_zeros(count, images).scatter_add_(1, drawn, rows.new_ones(count, images))  # (R, N)
        scores.append(count_miou((times @ rows).view(count, *counts.shape[1:])))  # (R,)
    low, high = torch.nanquantile(torch.cat(scores), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(low, high)


def difference(a: Tensor, b: Tensor, rng: torch.Generator, replicates: int = 2000) -> Difference:
    """The mean paired difference of two ways over S seeds, and its 95 % bootstrap interval.

    `a`, `b` (S, K, C, 3): the same seeds and the same blocks of the same images.  A replicate draws seeds with
    replacement, and blocks with replacement for all of them together: the seeds stand for chance in training, the
    blocks for the choice of test images, and both stay paired.

    Raises ValueError when the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"counts {tuple(a.shape)} and {tuple(b.shape)} differ in seeds, blocks or classes")
    seeds, blocks = a.shape[:2]
    mean = float((count_miou(a.sum(1)) - count_miou(b.sum(1))).mean())
    chosen = torch.randint(seeds, (replicates, seeds), generator=rng)  # (R, S)
    drawn = torch.randint(blocks, (replicates, blocks), generator=rng)  # (R, K)
    times = torch.zeros(replicates, blocks, dtype=torch.float64)  # (R, K): how often each block was drawn
    times.scatter_add_(1, drawn, torch.ones(replicates, blocks, dtype=torch.float64))
    scores = [count_miou(torch.einsum("rk,skcn->rscn", times, counts.double())) for counts in (a, b)]  # each (R, S)
    means = (scores[0] - scores[1]).gather(1, chosen).nanmean(1)  # (R,)
    low, high = torch.nanquantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Difference(mean, low, high)
