"""AutoAugment on whole batches, on any device: the bytes of `autoaugment.apply_auto`, which is the plain form.

What each image takes is known on the CPU, so nothing waits for the device.  Images that take the same operation next
are changed together, each with its own strength; tables compose, and an image is looked up once for a chain of them.
Shape legend: B images of the batch, N of them that take an operation, H x W pixels.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mdp.core.autoaugment import (
    FIXED,
    MATRICES,
    AutoDraw,
    Matrix,
    Step,
    chosen_steps,
    factor,
    fixed_point,
    is_straight,
    straight_sources,
)
from mdp.core.float64 import device_of_float64

Strengths = list[tuple[int, int]]  # a level and a sign for each of N images


def apply_auto_batch(images: Tensor, draws: AutoDraw) -> Tensor:
    """Images (B, 3, H, W), uint8 RGB, each after the operations that were drawn for it; the draws lie on the CPU."""
    each = zip(*draws, strict=True)
    return augment_batch(images, [chosen_steps(AutoDraw(*draw)) for draw in each])


def augment_batch(images: Tensor, steps: Sequence[Sequence[Step]]) -> Tensor:
    """Images (B, 3, H, W), uint8 RGB, each after steps of its own, one after the other.

    >>> augment_batch(torch.full((1, 3, 1, 1), 200, dtype=torch.uint8), [[("invert", 0, 1)]]).flatten().tolist()
    [55, 55, 55]
    """
    if not any(steps):
        return images
    batch = _Batch(images)
    for place in range(max(map(len, steps))):
        following: dict[str, list[int]] = {}  # operation -> which images take it next
        for image, own in enumerate(steps):
            if place < len(own):
                following.setdefault(own[place][0], []).append(image)
        for name, chosen in following.items():
            batch.change_(name, chosen, [steps[image][place][1:] for image in chosen])
    batch.look_up_(sorted(batch.waiting))
    return batch.images


class _Batch:
    """Images, and a table of each channel that is still to be applied to those that wait for it."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.clone()  # (B, 3, H, W)
        self.tables = _values(images).to(torch.uint8).repeat(len(images), 3, 1)  # (B, 3, 256): each value itself
        self.waiting: set[int] = set()

    def change_(self, name: str, chosen: list[int], strengths: Strengths) -> None:
        """The operation on the chosen images, each with its own strength."""
        if name in FIXED or name in ("equalize", "autocontrast"):
            there = self._there(chosen)
            before = self.tables[there].long()  # (N, 3, 256)
            if name in FIXED:
                found = np.stack([FIXED[name](level, sign) for level, sign in strengths])
                table = torch.from_numpy(found).to(self.images.device, non_blocking=True)[:, None]  # (N, 1, 256)
            else:
                form = _equalize if name == "equalize" else _autocontrast
                table = form(_moved(_histogram(self.images[there]), before))  # (N, 3, 256)
            self.tables.index_copy_(0, there, table.expand(-1, 3, -1).gather(2, before))
            self.waiting.update(chosen)
            return
        self.look_up_([image for image in chosen if image in self.waiting])
        there = self._there(chosen)
        rows = self.images[there]  # (N, 3, H, W)
        if name in MATRICES:
            changed = _affine(rows, [MATRICES[name](*each, rows.shape[2], rows.shape[3]) for each in strengths])
        else:
            factors = torch.tensor([factor(*each) for each in strengths], dtype=torch.float32)
            changed = _BLENDS[name](rows, factors.to(rows.device, non_blocking=True).view(-1, 1, 1, 1))
        self.images.index_copy_(0, there, changed)

    def look_up_(self, chosen: list[int]) -> None:
        """Applies the tables that wait to the chosen images."""
        if not chosen:
            return
        there = self._there(chosen)
        rows, tables = self.images[there], self.tables[there]
        self.images.index_copy_(0, there, tables.gather(2, rows.flatten(2).long()).view_as(rows))
        self.tables.index_copy_(0, there, _values(rows).to(torch.uint8).expand_as(tables))
        self.waiting.difference_update(chosen)

    def _there(self, chosen: list[int]) -> Tensor:
        return torch.tensor(chosen).to(self.images.device, non_blocking=True)


def _values(like: Tensor) -> Tensor:
    """0 .. 255 int64, on the device."""
    return torch.arange(256, device=like.device)


def _counted(cells: Tensor, counts: Tensor) -> Tensor:
    """Sums of counts (N, 3, M) by the values (N, 3, M) int64 that they belong to: (N, 3, 256) int64."""
    images, channels = cells.shape[:2]
    own = torch.arange(images * channels, device=cells.device).view(images, channels, 1)
    found = torch.zeros(images * channels * 256, dtype=torch.int64, device=cells.device)
    # in one dimension, which alone is deterministic on CUDA
    found.scatter_add_(0, (cells + 256 * own).flatten(), counts.expand_as(cells).flatten())
    return found.view(images, channels, 256)


def _histogram(images: Tensor) -> Tensor:
    """How many pixels of each channel have each value, (N, 3, 256)."""
    one = torch.ones(1, 1, 1, dtype=torch.int64, device=images.device)
    return _counted(images.flatten(2).long(), one)


def _moved(counts: Tensor, tables: Tensor) -> Tensor:
    """The histogram (N, 3, 256) after tables (N, 3, 256) int64."""
    return _counted(tables, counts)


def _equalize(counts: Tensor) -> Tensor:
    """The table that spreads each channel's values evenly."""
    values, up_to = _values(counts), counts.cumsum(2)
    last = torch.where(counts > 0, values, 0).amax(2, keepdim=True)  # (N, 3, 1)
    step = (up_to[:, :, -1:] - counts.gather(2, last)).div(255, rounding_mode="floor")
    spread = (step.div(2, rounding_mode="floor") + up_to - counts).div(step.clamp(min=1), rounding_mode="floor")
    return torch.where(step > 0, spread.clamp(max=255), values).to(torch.uint8)


def _autocontrast(counts: Tensor) -> Tensor:
    """The table that stretches each channel from its least to its largest value."""
    counts, device = counts.to(device_of_float64(counts.device)), counts.device
    values = _values(counts)
    low = torch.where(counts > 0, values, 255).amin(2, keepdim=True)  # (N, 3, 1)
    high = torch.where(counts > 0, values, 0).amax(2, keepdim=True)
    span = (high - low).clamp(min=1).double()
    scale = torch.full_like(span, 255).div_(
        span
    )  # a number over a tensor is the tensor's reciprocal, rounded, times it
    stretched = (values.double() * scale + -low.double() * scale).long().clamp(0, 255)  # not fused: Pillow rounds twice
    return torch.where(high > low, stretched, values).to(torch.uint8).to(device)


def _contrast(images: Tensor, factors: Tensor) -> Tensor:
    """A blend with the mean of the luma, rounded: a half goes up."""
    pixels = images.shape[2] * images.shape[3]
    sums = _luma(images).sum((1, 2, 3), keepdim=True, dtype=torch.int64)
    return _blend((2 * sums + pixels).div(2 * pixels, rounding_mode="floor").to(torch.uint8), images, factors)


def _color(images: Tensor, factors: Tensor) -> Tensor:
    return _blend(_luma(images), images, factors)


def _sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """A blend with the image smoothed by weights of 1 around a 5, over 13; border pixels are not smoothed."""
    smooth = images.clone()
    if min(images.shape[2:]) > 2:
        wide = images.int()
        rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
        sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * wide[:, :, 1:-1, 1:-1]
        smooth[:, :, 1:-1, 1:-1] = (2 * sums + 13).div(26, rounding_mode="floor").to(torch.uint8)
    return _blend(smooth, images, factors)


_BLENDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "contrast": _contrast, "color": _color, "sharpness": _sharpness,
}  # fmt: skip


def _luma(images: Tensor) -> Tensor:
    """ITU-R 601 in sixteen bits, (N, 1, H, W) uint8."""
    red, green, blue = images.int().chunk(3, 1)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).to(torch.uint8)


def _blend(first: Tensor, second: Tensor, factors: Tensor) -> Tensor:
    """The first plus factors (N, 1, 1, 1) times the difference, in float32, cut off below the point."""
    step = (second.float() - first.float()) * factors  # by itself: a fused sum would round once
    return (first.float() + step).clamp_(0, 255).to(torch.uint8)


def _affine(images: Tensor, matrices: Sequence[Matrix]) -> Tensor:
    """Each pixel of (N, 3, H, W) from where its image's matrix says, the nearest pixel there, or 0 beyond the edges."""
    height, width = images.shape[2:]
    straight = [number for number, matrix in enumerate(matrices) if is_straight(matrix)]
    slanted = [number for number, matrix in enumerate(matrices) if not is_straight(matrix)]
    found, device = torch.empty_like(images), images.device
    if straight:
        ends = [straight_sources(matrices[number], height, width) for number in straight]
        columns, rows = (
            torch.from_numpy(np.stack(each)).to(device, non_blocking=True) for each in zip(*ends, strict=True)
        )
        there = torch.tensor(straight).to(device, non_blocking=True)
        found.index_copy_(0, there, _taken(images[there], columns[:, None], rows[:, :, None]))
    if slanted:
        fixed = torch.tensor([fixed_point(matrices[number]) for number in slanted]).to(device, non_blocking=True)
        a, b, c, d, e, f = fixed[:, :, None, None].unbind(1)  # (N, 1, 1) each
        x, y = torch.arange(width, device=device), torch.arange(height, device=device)[:, None]
        there = torch.tensor(slanted).to(device, non_blocking=True)
        found.index_copy_(0, there, _taken(images[there], (c + a * x + b * y) >> 16, (f + d * x + e * y) >> 16))
    return found


def _taken(images: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Pixels (N, 3, H, W) from columns and rows that broadcast to (N, H, W)."""
    height, width = images.shape[2:]
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)  # (N, H, W)
    places = torch.where(inside, rows * width + columns, 0).flatten(1)[:, None].expand(-1, 3, -1)
    return images.flatten(2).gather(2, places).view_as(images) * inside[:, None]
