"""The tensors of a training step.

Shape legend of mdp.core: B images, C classes, D embedding channels, H x W image, h x w feature grid, N pixels,
K targets a pixel, T batches in the bank.
"""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Images and their label maps under the same geometry: in pretraining one view of each image."""

    images: Tensor  # (B, 3, H, W) float32, normalised
    # (B, H, W) int64, classes of the union, -1 where a pixel is ignored; (B, 0, 0) where none are read.  Where pixels
    # without a label are mined, those of photos without labels are below -1 (`mdp.core.pixel_mining`)
    labels: Tensor
    frames: Tensor | None = None  # (B, 5) int64: what a view shows of its image, as `mdp.core.views.frames_of` has it
    origins: Tensor | None = None  # (B, 2) int64: numbers of the dataset and of the folder that an image is from


class Blend(NamedTuple):
    """Images in which each pixel has two labels, the first with weight `share`, the second with the rest.

    A region-mixed or plain image is the case share = 1.
    """

    images: Tensor  # (B, 3, H, W) float32
    first: Tensor  # (B, H, W) int64
    second: Tensor  # (B, H, W) int64
    share: Tensor  # (B,) float32 in [0, 1]
