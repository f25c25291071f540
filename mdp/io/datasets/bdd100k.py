"""BDD100K semantic segmentation, 19 classes of Cityscapes on the photos of the 10k subset.

Layout: `bdd100k/images/10k/{train,val}/*.jpg`, `bdd100k/labels/sem_seg/masks/{train,val}/*.png`, or that of 2018,
`bdd100k/seg/{images,labels}/{train,val}` with `*_train_id.png`; grey PNGs of trainIds, 255 is ignored.
"""

from pathlib import Path

from mdp.io.datasets._dataset import Sample
from mdp.io.datasets._dataset import read_pair as read
from mdp.io.datasets._layouts import files_in, home_of, paired
from mdp.io.datasets._mistakes import LabelMaps, Mistake, Mistakes
from mdp.io.datasets.cityscapes import CLASSES, COLORS
from mdp.io.files.reading import exists, locate
from mdp.label_space import LabelSpace

__all__ = ["HOME", "LABELS", "MISTAKES", "SPLITS", "TERMS", "TRAIN", "VAL", "read", "samples"]

LABELS = LabelSpace(name="bdd100k", classes=CLASSES, ignore_index=255, colors=COLORS)
SPLITS = {"train": 7000, "val": 1000}
TRAIN = ("train",)
VAL = "val"
HOME = (
    'get "10K Images" (bdd100k_images_10k.zip) and "Segmentation" (bdd100k_sem_seg_labels_trainval.zip) from the '
    "BDD100K site (a free account is needed) and put both, packed or unpacked, under the root"
)
TERMS = (
    "Photos and labels may be used without fee for educational, research and not-for-profit purposes; see the licence "
    "on the BDD100K site for all others."
)
_HOMES = ("bdd100k", "BDD100K", "bdd100k/bdd100k", ".")


def samples(root: Path, split: str) -> list[Sample]:
    """The images of train or val.  Raises DatasetError saying what is missing."""
    old = next((root / folder for folder in _HOMES if exists(root, root / folder / "seg" / "labels" / split)), None)
    if old:
        images, labels, ending = old / "seg" / "images" / split, old / "seg" / "labels" / split, "_train_id.png"
    else:
        home = home_of("bdd100k", root, _HOMES, f"labels/sem_seg/masks/{split}", HOME)
        images, labels, ending = home / "images" / "10k" / split, home / "labels" / "sem_seg" / "masks" / split, ".png"
    photos, maps = files_in(locate(root, images), ".jpg"), locate(root, labels)
    return paired("bdd100k", [(photo, maps / f"{photo.stem}{ending}") for photo in photos], HOME)


def _other_values(maps: LabelMaps) -> Mistake | None:
    if not maps.official:
        return None
    return Mistake("bdd100k_ids", "expected are trainIds, 0..18 and 255, as labels/sem_seg/masks has them")


MISTAKES = Mistakes(
    colored="colour maps are for looking at (labels/sem_seg/colormaps); take labels/sem_seg/masks",
    unknown=_other_values,
)
