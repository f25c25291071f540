"""NYU Depth v2, the 40 classes of Gupta et al. (CVPR 2013), photos only; 0 is void and ignored, 1..40 are the classes.

Three layouts of PNG label maps are in use, all with these numbers: `RGB`, `Label` and lists `train.txt`, `test.txt`;
`{train,test}/rgb` and `{train,test}/labels_40`; `images/{train,test}` and `annotations/{train,test}`.  `train` is the
795 images that Gupta et al. divide into train and val.
"""

from pathlib import Path, PurePath

from mdp.io.datasets._dataset import Sample
from mdp.io.datasets._dataset import read_pair as read
from mdp.io.datasets._layouts import files_in, home_of, lines_of, paired
from mdp.io.datasets._mistakes import LabelMaps, Mistake, Mistakes
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.reading import exists, locate
from mdp.label_space import LabelSpace

__all__ = ["HOME", "LABELS", "MISTAKES", "SPLITS", "TERMS", "TRAIN", "VAL", "read", "samples"]

# fmt: off
CLASSES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
    "refridgerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand",
    "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop",
)
# fmt: on
LABELS = LabelSpace(
    name="nyudv2",
    classes=CLASSES,
    ignore_index=0,
    lookup={label + 1: label for label in range(len(CLASSES))},
    colors=voc_colormap(len(CLASSES) + 1)[1:],
)
SPLITS = {"train": 795, "test": 654}
TRAIN = ("train",)
VAL = "test"
HOME = (
    "get nyu_depth_v2_labeled.mat from the NYU Depth V2 page and convert it to PNGs with the 40 classes, as the "
    "repositories of RGB-D segmentation do, to nyudv2/RGB, nyudv2/Label and the lists nyudv2/train.txt and test.txt"
)
TERMS = (
    "For the terms of photos and labels see the NYU Depth V2 page of its makers, and Gupta et al. for the 40 classes."
)
_HOMES = ("nyudv2", "NYUDepthv2", "nyuv2", "NYUv2", "nyu", ".")
_FOLDERS = (("{split}/rgb", "{split}/labels_40"), ("images/{split}", "annotations/{split}"))


def samples(root: Path, split: str) -> list[Sample]:
    """The images of train or test.  Raises DatasetError saying what is missing."""
    for pattern in _FOLDERS:
        photo_folder, label_folder = (text.format(split=split) for text in pattern)
        for home in (root / folder for folder in _HOMES):
            if exists(root, home / photo_folder) and exists(root, home / label_folder):
                photos, labels = locate(root, home / photo_folder), locate(root, home / label_folder)
                images = files_in(photos, ".jpg", ".png")
                return paired("nyudv2", [(image, labels / f"{image.stem}.png") for image in images], HOME)
    home = home_of("nyudv2", root, _HOMES, "Label", HOME)
    photos, labels = locate(root, home / "RGB"), locate(root, home / "Label")
    # a line is an id, a photo, or a photo and more
    stems = [PurePath(line.split()[0]).stem for line in lines_of(locate(root, home / f"{split}.txt"))]
    by_stem = {path.stem: path for path in files_in(photos, ".jpg", ".png")}
    pairs = [(by_stem.get(stem, photos / f"{stem}.jpg"), labels / f"{stem}.png") for stem in stems]
    return paired("nyudv2", pairs, HOME)


def _shifted(maps: LabelMaps) -> Mistake | None:
    if not maps.official or maps.top > 39 or maps.unknown != {255}:
        return None
    text = "these look like the 40 classes less 1 (0..39, 255); expected is 0 for void, 1..40"
    return Mistake("nyudv2_shifted", text)


MISTAKES = Mistakes(unknown=_shifted)
