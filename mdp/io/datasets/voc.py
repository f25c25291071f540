"""PASCAL VOC 2012 segmentation, with SBD's extra annotations (the usual "trainaug") where they are.

Layout: `VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}`; palette PNGs, 255 is the void rim.
trainaug = (SBD train + SBD val + VOC train) - VOC val: VOC's own labels for VOC train, SBD's for the rest, read from
`SegmentationClassAug/*.png` or from SBD's own `benchmark_RELEASE/dataset/cls/*.mat`.  SBD's labels have no void rim.
"""

from collections import Counter
from pathlib import Path, PurePath

from mdp.io.datasets._dataset import Sample
from mdp.io.datasets._dataset import read_pair as read
from mdp.io.datasets._layouts import home_of, ids_of, lines_of, paired
from mdp.io.datasets._mistakes import LabelMaps, Mistake, Mistakes
from mdp.io.errors import DatasetError
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.reading import is_dir, is_file, locate
from mdp.label_space import LabelSpace

__all__ = ["HOME", "LABELS", "MISTAKES", "SCHEDULE", "SPLITS", "TERMS", "TRAIN", "VAL", "detail", "read", "samples"]

# fmt: off
CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
LABELS = LabelSpace(name="voc", classes=CLASSES, ignore_index=255, colors=voc_colormap(len(CLASSES)))
SPLITS = {"trainaug": 10582, "train": 1464, "val": 1449}
TRAIN = ("trainaug", "train")
VAL = "val"
# MMSegmentation's schedule for DeepLab-v3 (0.11 to 0.30), whose steps are the authors'; batches are 4 GPUs x 4 images
SCHEDULE = {"finetune": {"steps": 40000, "scale": [2048, 512], "validate_steps": 4000}, "eval": {"scale": [2048, 512]}}
HOME = (
    "get VOCtrainval_11-May-2012.tar from the PASCAL VOC 2012 site, and for trainaug benchmark.tgz (SBD) from the "
    "Semantic Boundaries page of Berkeley, and unpack both under the root"
)
TERMS = (
    "The photos come from Flickr, whose terms of use hold for them; for SBD's annotations see the Semantic Boundaries "
    "page of Berkeley."
)
SBD = ("benchmark_RELEASE/dataset", "sbd", "SBD", "VOCdevkit/benchmark_RELEASE/dataset", "VOCdevkit/VOCaug/dataset")


def samples(root: Path, split: str) -> list[Sample]:
    """The images of train, val or trainaug.  Raises DatasetError saying what is missing."""
    voc = home_of("voc", root, ("VOCdevkit/VOC2012", "VOC2012", "."), "JPEGImages", HOME)
    lists = locate(root, voc / "ImageSets" / "Segmentation")
    photos, own = locate(root, voc / "JPEGImages"), locate(root, voc / "SegmentationClass")
    if split != "trainaug":
        return _listed(ids_of(lists / f"{split}.txt"), photos, own)
    augmented = locate(root, voc / "SegmentationClassAug")
    names = ids_of(lists / "train.txt")
    if is_dir(augmented):
        return _listed(names, photos, own) + _listed(_augmented(lists, names), photos, augmented)
    return _listed(names, photos, own) + _with_sbd(root, photos, lists, names)


def _listed(ids: list[str], photos: Path, labels: Path) -> list[Sample]:
    return paired("voc", [(photos / f"{name}.jpg", labels / f"{name}.png") for name in ids], HOME)


def _augmented(lists: Path, own: list[str]) -> list[str]:
    """MMSegmentation's layout: SBD's labels as PNGs in a folder of their own, and a list with or without VOC's ids."""
    names = ("trainaug.txt", "train_aug.txt", "aug.txt")
    listed = next((lists / name for name in names if is_file(lists / name)), None)
    if listed is None:
        raise DatasetError(f"voc: SegmentationClassAug is there but not its list {lists / names[0]}")
    return _rest({PurePath(line.split()[0]).stem for line in lines_of(listed)}, own, lists)


def _with_sbd(root: Path, photos: Path, lists: Path, own: list[str]) -> list[Sample]:
    """SBD's own layout: `.mat` files."""
    sbd = home_of("voc trainaug (SBD)", root, SBD, "cls", HOME)
    ids = {name for part in ("train.txt", "val.txt") for name in ids_of(locate(root, sbd / part))}
    labels = locate(root, sbd / "cls")
    pairs = [(photos / f"{name}.jpg", labels / f"{name}.mat") for name in _rest(ids, own, lists)]
    return paired("voc", pairs, HOME)


def _rest(names: set[str], own: list[str], lists: Path) -> list[str]:
    """The ids that only SBD labels: VOC's own labels are better, and SBD holds images of VOC's val."""
    return sorted(names - set(own) - set(ids_of(lists / "val.txt")))


def detail(samples: list[Sample]) -> str:
    """Whose annotations were found: `SegmentationClass` is VOC, the others SBD."""
    counts = Counter(PurePath(sample.labels).parent.name for sample in samples)
    return "labels: " + ", ".join(f"{count:,} in {folder}" for folder, count in counts.items())


def _without_sbd(maps: LabelMaps) -> Mistake | None:
    """VOC is trained on without SBD's labels."""
    own = all(PurePath(file).parent.name == "SegmentationClass" for file in maps.files)
    if not maps.training or not own:
        return None
    return Mistake(
        "voc_without_sbd",
        f"VOC's own labels only, {len(maps.files):,} images (1,464 officially); the usual training set is trainaug, "
        f"10,582 images with SBD's labels: {HOME}",
    )


MISTAKES = Mistakes(
    edition=("VOC2007", "this is VOC 2007; expected is VOC 2012"),
    colored="VOC's label maps are palette PNGs; these were converted to colours: take the original files",
    suspicious=_without_sbd,
)
