"""Photos in folders of three categories, each a square of its colour on grey: what colours alone can cluster."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.trees import lines

COLORS = {"cup": (220, 40, 40), "dog": (40, 200, 60), "sky": (50, 60, 230)}
SIDE = 32


def write_site(folder: Path, photos: int = 18) -> Path:
    """Photos (a third of them for validation), label maps and masks; returns site.yaml."""
    rng = np.random.default_rng(0)
    for number in range(photos):
        split, kind = ("train", "val")[number % 3 == 2], number * len(COLORS) // photos
        name, top = list(COLORS)[kind], int(rng.integers(2, 12))
        place = np.zeros((SIDE, SIDE), dtype=bool)
        place[top : top + 16, 4:28] = True
        picture = np.where(place[..., None], COLORS[name], rng.integers(90, 160, (SIDE, SIDE, 1)))
        level = np.where(place, rng.integers(140, 256, place.shape), rng.integers(0, 160, place.shape))
        images = {"": picture, "-labels": place * (1 + kind), "-masks": level}
        for what, pixels in images.items():
            path = folder / f"{split}{what}" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    splits = [f"  {split}: {{images: {split}, labels: {split}-labels}}" for split in ("train", "val")]
    return lines(folder / "site.yaml", ["classes: {0: other, 1: cup, 2: dog, 3: sky}", "splits:", *splits])
