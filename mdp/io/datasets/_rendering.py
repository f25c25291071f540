"""How the scenes of `_scenes` are drawn."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mdp.io.datasets._dataset import Pair, Sample
from mdp.io.datasets._scenes import OBJECTS, WORLD, Style

SIZE = 96  # pixels, both ways

Image = NDArray[np.uint8]
Field = NDArray[np.float64]


def render(key: tuple[int, ...], style: Style) -> tuple[Image, NDArray[np.uint8]]:
    """An RGB image (96, 96, 3) and its world labels (96, 96), indices into `WORLD`."""
    rng = np.random.default_rng(key)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    horizon = rng.uniform(0.45, 0.75) * SIZE + rng.uniform(-0.15, 0.15) * (x - SIZE / 2)
    wall, floor = int(rng.integers(2)), 2 + int(rng.integers(2))
    world = np.where(y < horizon, wall, floor).astype(np.uint8)
    picture = np.where(
        (y < horizon)[..., None],
        _surface(wall, x, y, rng, style)[..., None] * _colour(rng, style),
        _surface(floor, x, y, rng, style)[..., None] * _colour(rng, style),
    )
    for _ in range(int(rng.integers(2, 4))):
        kind = int(rng.integers(len(OBJECTS)))
        inside = _shape(OBJECTS[kind], x, y, rng)
        world[inside] = 4 + kind
        texture = 1 + 0.15 * np.sin(x / rng.uniform(2, 6) + y / rng.uniform(2, 6))
        picture = np.where(inside[..., None], texture[..., None] * _colour(rng, style), picture)
    corner = rng.choice([-1.0, 1.0], 2)
    light = 1 + style.shade * (corner[0] * (x / SIZE - 0.5) + corner[1] * (y / SIZE - 0.5))
    picture = picture * light[..., None] * np.array(style.tint) + rng.normal(0, style.noise, picture.shape)
    return (picture.clip(0, 1) * 255).astype(np.uint8), world


def _colour(rng: np.random.Generator, style: Style) -> Field:
    return rng.uniform(*style.brightness, 3)


def _surface(kind: int, x: Field, y: Field, rng: np.random.Generator, style: Style) -> Field:
    """The brightness pattern of a wall or floor, about 1."""
    unit = style.texture * rng.uniform(0.8, 1.25)
    x, y = x + rng.uniform(0, 50), y + rng.uniform(0, 50)
    if WORLD[kind] == "wall-brick":
        row = np.floor(y / (6 * unit))
        joint = ((x + 6 * unit * (row % 2)) % (12 * unit) < 1.5) | (y % (6 * unit) < 1.5)
    elif WORLD[kind] == "wall-panel":
        joint = x % (10 * unit) < 1.5
    elif WORLD[kind] == "floor-tile":
        joint = (np.floor(x / (8 * unit)) + np.floor(y / (8 * unit))) % 2 == 0
    else:  # floor-plank: long boards in rows, with a grain
        joint = (y % (7 * unit) < 1.5) | (np.sin(y * 2.1 / unit + 0.4 * np.sin(x / (5 * unit))) > 0.9)
    return np.where(joint, 1 - style.contrast, 1.0)


def _shape(name: str, x: Field, y: Field, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The pixels of one object, at a random place, size and turn."""
    radius = rng.uniform(11, 22)
    centre = rng.uniform(radius / 2, SIZE - radius / 2, 2)
    return inside_of(name, x, y, centre, radius, rng.uniform(0, 2 * np.pi))


def inside_of(name: str, x: Field, y: Field, centre: Field, radius: float, turn: float) -> NDArray[np.bool_]:
    """The pixels of a shape around its centre (x, y), turned by so much."""
    u = (np.cos(turn) * (x - centre[0]) + np.sin(turn) * (y - centre[1])) / radius
    v = (-np.sin(turn) * (x - centre[0]) + np.cos(turn) * (y - centre[1])) / radius
    distance, angle = np.hypot(u, v), np.arctan2(v, u)
    inside: NDArray[np.bool_]
    if name == "disc":
        inside = distance < 0.9
    elif name == "ring":
        inside = (distance < 1) & (distance > 0.55)
    elif name == "square":
        inside = (abs(u) < 0.8) & (abs(v) < 0.8)
    elif name == "triangle":
        inside = (v > -0.5) & (v + np.sqrt(3) * abs(u) < 1)
    elif name == "cross":
        inside = ((abs(u) < 0.3) & (abs(v) < 1)) | ((abs(v) < 0.3) & (abs(u) < 1))
    else:  # star of five points
        inside = distance < 0.45 + 0.55 * abs(((angle * 5 / (2 * np.pi)) % 1) * 2 - 1) ** 1.5
    return inside


def class_table(meaning: Mapping[str, str], classes: tuple[str, ...]) -> NDArray[np.uint8]:
    """World index -> class index, by the name that a dataset gives to each thing of the world."""
    return np.array([classes.index(meaning[thing]) for thing in WORLD], dtype=np.uint8)


def read_scene(sample: Sample, style: Style, meaning: Mapping[str, str], classes: tuple[str, ...]) -> Pair:
    """The picture of a sample and its labels in a dataset's taxonomy, drawn from the sample's name alone."""
    rgb, world = draw(sample.image, style)
    return rgb, class_table(meaning, classes)[world]


def draw(name: str, style: Style) -> tuple[Image, NDArray[np.uint8]]:
    """The picture of that name and its world labels; the caller's to change."""
    picture, world = _drawn(name, style)
    return picture.copy(), world.copy()


@lru_cache(maxsize=2048)  # 75 MB at most; drawing takes as long as a small network's step
def _drawn(name: str, style: Style) -> tuple[Image, NDArray[np.uint8]]:
    dataset, split, index = name.split("/")
    return render((int.from_bytes(dataset.encode()), int.from_bytes(split.encode()), int(index)), style)
