"""The soft Dice loss (Milletari et al. 2016, arXiv 1606.04797, section 3), for every class against the rest.

It is a function of three sums a class, which add up over images and processes: first the sums, then the loss.
Shape legend: B images, C classes, H x W image.
"""

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from mdp.core.bounds import Bounds, Weight, check_bounds
from mdp.core.criteria import Part, Rngs
from mdp.core.criteria._stateless import (
    SUPPLEMENT,
    asks_for,
    build,
    fitted,
    initial_state,
    misfit,
    pack,
    prepare,
    remember,
    start_,
    state_bytes,
    unpack,
)
from mdp.core.float64 import in_float64
from mdp.core.label_checks import expect_grid, expect_labels
from mdp.core.labels import IGNORE
from mdp.core.methods import Loss
from mdp.core.networks import Look
from mdp.core.processes import Processes

__all__ = [
    "SUPPLEMENT",
    "DiceSums",
    "Settings",
    "asks_for",
    "build",
    "dice",
    "dice_sums",
    "fitted",
    "initial_state",
    "loss",
    "misfit",
    "pack",
    "prepare",
    "remember",
    "start_",
    "state_bytes",
    "unpack",
]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the Dice loss."""

    weight: Weight = 1.0  # what it counts in a sum of criteria; MMSegmentation beside cross-entropy: 3
    smooth: Annotated[float, Bounds(0, 1e6)] = 1.0  # pixels added above and below: MMSegmentation's; the paper: 0
    squared: bool = False  # squares of probabilities below, as in the paper; false: as in MMSegmentation, smp

    def __post_init__(self) -> None:
        check_bounds(self)


class DiceSums(NamedTuple):
    """What the loss is made of, each (C,) float32, over the valid pixels."""

    both: Tensor  # probability of the class at its own pixels
    predicted: Tensor  # probability of the class, or its square, everywhere
    labelled: Tensor  # pixels of the class


def loss(look: Look, head: Any, shared: Any, part: Part, settings: Settings, rngs: Rngs, processes: Processes) -> Loss:
    """One loss of the images that all processes take at once, by the sums of all of them.

    Each process has the gradient through its own sums; with parts that follow each other the loss is their mean.
    """
    own = torch.stack(dice_sums(part.logits, part.labels, settings.squared))  # (3, C)
    others = processes.all_sum(own.detach()) - own.detach()  # (3, C)
    value = dice(DiceSums(*(own + others)), settings.smooth)
    share = value.detach() / len(processes.images)  # of the value; the gradient is whole
    return Loss((value - value.detach() + share) * (processes.total / part.images), {})


def dice_sums(logits: Tensor, labels: Tensor, squared: bool = False) -> DiceSums:
    """The sums of logits (B, C, H, W) and labels (B, H, W); `squared`: the paper's, with squares of probabilities.
    Raises ValueError for labels that are not (B, H, W), or no classes.

    >>> dice_sums(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, -1]]]))
    DiceSums(both=tensor([0.5000, 0.0000]), predicted=tensor([0.5000, 0.5000]), labelled=tensor([1., 0.]))
    """
    expect_grid(logits, labels)
    expect_labels(labels, logits.shape[1])
    valid = labels != IGNORE  # (B, H, W)
    own = labels.clamp(min=0)  # (B, H, W)
    probability = logits.float().softmax(1) * valid.unsqueeze(1)  # (B, C, H, W)
    hits = probability.gather(1, own.unsqueeze(1)).flatten()  # (B H W,)
    classes = logits.shape[1]
    wide = in_float64(hits)
    both = wide.new_zeros(classes).index_add(0, own.flatten().to(wide.device), wide)
    return DiceSums(
        both=both.float().to(hits.device),
        predicted=(probability.square() if squared else probability).sum((0, 2, 3)),
        labelled=own.new_zeros(classes).scatter_add_(0, own.flatten(), valid.flatten().long()).float(),
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
