"""Generated photos of single objects in ImageNet-S's layout: six shapes as categories, all else is "other".

An object covers 3 to 60 % of its photo, and 8 % of the photos have a second one.  As there, `train` is photos alone
in folders of categories, `train-semi` ten of each category with label maps; here those of `test` are known too.
"""

from __future__ import annotations

from pathlib import Path

from mdp.io.datasets._dataset import Pair, Photo, Sample, without_labels
from mdp.io.files.colormap import voc_colormap
from mdp.label_space import LabelSpace

SHAPES = ("cross", "disc", "ring", "square", "star", "triangle")  # in the order of names, as WordNet ids are there
CLASSES = ("other", *SHAPES)
LABELS = LabelSpace(name="shapes-objects", classes=CLASSES, ignore_index=1000, colors=voc_colormap(len(CLASSES)))
SPLITS = {"train-semi": 60, "validation": 240, "train": 1200, "test": 240}
TRAIN = ("train-semi",)
VAL = "validation"
UNLABELLED = frozenset({"train"})
HOME = "it is generated and needs no files"
TERMS = "Drawn by mdp itself: there are no photos, and no terms beyond the licence of mdp."


def samples(root: Path, split: str) -> list[Sample]:
    """Made-up names: the pictures are drawn when they are read."""
    each = SPLITS[split] // len(SHAPES)
    names = [
        f"shapes-objects/{split}/{shape}/{each * kind + index:05d}"
        for kind, shape in enumerate(SHAPES)
        for index in range(each)
    ]
    return [Sample(name, "" if split in UNLABELLED else f"{name} (labels)", "shapes-objects") for name in names]


def read(sample: Sample) -> Pair:
    """The picture and its labels, drawn from the sample's name alone; all ignored where the split has none."""
    from mdp.io.datasets._objects import drawn  # noqa: PLC0415 - it takes NumPy, which names and counts do not

    picture, labels = drawn(sample.image, SHAPES)
    if sample.labels:
        return picture.copy(), labels.copy()
    return without_labels(picture.copy(), LABELS.ignore_index or 0)


def photo(sample: Sample) -> Photo:
    """The picture alone."""
    return read(sample)[0]
