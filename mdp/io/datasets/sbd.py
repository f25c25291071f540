"""SBD, the Semantic Boundaries Dataset by itself: VOC's 21 classes on 11,355 photos of VOC 2011, split its own way.

Layout: `benchmark_RELEASE/dataset/{img,cls}`, `train.txt`, `val.txt`; the labels are `.mat` files and have no void
rim.  Its train holds photos of VOC's val: pretrain on `voc:trainaug` where VOC is scored.
"""

from pathlib import Path

from mdp.io.datasets._dataset import Sample
from mdp.io.datasets._dataset import read_pair as read
from mdp.io.datasets._layouts import home_of, ids_of, paired
from mdp.io.datasets.voc import CLASSES, SBD
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.reading import locate
from mdp.label_space import LabelSpace

__all__ = ["HOME", "LABELS", "SPLITS", "TERMS", "TRAIN", "VAL", "read", "samples"]

LABELS = LabelSpace(name="sbd", classes=CLASSES, ignore_index=None, colors=voc_colormap(len(CLASSES)))
SPLITS = {"train": 8498, "val": 2857}
TRAIN = ("train",)
VAL = "val"
HOME = "get benchmark.tgz (SBD) from the Semantic Boundaries page of Berkeley and unpack it under the root"
TERMS = (
    "Photos of PASCAL VOC 2011 come from Flickr, whose terms of use hold for them; for the annotations see the "
    "Semantic Boundaries page of Berkeley."
)


def samples(root: Path, split: str) -> list[Sample]:
    """The images of train or val.  Raises DatasetError saying what is missing."""
    home = home_of("sbd", root, (*SBD, "dataset", "."), "cls", HOME)
    photos, labels = locate(root, home / "img"), locate(root, home / "cls")
    ids = ids_of(locate(root, home / f"{split}.txt"))
    return paired("sbd", [(photos / f"{name}.jpg", labels / f"{name}.mat") for name in ids], HOME)
