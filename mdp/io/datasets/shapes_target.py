"""Generated scenes, a third taxonomy in another light: dark, noisy, uneven.

Walls are background here, and all six objects are told apart; the few training images make pretraining worthwhile.
"""

from __future__ import annotations

from pathlib import Path

from mdp.io.datasets._dataset import Pair, Photo, Sample
from mdp.io.datasets._scenes import Style, generated
from mdp.io.files.colormap import voc_colormap
from mdp.label_space import LabelSpace

CLASSES = ("background", "ground", "disc", "ring", "square", "triangle", "cross", "star")
MEANING = {
    "wall-brick": "background",
    "wall-panel": "background",
    "floor-tile": "ground",
    "floor-plank": "ground",
    "disc": "disc",
    "ring": "ring",
    "square": "square",
    "triangle": "triangle",
    "cross": "cross",
    "star": "star",
}
STYLE = Style(texture=0.8, contrast=0.45, brightness=(0.15, 0.6), tint=(0.7, 0.8, 1.0), noise=0.05, shade=1.0)
LABELS = LabelSpace(name="shapes-target", classes=CLASSES, ignore_index=255, colors=voc_colormap(len(CLASSES) + 1)[1:])
SPLITS = {"train": 48, "val": 96}
TRAIN = ("train",)
VAL = "val"
HOME = "it is generated and needs no files"
TERMS = "Drawn by mdp itself: there are no photos, and no terms beyond the licence of mdp."


def samples(root: Path, split: str) -> list[Sample]:
    """Made-up names: the pictures are drawn when they are read."""
    return generated("shapes-target", split, SPLITS[split])


def read(sample: Sample) -> Pair:
    """The picture and its labels, drawn from the sample's name alone."""
    from mdp.io.datasets._rendering import read_scene  # noqa: PLC0415 - it takes NumPy, which names and counts do not

    return read_scene(sample, STYLE, MEANING, CLASSES)


def photo(sample: Sample) -> Photo:
    """The picture alone."""
    return read(sample)[0]
