"""ImageNet-S in its three editions: ImageNet's photos with label maps of 50, 300 or 919 categories.

Layout: `ImageNetS50/validation/<category>/*.JPEG` and `ImageNetS50/validation-segmentation/<category>/*.png`, the same
for `train-semi`; `train` (all photos of the categories), `test` and, for 919, `train-full` (all of ImageNet's) are
photos without label maps: those of `test` are kept by their makers.  RGB PNGs that hold red + 256 * green: 0 is what
belongs to no category, a class of its own; 1..N are the categories in the order of their WordNet ids; 1000 is ignored.
`imagenet_s.txt` has a line for each category: WordNet id, smallest edition that has it, name.  In the largest, five
more of ImageNet are merged into others.
"""

from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from mdp.io.datasets._dataset import Pair, Sample, same_size, without_labels
from mdp.io.datasets._layouts import files_in, home_of, names_of, paired
from mdp.io.datasets._listing import folders_of
from mdp.io.datasets._pixels import read_packed_labels, read_rgb
from mdp.io.errors import DatasetError
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.reading import is_dir, locate
from mdp.label_space import LabelSpace

UNLABELLED = frozenset({"train", "test"})  # splits that are photos alone, in every edition
EVERYTHING = "train-full"  # and in the largest one
# in 919, whose photos lie with others in ImageNet: five categories that were merged into others
_MERGED = {"n04356056", "n04493381", "n03642806", "n04008634", "n03887697"}
_IGNORED = 1000
_SUFFIXES = (".jpeg",)
TERMS = (
    "ImageNet's photos are for non-commercial research and education, by agreement with its makers; for the "
    "annotations see the ImageNet-S repository."
)


class Category(NamedTuple):
    """A category of ImageNet-S."""

    wordnet: str
    name: str


@lru_cache
def categories(size: int) -> tuple[Category, ...]:
    """The categories of the edition with so many, in the order of their numbers."""
    return tuple(Category(wordnet, name) for wordnet, smallest, name in _rows() if int(smallest) <= size)


@lru_cache
def _rows() -> list[list[str]]:
    lines = Path(__file__).with_name("imagenet_s.txt").read_text("utf-8").splitlines()
    return [line.split(" ", 2) for line in lines]


def label_space(size: int) -> LabelSpace:
    """The classes of an edition: `other`, then the categories."""
    names = ("other", *(category.name for category in categories(size)))
    return LabelSpace(name=f"imagenet_s{size}", classes=names, ignore_index=_IGNORED, colors=voc_colormap(len(names)))


def home(size: int) -> str:
    """Where to get an edition."""
    return (
        f"make ImageNetS{size} from ImageNet's training and validation photos with the script and the annotations of "
        "the ImageNet-S repository, and put it under the root"
    )


def samples_of(size: int, root: Path, split: str) -> list[Sample]:
    """The images of a split.  Raises DatasetError saying what is missing."""
    name = f"imagenet_s{size}"
    homes = (f"ImageNetS{size}", f"ImageNetS/ImageNetS{size}", f"imagenet_s/ImageNetS{size}", ".")
    alone = split in UNLABELLED or split == EVERYTHING
    marker = split if alone else f"{split}-segmentation"
    edition = home_of(name, root, homes, marker, home(size))
    photos = locate(root, edition / split)
    if alone:
        return _photos(name, photos, size, split == EVERYTHING)
    labels = locate(root, edition / f"{split}-segmentation")
    folders = [photos / entry for entry in names_of(photos) if is_dir(photos / entry)]
    _refuse_strange(photos, size, [folder.name for folder in folders])
    pairs = [
        (photo, labels / folder.name / f"{photo.stem}.png") for folder in folders for photo in files_in(folder, ".jpeg")
    ]
    return paired(name, pairs, home(size))


def _photos(name: str, photos: Path, size: int, everything: bool) -> list[Sample]:
    """The photos in the folders of categories, without label maps; of ImageNet's where `everything` is."""
    found, folders = [], []
    for folder, files in folders_of(photos, _SUFFIXES):
        folders.append(folder)
        start = f"{photos / folder}/"
        found += [Sample(start + file, "", name) for file in files]
    if not everything:
        _refuse_strange(photos, size, folders)
    return found


def _refuse_strange(photos: Path, size: int, folders: list[str]) -> None:
    """Raises DatasetError for folders that are no category of the edition."""
    known = {category.wordnet for category in categories(size)} | (_MERGED if size == 919 else set())
    strange = sorted(folder for folder in folders if folder not in known)
    if strange:
        raise DatasetError(
            f"{photos}: {len(strange)} folders such as {strange[0]} are no category of ImageNet-S{size}, whose numbers "
            "would name other things: is it another edition?"
        )


def samples_by(size: int) -> "partial[list[Sample]]":
    """`samples` of an edition."""
    return partial(samples_of, size)


def read(sample: Sample) -> Pair:
    """Photo and numbers of categories (uint16), all ignored where there is no label map."""
    if not sample.labels:
        return without_labels(read_rgb(sample.image), _IGNORED)
    return same_size(sample, read_rgb(sample.image), read_packed_labels(sample.labels))
