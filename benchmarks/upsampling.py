"""The class of every pixel from logits of a coarse grid: bilinear upsampling and argmax, bit for bit.

Shape legend: C classes, h x w logits, H x W image.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate
from mdp.core.upsampling import upsampled_argmax

MARGIN = 8.0  # of the right class's logit
NOISE = 0.6  # standard deviation


def cases() -> dict[str, Callable[[], Case]]:
    """The sizes of ADE20K and Cityscapes; logits of a confident network, and noise alone."""
    sizes: dict[str, tuple[int, tuple[int, int], tuple[int, int], float, tuple[Gate, ...]]] = {
        "C=150 64x86 to 512x683, confident": (
            150, (64, 86), (512, 683), MARGIN, (Gate("plain", 4.0), Gate("plain", 12.0, what="memory")),
        ),
        "C=150 64x86 to 512x683, noise": (150, (64, 86), (512, 683), 0.0, (Gate("plain", 2.0),)),
        "C=19 128x256 to 1024x2048, confident": (19, (128, 256), (1024, 2048), MARGIN, (Gate("plain", 3.0),)),
    }  # fmt: skip
    return {label: partial(_case, label, *size) for label, size in sizes.items()}


def _case(
    label: str, classes: int, grid: tuple[int, int], size: tuple[int, int], margin: float, gates: tuple[Gate, ...]
) -> Case:
    rng = inputs.rng_of(1)
    labels = inputs.label_maps(rng, 1, *grid, classes, own=10, ignored=0)  # (1, h, w)
    logits = NOISE * torch.randn(1, classes, *grid, generator=rng)
    logits += margin * F.one_hot(labels, classes).movedim(3, 1)
    entries = (
        Entry("upsampled_argmax", "ours", lambda: upsampled_argmax(logits, size)),
        Entry("interpolate + argmax", "plain", lambda: _plain(logits, size)),
        Entry("reading the logits, writing the labels", "floor", lambda: (logits.sum(), torch.zeros(size).long())),
    )
    return Case("upsampled argmax", label, entries, gates, lambda: (_plain(logits, size),))


def _plain(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False).argmax(1)[0]
