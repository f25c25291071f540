"""COCO-Stuff 10k: the 171 classes of `coco_stuff` on 10,000 photos of COCO 2014.

Layout as downloaded: `images/*.jpg`, `annotations/*.mat`, `imageLists/{train,test}.txt`; the matrix `S` holds the
numbers of the official `labels.txt`, 0 is unlabelled.  Or as MMSegmentation's converter leaves it:
`{images,annotations}/{train,test}2014`, `*_labelTrainIds.png`, 0 is unlabelled and 1..171 are the classes.
"""

from pathlib import Path, PurePath

from mdp.io.datasets._dataset import Pair, Sample, by_label_space, read_pair, same_size
from mdp.io.datasets._layouts import files_in, home_of, ids_of, paired
from mdp.io.datasets._pixels import read_label_mat, read_rgb
from mdp.io.datasets.coco_stuff import CLASSES, NEVER
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.reading import exists, locate
from mdp.label_space import LabelSpace

LABELS = LabelSpace(
    name="coco_stuff10k",
    classes=CLASSES,
    ignore_index=0,
    lookup={label + 1: label for label in range(len(CLASSES))},
    colors=voc_colormap(len(CLASSES)),
)
SPLITS = {"train": 9000, "test": 1000}
TRAIN = ("train",)
VAL = "test"
HOME = (
    "get cocostuff-10k-v1.1.zip from the COCO-Stuff page and put it, or what is in it, in the folder coco_stuff10k "
    "under the root"
)
TERMS = (
    "The annotations are licensed CC BY 4.0 by the makers of COCO-Stuff; the photos come from Flickr, whose terms of "
    "use hold for them."
)
# `labels.txt` counts from 1 where the files of the 164k edition count from 0
_BY_NUMBER = LabelSpace(
    name="coco_stuff10k",
    classes=CLASSES,
    ignore_index=0,
    lookup={raw + 1: label for label, raw in enumerate(raw for raw in range(182) if raw not in NEVER)},
)


def samples(root: Path, split: str) -> list[Sample]:
    """The images of train or test.  Raises DatasetError saying what is missing."""
    home = home_of("coco_stuff10k", root, ("coco_stuff10k", "cocostuff-10k-v1.1", "."), "imageLists", HOME)
    images, labels = home / "images", home / "annotations"
    if exists(root, labels / f"{split}2014"):
        labels = locate(root, labels / f"{split}2014")
        photos = files_in(locate(root, images / f"{split}2014"), ".jpg")
        pairs = [(photo, labels / f"{photo.stem}_labelTrainIds.png") for photo in photos]
    else:
        ids = ids_of(locate(root, home / "imageLists" / f"{split}.txt"))
        images, labels = locate(root, images), locate(root, labels)
        pairs = [(images / f"{stem}.jpg", labels / f"{stem}.mat") for stem in ids]
    return paired("coco_stuff10k", pairs, HOME)


def read(sample: Sample) -> Pair:
    """Photo and class + 1, 0 where unlabelled, whichever of the two encodings the file has; its suffix says which.

    Raises DatasetError for numbers that `labels.txt` does not have.
    """
    if not sample.labels.endswith(".mat"):
        return read_pair(sample)
    rgb, raw = same_size(sample, read_rgb(sample.image), read_label_mat(sample.labels, "S"))
    classes = by_label_space(sample, raw, _BY_NUMBER, "numbers are 0..182")
    return rgb, (classes + 1).astype("uint8")  # IGNORE, -1, becomes 0


def detail(samples: list[Sample]) -> str:
    """Which of the two encodings was found."""
    return "labels: .mat" if PurePath(samples[0].labels).suffix == ".mat" else "labels: labelTrainIds"
