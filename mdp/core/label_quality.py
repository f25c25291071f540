"""How far given labels agree with class probabilities: pixel by pixel, and in connected regions.

A model is wrong far more often than careful labels are, and in its own ways: small and rare classes have low
probabilities everywhere.  So the evidence against a label is a margin, how much better the model's own answer does in
a whole region, above what is usual for that label; it counts by the region's size, and by how unusual it is among that
of regions with the same label.  Margins alone end where probabilities do, and have no room for what is unusual.
Shape legend: C classes, H x W image, N values, G groups.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mdp.core.components import connected_regions, region_box
from mdp.core.geometry import Box
from mdp.core.labels import IGNORE

FLOOR = 1e-3  # of probabilities inside logarithms: beyond it a network is no more sure; chosen on planted mistakes
SOFTNESS = 0.1  # of the soft minimum, in probability: that of the published score
SHRINK = 5  # values of all groups that are mixed into the mean and the variance of each


def self_confidence(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The probability of the given label at each pixel (H, W), of probabilities (C, H, W); NaN where ignored.

    >>> self_confidence(torch.tensor([[[0.9, 0.2]], [[0.1, 0.8]]]), torch.tensor([[0, IGNORE]])).tolist()
    [[0.8999999761581421, nan]]
    """
    own = probabilities.gather(0, labels.clamp(min=0).long()[None])[0]
    return torch.where(labels == IGNORE, math.nan, own)


def soft_minimum(values: Tensor, softness: float = SOFTNESS) -> float:
    """The mean of values in 0..1 (any shape, NaN left out), each weighted by exp((1 - value) / softness).

    Near the least of them, but many low ones count for more than one.  NaN without any.  The image score of Lad and
    Mueller, "Estimating label quality and errors in semantic segmentation data via any model" (2023), section 3, where
    `values` are the self-confidences of its pixels.

    >>> round(soft_minimum(torch.tensor([0.0, 1.0])), 6)
    4.5e-05
    """
    known = values[~values.isnan()].double()
    if not len(known):
        return math.nan
    return float((known * (-known / softness).softmax(0)).sum())


class Disagreement(NamedTuple):
    """A connected region where a model names one class and the label another one, or none."""

    box: Box
    label: int  # IGNORE: the region has none
    guess: int
    share: float  # of the image
    confidence: float  # mean probability of the guess
    margin: float  # mean log-probability of the guess less that of the label; of no label: of the second best class


def disagreements(probabilities: Tensor, labels: Tensor, least: float) -> list[Disagreement]:
    """The connected regions of one label and one other guess that cover a share `least` of the image or more.

    Of probabilities (C, H, W) and labels (H, W).  Raises ValueError for fewer than two classes.
    """
    classes = len(probabilities)
    if classes < 2:
        raise ValueError(f"probabilities: expected two classes or more, got {classes}")
    best = probabilities.topk(2, dim=0)  # (2, H, W)
    guess, labels = best.indices[0], labels.long()
    agreed = -classes - 1  # below the code of every label, IGNORE's too, with every guess
    regions = connected_regions(torch.where(labels == guess, agreed, labels * classes + guess))
    logs = best.values.clamp(min=FLOOR).log()
    given = self_confidence(probabilities, labels).clamp(min=FLOOR).log()
    margins = (logs[0] - torch.where(labels == IGNORE, logs[1], given)).double().flatten()
    numbers, count = regions.numbers.flatten(), len(regions.pixels)
    sums = margins.new_zeros(count).index_add_(0, numbers, margins)
    sure = margins.new_zeros(count).index_add_(0, numbers, best.values[0].double().flatten())
    found = []
    for number in (regions.pixels >= least * labels.numel()).nonzero()[:, 0].tolist():
        at, pixels = int(regions.first[number]), int(regions.pixels[number])
        label, named = int(labels.flatten()[at]), int(guess.flatten()[at])
        if label != named:
            share, box = pixels / labels.numel(), region_box(regions, number)
            confidence, margin = float(sure[number]) / pixels, float(sums[number]) / pixels
            found.append(Disagreement(box, label, named, share, confidence, margin))
    return found


# Among those of the same class


class Usual(NamedTuple):
    """Counts, sums and sums of squares of the values of each group; they add up."""

    counts: Tensor  # (G,) float64
    sums: Tensor  # (G,) float64
    squares: Tensor  # (G,) float64


def no_values(groups: int) -> Usual:
    """Of no value yet."""
    return Usual(*torch.zeros(3, groups, dtype=torch.float64))


def with_values(usual: Usual, values: Tensor, groups: Tensor) -> Usual:
    """With these values (N,) of these groups (N,) besides.

    >>> with_values(no_values(2), torch.tensor([1.0, 3.0]), torch.tensor([1, 1])).sums.tolist()
    [0.0, 4.0]
    """
    values = values.double()
    added = (torch.ones_like(values), values, values.square())
    return Usual(*(total.index_add(0, groups, part) for total, part in zip(usual, added, strict=True)))


def _means_and_deviations(usual: Usual) -> tuple[Tensor, Tensor]:
    """Of each group (G,), with `SHRINK` values besides that have the mean and the variance of all."""
    count = usual.counts.sum().clamp(min=1)
    mean = usual.sums.sum() / count
    variance = (usual.squares.sum() / count - mean.square()).clamp(min=0)
    total = usual.counts + SHRINK
    means = (usual.sums + SHRINK * mean) / total  # (G,)
    spread = usual.squares - 2 * means * usual.sums + usual.counts * means.square()  # of values about the shrunk mean
    return means, ((spread.clamp(min=0) + SHRINK * variance) / total).sqrt()


def standardised(values: Tensor, groups: Tensor, usual: Usual) -> Tensor:
    """How many deviations each value (N,) lies above the mean of its group (N,), float64.

    Means and deviations of groups are shrunk: each has `SHRINK` values besides, with the mean and the variance of all,
    so that a group of few values is judged by what is usual elsewhere.  Zeros where all values are the same.
    """
    means, deviations = _means_and_deviations(usual)
    scores = (values.double() - means[groups]) / deviations[groups].clamp(min=1e-12)
    return torch.where(deviations[groups] > 1e-9 * (1 + means[groups].abs()), scores, 0.0)


def above_usual(margins: Tensor, shares: Tensor, groups: Tensor, usual: Usual) -> Tensor:
    """How much more than usual speaks against regions, (N,) float64: margins (N,) above the mean of their group (N,).

    Times the square root of their share (N,) of the image, since the error of a mean falls with the root of what it is
    the mean of.  `usual` is of margins.

    >>> margins, groups = torch.tensor([1.0, 1.0, 4.0]), torch.tensor([0, 0, 0])
    >>> usual = with_values(no_values(1), margins, groups)
    >>> above_usual(margins, torch.tensor([0.01, 0.04, 0.25]), groups, usual).round(decimals=2).tolist()
    [-0.1, -0.2, 1.0]
    """
    means, _ = _means_and_deviations(usual)
    return (margins.double() - means[groups]) * shares.double().sqrt()
