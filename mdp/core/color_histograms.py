"""Colours in place of features: how often each of a few colours occurs in each cell of a grid.

A control for whatever is claimed of features: what colours do as well was not learnt.
Shape legend: B images, H x W image, s stride, h x w cells (ceil(H / s), ceil(W / s)), n levels a channel.
"""

import torch
from torch import Tensor

LEVELS = 4  # of red, green and blue each: 64 colours; chosen


def cell_colors(images: Tensor, stride: int, levels: int = LEVELS) -> Tensor:
    """Shares (B, n^3, h, w) float32 of colours in the cells of images (B, 3, H, W), in [0, 1] or uint8.

    Cell i covers pixels s i to s (i + 1) - 1, as many of them as there are.  Raises ValueError for images that are
    not red, green and blue.

    >>> cell_colors(torch.tensor([0, 255]).view(1, 1, 1, 2).expand(1, 3, 1, 2).byte(), 2, levels=2).flatten()
    tensor([0.5000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.5000])
    """
    if images.shape[1] != 3:
        raise ValueError(f"images: colours are of red, green and blue, and these have {images.shape[1]} channels")
    count, _, height, width = images.shape
    whole = images.long() * levels // 256 if images.dtype == torch.uint8 else (images * levels).long()
    whole = whole.clamp(0, levels - 1)
    colors = (whole[:, 0] * levels + whole[:, 1]) * levels + whole[:, 2]  # (B, H, W)
    rows, columns = -(-height // stride), -(-width // stride)
    down, across = (torch.arange(length, device=images.device) // stride for length in (height, width))
    cells = down[:, None] * columns + across  # (H, W)
    cells = torch.arange(count, device=images.device)[:, None, None] * (rows * columns) + cells  # (B, H, W)
    kinds = levels**3
    sums = torch.bincount((cells * kinds + colors).flatten(), minlength=count * rows * columns * kinds)
    sums = sums.view(count, rows, columns, kinds).float()
    return (sums / sums.sum(3, keepdim=True)).permute(0, 3, 1, 2)  # (B, n^3, h, w)
