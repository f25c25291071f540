"""The class of the highest bilinearly upsampled logit at each pixel, without the logits at that size.

Most classes cannot win in most places: a class that lies below the winners' mean at the corners of all cells of a tile
lies below it everywhere between them.  What is left of a tile is upsampled by two small products of matrices, and the
few pixels whose best classes come within rounding of each other are asked again of torch's own upsampling.  So the
answer is that of upsampling everything, at every pixel.

Shape legend: C classes, k of them in a tile, h x w grid of logits, H x W image; a cell lies between four grid points.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.networks import upsample
from mdp.core.windows import class_parts, first_maximum, of_part

_PIXELS = 64  # sides of a tile; with half of it there are too many calls, with twice as much too many classes are left
_ROUNDING = 2.0**-19  # of the largest logit; six roundings of 2^-24, in two ways, of two classes come to 24 / 2^24
_OPEN = 1 / 64  # share of pixels to ask again from which on upsampling everything is quicker


def upsampled_argmax(logits: Tensor, size: tuple[int, int], parts: Sequence[slice] = ()) -> Tensor:
    """The class (H, W) int64 of the highest of the logits (1, C, h, w) upsampled bilinearly to `size` (H, W).

    As `upsample(logits, size)[0].argmax(0)`: the first of equal scores wins.  Where scores of all classes have to be
    made after all, they are made of `parts` of the classes at a time, as `class_parts` cuts them.

    >>> upsampled_argmax(torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]]]), (1, 4)).tolist()
    [[0, 0, 1, 1]]
    """
    parts = parts or class_parts(logits.shape[1], logits.shape[1])
    decided = _tiled_argmax(logits[0], size) if _tileable(logits, size) else None
    if decided is None or decided.open.sum() > _OPEN * decided.open.numel():
        return first_maximum(upsample(of_part(logits, part), size)[0] for part in parts)
    asked = _asked(logits, size, parts, decided.rivals)
    if asked:
        scores = torch.cat([upsample(of_part(logits, part), size)[0][:, decided.open] for part in asked])  # (c, open)
        numbers = torch.cat([torch.arange(logits.shape[1])[part] for part in asked])  # (c,)
        decided.classes[decided.open] = numbers[scores.argmax(0)]
    return decided.classes


def _asked(logits: Tensor, size: tuple[int, int], parts: Sequence[slice], rivals: Tensor) -> list[slice]:
    """The classes to upsample as torch does: the rivals alone where its kernel takes classes one by one."""
    if logits.is_contiguous() and max(size) > 128:
        return [slice(number, number + 1) for number in rivals.nonzero().flatten().tolist()]
    return [part for part in parts if rivals[part].any()]


def _tileable(logits: Tensor, size: tuple[int, int]) -> bool:
    """Whether tiles say what all logits would: products in float32 on a CPU, where small calls are cheap."""
    grid = logits.shape[2:]
    plain = logits.device.type == "cpu" and logits.dtype == torch.float32
    exact = torch.get_float32_matmul_precision() == "highest"
    larger = min(grid) > 1 and size[0] >= grid[0] and size[1] >= grid[1]
    return plain and exact and larger and bool(logits.isfinite().all())


class _Decided(NamedTuple):
    classes: Tensor  # (H, W) int64
    open: Tensor  # (H, W) bool: where rounding might decide otherwise
    rivals: Tensor  # (C,) bool: classes that may win there


class _Tile(NamedTuple):
    """A tile along one axis."""

    pixels: slice
    points: slice  # of the grid
    weights: Tensor  # (pixels, points)


def _tiled_argmax(logits: Tensor, size: tuple[int, int]) -> _Decided:
    """The class of the highest of finite logits (C, h, w), and where that is not certain."""
    classes, *grid = logits.shape
    cells = [max(1, _PIXELS * points // pixels) for points, pixels in zip(grid, size, strict=True)]
    slack = float(logits.abs().max()) * _ROUNDING
    kept = _contenders(logits, slack, cells)  # (C, tiles down, tiles across)
    down, across = (list(_tiles(*axis)) for axis in zip(grid, size, cells, strict=True))
    found = torch.empty(size, dtype=torch.int64)
    uncertain = torch.zeros(size, dtype=torch.bool)
    rivals = torch.zeros(classes, dtype=torch.bool)
    for i, rows in enumerate(down):
        for j, columns in enumerate(across):
            some = kept[:, i, j].nonzero().flatten()  # (k,)
            place = (rows.pixels, columns.pixels)
            if len(some) == 1:
                found[place] = some
                continue
            block = logits[some, rows.points, columns.points]  # (k, points down, points across)
            scores = rows.weights @ (block @ columns.weights.T)  # (k, pixels down, pixels across)
            near = scores >= scores.amax(0) - slack
            found[place], close = _first_and_more(near, some)
            if close.any():
                uncertain[place] = close
                rivals[some[(near & close).flatten(1).any(1)]] = True
    return _Decided(found, uncertain, rivals)


def _first_and_more(near: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Of flags (k, ., .) the number (k,) of one that is set, and where more than one is."""
    kind = torch.uint8 if len(numbers) < 256 else torch.int16  # argmax of bytes takes ten times as long as this
    flags = near.to(kind)
    last = (flags * torch.arange(len(flags), dtype=kind)[:, None, None]).amax(0)
    return numbers[last.long()], flags.sum(0, dtype=kind) > 1


def axis_weights(grid: int, length: int) -> Tensor:
    """How much each of `grid` points counts at each pixel of an upsampled axis, (length, grid): at most two do.

    It is what torch makes of unit vectors.

    >>> axis_weights(2, 4).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    return F.interpolate(torch.eye(grid)[None], length, mode="linear", align_corners=False)[0].T


def _tiles(grid: int, length: int, cells: int) -> Iterator[_Tile]:
    """The tiles of so many cells along an axis of `grid` points and `length` pixels."""
    weights = axis_weights(grid, length)
    cell = (weights != 0).to(torch.uint8).argmax(1).clamp(max=grid - 2)  # (length,): that a pixel lies in
    for start in range(0, grid - 1, cells):
        first, last = torch.searchsorted(cell, torch.tensor([start, start + cells])).tolist()
        points = slice(start, min(start + cells + 1, grid))
        yield _Tile(slice(first, last), points, weights[first:last, points].contiguous())


def _contenders(logits: Tensor, slack: float, cells: list[int]) -> Tensor:
    """Which classes may win somewhere in each tile, (C, tiles down, tiles across) bool.

    A class that lies below the mean of the four corners' winners at all corners of a cell lies below it in between.
    """
    _, height, width = logits.shape
    corners = [(slice(y, height - 1 + y), slice(x, width - 1 + x)) for y in (0, 1) for x in (0, 1)]
    winner = logits.argmax(0)  # (h, w)
    winners = torch.stack([winner[corner] for corner in corners])  # (4, h - 1, w - 1)
    ahead = torch.full_like(logits[:, 1:, 1:], -torch.inf)
    for rows, columns in corners:
        here = logits[:, rows, columns]  # (C, h - 1, w - 1)
        torch.maximum(ahead, here - here.gather(0, winners).mean(0), out=ahead)
    highest: Tensor = F.max_pool2d(ahead, cells, ceil_mode=True)
    return highest >= -slack
