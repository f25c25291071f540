"""The pixels of LabelMe's shapes, drawn as labelme itself draws them when it exports a dataset: by Pillow."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mdp.io.annotations.patches import Patch, cropped

LINE_WIDTH = 10  # pixels, of lines
POINT_RADIUS = 5  # pixels, of points

_FAR = 10**6  # pixels: Pillow would work through every row of a circle of that size

Corner = tuple[float, float]  # x, y


def shape_patch(kind: str, points: Sequence[Sequence[float]], size: tuple[int, int]) -> Patch:
    """The pixels of a shape of that kind, whose points are x and y, in a photo of that size (H, W).

    Raises ValueError for an unknown kind, and for points that do not make one of its kind.

    >>> shape_patch("rectangle", [[1, 0], [2, 1]], (3, 4)).mask.shape
    (2, 2)
    """
    if kind not in _DRAWN:
        raise ValueError(f"shapes of type {kind!r} are not drawn; known: mask, {', '.join(_DRAWN)}")
    least, most, draw = _DRAWN[kind]
    corners = _corners(points)
    if not least <= len(corners) <= most:
        needed = f"{least}" if least == most else f"{least} or more"
        raise ValueError(f"a {kind} has {needed} points, got {len(corners)}")
    canvas = Image.new("L", (size[1], size[0]))
    draw(ImageDraw.Draw(canvas), corners)
    return cropped(np.array(canvas, dtype=bool))


def mask_patch(mask: NDArray[np.bool_], points: Sequence[Sequence[float]], size: tuple[int, int]) -> Patch:
    """A mask (h, w) whose first and last pixel are the two points.  Raises ValueError where it does not fit there."""
    corners = _corners(points)
    if len(corners) != 2:
        raise ValueError(f"a mask has 2 points, got {len(corners)}")
    (left, top), (right, bottom) = ((int(x), int(y)) for x, y in corners)
    if min(left, top) < 0 or right >= size[1] or bottom >= size[0]:
        raise ValueError(f"its mask {left},{top}..{right},{bottom} leads out of {size[1]} x {size[0]} pixels")
    if mask.shape != (bottom - top + 1, right - left + 1):
        raise ValueError(
            f"its mask has {mask.shape[1]} x {mask.shape[0]} pixels, its box {left},{top}..{right},{bottom}"
        )
    return Patch(top, left, mask)


def _corners(points: Sequence[Sequence[float]]) -> list[Corner]:
    for point in points:
        fits = isinstance(point, list | tuple) and len(point) == 2
        if not fits or not all(type(part) in (int, float) and abs(part) <= _FAR for part in point):
            raise ValueError(f"expected points [x, y] with numbers of at most {_FAR}")
    return [(x, y) for x, y in points]


def _polygon(draw: ImageDraw.ImageDraw, corners: list[Corner]) -> None:
    draw.polygon(corners, outline=1, fill=1)


def _rectangle(draw: ImageDraw.ImageDraw, corners: list[Corner]) -> None:
    (x0, y0), (x1, y1) = corners
    draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=1, fill=1)


def _circle(draw: ImageDraw.ImageDraw, corners: list[Corner]) -> None:
    """A centre, and a point on the circle."""
    (x, y), (beside_x, beside_y) = corners
    _disc(draw, x, y, math.sqrt((x - beside_x) ** 2 + (y - beside_y) ** 2))


def _point(draw: ImageDraw.ImageDraw, corners: list[Corner]) -> None:
    _disc(draw, *corners[0], POINT_RADIUS)


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=1, fill=1)


def _line(draw: ImageDraw.ImageDraw, corners: list[Corner]) -> None:
    draw.line(corners, fill=1, width=LINE_WIDTH)


_MANY = 10**6
_DRAWN: dict[str, tuple[int, int, Callable[[ImageDraw.ImageDraw, list[Corner]], None]]] = {  # fewest and most points
    "polygon": (3, _MANY, _polygon),
    "oriented_rectangle": (4, 4, _polygon),
    "rectangle": (2, 2, _rectangle),
    "circle": (2, 2, _circle),
    "point": (1, 1, _point),
    "line": (2, 2, _line),
    "linestrip": (1, _MANY, _line),
}
