"""PASCAL-Context, 60 classes: the 59 frequent ones and background, which is everything else (VOC 2010 photos).

Layout: `VOCdevkit/VOC2010/{JPEGImages,ImageSets}` and one of three editions of the label maps, told by its folder:
`SegmentationClassContext/*.png`, as MMSegmentation's converter writes them, classes in alphabetical order;
`59_context_labels/*.png` of the makers, classes of VOC first; `trainval/*.mat` of the makers, all 459 classes.  The two
kinds of PNG hold the same numbers for different classes, so the folder's name is checked against what is in the files.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePath

from mdp.io.datasets._dataset import Absent, Pair, Sample, by_label_space, same_size
from mdp.io.datasets._layouts import contents, home_of, ids_of, paired
from mdp.io.datasets._pixels import count_values, read_label_mat, read_labels, read_rgb
from mdp.io.errors import DatasetError
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.reading import exists, is_file, locate
from mdp.label_space import LabelSpace

# fmt: off
CLASSES = (
    "background",
    "aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat", "book", "bottle", "building", "bus",
    "cabinet", "car", "cat", "ceiling", "chair", "cloth", "computer", "cow", "cup", "curtain", "dog", "door", "fence",
    "floor", "flower", "food", "grass", "ground", "horse", "keyboard", "light", "motorbike", "mountain", "mouse",
    "person", "plate", "platform", "pottedplant", "road", "rock", "sheep", "shelves", "sidewalk", "sign", "sky", "snow",
    "sofa", "table", "track", "train", "tree", "truck", "tvmonitor", "wall", "water", "window", "wood",
)
# what the number of a class is among the 459; all others are background
NUMBERS = (
    2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158, 159,
    162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368, 397,
    415, 416, 420, 424, 427, 440, 445, 454, 458,
)
# the classes above in the order of the makers' list of 59
VOC_FIRST = (
    0, 1, 6, 7, 8, 10, 12, 14, 15, 17, 20, 50, 23, 31, 34, 37, 40, 43, 49, 52, 55, 2, 3, 5, 9, 11, 13, 16, 18, 19, 21,
    24, 25, 26, 27, 28, 29, 30, 32, 33, 35, 36, 22, 39, 46, 38, 41, 42, 44, 45, 47, 48, 4, 51, 53, 54, 56, 57, 58, 59,
)
# fmt: on
LABELS = LabelSpace(name="pascal_context", classes=CLASSES, ignore_index=None, colors=voc_colormap(len(CLASSES)))
SPLITS = {"train": 4998, "val": 5105}
TRAIN = ("train",)
VAL = "val"
HOME = (
    "get VOCtrainval_03-May-2010.tar from the PASCAL VOC 2010 site and trainval.tar.gz (.mat files) or "
    "59_context_labels.tar.gz from the PASCAL-Context page, and unpack the first under the root and the other in "
    "VOCdevkit/VOC2010; label maps converted for MMSegmentation are taken too"
)
TERMS = (
    "Photos of PASCAL VOC 2010 come from Flickr, whose terms of use hold for them; for the annotations see the "
    "PASCAL-Context page of its makers."
)
_ALPHABETICAL, _MAKERS, _ALL = "SegmentationClassContext", "59_context_labels", "trainval"
_KINDS = {_ALPHABETICAL: ".png", _MAKERS: ".png", _ALL: ".mat"}
_BY_NUMBER = LabelSpace(
    name="pascal_context LabelMap",
    classes=CLASSES,
    ignore_index=None,
    lookup={**dict.fromkeys(range(460), 0), **{number: label for label, number in enumerate(NUMBERS, 1)}},
)
_BY_VOC_FIRST = LabelSpace(name="pascal_context", classes=CLASSES, ignore_index=None, lookup=dict(enumerate(VOC_FIRST)))
# numbers of grass, sky, tree and building, which cover a third of all pixels; in another order these are numbers of
# classes that cover far less, such as mouse, table, truck and fence
_LARGE = {
    _ALPHABETICAL: (29, 47, 53, 11),
    _MAKERS: (36, 50, 54, 25),
    f"{_ALPHABETICAL} less 1": (28, 46, 52, 10),
    f"{_MAKERS} less 1": (35, 49, 53, 24),
}
_LOOKS = 40  # label maps that are looked into


def samples_of(name: str, root: Path, split: str) -> list[Sample]:
    """The images of train or val under the dataset's name.  Raises DatasetError saying what is missing."""
    voc = home_of(name, root, ("VOCdevkit/VOC2010", "VOC2010", "."), "JPEGImages", HOME)
    lists = [locate(root, voc / "ImageSets" / kind / f"{split}.txt") for kind in ("SegmentationContext", "Main")]
    ids = ids_of(next((path for path in lists if is_file(path)), lists[0]))
    folders = [voc / kind for kind in _KINDS] + [root / "pascal_context" / kind for kind in _KINDS]
    labels = next((locate(root, folder) for folder in folders if exists(root, folder)), None)
    if labels is None:
        raise Absent(f"{name}: none of {', '.join(_KINDS)} ({contents(voc)}); {HOME}")
    photos, suffix = locate(root, voc / "JPEGImages"), _KINDS[labels.name]
    pairs = paired(name, [(photos / f"{stem}.jpg", labels / f"{stem}{suffix}") for stem in ids], HOME)
    if _KINDS[labels.name] == ".png":
        _refuse_other_order(pairs, labels)
    return pairs


samples = partial(samples_of, "pascal_context")


def _refuse_other_order(pairs: Sequence[Sample], folder: Path) -> None:
    """Raises DatasetError where the label maps of a folder hold other numbers than its name says."""
    pixels = []
    for sample in pairs[:: max(1, len(pairs) // _LOOKS)]:
        try:
            pixels.append(count_values(sample.labels))
        except DatasetError:
            continue  # it is refused when the file is read
    shares = {order: sum(int(counts[list(numbers)].sum()) for counts in pixels) for order, numbers in _LARGE.items()}
    likely = max(shares, key=lambda order: shares[order])
    if shares[likely] > shares[folder.name]:
        raise DatasetError(
            f"{folder}: by how large grass, sky, tree and building are in its label maps, these have the numbers of "
            f"{likely}, not of {folder.name}; give the folder the name that its files need, or describe them by a YAML "
            "file of your own"
        )


def read(sample: Sample) -> Pair:
    """Photo and numbers of `CLASSES`, whichever edition the label map is of; suffix and folder say which.

    Raises DatasetError for values that the edition does not have.
    """
    rgb = read_rgb(sample.image)
    if sample.labels.endswith(".mat"):
        raw = same_size(sample, rgb, read_label_mat(sample.labels, "LabelMap"))[1]
        return rgb, by_label_space(sample, raw, _BY_NUMBER, "numbers are 0..459")
    raw = same_size(sample, rgb, read_labels(sample.labels))[1]
    if PurePath(sample.labels).parent.name == _MAKERS:
        return rgb, by_label_space(sample, raw, _BY_VOC_FIRST, "expected are 0..59")
    return rgb, raw


def detail(samples: Sequence[Sample]) -> str:
    """Which of the three editions was found."""
    return f"labels: {PurePath(samples[0].labels).parent.name}"
