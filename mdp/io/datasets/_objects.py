"""How the photos of shapes-objects are drawn: one object, now and then two, on a ground of noise.

Colours are drawn without regard to the category and all grounds are of one family: the outline and the pattern of the
surface are what tells categories apart.  Things stand upright, give or take a tilt, as in most photos.  Every picture
is a pure function of its name.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mdp.io.datasets._rendering import Image, inside_of

SIZE = 64  # pixels, both ways
SHARES = (0.03, 0.6)  # of the image that a main object covers
SECOND = 0.08  # of the images have a second object of another category
_LEAST_SECOND, _MOST_SECOND = 0.01, 0.12
_TILT = 0.25  # radians, either way
_TRIES = 1000  # beside a main object of 60 % there is little room
AREAS = {"cross": 2.04, "disc": 2.54, "ring": 2.19, "square": 2.56, "star": 1.5, "triangle": 1.3}  # of radius 1


def render(key: tuple[int, ...], category: int, shapes: tuple[str, ...]) -> tuple[Image, NDArray[np.uint16]]:
    """An RGB photo (64, 64, 3) and its labels (64, 64): 0, or 1 and up for the shapes.

    The object of `category` (0 and up) covers the largest part.
    """
    rng = np.random.default_rng(key)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    picture = _ground(rng)
    labels = np.zeros((SIZE, SIZE), dtype=np.uint16)
    main = _placed(shapes[category], x, y, rng, SHARES, np.zeros_like(labels, dtype=bool))
    things = [(category, main)]
    if rng.random() < SECOND:
        other = int(rng.integers(len(shapes) - 1))
        other += other >= category
        shares = _LEAST_SECOND, max(2 * _LEAST_SECOND, min(_MOST_SECOND, float(main.mean()) / 2))
        things.insert(0, (other, _placed(shapes[other], x, y, rng, shares, main)))  # behind the main one
    for kind, inside in things:
        labels[inside] = 1 + kind
        picture = np.where(inside[..., None], _surface(kind, x, y, rng), picture)
    picture = picture + rng.normal(0, 0.02, picture.shape)
    return (picture.clip(0, 1) * 255).astype(np.uint8), labels


def _placed(
    name: str,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    rng: np.random.Generator,
    shares: tuple[float, float],
    front: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """The pixels of an object whose share of the image lies between these, and which `front` hides little of."""
    for _ in range(_TRIES):
        radius = SIZE * np.sqrt(rng.uniform(*shares) / AREAS[name])
        margin = min(0.7 * radius, SIZE / 2)
        inside = inside_of(name, x, y, rng.uniform(margin, SIZE - margin, 2), radius, rng.uniform(-_TILT, _TILT))
        if shares[0] <= inside.mean() <= shares[1] and (inside & front).sum() < 0.3 * inside.sum():
            return inside
    raise AssertionError(f"{name}: found no place that leaves it in sight")


def _ground(rng: np.random.Generator) -> NDArray[np.float64]:
    """Fine noise between two colours that are not far apart, (64, 64, 3)."""
    pattern: NDArray[np.float64] = np.zeros((SIZE, SIZE))
    for cells in (16, 32):
        coarse = rng.normal(0, 1, (cells, cells))
        pattern += np.kron(coarse, np.ones((SIZE // cells, SIZE // cells)))
    pattern = 0.2 + 0.6 * (pattern - pattern.min()) / np.ptp(pattern)
    first, second = _color(rng, 0.3, 0.7), _color(rng, 0.3, 0.7)
    colours: NDArray[np.float64] = pattern[..., None] * first + (1 - pattern[..., None]) * second
    return colours


def _surface(
    kind: int, x: NDArray[np.float64], y: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """The category's pattern in light and dark of one colour, at any place, nearly upright, (64, 64, 3)."""
    turn, scale = rng.uniform(-_TILT, _TILT), rng.uniform(0.8, 1.25)
    u = (np.cos(turn) * x + np.sin(turn) * y) / scale + rng.uniform(0, 50)
    v = (-np.sin(turn) * x + np.cos(turn) * y) / scale + rng.uniform(0, 50)
    patterns = (
        u % 6 < 3,  # stripes that stand
        v % 6 < 3,  # that lie
        (u % 12 < 6) ^ (v % 12 < 6),  # checks
        np.hypot(u % 8 - 4, v % 8 - 4) < 2.4,  # dots
        (u + v) % 8.5 < 4.2,  # stripes that slant
        np.zeros_like(u, dtype=bool),  # plain
    )
    light = np.where(patterns[kind % len(patterns)], 0.35, 1.0)
    colours: NDArray[np.float64] = light[..., None] * _color(rng, 0.6, 0.95)
    return colours


def _color(rng: np.random.Generator, low: float, high: float) -> NDArray[np.float64]:
    """A grey with a tint (3,): full colours, which mean nothing here, were all that a short training saw."""
    color: NDArray[np.float64] = rng.uniform(low, high) + rng.uniform(-0.06, 0.06, 3)
    return color


@lru_cache(maxsize=4096)  # 85 MB at most
def drawn(name: str, shapes: tuple[str, ...]) -> tuple[Image, NDArray[np.uint16]]:
    """Photo and labels of that name, DATASET/SPLIT/SHAPE/NUMBER; not to be changed."""
    dataset, split, shape, index = name.split("/")
    key = (int.from_bytes(dataset.encode()), int.from_bytes(split.encode()), int(index))
    return render(key, shapes.index(shape), shapes)
