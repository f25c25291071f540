"""Generated scenes, named coarsely: one `wall`, one `floor`, and objects by their outline.

A wall here is `wall-brick` or `wall-panel` in shapes-fine and background in shapes-target, as in the paper's example.
"""

from __future__ import annotations

from pathlib import Path

from mdp.io.datasets._dataset import Pair, Photo, Sample
from mdp.io.datasets._scenes import Style, generated
from mdp.io.files.colormap import voc_colormap
from mdp.label_space import LabelSpace

CLASSES = ("wall", "floor", "round", "polygon", "pointed")
MEANING = {
    "wall-brick": "wall",
    "wall-panel": "wall",
    "floor-tile": "floor",
    "floor-plank": "floor",
    "disc": "round",
    "ring": "round",
    "square": "polygon",
    "triangle": "polygon",
    "cross": "pointed",
    "star": "pointed",
}
STYLE = Style(tint=(1.0, 0.92, 0.8))
LABELS = LabelSpace(name="shapes-coarse", classes=CLASSES, ignore_index=255, colors=voc_colormap(len(CLASSES) + 1)[1:])
SPLITS = {"train": 400, "val": 64}
TRAIN = ("train",)
VAL = "val"
HOME = "it is generated and needs no files"
TERMS = "Drawn by mdp itself: there are no photos, and no terms beyond the licence of mdp."


def samples(root: Path, split: str) -> list[Sample]:
    """Made-up names: the pictures are drawn when they are read."""
    return generated("shapes-coarse", split, SPLITS[split])


def read(sample: Sample) -> Pair:
    """The picture and its labels, drawn from the sample's name alone."""
    from mdp.io.datasets._rendering import read_scene  # noqa: PLC0415 - it takes NumPy, which names and counts do not

    return read_scene(sample, STYLE, MEANING, CLASSES)


def photo(sample: Sample) -> Photo:
    """The picture alone."""
    return read(sample)[0]
