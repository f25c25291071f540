"""Crops, flips and resizes that images and label maps undergo together.

Draw first (`draw_crop`, `draw_window`), apply after (`cut_image`, `cut_labels`): the same box and flip serve both.
Images are resampled bilinearly with antialiasing, label maps by the nearest pixel, both aligned at pixel centres.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.chance import coin, uniforms
from mdp.core.labels import IGNORE


class Box(NamedTuple):
    """A rectangle in pixels; it may reach beyond the image only where a function says so."""

    top: int
    left: int
    height: int
    width: int


class View(NamedTuple):
    """The geometry of one view: cut the box, resize it, mirror it or not."""

    box: Box
    flip: bool


def draw_crop(
    rng: torch.Generator,
    height: int,
    width: int,
    area: tuple[float, float] = (0.2, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """A random resized crop: its share of the area uniform in `area`, its aspect log-uniform in `aspect`.

    Ten tries, then the largest centred box whose aspect lies in the range (MoCo-v2's crop, as torchvision draws it).

    >>> box = draw_crop(torch.Generator().manual_seed(0), 40, 60)
    >>> 0 <= box.top and box.top + box.height <= 40 and 0 <= box.left and box.left + box.width <= 60
    True
    """
    logs = _logarithms(aspect)
    for _ in range(10):
        share, log_ratio = uniforms(rng, area, logs)
        target = height * width * share
        ratio = float(torch.exp(torch.tensor(log_ratio)))
        box_width = round((target * ratio) ** 0.5)
        box_height = round((target / ratio) ** 0.5)
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(torch.randint(height - box_height + 1, (), generator=rng))
            left = int(torch.randint(width - box_width + 1, (), generator=rng))
            return Box(top, left, box_height, box_width)
    ratio = min(max(width / height, aspect[0]), aspect[1])
    box_height = min(height, max(1, round(width / ratio)))
    box_width = min(width, max(1, round(height * ratio)))
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)


@cache
def _logarithms(aspect: tuple[float, float]) -> tuple[float, float]:
    """In float32, as torchvision has them."""
    low, high = torch.log(torch.tensor(aspect)).tolist()
    return low, high


def draw_view(
    rng: torch.Generator, height: int, width: int, area: tuple[float, float] = (0.2, 1.0), flip: float = 0.5
) -> View:
    """The geometry of one MoCo-v2 view of an image of this size."""
    return View(draw_crop(rng, height, width, area), coin(rng, flip))


def cut_image(image: Tensor, view: View, size: tuple[int, int]) -> Tensor:
    """The view of an image (3, H, W), uint8 or float, resized to `size` (height, width) with antialiasing.

    Bytes stay bytes.  A CPU resizes them in whole numbers, rounding once each way; another device, which has no such
    operation, in float32 rounding once: of 255 they differ by 1 here and there.
    """
    (top, left, height, width), flip = view
    piece = image[None, :, top : top + height, left : left + width]  # (1, 3, height, width)
    resize = _resized if image.dtype != torch.uint8 or image.device.type == "cpu" else _resized_bytes
    piece = resize(piece, size)[0]  # (3, *size)
    return piece.flip(-1) if flip else piece


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)


def _resized_bytes(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The same of bytes where `interpolate` takes none: its weights are positive and add up to 1, so nothing clips."""
    return _resized(images.float(), size).round_().to(torch.uint8)


def cut_labels(labels: Tensor, view: View, size: tuple[int, int]) -> Tensor:
    """The same view of a label map (H, W): each output pixel takes the label at its centre."""
    (top, left, height, width), flip = view
    rows = _centres(height, size[0], labels.device) + top  # (size[0],)
    columns = _centres(width, size[1], labels.device) + left  # (size[1],)
    return _taken(labels, rows, columns, flip)


def cut_resized_labels(labels: Tensor, size: tuple[int, int], window: View) -> Tensor:
    """A window, at its own size, of a label map (H, W) that is resized to `size` first; only its pixels are looked at.

    >>> labels, window = torch.arange(12).view(3, 4), View(Box(1, 2, 3, 4), True)
    >>> whole = cut_labels(labels, View(Box(0, 0, 3, 4), False), (6, 8))
    >>> torch.equal(cut_resized_labels(labels, (6, 8), window), cut_labels(whole, window, (3, 4)))
    True
    """
    (top, left, height, width), flip = window
    rows = _centres(labels.shape[0], size[0], labels.device)[top : top + height]
    columns = _centres(labels.shape[1], size[1], labels.device)[left : left + width]
    return _taken(labels, rows, columns, flip)


def _taken(labels: Tensor, rows: Tensor, columns: Tensor, flip: bool) -> Tensor:
    """The labels at these rows and columns, mirrored or not."""
    columns = columns.flip(0) if flip else columns
    if labels.device.type == "cpu":  # NumPy takes columns five times as quickly as torch
        return torch.from_numpy(labels.numpy().take(rows.numpy(), 0).take(columns.numpy(), 1))
    return labels.index_select(0, rows).index_select(1, columns)


def _centres(length: int, count: int, device: torch.device | None = None) -> Tensor:
    """Indices of the pixels under the centres of `count` equal parts of `length` pixels (exact in integers)."""
    if device is None or device.type == "cpu":  # NumPy takes a quarter of the time for a few hundred numbers
        return torch.from_numpy(np.arange(1, 2 * count, 2) * length // (2 * count))
    return (2 * torch.arange(count, device=device) + 1) * length // (2 * count)


class Grid(NamedTuple):
    """Which pixels the cells of a feature grid lie over: cell i is centred on pixel stride * i + offset."""

    stride: int
    offset: int = 0

    def pixels(self, length: int) -> Tensor:
        """The pixels (ceil(length / stride),) int64 under the centres of the cells over so many, the last at most.

        >>> Grid(4, 1).pixels(9).tolist()
        [1, 5, 8]
        """
        return (torch.arange(0, length, self.stride) + self.offset).clamp(max=length - 1)


def downsample_labels(labels: Tensor, stride: int, offset: int = 0) -> Tensor:
    """Labels (B, H, W) on the feature grid (B, ceil(H / stride), ceil(W / stride)): pixel stride * i + offset.

    Feature cell i of our ResNets is centred on input pixel stride * i, so 0 is the aligned choice for them; see
    `Grid` for others.
    """
    if offset == 0:
        return labels[:, ::stride, ::stride]
    grid = Grid(stride, offset)
    rows, columns = (grid.pixels(length).to(labels.device, non_blocking=True) for length in labels.shape[1:])
    return labels[:, rows[:, None], columns]


def thin_labels(labels: Tensor, stride: int) -> Tensor:
    """Labels (B, H, W) at one pixel in `stride` each way, (B, ceil(H / stride), ceil(W / stride)).

    Each is the one at the centre of a cell of the smaller grid, where bilinear resizing puts that grid's values.

    >>> thin_labels(torch.arange(6).view(1, 1, 6), 3)
    tensor([[[1, 4]]])
    """
    if stride == 1:
        return labels
    rows, columns = (_centres(length, -(-length // stride)).to(labels.device) for length in labels.shape[1:])
    return labels[:, rows[:, None], columns]


def fitted_size(height: int, width: int, scale: tuple[int, int]) -> tuple[int, int]:
    """The size (height, width) that keeps the aspect and fits `scale`, given as (long side, short side).

    MMSegmentation's keep-aspect rule: the largest factor that exceeds neither side, rounded half up.

    >>> fitted_size(375, 500, (2048, 512))
    (512, 683)
    """
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def draw_window(
    rng: torch.Generator, labels: Tensor, size: tuple[int, int], largest_share: float = 0.75, tries: int = 10
) -> Box:
    """A random window of a label map (H, W), at most `size`, redrawn while one class fills it.

    A window is taken once it has two classes or more and the most frequent one covers less than `largest_share` of
    its valid pixels; after `tries` redraws whatever comes is taken (MMSegmentation's cat_max_ratio).
    """
    box = _draw_box(rng, labels, size)
    for _ in range(tries):
        valid = labels[box.top : box.top + box.height, box.left : box.left + box.width]
        counts = torch.bincount(valid[valid != IGNORE].long())
        if (counts > 0).sum() > 1 and counts.max() < largest_share * counts.sum():
            return box
        box = _draw_box(rng, labels, size)
    return box


def _draw_box(rng: torch.Generator, labels: Tensor, size: tuple[int, int]) -> Box:
    height, width = min(size[0], labels.shape[0]), min(size[1], labels.shape[1])
    top = int(torch.randint(labels.shape[0] - height + 1, (), generator=rng))
    left = int(torch.randint(labels.shape[1] - width + 1, (), generator=rng))
    return Box(top, left, height, width)


def pad_to(tensor: Tensor, size: tuple[int, int], value: float) -> Tensor:
    """Pads (..., H, W) on the right and at the bottom with `value` up to at least `size`."""
    bottom, right = max(0, size[0] - tensor.shape[-2]), max(0, size[1] - tensor.shape[-1])
    return F.pad(tensor, (0, right, 0, bottom), value=value) if bottom or right else tensor
