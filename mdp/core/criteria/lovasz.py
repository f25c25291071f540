"""The Lovasz-softmax loss, a convex stand-in for 1 - IoU (Berman et al. 2018, arXiv 1705.08790, eq. 8 to 12).

Shape legend: B images, C classes, H x W image, N valid pixels of the batch.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mdp.core.bounds import Weight, check_bounds
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
    "Settings",
    "asks_for",
    "build",
    "fitted",
    "initial_state",
    "jaccard_steps",
    "loss",
    "lovasz_softmax",
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
    """Settings of the Lovasz-softmax loss."""

    weight: Weight = 1.0  # what it counts in a sum of criteria
    per_image: bool = False  # a loss for each image, and their mean; false: one of all pixels, as the paper's code

    def __post_init__(self) -> None:
        check_bounds(self)


def loss(look: Look, head: Any, shared: Any, part: Part, settings: Settings, rngs: Rngs, processes: Processes) -> Loss:
    """The loss of this part's pixels, or the mean over its images, by its share of the images of the batch."""
    images = len(part.labels)
    if not settings.per_image:
        return Loss(lovasz_softmax(part.logits, part.labels) * (images / part.images), {})
    each = [lovasz_softmax(part.logits[i : i + 1], part.labels[i : i + 1]) for i in range(images)]
    return Loss(torch.stack(each).sum() / part.images, {})


def jaccard_steps(marked: Tensor) -> Tensor:
    """By how much the Jaccard loss of a class grows with each further wrong pixel, (N,) float32 (eq. 9).

    `marked` (N,) bool: whether the pixel is of the class; pixels are in the order in which they become wrong.  The
    steps are at least 0 and add up to 1 where a pixel is of the class, or there is any at all.

    >>> jaccard_steps(torch.tensor([True, False, True]))
    tensor([0.5000, 0.1667, 0.3333])
    """
    if len(marked) == 0:
        return torch.zeros(0, device=marked.device)
    ones = in_float64(marked)
    left = ones.sum() - ones.cumsum(0)  # pixels of the class that are still right
    union = ones.sum() + (1 - ones).cumsum(0)
    losses = 1 - left / union
    return torch.cat([losses[:1], losses.diff()]).float().to(marked.device)


def lovasz_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """The Lovasz extension of 1 - IoU of logits (B, C, H, W) and labels (B, H, W), the mean over the classes present.

    A class's errors are 1 - p at its own pixels and p elsewhere, sorted from large to small, each times its step; the
    pixels of the batch are one set.  0, with gradient 0, without any valid pixel.  Raises ValueError for
    labels that are not (B, H, W), or no classes.

    >>> lovasz_softmax(torch.zeros(1, 2, 1, 1), torch.tensor([[[0]]]))
    tensor(0.5000)
    """
    expect_grid(logits, labels)
    expect_labels(labels, logits.shape[1])
    valid = labels != IGNORE
    probability = logits.float().softmax(1).movedim(1, -1)  # (B, H, W, C)
    if logits.is_cuda:  # how many are valid would have to be waited for: others stay, last of all, with an error of 0
        valid, own, probability = valid.flatten(), labels.flatten(), probability.flatten(0, 2)
        pixels = own.new_zeros(logits.shape[1]).scatter_add_(0, own.clamp(min=0), valid.to(own.dtype))
        present = [index for index, count in enumerate(pixels.tolist()) if count]
    else:
        probability, own = probability[valid], labels[valid]  # (N, C), (N,)
        present = torch.unique(own).tolist()
    losses = [] if present else [0 * logits.float().sum()]
    for index in present:
        marked = own == index
        errors = torch.where(marked, 1 - probability[:, index], probability[:, index])
        errors, order = (torch.where(valid, errors, 0.0) if logits.is_cuda else errors).sort(descending=True)
        losses.append((errors * jaccard_steps(marked[order])).sum())
    return torch.stack(losses).mean()
