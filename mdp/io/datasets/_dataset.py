"""A dataset, its samples, and how they are opened and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from mdp.io.datasets._mistakes import Mistakes
from mdp.io.datasets._pixels import read_labels, read_rgb
from mdp.io.errors import DatasetError, RecipeError
from mdp.io.files.reading import printable
from mdp.label_space import LabelSpace, UnknownLabels
from mdp.photo_rule import PLAIN, PhotoRule

if TYPE_CHECKING:  # facts about datasets need neither NumPy nor torch
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from mdp.core.labels import LabelUnion

LeftOut: TypeAlias = tuple[str, list[str]]  # files of one kind that are in no sample: the kind in words, their paths
Photo: TypeAlias = "NDArray[np.uint8] | NDArray[np.float32]"  # RGB (H, W, 3), or channels (H, W, K) in [0, 1]
Pair: TypeAlias = "tuple[Photo, NDArray[np.integer]]"  # photo, raw label values (H, W)


class Absent(DatasetError):
    """A dataset, or one of its editions, is not there at all: another split may be tried instead."""


class Sample(NamedTuple):
    """One image: where it is, and whose it is.  Generated datasets put made-up names, unlabelled ones no labels."""

    image: str
    labels: str
    dataset: str


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset ready to be looked for under a root folder; a Python program may make its own.

    Then `samples(root, split)` lists `Sample`s whose `image` and `labels` are files, or any names that `read(sample)`
    understands (label names that end with " (labels)" say that there is no file), and `read` gives the photo (H, W, 3)
    uint8 and the raw label values (H, W), which `labels` says the classes of.
    """

    name: str
    labels: LabelSpace
    splits: Mapping[str, int | None]  # official number of images; None where there is none
    train: tuple[str, ...]  # training splits in order of preference: the first that is there is taken
    val: str | None
    samples: Callable[[Path, str], list[Sample]]
    read: Callable[[Sample], Pair]
    photo: Callable[[Sample], Photo] = None  # type: ignore[assignment]  # without its labels; None: by `read`
    home: str = "a Python program has it"  # where to get it
    source: str = "the program that made it"  # what error messages tell people to edit
    terms: str = ""  # licence of photos and labels as their makers state it; "" where nothing is known
    detail: Callable[[list[Sample]], str] | None = None  # what is worth saying about the files found
    drawn: Mapping[str, str] = field(default_factory=dict)  # how splits were drawn from others, for people
    left_out: Callable[[Path, str], list[LeftOut]] | None = None  # files of a split's folders that are in no sample
    schedule: Mapping[str, Any] = field(default_factory=dict)  # published, for fine-tuning: settings by section
    unlabelled: frozenset[str] = frozenset()  # splits of a labelled dataset whose photos have no label maps
    photos: PhotoRule = PLAIN  # how its photos become images
    mistakes: Mistakes = field(default_factory=Mistakes)

    def __post_init__(self) -> None:
        if self.photo is None:
            object.__setattr__(self, "photo", partial(_photo_of, self.read))


def _photo_of(read: Callable[[Sample], Pair], sample: Sample) -> Photo:
    return read(sample)[0]


class DatasetModule(Protocol):
    """A dataset's file.

    It may have `detail` besides, as a `Dataset` has, `photo` where photos are no files, and `UNLABELLED`, the names of
    splits without label maps: the `labels` of their samples are "".
    """

    @property
    def LABELS(self) -> LabelSpace:
        """Its classes, and the values of its label maps."""

    @property
    def SPLITS(self) -> Mapping[str, int | None]:
        """The official number of images of each split."""

    @property
    def TRAIN(self) -> tuple[str, ...]:
        """Training splits in order of preference."""

    @property
    def VAL(self) -> str:
        """The split that is scored unless another is asked for."""

    @property
    def HOME(self) -> str:
        """Where to get it."""

    @property
    def TERMS(self) -> str:
        """Licence of photos and labels, as their makers state it, in a sentence."""

    @property
    def samples(self) -> Callable[[Path, str], list[Sample]]:
        """The images of a split under a root.  Raises DatasetError saying what is missing."""

    @property
    def read(self) -> Callable[[Sample], Pair]:
        """Photo and raw label values of a sample.  Raises DatasetError naming the file."""


class DetailedModule(DatasetModule, Protocol):
    """One with something to say about the files it found."""

    @property
    def detail(self) -> Callable[[list[Sample]], str]:
        """A remark on the files, in a few words."""


def open_split(dataset: Dataset, root: Path, split: str) -> tuple[list[Sample], str]:
    """The samples of a split, and one line that says how many there are against the official count.

    Raises RecipeError for an unknown split, DatasetError when files are missing or there are none.
    """
    if split not in dataset.splits:
        hint = ", ".join(dataset.splits)
        raise RecipeError(f"{dataset.name}: unknown split {split!r}; it has {hint}")
    samples = dataset.samples(root, split)
    if not samples:
        raise DatasetError(f"{dataset.name}: split {split} is empty under {root}; {dataset.home}")
    official = dataset.splits[split]
    count = f"{len(samples):,} images" if official is None else f"{len(samples):,} of {official:,} images"
    remark = dataset.detail(samples) if dataset.detail else dataset.drawn.get(split, "")
    detail = f" ({remark})" if remark else ""
    return samples, f"{dataset.name} {split}: {count}{detail}"


def open_training(dataset: Dataset, root: Path, split: str | None = None) -> tuple[list[Sample], str]:
    """The samples of the training split: the one asked for, or the first of the dataset's own that is there.

    A split that is there but incomplete is an error, not a reason to take another.  Raises what `open_split` raises.
    """
    tried = [split] if split else list(dataset.train)
    passed: list[str] = []
    for name in tried[:-1]:
        try:
            samples, line = open_split(dataset, root, name)
        except Absent:
            passed.append(name)
        else:
            return samples, line
    samples, line = open_split(dataset, root, tried[-1])
    return samples, f"{line} (no {', '.join(passed)} under {root})" if passed else line


def labels_of(union: LabelUnion, sample: Sample, raw: NDArray[np.integer], source: str) -> Tensor:
    """Union classes (H, W) of a raw label map.

    Raises DatasetError naming the file, the values that are no class, how often they occur, and the line to add.
    """
    try:
        return union.to_union(raw, sample.dataset)
    except UnknownLabels as error:
        raise DatasetError(f"{printable(sample.labels)}: {error}; {_advice(sorted(error.counts), source)}") from error


def _advice(values: list[int], source: str) -> str:
    if source.endswith((".yaml", ".yml")):
        return (
            f"if they are never a class, add to {source}: ignore: {values[:8]}; "
            f"otherwise name them under classes, such as {values[0]}: NAME"
        )
    return "the official files have no such values: is it another edition?  A YAML file can describe one of your own"


# What the modules build on


def read_photo(sample: Sample) -> NDArray[np.uint8]:
    """The photo (H, W, 3) of a sample.  Raises DatasetError when the file cannot be read."""
    return read_rgb(sample.image)


def without_labels(photo: Photo, ignored: int) -> Pair:
    """A photo whose pixels are all ignored, by the raw value for it."""
    import numpy as np  # noqa: PLC0415 - facts about datasets need none

    return photo, np.full(photo.shape[:2], ignored, dtype=np.uint16)


def refuse_unlabelled(dataset: Dataset, split: str | None, what: str) -> None:
    """Raises RecipeError for a split without label maps, where labels are needed to `what`."""
    if split in dataset.unlabelled:
        others = ", ".join(name for name in dataset.splits if name not in dataset.unlabelled)
        raise RecipeError(f"{dataset.name}: the split {split} has no label maps to {what}; with labels it has {others}")


def read_pair(sample: Sample) -> Pair:
    """Photo and label map of a sample whose files hold them as they are.

    Raises DatasetError when a file cannot be read or their sizes differ, naming both.
    """
    return same_size(sample, read_rgb(sample.image), read_labels(sample.labels))


def same_size(sample: Sample, rgb: Photo, raw: NDArray[np.integer]) -> Pair:
    """The pair, unless the sizes differ.  Raises DatasetError naming both files and sizes."""
    if rgb.shape[:2] != raw.shape:
        photo, labels = (f"{size[1]} x {size[0]}" for size in (rgb.shape, raw.shape))
        turned = (
            " (one of them turned: is it an EXIF-rotated photo?  `image: {exif: photo}` turns it)"
            if rgb.shape[1::-1] == raw.shape
            else ""
        )
        raise DatasetError(
            f"{printable(sample.labels)}: the label map is {labels} pixels, its photo {printable(sample.image)} "
            f"{photo}{turned}; "
            "they must be of one size"
        )
    return rgb, raw


def by_label_space(sample: Sample, raw: NDArray[np.integer], space: LabelSpace, hint: str) -> NDArray[np.int16]:
    """Classes (H, W) of a raw label map by the label space of its own encoding, `IGNORE` where ignored.

    Raises DatasetError naming the file, the values that are no class and the hint.
    """
    try:
        return space.to_classes(raw)
    except UnknownLabels as error:
        raise DatasetError(f"{printable(sample.labels)}: {error}; {hint}") from error
