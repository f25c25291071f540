"""Colour-coded label maps: from colours to classes, and the pixels along edges that were drawn smooth.

Where two classes meet, drawing programs mix their colours; what comes out is the colour of no class, or near that of a
third one.  So such a pixel is compared with the colours around it only.

Shape legend: H x W image, K colours of a table, N pixels.
"""

import numpy as np
from numpy.typing import NDArray

REACH = 4  # pixels: a smooth edge is narrower
_TOLERANCE = 3.0  # in a channel, for rounding: how far a mixture may lie from the line between two colours
_MOST_COLORS = 512  # that are compared with all lines
_AT_A_TIME = 2**19  # pixels


def color_codes(rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
    """65536 red + 256 green + blue of colours (..., 3).

    >>> color_codes(np.array([1, 2, 3], dtype=np.uint8))
    np.int32(66051)
    """
    red, green, blue = (rgb[..., channel] for channel in range(3))
    codes: NDArray[np.int32] = red.astype(np.int32) << 8
    codes |= green
    codes <<= 8
    codes |= blue
    return codes


def table_index(codes: NDArray[np.int32], keys: NDArray[np.int32]) -> NDArray[np.intp]:
    """Where each code stands in the sorted keys (K,); -1 where it does not.

    >>> table_index(np.array([7, 8, 9], dtype=np.int32), np.array([7, 9], dtype=np.int32)).tolist()
    [0, -1, 1]
    """
    if not len(keys):
        return np.full(codes.shape, -1)
    pixels = codes.ravel()
    # of neighbours with one colour, as nearly all of a label map's are, only the first is looked for
    first = np.flatnonzero(np.concatenate([[True], pixels[1:] != pixels[:-1]])) if len(pixels) else np.empty(0, int)
    nearest = np.searchsorted(keys, pixels[first]).clip(max=len(keys) - 1)
    found = np.where(keys[nearest] == pixels[first], nearest, -1)
    return np.repeat(found, np.diff(first, append=len(pixels))).reshape(codes.shape)


def nearest_of_neighbours(
    rgb: NDArray[np.uint8], index: NDArray[np.intp], colors: NDArray[np.uint8], reach: int = REACH
) -> NDArray[np.intp]:
    """The index (H, W) with each -1 replaced by the neighbour whose colour is nearest to the pixel's.

    Neighbours are the pixels that have an index, in the smallest square around the pixel that holds one; of equally
    near colours (K, 3) the first of the table is taken.  Where there is none within `reach` pixels, -1 stays.

    >>> row = np.array([[[0, 0, 0], [90, 90, 90], [255, 255, 255]]], dtype=np.uint8)
    >>> nearest_of_neighbours(row, np.array([[0, -1, 1]]), row[0, [0, 2]]).tolist()
    [[0, 0, 1]]
    """
    filled = index.copy()
    table = colors.astype(np.int32)  # (K, 3)
    padded = np.pad(index, reach, constant_values=-1)
    rows, columns = np.nonzero(index < 0)  # (N,)
    for start in range(0, len(rows), _AT_A_TIME):
        y, x = rows[start : start + _AT_A_TIME], columns[start : start + _AT_A_TIME]
        for radius in range(1, reach + 1):
            found = _nearest_on_ring(rgb[y, x].astype(np.int32), padded, y + reach, x + reach, table, radius)
            filled[y, x] = found
            y, x = y[found < 0], x[found < 0]
            if not len(y):
                break
    return filled


def _nearest_on_ring(
    pixels: NDArray[np.int32],
    padded: NDArray[np.intp],
    y: NDArray[np.intp],
    x: NDArray[np.intp],
    table: NDArray[np.int32],
    radius: int,
) -> NDArray[np.intp]:
    """For each pixel (N, 3) the index on the ring around it whose colour is nearest; -1 where the ring has none."""
    best, distance = np.full(len(y), -1), np.full(len(y), np.iinfo(np.int32).max)
    steps = range(-radius, radius + 1)
    for dy, dx in ((dy, dx) for dy in steps for dx in steps if max(abs(dy), abs(dx)) == radius):
        other = padded[y + dy, x + dx]
        far = ((pixels - table[other]) ** 2).sum(axis=1)  # (N,); that of a pixel without an index means nothing
        better = (other >= 0) & ((far < distance) | ((far == distance) & (other < best)))
        best, distance = np.where(better, other, best), np.where(better, far, distance)
    return best


def flat(codes: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether a pixel has the colour of all its eight neighbours (H, W), as on a smooth edge hardly one has.

    >>> flat(np.zeros((3, 3), dtype=np.int32)).tolist()
    [[False, False, False], [False, True, False], [False, False, False]]
    """
    same = np.zeros(codes.shape, dtype=bool)
    if min(codes.shape) >= 3:
        inner = codes[1:-1, 1:-1]
        height, width = inner.shape
        same[1:-1, 1:-1] = np.logical_and.reduce(
            [codes[y : y + height, x : x + width] == inner for y in range(3) for x in range(3)]
        )
    return same


def between(codes: NDArray[np.int32], counts: NDArray[np.int64], keys: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which colours (N,) lie on the line between two of the keys (K,), but for rounding.

    Of very many colours the ones with the most pixels (`counts`) are looked at, and the rest taken to be as most of
    these are.

    >>> between(np.array([0x800000, 0x0000FF], dtype=np.int32), np.array([1, 1]), np.array([0, 0xFF0000]))
    array([ True, False])
    """
    order = np.argsort(-counts, kind="stable")
    looked_at = order[:_MOST_COLORS]
    points, ends = _channels(codes[looked_at]), _channels(keys)
    on_line = np.zeros(len(looked_at), dtype=bool)
    for number in range(len(keys) - 1):
        start, line = ends[number], ends[number + 1 :] - ends[number]  # (K', 3)
        along = (points - start) @ line.T / (line**2).sum(axis=1)  # (N', K')
        foot = start + along.clip(0, 1)[..., None] * line  # (N', K', 3)
        on_line |= (np.abs(points[:, None] - foot).max(axis=2) <= _TOLERANCE).any(axis=1)
    most = bool(counts[looked_at][on_line].sum() * 2 > counts[looked_at].sum())
    result = np.full(len(codes), most)
    result[looked_at] = on_line
    return result


def _channels(codes: NDArray[np.int32]) -> NDArray[np.float32]:
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1).astype(np.float32)
