"""AutoAugment's policy for ImageNet (1805.09501, appendix), on bytes and bit for bit as Pillow computes it.

Draw first (`draw_auto`), apply after (`apply_auto`).  Images are uint8, (3, H, W), RGB, of NumPy.

Seven of the fourteen operations change single channels by their value: each is a table of 256 entries a channel.
Tables compose, and the histogram after a table is the one before it, moved, so that a chain of them is one histogram
and one pass over the image.  Written with small calls of torch the same takes twenty times as long on a CPU.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bytes = NDArray[np.uint8]

LEVELS = 10  # of an operation's strength
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


class AutoDraw(NamedTuple):
    """The random choices of one image, or, stacked, of each image of a batch (leading dimension B)."""

    policy: Tensor  # int64: which sub-policy
    applied: Tensor  # (2,) bool: whether its operations are applied
    signs: Tensor  # (2,) int64, -1 or 1: the direction of those that have one


def draw_auto(rng: torch.Generator) -> AutoDraw:
    """A sub-policy, each as likely as another, a coin of its own for each operation, and a direction."""
    chosen = torch.randint(len(POLICY), (), generator=rng)
    probabilities = torch.tensor([operation.probability for operation in POLICY[int(chosen)]])
    return AutoDraw(
        policy=chosen,
        applied=torch.rand(2, generator=rng) <= probabilities,
        signs=2 * torch.randint(2, (2,), generator=rng) - 1,
    )


def apply_auto(image: Bytes, draw: AutoDraw) -> Bytes:
    """An image (3, H, W) after the operations that were drawn for it."""
    pair = POLICY[int(draw.policy)]
    chosen = zip(pair, draw.applied.tolist(), draw.signs.tolist(), strict=True)
    return augment(image, [(operation.name, operation.level, sign) for operation, applied, sign in chosen if applied])


def augment(image: Bytes, operations: list[tuple[str, int, int]]) -> Bytes:
    """An image (3, H, W) after operations (name, level 0 .. 9, sign -1 or 1), one after the other.

    Names are those of `TABLES` and `PIXELS`.

    >>> augment(np.full((3, 2, 2), 200, dtype=np.uint8), [("invert", 0, 1), ("posterize", 8, 1)])[0]
    array([[48, 48],
           [48, 48]], dtype=uint8)
    """
    state = _Tabled(image)
    for name, level, sign in operations:
        if name in TABLES:
            state = state.then(TABLES[name](state, level, sign))
        else:
            state = _Tabled(PIXELS[name](state.pixels(), level, sign))
    return state.pixels()


class _Tabled:
    """An image, and a table of each channel (3, 256) that is still to be applied to it."""

    def __init__(self, image: Bytes, table: Bytes | None = None, counts: NDArray[np.int64] | None = None) -> None:
        self.image, self.table, self.counts = image, table, counts

    def then(self, table: Bytes) -> "_Tabled":
        """The same image with one table more."""
        if self.table is not None:
            table = np.take_along_axis(table, self.table.astype(np.intp), axis=1)
        return _Tabled(self.image, table, self.counts)

    def histogram(self) -> NDArray[np.int64]:
        """How many pixels of each channel have each value, (3, 256), once the table is applied."""
        if self.counts is None:
            self.counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in self.image])
        if self.table is None:
            return self.counts
        moved = np.zeros_like(self.counts)
        np.add.at(moved, (np.arange(3)[:, None], self.table), self.counts)
        return moved

    def pixels(self) -> Bytes:
        """The image (3, H, W) with its table applied."""
        if self.table is not None:
            self.image = np.stack([table[channel] for table, channel in zip(self.table, self.image, strict=True)])
            self.table = self.counts = None
        return self.image


_VALUES = np.arange(256)


def _in_all(table: NDArray[np.integer]) -> Bytes:
    """One table (256,) for all channels."""
    return np.broadcast_to(table.astype(np.uint8), (3, 256))


# Strengths, by level


def _share(level: int, most: float) -> float:
    """The level's place in ten even steps from 0 to `most`."""
    return most * level / (LEVELS - 1)


def _factor(level: int, sign: int) -> float:
    """Of brightness, contrast, colour and sharpness; 1 changes nothing."""
    return 1 + sign * _share(level, 0.9)


def _bits(level: int) -> int:
    """Of posterize: 8 down to 4."""
    return 8 - round(level / ((LEVELS - 1) / 4))


def _threshold(level: int) -> float:
    """Of solarize."""
    return 256 - _share(level, 256)


# By value: the table (3, 256) of an operation


def _posterize(state: _Tabled, level: int, sign: int) -> Bytes:
    return _in_all(_VALUES & ~(2 ** (8 - _bits(level)) - 1))


def _solarize(state: _Tabled, level: int, sign: int) -> Bytes:
    return _in_all(np.where(_threshold(level) > _VALUES, _VALUES, 255 - _VALUES))


def _invert(state: _Tabled, level: int, sign: int) -> Bytes:
    return _in_all(255 - _VALUES)


def _brightness(state: _Tabled, level: int, sign: int) -> Bytes:
    return _in_all(_blend(np.zeros(256, dtype=np.uint8), _VALUES.astype(np.uint8), _factor(level, sign)))


def _contrast(state: _Tabled, level: int, sign: int) -> Bytes:
    """A blend with the mean of the luma, which no histogram of channels knows."""
    luma = _luma(state.pixels())
    mean = int(float(luma.sum(dtype=np.int64)) / luma.size + 0.5)
    return _in_all(_blend(np.full(256, mean, dtype=np.uint8), _VALUES.astype(np.uint8), _factor(level, sign)))


def _autocontrast(state: _Tabled, level: int, sign: int) -> Bytes:
    """Each channel stretched from its least to its largest value."""
    return np.stack([_stretched(counts) for counts in state.histogram()])


def _stretched(counts: NDArray[np.int64]) -> Bytes:
    there = np.flatnonzero(counts)
    low, high = int(there[0]), int(there[-1])
    if high <= low:
        return _VALUES.astype(np.uint8)
    scale = 255.0 / (high - low)
    return (_VALUES * scale + -low * scale).astype(np.int64).clip(0, 255).astype(np.uint8)


def _equalize(state: _Tabled, level: int, sign: int) -> Bytes:
    """Each channel's values spread evenly."""
    return np.stack([_spread(counts) for counts in state.histogram()])


def _spread(counts: NDArray[np.int64]) -> Bytes:
    there = np.flatnonzero(counts)
    step = int(counts.sum() - counts[there[-1]]) // 255
    if len(there) <= 1 or not step:
        return _VALUES.astype(np.uint8)
    below = np.cumsum(counts) - counts  # pixels of smaller values
    return ((step // 2 + below) // step).clip(max=255).astype(np.uint8)


# By colour and place: the image (3, H, W) after an operation


def _color(image: Bytes, level: int, sign: int) -> Bytes:
    return _blend(_luma(image), image, _factor(level, sign))


def _sharpness(image: Bytes, level: int, sign: int) -> Bytes:
    """A blend with the image smoothed by weights of 1 around a 5, over 13; border pixels are not smoothed."""
    smooth = image.copy()
    if min(image.shape[1:]) > 2:
        wide = image.astype(np.int32)
        rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
        sums = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * wide[:, 1:-1, 1:-1]
        smooth[:, 1:-1, 1:-1] = (2 * sums + 13) // 26  # to the nearest; a half cannot occur
    return _blend(smooth, image, _factor(level, sign))


def _shear_x(image: Bytes, level: int, sign: int) -> Bytes:
    return _affine(image, (1, sign * _share(level, 0.3), 0, 0, 1, 0))


def _shear_y(image: Bytes, level: int, sign: int) -> Bytes:
    return _affine(image, (1, 0, 0, sign * _share(level, 0.3), 1, 0))


def _translate_x(image: Bytes, level: int, sign: int) -> Bytes:
    return _affine(image, (1, 0, sign * _share(level, 150 / 331) * image.shape[2], 0, 1, 0))


def _translate_y(image: Bytes, level: int, sign: int) -> Bytes:
    return _affine(image, (1, 0, 0, 0, 1, sign * _share(level, 150 / 331) * image.shape[1]))


def _rotate(image: Bytes, level: int, sign: int) -> Bytes:
    """About the middle, by up to 30 degrees; a positive sign turns anticlockwise."""
    angle = -math.radians(sign * _share(level, 30) % 360)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    y, x = image.shape[1] / 2, image.shape[2] / 2
    return _affine(image, (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y))


def _luma(image: Bytes) -> Bytes:
    """ITU-R 601 in sixteen bits, (H, W)."""
    red, green, blue = image.astype(np.uint32)
    luma: Bytes = ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).astype(np.uint8)
    return luma


def _blend(first: Bytes, second: Bytes, factor: float) -> Bytes:
    """The first plus `factor` times the difference, in float32, cut off below the point."""
    step = np.float32(factor)
    mixed: NDArray[np.float32] = first + step * (second.astype(np.int16) - first).astype(np.float32)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _affine(image: Bytes, matrix: tuple[float, float, float, float, float, float]) -> Bytes:
    """Each pixel taken from (a x + b y + c, d x + e y + f), the nearest pixel there, or 0 beyond the edges."""
    a, b, c, d, e, f = matrix
    height, width = image.shape[1:]
    y, x = np.ogrid[:height, :width]
    if b == d == 0:  # Pillow takes another way there, with other last digits
        source_x, source_y = np.floor(a * (x + 0.5) + c), np.floor(e * (y + 0.5) + f)
        columns, rows = source_x.astype(np.int64), source_y.astype(np.int64)
    else:  # in 16.16 bits, as Pillow goes along a row
        fixed = [
            math.floor(65536.0 * value + 0.5) for value in (a, b, c + 0.5 * a + 0.5 * b, d, e, f + 0.5 * d + 0.5 * e)
        ]
        columns = (fixed[2] + fixed[0] * x + fixed[1] * y) >> 16
        rows = (fixed[5] + fixed[3] * x + fixed[4] * y) >> 16
    # a negative number becomes a large one, so that one comparison serves both edges
    inside = (columns.view(np.uint64) < width) & (rows.view(np.uint64) < height)
    places = np.where(inside, rows * width + columns, height * width)
    pixels = np.zeros((3, height * width + 1), dtype=np.uint8)  # the last is what lies beyond
    pixels[:, :-1] = image.reshape(3, -1)
    return np.stack([channel[places] for channel in pixels])


TABLES: dict[str, Callable[[_Tabled, int, int], Bytes]] = {
    "posterize": _posterize, "solarize": _solarize, "invert": _invert, "equalize": _equalize,
    "autocontrast": _autocontrast, "brightness": _brightness, "contrast": _contrast,
}  # fmt: skip
PIXELS: dict[str, Callable[[Bytes, int, int], Bytes]] = {
    "color": _color, "sharpness": _sharpness, "rotate": _rotate, "shear_x": _shear_x, "shear_y": _shear_y,
    "translate_x": _translate_x, "translate_y": _translate_y,
}  # fmt: skip
