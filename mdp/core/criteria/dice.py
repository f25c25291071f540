"""The soft Dice loss (Milletari et al. 2016, arXiv 1606.04797, section 3), for every class against the rest.

It is a function of three sums a class, which add up over parts and processes: first the sums, then the loss.
Shape legend: B images, C classes, H x W image.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.label_checks import expect_grid, expect_labels
from mdp.core.labels import IGNORE


class DiceSums(NamedTuple):
    """What the loss is made of, each (C,) float32, over the valid pixels."""

    both: Tensor  # probability of the class at its own pixels
    predicted: Tensor  # probability of the class, or its square, everywhere
    labelled: Tensor  # pixels of the class


def dice_sums(logits: Tensor, labels: Tensor, squared: bool = False) -> DiceSums:
    """The sums of logits (B, C, H, W) and labels (B, H, W); `squared`: the paper's, with squares of probabilities.
    Raises ValueError for labels that are not (B, H, W), or no classes.

    >>> dice_sums(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, -1]]]))
    DiceSums(both=tensor([0.5000, 0.0000]), predicted=tensor([0.5000, 0.5000]), labelled=tensor([1., 0.]))
    """
    expect_grid(logits, labels)
    expect_labels(labels, logits.shape[1])
    valid = (labels != IGNORE).unsqueeze(1)  # (B, 1, H, W)
    probability = logits.float().softmax(1) * valid  # (B, C, H, W)
    marked = F.one_hot(labels.clamp(min=0), logits.shape[1]).movedim(-1, 1) * valid  # (B, C, H, W)
    over = (0, 2, 3)
    return DiceSums(
        both=(probability * marked).sum(over),
        predicted=(probability.square() if squared else probability).sum(over),
        labelled=marked.float().sum(over),
    )


def dice(sums: DiceSums, smooth: float = 1.0) -> Tensor:
    """1 - (2 both + smooth) / (predicted + labelled + smooth), the mean over the classes that are labelled.

    0, with gradient 0, where none is.  `smooth` is MMSegmentation's 1; 0 is the paper's.  Raises ValueError below 0.

    >>> dice(DiceSums(*(torch.tensor([one]) for one in (0.5, 0.5, 1.0))), smooth=0.0)  # 1 - 1 / 1.5
    tensor(0.3333)
    """
    if not smooth >= 0:
        raise ValueError(f"smooth: expected a number of 0 or more, got {smooth}")
    present = sums.labelled > 0
    losses = 1 - (2 * sums.both + smooth) / (sums.predicted + sums.labelled + smooth).clamp(min=1e-12)  # (C,)
    return torch.where(present, losses, 0 * sums.predicted).sum() / present.sum().clamp(min=1)
