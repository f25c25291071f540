"""MoCo-v2's photometry in whole numbers: what `photometry.py` does to floats, rounded to bytes after each operation.

For CPUs, which do four times as much at once with numbers of 16 bits as with floats.  A draw means what it means there.
An image is (3, H, W) int16 of levels 0 .. 255, RGB, changed in place.  A strength is a fraction of whole numbers, of
which a level of 255 times the upper one still fits into 16 bits.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdp.core.photometry import PhotometryDraw

Levels = NDArray[np.int16]

_WEIGHTS = (77, 150, 29)  # ITU-R 601 luma, of 256: off by half a level in a colour of red or green alone
_WHOLE = 256  # what the weights of a blur add up to: times 255 it fits into 16 bits without a sign


class Fraction(NamedTuple):
    """The number top / 2 ** bits."""

    top: int
    bits: int

    @property
    def half(self) -> int:
        """Added before the bits are cut off, it makes the cut round."""
        return 1 << self.bits >> 1


def fraction(number: float) -> Fraction:
    """The number, -1 .. 1, with as many bits as a level times it can have, rounded, in 16 of them.

    >>> fraction(0.4), fraction(-1.0)
    (Fraction(top=102, bits=8), Fraction(top=-128, bits=7))
    """
    bits = min(15, 8 - math.frexp(number)[1])
    while 255 * abs(round(number * 2**bits)) + (1 << bits >> 1) >= 2**15:
        bits -= 1
    return Fraction(round(number * 2**bits), bits)


def brightness_(image: Levels, factor: float) -> Levels:
    """Blend with black, by a factor of 0 .. 2."""
    return _blend_(image, 0, factor)


def contrast_(image: Levels, factor: float) -> Levels:
    """Blend with the mean luma of the image, to a whole level."""
    pixels = image[0].size
    sums = image.sum((1, 2), dtype=np.int32 if pixels < 2**23 else np.int64)  # the smaller takes half the time
    red, green, blue = (sums / pixels).tolist()
    return _blend_(image, round(0.299 * red + 0.587 * green + 0.114 * blue), factor)


def saturation_(image: Levels, factor: float) -> Levels:
    """Blend with the luma of each pixel."""
    return _blend_(image, luma(image), factor)


def _blend_(image: Levels, middle: int | Levels, factor: float) -> Levels:
    """The image plus a fraction, factor - 1, of its difference from the middle."""
    share = fraction(factor - 1)
    change = image * share.top
    change += middle * -share.top + share.half
    change >>= share.bits
    image += change
    if factor > 1:  # else a blend lies between what is blended
        np.clip(image, 0, 255, out=image)
    return image


def luma(image: Levels) -> Levels:
    """The luma of each pixel (H, W)."""
    parts = image.view(np.uint16)
    total = parts[0] * _WEIGHTS[0]
    total += parts[1] * _WEIGHTS[1]
    total += parts[2] * _WEIGHTS[2]
    total += 128
    total >>= 8
    level: Levels = total.view(np.int16)
    return level


def hue_(image: Levels, turns: float) -> Levels:
    """Add turns, -1/2 .. 1/2, to the H of HSV.

    As `adjust_hue` does, but for the division: a pixel's place on the hexagon is counted in its own span, of which a
    turn has six.  A third of a turn only renames the channels.
    """
    thirds = round(3 * turns)
    shift = fraction(6 * turns - 2 * thirds)  # sixths of a turn, -1 .. 1
    red, green, blue = image
    top, low = np.maximum(red, green), np.minimum(red, green)  # (H, W) each
    np.maximum(top, blue, out=top)
    np.minimum(low, blue, out=low)
    span = top - low
    place = green - low
    place += blue
    place -= red
    place += span  # 0 .. 3 spans from red,
    sign = green - blue
    sign >>= 15
    place ^= sign
    place -= sign  # backwards where green < blue: -3 .. 3 spans
    moved = np.multiply(span, shift.top, out=sign)
    moved += shift.half
    moved >>= shift.bits
    place += moved
    away = np.empty_like(image)  # spans from each channel's own hue, up to 7
    np.abs(place, out=away[0])
    np.abs(np.subtract(place, 2 * span, out=away[1]), out=away[1])
    np.abs(np.add(place, 2 * span, out=away[2]), out=away[2])
    away -= 3 * span  # from the opposite hue, 3 spans away either way round,
    np.abs(away, out=away)
    away += low - span  # where a channel is at its least until one span away, and rises to the largest at two
    np.maximum(away, low, out=away)
    for channel, level in enumerate(away):
        np.minimum(level, top, out=image[(channel + thirds) % 3])
    return image


def blur(image: Levels, sigma: float) -> Levels:
    """Gaussian blur of an image (K, H, W) by `sigma` pixels, as `gaussian_blur`, with weights to 1/256.

    The padded image is one line, in which neighbours along either axis are steps: rows that end, and paddings for each
    axis of its own, take longer than what is computed of the padding.
    """
    weights = blur_weights(sigma)
    reach = len(weights) - 1
    if not reach:
        return image
    padded = _padded(image, reach)  # (K, H + 2 reach, W + 2 reach)
    down = _smoothed(padded.reshape(-1), weights, padded.shape[2])  # begins with the first row that is none of padding,
    both = _smoothed(down, weights, 1)  # with its first pixel
    padded.reshape(-1)[: both.size] = both
    return padded[:, : image.shape[1], : image.shape[2]].view(np.int16)


def blur_weights(sigma: float) -> list[int]:
    """Weights from the middle outwards, those of both sides add up to 256; an image that they leave has only one.

    >>> blur_weights(1.0), blur_weights(0.1)
    ([102, 62, 14, 1], [256])
    """
    taps = [math.exp(-0.5 * (tap / max(sigma, 1e-3)) ** 2) for tap in range(max(1, math.ceil(3 * sigma)) + 1)]
    total = 2 * sum(taps) - taps[0]
    side = [weight for weight in (round(_WHOLE * tap / total) for tap in taps[1:]) if weight]
    return [_WHOLE - 2 * sum(side), *side]


def _padded(image: Levels, reach: int) -> NDArray[np.uint16]:
    """Edge pixels extended outwards on all sides; a quarter of the time of NumPy's `pad`."""
    channels, height, width = image.shape
    padded = np.empty((channels, height + 2 * reach, width + 2 * reach), dtype=np.uint16)
    rows = padded[:, reach:-reach]
    rows[:, :, reach:-reach] = image
    rows[:, :, :reach] = rows[:, :, reach : reach + 1]
    rows[:, :, -reach:] = rows[:, :, -reach - 1 : -reach]
    padded[:, :reach] = rows[:, :1]
    padded[:, -reach:] = rows[:, -1:]
    return padded


def _smoothed(line: NDArray[np.uint16], weights: list[int], step: int) -> NDArray[np.uint16]:
    """The weighted means of a line's values and of those that are so many steps before and after, where all exist."""
    first = (len(weights) - 1) * step
    count = line.size - 2 * first
    total = line[first : first + count] * weights[0]
    both = np.empty_like(total)
    for distance, weight in enumerate(weights[1:], 1):
        before, after = first - distance * step, first + distance * step
        np.add(line[before : before + count], line[after : after + count], out=both)
        both *= weight
        total += both
    total += _WHOLE // 2
    total >>= 8
    return total


_JITTER: tuple[Callable[[Levels, float], Levels], ...] = (brightness_, contrast_, saturation_, hue_)


def apply_photometry_bytes(image: Tensor, draw: PhotometryDraw) -> Tensor:
    """Jitter, grey, blur of one image (3, H, W) uint8 on the CPU, each where it was drawn; uint8 again."""
    return changed_levels(image, draw).to(torch.uint8).expand(image.shape).contiguous()


def changed_levels(image: Tensor, draw: PhotometryDraw) -> Tensor:
    """The same as int16, and of a grey image one channel: (3, H, W) or (1, H, W)."""
    levels = image.numpy().astype(np.int16)
    factors = draw.factors.tolist()
    for operation in draw.order.tolist() if draw.jitter else ():
        _JITTER[operation](levels, factors[operation])
    if draw.grey:
        levels = luma(levels)[None]
    if draw.sigma > 0:
        levels = blur(levels, float(draw.sigma))
    return torch.from_numpy(levels)
