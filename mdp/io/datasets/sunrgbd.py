"""SUN RGB-D, 37 classes, photos only, in the layout of MSeg.

Layout: `SUNRGBD/image/{train,test}/img-000001.jpg`, `SUNRGBD/semseg-label37/{train,test}/00000001.png`; grey PNGs,
255 is unlabelled.  Label maps of 0..37 with 0 for void, as others hand them on, are another edition.
"""

from pathlib import Path

from mdp.io.datasets._dataset import Sample
from mdp.io.datasets._dataset import read_pair as read
from mdp.io.datasets._layouts import files_in, home_of, paired
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.reading import locate
from mdp.label_space import LabelSpace

__all__ = ["HOME", "LABELS", "SPLITS", "TERMS", "TRAIN", "VAL", "read", "samples"]

# fmt: off
CLASSES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
    "fridge", "tv", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand", "toilet", "sink",
    "lamp", "bathtub", "bag",
)
# fmt: on
LABELS = LabelSpace(name="sunrgbd", classes=CLASSES, ignore_index=255, colors=voc_colormap(len(CLASSES) + 1)[1:])
SPLITS = {"train": 5285, "test": 5050}
TRAIN = ("train",)
VAL = "test"
HOME = (
    "get SUN RGB-D as the instructions of the mseg-api repository say and put it in the folder SUNRGBD under the root, "
    "which then holds image/ and semseg-label37/"
)
TERMS = "For the terms of photos and labels see the SUN RGB-D page of Princeton."


def samples(root: Path, split: str) -> list[Sample]:
    """The images of train or test.  Raises DatasetError saying what is missing."""
    home = home_of("sunrgbd", root, ("SUNRGBD", "sunrgbd", "SUNRGB-D", "."), f"semseg-label37/{split}", HOME)
    photos, labels = locate(root, home / "image" / split), locate(root, home / "semseg-label37" / split)
    pairs = [(photo, labels / f"{photo.stem.removeprefix('img-'):0>8}.png") for photo in files_in(photos, ".jpg")]
    return paired("sunrgbd", pairs, HOME)
