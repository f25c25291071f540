"""The focal loss: pixels that are right already weigh less (Lin et al. 2017, arXiv 1708.02002, eq. 4 and 5).

With a softmax over the classes; of two classes it is the paper's own form, of a sigmoid.
Shape legend: B images, C classes, H x W image.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from mdp.core.bounds import Bounds
from mdp.core.contrast import mean_over
from mdp.core.criteria import Part, Rngs
from mdp.core.criteria._pixels import PixelSettings, labels_and_weights
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
from mdp.core.label_checks import expect_grid, expect_labels
from mdp.core.labels import IGNORE
from mdp.core.methods import Loss
from mdp.core.networks import Look
from mdp.core.processes import Processes

__all__ = [
    "SUPPLEMENT",
    "Settings",
    "asks_for",
    "build",
    "fitted",
    "focal",
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
class Settings(PixelSettings):
    """Settings of the focal loss; its alpha are the class weights."""

    gamma: Annotated[float, Bounds(0, 100)] = 2.0  # the paper's best


def loss(look: Look, head: Any, shared: Any, part: Part, settings: Settings, rngs: Rngs, processes: Processes) -> Loss:
    """The mean over the pixels of the batch."""
    labels, weights = labels_and_weights(part, settings)
    return Loss(focal(part.logits, labels, part.pixels, settings.gamma, weights), {})


def focal(logits: Tensor, labels: Tensor, total: Tensor, gamma: float = 2.0, weights: Tensor | None = None) -> Tensor:
    """-(1 - p)^gamma log p of the probability p of each pixel's own class, in float32, summed and divided by `total`.

    Of logits (B, C, H, W) and labels (B, H, W); `weights` (C,) multiply a class's pixels (the paper's alpha; None: 1).
    With gamma 0 it is cross-entropy.  `total` is a number of pixels.  Raises ValueError for a gamma below 0,
    and for labels that are not (B, H, W), or no classes.

    >>> focal(torch.zeros(1, 2, 1, 1), torch.tensor([[[1]]]), torch.tensor(1))  # (1 / 2)^2 log 2
    tensor(0.1733)
    """
    if not gamma >= 0:
        raise ValueError(f"gamma: expected a number of 0 or more, got {gamma}")
    expect_grid(logits, labels)  # `gather` would take the corner of larger logits
    expect_labels(labels, logits.shape[1])
    valid = labels != IGNORE
    own = labels.clamp(min=0)  # (B, H, W)
    log_p = logits.float().log_softmax(1).gather(1, own.unsqueeze(1)).squeeze(1)  # (B, H, W)
    # 1 - p as -expm1(log p), exact near p = 1; kept off 0, where a gamma below 1 has no finite gradient
    unsure = (-torch.expm1(log_p)).clamp(min=torch.finfo(torch.float32).tiny)
    losses = -(unsure**gamma) * log_p
    if weights is not None:
        losses = losses * weights.to(losses.device, losses.dtype)[own]
    return mean_over(losses.masked_fill(~valid, 0).sum(), total.float())
