"""AutoAugment's policy for ImageNet (1805.09501, appendix), on bytes and bit for bit as Pillow computes it.

Draw first (`draw_auto`), apply after (`apply_auto`).  Images are uint8, (3, H, W), RGB, of NumPy.

Seven of the fourteen operations change single channels by their value: each is a table of 256 entries a channel.
Tables compose, and the histogram after a table is the one before it, moved, so that a chain of them is one histogram
and one pass over the image.  Written with small calls of torch the same takes twenty times as long on a CPU.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bytes = NDArray[np.uint8]
Step = tuple[str, int, int]  # an operation, its level 0 .. 9, and a direction of -1 or 1

LEVELS = 10  # of an operation's strength
_KEPT = 2**16  # pixels of images for which it is kept where an operation takes them from
_SMALL = 2**13  # sides up to which places in 16.16 bits fit into 32: they stay below three times the side
# (operation, probability, level) twice; what has no level has 0
_PAIRS = """
posterize .4 8, rotate .6 9
solarize .6 5, autocontrast .6 0
equalize .8 0, equalize .6 0
posterize .6 7, posterize .6 6
equalize .4 0, solarize .2 4
equalize .4 0, rotate .8 8
solarize .6 3, equalize .6 0
posterize .8 5, equalize 1 0
rotate .2 3, solarize .6 8
equalize .6 0, posterize .4 6
rotate .8 8, color .4 0
rotate .4 9, equalize .6 0
equalize 0 0, equalize .8 0
invert .6 0, equalize 1 0
color .6 4, contrast 1 8
rotate .8 8, color 1 2
color .8 8, solarize .8 7
sharpness .4 7, invert .6 0
shear_x .6 5, equalize 1 0
color .4 0, equalize .6 0
equalize .4 0, solarize .2 4
solarize .6 5, autocontrast .6 0
invert .6 0, equalize 1 0
color .6 4, contrast 1 8
equalize .8 0, equalize .6 0
"""


class Operation(NamedTuple):
    """One step of a sub-policy."""

    name: str
    probability: float
    level: int  # 0 .. 9


def _operation(words: str) -> Operation:
    name, probability, level = words.split()
    return Operation(name, float(probability), int(level))


POLICY = tuple(tuple(map(_operation, line.split(","))) for line in _PAIRS.strip().splitlines())  # 25 pairs
_PROBABILITIES = torch.tensor([[operation.probability for operation in pair] for pair in POLICY])  # (25, 2)


class AutoDraw(NamedTuple):
    """The random choices of one image, or, stacked, of each image of a batch (leading dimension B)."""

    policy: Tensor  # int64: which sub-policy
    applied: Tensor  # (2,) bool: whether its operations are applied
    signs: Tensor  # (2,) int64, -1 or 1: the direction of those that have one


def draw_auto(rng: torch.Generator) -> AutoDraw:
    """A sub-policy, each as likely as another, a coin of its own for each operation, and a direction."""
    chosen = torch.randint(len(POLICY), (), generator=rng)
    return AutoDraw(
        policy=chosen,
        applied=torch.rand(2, generator=rng) <= _PROBABILITIES[int(chosen)],
        signs=2 * torch.randint(2, (2,), generator=rng) - 1,
    )


def no_auto() -> AutoDraw:
    """The draw that leaves an image as it is."""
    return AutoDraw(torch.tensor(0), torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.int64))


def chosen_steps(draw: AutoDraw) -> list[Step]:
    """The operations that were drawn for an image."""
    chosen = zip(POLICY[int(draw.policy)], draw.applied.tolist(), draw.signs.tolist(), strict=True)
    return [(operation.name, operation.level, sign) for operation, applied, sign in chosen if applied]


def apply_auto(image: Bytes, draw: AutoDraw) -> Bytes:
    """An image (3, H, W) after the operations that were drawn for it."""
    return augment(image, chosen_steps(draw))


def augment(image: Bytes, operations: list[Step]) -> Bytes:
    """An image (3, H, W) after operations (name, level 0 .. 9, sign -1 or 1), one after the other.

    Names are those of `FIXED`, `TABLES`, `MATRICES` and `PIXELS`.

    >>> augment(np.full((3, 2, 2), 200, dtype=np.uint8), [("invert", 0, 1), ("posterize", 8, 1)])[0]
    array([[48, 48],
           [48, 48]], dtype=uint8)
    """
    state = _Tabled(image)
    for name, level, sign in operations:
        if name in FIXED:
            state = state.then(FIXED[name](level, sign)[None])
        elif name in TABLES:
            state = state.then(TABLES[name](state, level, sign))
        elif name in MATRICES:
            state = _Tabled(_affine(state.pixels(), MATRICES[name](level, sign, *image.shape[1:])))
        else:
            state = _Tabled(PIXELS[name](state.pixels(), level, sign))
    return state.pixels()


class _Tabled:
    """An image, and tables that are still to be applied to it: (3, 256), or (1, 256) for all channels alike."""

    def __init__(self, image: Bytes, table: Bytes | None = None, counts: NDArray[np.int64] | None = None) -> None:
        self.image, self.table, self.counts = image, table, counts

    def then(self, table: Bytes) -> "_Tabled":
        """The same image with one table more."""
        if self.table is not None:
            before = self.table.astype(np.intp)
            table = table[0][before] if len(table) == 1 else table[_CHANNELS[:, None], before]
        return _Tabled(self.image, table, self.counts)

    def histogram(self) -> NDArray[np.int64]:
        """How many pixels of each channel have each value, (3, 256), once the table is applied."""
        if self.counts is None:
            self.counts = np.empty((3, 256), dtype=np.int64)
            for counts, channel in zip(self.counts, self.image.reshape(3, -1), strict=True):
                # on bytes it takes half the time of NumPy's
                counts[:] = torch.from_numpy(channel).bincount(minlength=256).numpy()
        if self.table is None:
            return self.counts
        places = (self.table + _FIRST).ravel()  # as weights counts are exact up to 2 ** 53
        return np.bincount(places, self.counts.ravel(), 768).astype(np.int64).reshape(3, 256)

    def pixels(self) -> Bytes:
        """The image (3, H, W) with its table applied."""
        if self.table is not None:
            # Python's own loop over bytes is four times as quick as NumPy's
            if len(self.table) == 1:
                changed = bytearray(self.image).translate(self.table.tobytes())
            else:
                pairs = zip(self.image, self.table, strict=True)
                changed = bytearray().join(bytearray(channel).translate(table.tobytes()) for channel, table in pairs)
            self.image = np.frombuffer(changed, dtype=np.uint8).reshape(self.image.shape)
            self.table = self.counts = None
        return self.image


_VALUES = np.arange(256)
_CHANNELS = np.arange(3)
_FIRST = 256 * _CHANNELS[:, None]  # of a channel's bins where those of all lie in a row


# Strengths, by level


def _share(level: int, most: float) -> float:
    """The level's place in ten even steps from 0 to `most`."""
    return most * level / (LEVELS - 1)


def factor(level: int, sign: int) -> float:
    """Of brightness, contrast, colour and sharpness; 1 changes nothing."""
    return 1 + sign * _share(level, 0.9)


def _bits(level: int) -> int:
    """Of posterize: 8 down to 4."""
    return 8 - round(level / ((LEVELS - 1) / 4))


def _threshold(level: int) -> float:
    """Of solarize."""
    return 256 - _share(level, 256)


# By value: the table (256,) of an operation that asks nothing of the image


def _posterize(level: int, sign: int) -> Bytes:
    table: Bytes = (_VALUES & ~(2 ** (8 - _bits(level)) - 1)).astype(np.uint8)
    return table


def _solarize(level: int, sign: int) -> Bytes:
    return np.where(_threshold(level) > _VALUES, _VALUES, 255 - _VALUES).astype(np.uint8)


def _invert(level: int, sign: int) -> Bytes:
    return (255 - _VALUES).astype(np.uint8)


def _brightness(level: int, sign: int) -> Bytes:
    return _blend(np.zeros(256, dtype=np.uint8), _VALUES.astype(np.uint8), factor(level, sign))


# By value: the table (3, 256), or (1, 256) for all channels, of one that does


def _contrast(state: _Tabled, level: int, sign: int) -> Bytes:
    """A blend with the mean of the luma, which no histogram of channels knows."""
    luma = _luma(state.pixels())
    mean = int(float(luma.sum(dtype=np.int64)) / luma.size + 0.5)
    return _blend(np.full(256, mean, dtype=np.uint8), _VALUES.astype(np.uint8), factor(level, sign))[None]


def _autocontrast(state: _Tabled, level: int, sign: int) -> Bytes:
    """Each channel stretched from its least to its largest value."""
    counts = state.histogram()
    there = counts > 0
    low, high = there.argmax(1)[:, None], 255 - there[:, ::-1].argmax(1)[:, None]  # (3, 1)
    scale = 255.0 / np.maximum(high - low, 1)
    stretched = (_VALUES * scale + -low * scale).astype(np.int64).clip(0, 255)  # (3, 256)
    return np.where(high > low, stretched, _VALUES).astype(np.uint8)


def _equalize(state: _Tabled, level: int, sign: int) -> Bytes:
    """Each channel's values spread evenly."""
    counts = state.histogram()
    below = counts.cumsum(1)  # (3, 256): pixels of no larger values
    pixels = int(below[0, -1])
    largest = (below == pixels).argmax(1)  # (3,): the largest value that there is
    steps = (pixels - counts[_CHANNELS, largest]) // 255  # (3,)
    below -= counts  # of smaller values
    below += (steps // 2)[:, None]
    # a quotient of whole numbers below 2 ** 53 is cut off where it should be, and comes quicker than one of integers
    spread: Bytes = np.minimum(below / np.maximum(steps, 1)[:, None], 255).astype(np.uint8)
    if not steps.all():  # few pixels, or all of one value
        spread[steps == 0] = _VALUES
    return spread


# By colour and place: the image (3, H, W) after an operation


def _color(image: Bytes, level: int, sign: int) -> Bytes:
    return _blend(_luma(image), image, factor(level, sign))


def _sharpness(image: Bytes, level: int, sign: int) -> Bytes:
    """A blend with the image smoothed by weights of 1 around a 5, over 13; border pixels are not smoothed."""
    smooth = image.copy()
    if min(image.shape[1:]) > 2:
        wide = image.astype(np.int32)
        rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
        sums = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * wide[:, 1:-1, 1:-1]
        smooth[:, 1:-1, 1:-1] = (2 * sums + 13) // 26  # to the nearest; a half cannot occur
    return _blend(smooth, image, factor(level, sign))


def _luma(image: Bytes) -> Bytes:
    """ITU-R 601 in sixteen bits, (H, W): sums of 24 bits, which float32 holds."""
    red, green, blue = image.astype(np.float32)
    red *= np.float32(19595 / 65536)
    green *= np.float32(38470 / 65536)
    blue *= np.float32(7471 / 65536)
    red += green
    red += blue
    red += np.float32(0.5)
    luma: Bytes = red.astype(np.uint8)
    return luma


def _blend(first: Bytes, second: Bytes, factor: float) -> Bytes:
    """The first plus `factor` times the difference, in float32, cut off below the point."""
    start, mixed = first.astype(np.float32), second.astype(np.float32)
    mixed -= start
    mixed *= np.float32(factor)
    mixed += start
    np.clip(mixed, 0, 255, out=mixed)
    return mixed.astype(np.uint8)


Matrix = tuple[float, float, float, float, float, float]


def _affine(image: Bytes, matrix: Matrix) -> Bytes:
    """Each pixel taken from (a x + b y + c, d x + e y + f), the nearest pixel there, or 0 beyond the edges."""
    height, width = image.shape[1:]
    places = _kept_places(matrix, height, width) if height * width <= _KEPT else _places(matrix, height, width)
    flat = np.zeros((3, height * width + 1), dtype=np.uint8)
    flat[:, :-1] = image.reshape(3, -1)
    moved: Bytes = flat.take(places, axis=1)
    return moved


def _places(matrix: Matrix, height: int, width: int) -> NDArray[np.intp]:
    """The place in a line of all pixels that each pixel (H, W) is taken from; beyond the edges one after the last."""
    columns, rows = _sources(matrix, height, width)
    # a negative number becomes a large one, so that one comparison serves both edges
    unsigned = np.dtype(f"u{columns.itemsize}")
    inside = (columns.view(unsigned) < width) & (rows.view(unsigned) < height)  # (H, W)
    return np.where(inside, rows * width + columns, height * width).astype(np.intp)


_kept_places = lru_cache(maxsize=32)(_places)  # of 16 MiB at the most; a policy has few matrices, and views few sizes


def _sources(matrix: Matrix, height: int, width: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The column and the row that each pixel is taken from, which broadcast to (H, W)."""
    dtype: type[np.signedinteger[Any]] = np.int32 if max(height, width) < _SMALL else np.int64  # half the bytes
    if is_straight(matrix):
        columns, rows = straight_sources(matrix, height, width)
        return columns.astype(dtype), rows.astype(dtype)[:, None]
    x: NDArray[Any] = np.arange(width, dtype=dtype)
    y: NDArray[Any] = np.arange(height, dtype=dtype)[:, None]
    fixed = fixed_point(matrix)
    columns, rows = ((start + across * x) + down * y for across, down, start in (fixed[:3], fixed[3:]))
    return np.right_shift(columns, 16, out=columns), np.right_shift(rows, 16, out=rows)


def is_straight(matrix: Matrix) -> bool:
    """Whether rows stay rows: Pillow takes another way there, with other last digits."""
    return matrix[1] == matrix[3] == 0


def straight_sources(matrix: Matrix, height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The columns (W,) and the rows (H,) that pixels are taken from where rows stay rows."""
    a, _, c, _, e, f = matrix
    columns, rows = (
        np.floor(scale * (np.arange(length) + 0.5) + start) for scale, start, length in ((a, c, width), (e, f, height))
    )
    return columns.astype(np.int64), rows.astype(np.int64)


def fixed_point(matrix: Matrix) -> tuple[int, ...]:
    """The matrix, of pixels' middles, in 16.16 bits, as Pillow goes along a row."""
    a, b, c, d, e, f = matrix
    return tuple(
        math.floor(65536.0 * each + 0.5) for each in (a, b, c + 0.5 * a + 0.5 * b, d, e, f + 0.5 * d + 0.5 * e)
    )


# By place: the matrix of `_affine`, for images of a height and a width


def _shear_x(level: int, sign: int, height: int, width: int) -> Matrix:
    return 1, sign * _share(level, 0.3), 0, 0, 1, 0


def _shear_y(level: int, sign: int, height: int, width: int) -> Matrix:
    return 1, 0, 0, sign * _share(level, 0.3), 1, 0


def _translate_x(level: int, sign: int, height: int, width: int) -> Matrix:
    return 1, 0, sign * _share(level, 150 / 331) * width, 0, 1, 0


def _translate_y(level: int, sign: int, height: int, width: int) -> Matrix:
    return 1, 0, 0, 0, 1, sign * _share(level, 150 / 331) * height


def _rotate(level: int, sign: int, height: int, width: int) -> Matrix:
    """About the middle, by up to 30 degrees; a positive sign turns anticlockwise."""
    angle = -math.radians(sign * _share(level, 30) % 360)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    y, x = height / 2, width / 2
    return cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y


FIXED: dict[str, Callable[[int, int], Bytes]] = {
    "posterize": _posterize, "solarize": _solarize, "invert": _invert, "brightness": _brightness,
}  # fmt: skip
TABLES: dict[str, Callable[[_Tabled, int, int], Bytes]] = {
    "equalize": _equalize, "autocontrast": _autocontrast, "contrast": _contrast,
}  # fmt: skip
MATRICES: dict[str, Callable[[int, int, int, int], Matrix]] = {
    "rotate": _rotate, "shear_x": _shear_x, "shear_y": _shear_y, "translate_x": _translate_x,
    "translate_y": _translate_y,
}  # fmt: skip
PIXELS: dict[str, Callable[[Bytes, int, int], Bytes]] = {"color": _color, "sharpness": _sharpness}
