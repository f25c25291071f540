"""Checks of labels that people give to the functions of `mdp.core`: sizes, the number for ignored pixels, the classes.

Sizes and the dtype are looked at everywhere, which costs nothing.  Values are looked at on the CPU only, where it
takes a thousandth of the loss: on a GPU the host would have to wait for them, and torch's own kernels stop the program
at an index that is too large.
"""

import torch
from torch import Tensor

from mdp.core.labels import IGNORE

ADVICE = (
    f"pixels that do not count are {IGNORE} here, whatever they are in files: LabelUnion.to_union makes that of raw "
    f"values, and labels.long().masked_fill(labels == 255, {IGNORE}) of class numbers with 255"
)


def expect_grid(embeddings: Tensor, *maps: Tensor) -> None:
    """Raises ValueError unless label maps are (B, h, w) like embeddings, features or logits (B, ., h, w)."""
    grid = (len(embeddings), *embeddings.shape[2:])
    for labels in maps:
        if labels.shape != grid:
            raise ValueError(
                f"embeddings {tuple(embeddings.shape)} and labels {tuple(labels.shape)} differ in grid; "
                "downsample_labels(labels, stride) takes labels down to it, upsample(logits, size) the others up"
            )


def expect_labels(labels: Tensor, classes: int | None = None) -> None:
    """Raises ValueError for labels of any shape unless they are `IGNORE` or 0 .. classes - 1, or 0 and more.

    >>> expect_labels(torch.tensor([0, 4, -1]), 5)
    >>> expect_labels(torch.tensor([0, 255]), 5)
    Traceback (most recent call last):
    ValueError: labels: values 0..255, expected -1 or 0..4; pixels that do not count are -1 here, whatever they are in \
files: LabelUnion.to_union makes that of raw values, and labels.long().masked_fill(labels == 255, -1) of class numbers \
with 255
    """
    if labels.dtype == torch.uint8:
        raise ValueError(f"labels: uint8 has no {IGNORE}; {ADVICE}")
    if labels.device.type != "cpu" or labels.numel() == 0:
        return
    low, high = (int(value) for value in torch.aminmax(labels))
    if low < min(IGNORE, 0) or (classes is not None and high >= classes):
        wanted = f"{IGNORE} or 0 and more" if classes is None else f"{IGNORE} or 0..{classes - 1}"
        raise ValueError(f"labels: values {low}..{high}, expected {wanted}; {ADVICE}")
