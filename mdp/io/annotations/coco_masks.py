"""The pixels of COCO's segmentations: polygons and run lengths, as pycocotools decodes them.

COCO defines both by its program rather than in words, so the rules are that program's: a polygon is traced on a grid
five times as fine, column by column; runs go down the columns, and begin with pixels that are not set.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mdp.io.annotations.patches import Patch, cropped

_FINE = 5  # fine steps a pixel
_MIDDLE = 2  # the fine step of a pixel's column, or row, after which its centre is passed
_TRACED = 2**23  # fine steps of an outline; those of an 8k x 8k photo's border are 160,000
_FAR = 10**6  # pixels: coordinates further out are no outline of anything in a photo


def polygon_patch(corners: Sequence[float], size: tuple[int, int]) -> Patch:
    """The pixels of a polygon `[x0, y0, x1, y1, ...]` in a photo of that size (H, W).

    What lies outside of the photo is cut off; where the outline crosses itself, inside is what an odd number of
    crossings away from outside.  Raises ValueError for fewer than three corners and for numbers that are none.

    >>> polygon_patch([1, 0, 3, 0, 3, 2, 1, 2], (3, 4)).mask.shape
    (2, 2)
    """
    x, y = np.trunc(_FINE * _corners(corners) + 0.5).astype(np.int64)  # (N,)
    u, v = _outline(x, y)
    ahead, behind = u[1:], u[:-1]
    crossed = np.where(ahead < behind, ahead, ahead - 1) - _MIDDLE  # the fine column before which it changes over
    column, row = crossed // _FINE, -((_MIDDLE - np.minimum(v[1:], v[:-1])) // _FINE)  # rows round up
    height, width = size
    kept = (ahead != behind) & (crossed % _FINE == 0) & (column >= 0) & (column < width)
    return _between(column[kept], row[kept].clip(0, height))


def _corners(corners: Sequence[float]) -> NDArray[np.float64]:
    """Coordinates (2, N).  Raises ValueError for what is no polygon."""
    if len(corners) % 2 or len(corners) < 6:
        raise ValueError(f"a polygon has 3 corners or more, x and y for each; got {len(corners)} numbers")
    if not all(type(value) in (int, float) and abs(value) <= _FAR for value in corners):
        raise ValueError(f"expected numbers x0, y0, x1, y1, ... of at most {_FAR}")
    return np.array(corners, dtype=np.float64).reshape(-1, 2).T


def _outline(x: NDArray[np.int64], y: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The fine steps (M,) along a closed outline: each edge from end to end, one step in its longer direction.

    Edges are always computed from the left, or from the top, so that both polygons of a shared edge agree.
    """
    x_end, y_end = np.roll(x, -1), np.roll(y, -1)
    width, height = np.abs(x_end - x), np.abs(y_end - y)
    steep = width < height
    length = np.maximum(width, height)
    if int((length + 1).sum()) > _TRACED:
        raise ValueError("its outline is longer than any in a photo")
    turned = np.where(steep, y > y_end, x > x_end)
    left, right = np.where(turned, x_end, x), np.where(turned, x, x_end)
    top, bottom = np.where(turned, y_end, y), np.where(turned, y, y_end)
    rise = np.where(steep, right - left, bottom - top)
    slope = rise / np.maximum(length, 1)
    edge = np.repeat(np.arange(len(x)), length + 1)  # (M,)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(length + 1) - length - 1, length + 1)
    step = np.where(turned[edge], length[edge] - step, step)
    along = np.where(steep, top, left)[edge] + step
    across = np.trunc(np.where(steep, left, top)[edge] + slope[edge] * step + 0.5).astype(np.int64)
    return np.where(steep[edge], across, along), np.where(steep[edge], along, across)


def _between(column: NDArray[np.int64], row: NDArray[np.int64]) -> Patch:
    """The pixels between crossings: in each column from the first to the second, from the third to the fourth."""
    if not len(column):
        return Patch(0, 0, np.zeros((0, 0), dtype=bool))
    left, top = int(column.min()), int(row.min())
    columns, rows = int(column.max()) - left + 1, int(row.max()) - top + 1
    crossings = np.bincount((row - top) * columns + column - left, minlength=rows * columns) & 1
    inside = np.bitwise_xor.accumulate(crossings.astype(np.uint8).reshape(rows, columns), axis=0)
    return Patch(top, left, inside[:-1].astype(bool))


def runs_patch(counts: Sequence[int], size: tuple[int, int]) -> Patch:
    """The pixels of run lengths: not set, set, not set, ..., down the columns of a photo of that size (H, W).

    Raises ValueError where they do not add up to the photo.

    >>> runs_patch([1, 2, 3], (2, 3)).mask.tolist()
    [[False, True], [True, False]]
    """
    height, width = size
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("expected whole numbers of pixels")
    if sum(counts) != height * width:
        raise ValueError(f"its runs add up to {sum(counts)} pixels; {width} x {height} are {height * width}")
    set_ = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return cropped(set_.reshape(width, height).T)


def counts_of(text: str) -> list[int]:
    """The run lengths of COCO's compressed form.  Raises ValueError for what is not that.

    Each is a number of 5 bits a character, the lowest first; from the fourth on it is the difference from the one
    before the last.

    >>> counts_of("52203")
    [5, 2, 2, 2, 5]
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 30:
            raise ValueError("damaged run lengths")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:  # more follows
            continue
        if code & 16:  # negative
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("damaged run lengths: they end in the middle of a number")
    return counts
