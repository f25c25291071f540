"""Generated scenes, named finely: every surface and most shapes are classes of their own.

Crosses and stars are not of interest to this dataset: they are `other`, though shapes-coarse calls them `pointed`.
"""

from __future__ import annotations

from pathlib import Path

from mdp.io.datasets._dataset import Pair, Photo, Sample
from mdp.io.datasets._scenes import Style, generated
from mdp.io.files.colormap import voc_colormap
from mdp.label_space import LabelSpace

CLASSES = ("wall-brick", "wall-panel", "floor-tile", "floor-plank", "disc", "ring", "square", "triangle", "other")
MEANING = {
    "wall-brick": "wall-brick",
    "wall-panel": "wall-panel",
    "floor-tile": "floor-tile",
    "floor-plank": "floor-plank",
    "disc": "disc",
    "ring": "ring",
    "square": "square",
    "triangle": "triangle",
    "cross": "other",
    "star": "other",
}
STYLE = Style(texture=1.4, tint=(0.8, 0.95, 1.0), shade=0.4)
LABELS = LabelSpace(name="shapes-fine", classes=CLASSES, ignore_index=255, colors=voc_colormap(len(CLASSES) + 1)[1:])
SPLITS = {"train": 400, "val": 64}
TRAIN = ("train",)
VAL = "val"
HOME = "it is generated and needs no files"
TERMS = "Drawn by mdp itself: there are no photos, and no terms beyond the licence of mdp."


def samples(root: Path, split: str) -> list[Sample]:
    """Made-up names: the pictures are drawn when they are read."""
    return generated("shapes-fine", split, SPLITS[split])


def read(sample: Sample) -> Pair:
    """The picture and its labels, drawn from the sample's name alone."""
    from mdp.io.datasets._rendering import read_scene  # noqa: PLC0415 - it takes NumPy, which names and counts do not

    return read_scene(sample, STYLE, MEANING, CLASSES)


def photo(sample: Sample) -> Photo:
    """The picture alone."""
    return read(sample)[0]
