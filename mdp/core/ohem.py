"""Online hard example mining: only pixels that the network is unsure of are trained on (Shrivastava et al. 2016).

arXiv 1604.03540 is about boxes; the rule for pixels, with its numbers, is MMSegmentation's `OHEMPixelSampler`.
Shape legend: B images, C classes, H x W image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mdp.core.bounds import Count, Share, check_bounds
from mdp.core.label_checks import expect_grid, expect_labels
from mdp.core.labels import IGNORE

THRESHOLD = 0.7  # MMSegmentation's examples
LEAST = 100_000  # pixels an image


@dataclass(frozen=True, kw_only=True)
class OhemSettings:
    """Which pixels are trained on."""

    threshold: Share | None = None  # those whose own class has a lower probability; MMSegmentation: 0.7; null: all
    least: Count = LEAST  # but at least so many of each image, its least certain ones (MMSegmentation's)

    def __post_init__(self) -> None:
        check_bounds(self)


def hard_pixels(logits: Tensor, labels: Tensor, threshold: float = THRESHOLD, least: int = LEAST) -> Tensor:
    """Which pixels of labels (B, H, W) are trained on, (B, H, W) bool: those whose own class has too low a probability.

    Too low is below `threshold`, or among the `least` lowest of an image where those would be fewer; what is as high
    as the next one is left out.  Images are looked at one by one: it does not matter which are in a batch together.
    Ignored pixels never count.  Raises ValueError for a threshold outside 0 to 1, and for labels
    that are not (B, H, W), or no classes.

    >>> logits = torch.tensor([[[[2.0, -2.0, 0.0]], [[0.0, 0.0, 0.0]]]])
    >>> hard_pixels(logits, torch.zeros(1, 1, 3, dtype=torch.long), threshold=0.6, least=1)
    tensor([[[False,  True,  True]]])
    """
    if not 0 <= threshold <= 1 or least < 0:
        raise ValueError(f"threshold, least: expected a share of 0 to 1 and a number, got {threshold} and {least}")
    expect_grid(logits, labels)
    expect_labels(labels, logits.shape[1])
    valid = labels != IGNORE
    with torch.no_grad():
        probability = logits.float().softmax(1).gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)  # (B, H, W)
        if least >= labels[0].numel():
            return valid
        # ignored pixels, certain beyond all others, are the last to be chosen
        ranked = probability.masked_fill(~valid, torch.inf).flatten(1)  # (B, H W)
        limit = ranked.kthvalue(least + 1, dim=1).values.clamp(min=threshold)  # (B,)
        return valid & (probability < limit[:, None, None])


def hard_labels(logits: Tensor, labels: Tensor, threshold: float = THRESHOLD, least: int = LEAST) -> Tensor:
    """The labels (B, H, W), those of all but the hard pixels ignored: for any criterion."""
    return torch.where(hard_pixels(logits, labels, threshold, least), labels, IGNORE)


def trained_labels(logits: Tensor, labels: Tensor, settings: OhemSettings) -> Tensor:
    """The labels (B, H, W) that the settings leave."""
    if settings.threshold is None:
        return labels
    return hard_labels(logits, labels, settings.threshold, settings.least)
