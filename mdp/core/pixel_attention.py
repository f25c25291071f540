"""Pixel attention: how much each channel counts at each point of an image (2106.03149, eq. 6).

Shape legend: B images, C channels, A attention maps (C, or 1 that all channels share), h x w feature
grid of s cells, S points on the finer grid.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.contrast_chunked import EPS

_CELLS = 128  # of a map, up to which raising it by a product is quicker; 49 in training
RAISED = 4  # times as fine as the backbone's last map: the released code's


class Attended(NamedTuple):
    """Features on the finer grid, and how much they count."""

    features: Tensor  # (B, C, 4h, 4w) float32, as long as they are
    attention: Tensor  # (B, A, 4h, 4w) float32 in [0, 1]

    @property
    def level(self) -> Tensor:
        """The mean attention over channels, (B, 4h, 4w), which a threshold cuts (eq. 7)."""
        return self.attention.mean(1)


def pixel_attention(
    maps: Tensor, first: Callable[[Tensor], Tensor], rest: Callable[[Tensor], Tensor], threshold: Tensor
) -> Attended:
    """sigmoid(rest(first(n(u))) + t), u the maps (B, C, h, w) raised bilinearly, n(u) of unit length (eq. 6).

    `first` is a convolution without bias that sees one cell at a time, so that it commutes with interpolation: it is
    done before, on a sixteenth of the cells.  `rest` begins with what does not; `threshold` t is (A,).
    """
    raised = raise_maps(maps)  # (B, C, 4h, 4w)
    length = torch.linalg.vector_norm(raised, dim=1, keepdim=True).clamp(min=EPS)  # (B, 1, 4h, 4w)
    logits = rest(raise_maps(first(maps)) / length).float() + threshold[:, None, None]  # (B, A, 4h, 4w)
    return Attended(raised, logits.sigmoid())


def attended_directions(
    maps: Tensor, first: Callable[[Tensor], Tensor], rest: Callable[[Tensor], Tensor], threshold: Tensor
) -> Tensor:
    """`attended_mean` of `pixel_attention` with `unit`, (B, C), where the features need not be raised themselves.

    Raising is linear: n(u) is the maps times a matrix, of which the lengths follow from products of cells, and the sum
    of n(u) A over points is the maps times what A gives back to their cells.
    """
    grid = maps.shape[2:]
    if grid.numel() > _CELLS:
        return attended_mean(pixel_attention(maps, first, rest, threshold), unit=True)
    with torch.autocast(maps.device.type, enabled=False):
        features = maps.float().flatten(2)  # (B, C, s)
        raising = raise_maps(torch.eye(grid.numel(), device=maps.device).view(1, -1, *grid)).flatten(2)  # (1, s, S)
        squares = (features.transpose(1, 2) @ features @ raising * raising).sum(1, keepdim=True)  # (B, 1, S)
        raising = raising / squares.clamp(min=EPS**2).sqrt()  # (B, s, S) n(u) = features @ raising
    hidden = first(maps).flatten(2)  # (B, C, s)
    with torch.autocast(maps.device.type, enabled=False):
        fine = [RAISED * size for size in grid]
        hidden = (hidden.float() @ raising).view(*hidden.shape[:2], *fine)  # (B, C, 4h, 4w)
    attention = (rest(hidden).float() + threshold[:, None, None]).sigmoid().flatten(2)  # (B, A, S)
    with torch.autocast(maps.device.type, enabled=False):
        return (attention @ raising.transpose(1, 2) * features).sum(2) / attention.shape[2]


def raise_maps(maps: Tensor) -> Tensor:
    """Maps (B, C, h, w) four times as fine, bilinear, float32."""
    return F.interpolate(maps.float(), scale_factor=RAISED, mode="bilinear", align_corners=False)


def attended_mean(attended: Attended, unit: bool = False, threshold: float = 0.0) -> Tensor:
    """The mean over points of the features times their attention, (B, C).

    With `unit` features count by their direction, as the attention is trained; without as they are, as k-means takes
    them (the released code's difference).  Points whose mean attention is below `threshold` are left out of the sum.
    """
    features, weight = attended.features, attended.attention
    if unit:
        weight = weight / torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp(min=EPS)
    if threshold > 0:
        weight = weight * (attended.level >= threshold)[:, None]
    return (features * weight).mean((2, 3))
