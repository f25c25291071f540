"""Pixel cross-entropy, the criterion of ordinary fine-tuning; labels smoothed as in Szegedy et al. 2016, 1512.00567.

With a weight for each class, and of hard pixels only, where settings say so.
Shape legend: B images, C classes, H x W image.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from mdp.core.bounds import Share
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
from mdp.core.labels import IGNORE
from mdp.core.methods import Loss
from mdp.core.networks import Look
from mdp.core.processes import Processes

__all__ = [
    "SUPPLEMENT",
    "Settings",
    "asks_for",
    "build",
    "cross_entropy",
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
    "weighted_cross_entropy",
]


@dataclass(frozen=True, kw_only=True)
class Settings(PixelSettings):
    """Settings of cross-entropy."""

    smoothing: Share = 0.0  # share of a pixel's target that all classes have alike; the paper's networks: 0.1


def loss(look: Look, head: Any, shared: Any, part: Part, settings: Settings, rngs: Rngs, processes: Processes) -> Loss:
    """The mean over the pixels of the batch; class weights multiply, and hard pixels are divided by all of them."""
    labels, weights = labels_and_weights(part, settings)
    return Loss(weighted_cross_entropy(part.logits, labels, part.pixels, weights, settings.smoothing), {})


def cross_entropy(logits: Tensor, labels: Tensor, pixels: Tensor) -> Tensor:
    """Pixel cross-entropy of logits (B, C, H, W) and labels (B, H, W), in float32, divided by so many pixels.

    Those are the valid pixels of the whole batch, or all of them, ignored ones counting as 0 (MMSegmentation before
    0.23).
    """
    return weighted_cross_entropy(logits, labels, pixels)


def weighted_cross_entropy(
    logits: Tensor, labels: Tensor, total: Tensor, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of logits (B, C, H, W) and labels (B, H, W), in float32, summed and divided by `total`.

    A pixel's target is 1 - smoothing + smoothing / C for its class and smoothing / C for the others, and the term of
    class c counts `weights[c]` times (None: once).  `total` is a number of pixels, or `total_weight` as torch has it.
    Raises ValueError for a smoothing outside 0 to 1, or another number of weights than of classes.

    >>> import torch
    >>> logits, labels = torch.zeros(1, 2, 1, 1), torch.tensor([[[1]]])
    >>> weighted_cross_entropy(logits, labels, torch.tensor(1), torch.tensor([1.0, 3.0]))  # 3 log 2
    tensor(2.0794)
    """
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing: expected a share of 0 to 1, got {smoothing}")
    if weights is not None and weights.shape != logits.shape[1:2]:
        raise ValueError(f"weights: expected one for each of {logits.shape[1]} classes, got {list(weights.shape)}")
    scores = logits.float()  # (B, C, H, W)
    weights = None if weights is None else weights.to(scores.device, scores.dtype)
    losses = F.cross_entropy(
        scores, labels, weights, ignore_index=IGNORE, reduction="none", label_smoothing=smoothing
    )  # (B, H, W)
    return mean_over(losses.sum(), total.float())  # CUDA has no deterministic reduction="sum"
