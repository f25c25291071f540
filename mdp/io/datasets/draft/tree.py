"""The files of a folder of unknown layout, and the splits that their paths speak of."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mdp.io.errors import DatasetError
from mdp.io.files.reading import has_controls, printable

_FILES = 2_000_000
_SPLITS = {
    "train": ("train", "training", "trn", "imagestr", "labelstr"),  # the last two are nnU-Net's
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst", "imagests", "labelsts"),
}

_KINDS = (
    "image", "images", "img", "imgs", "photo", "photos", "rgb", "input", "inputs", "jpegimages", "label", "labels",
    "mask", "masks", "gt", "annotation", "annotations", "seg", "segmentation", "segmentationclass", "target", "targets",
    "labelids", "ann", "truth", "groundtruth",
)  # fmt: skip


class Tree(NamedTuple):
    """A folder, and the paths of all files below it, relative and sorted; hidden ones are left out."""

    folder: Path
    files: Sequence[str]

    def ending(self, *endings: str) -> list[str]:
        """The files with one of the endings, in any case."""
        return [file for file in self.files if file.lower().endswith(endings)]

    def path(self, file: str) -> str:
        """The whole path of a file."""
        return str(self.folder / file)


def tree_of(folder: Path) -> Tree:
    """The files below a folder.  Raises DatasetError where there is no such folder, or nothing in it."""
    if not folder.is_dir():
        raise DatasetError(f"{printable(folder)}: expected a folder of photos")
    files: list[str] = []
    for current, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != "." and name != "__MACOSX")
        above = os.path.relpath(current, folder)
        files += [name if above == "." else f"{above}/{name}" for name in names if name[0] != "."]
        if len(files) > _FILES:
            raise DatasetError(f"{printable(folder)}: more than {_FILES:,} files; give the folder of one dataset")
    odd = [file for file in files if has_controls(file)]
    if odd:
        raise DatasetError(f"{printable(folder / odd[0])}: control characters in a file name; rename it")
    if not files:
        raise DatasetError(f"{printable(folder)}: there are no files in it")
    return Tree(folder, sorted(files))


def parent(file: str) -> str:
    """The folder of a file; "" at the top."""
    return file.rpartition("/")[0]


def stem(file: str) -> str:
    """A file's name without its ending."""
    return PurePosixPath(file).stem


def split_of(text: str) -> str:
    """The split that a word of a path or name speaks of, the first from the left; "" where none does.

    >>> split_of("images/train2017"), split_of("a/valid/b"), split_of("instances_val"), split_of("trainer")
    ('train', 'val', 'val', '')
    """
    for word in re.split(r"[^a-z]+", text.lower()):
        for split, words in _SPLITS.items():
            if word in words:
                return split
    return ""


def by_split(files: Iterable[str]) -> dict[str, list[str]]:
    """Files by the split that their folders speak of."""
    found: dict[str, list[str]] = {}
    for file in files:
        found.setdefault(split_of(parent(file)), []).append(file)
    return found


def ordered(splits: Iterable[str]) -> list[str]:
    """Names of splits: train, val, test, then the others."""
    known = list(_SPLITS)
    return sorted(splits, key=lambda split: (known.index(split) if split in known else len(known), split))


def common_folder(files: Sequence[str]) -> str:
    """The folder that all files lie in, at any depth, and none below that of their split; "." at the top."""
    if not all(map(parent, files)):
        return "."
    parts = PurePosixPath(os.path.commonpath([parent(file) for file in files])).parts
    last = next((place for place, part in enumerate(parts) if split_of(part)), len(parts))
    return (
        "/".join(parts[: last + 1])
        if len(parts) > last + 1 and not _apart(parts[last + 1 :])
        else "/".join(parts) or "."
    )


def _apart(parts: Sequence[str]) -> bool:
    """Whether folders below that of a split tell photos from label maps, as in train/images, rather than cities."""
    return any(word in _KINDS for part in parts for word in re.split(r"[^a-z]+", part.lower()))


def evenly(items: Sequence[str], count: int) -> list[str]:
    """So many of the items, evenly spaced."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]
