"""Datasets: one file each, found by its file name; or a YAML file of your own (`mdp.io.own_data`).

A module has `LABELS`, `SPLITS` (official counts), `TRAIN` and `VAL` (splits used by default), `HOME` (where to get
it), `TERMS` (its licence in a sentence), `samples(root, split)` and `read(sample)`.  What the rest of mdp sees is a
`Dataset`, whichever it came from.
"""

import difflib
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mdp.core.labels import LabelSpace, LabelUnion, UnknownLabels
from mdp.io.errors import DatasetError, RecipeError, ResourceError
from mdp.io.files import (
    archives,
    exists,
    has_controls,
    is_dir,
    names_in,
    printable,
    read_bytes,
    shown,
    unusable,
)
from mdp.io.images import read_labels, read_rgb

Pair = tuple[NDArray[np.uint8], NDArray[np.integer]]  # photo (H, W, 3), raw label values (H, W)


_LIST_BYTES = 2**28  # the list of ImageNet's 1,281,167 photos has 77 MB
_LINE = 1024  # characters of a list's line


class Absent(DatasetError):
    """A dataset, or one of its editions, is not there at all: another split may be tried instead."""


class Sample(NamedTuple):
    """One image: where it is, and whose it is.  Generated datasets put made-up names, unlabelled ones no labels."""

    image: str
    labels: str
    dataset: str


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset ready to be looked for under a root folder."""

    name: str
    labels: LabelSpace
    splits: Mapping[str, int | None]  # official number of images; None where there is none
    train: tuple[str, ...]  # training splits in order of preference: the first that is there is taken
    val: str | None
    home: str  # where to get it
    source: str  # what error messages tell people to edit
    samples: Callable[[Path, str], list[Sample]]
    read: Callable[[Sample], Pair]
    terms: str = ""  # licence of photos and labels as their makers state it; "" where nothing is known
    detail: Callable[[list[Sample]], str] | None = None  # what is worth saying about the files found


def names() -> list[str]:
    """The built-in datasets, by file name; nothing is imported."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.replace("_", "-") if name.startswith("shapes") else name for name in found)


def load(name: str) -> Dataset:
    """The dataset of that name, or described by the YAML file at that path, or the unlabelled photos below a folder.

    Raises RecipeError, with a suggestion, for an unknown name; DatasetError or RecipeError for a bad YAML file.
    """
    if name.endswith((".yaml", ".yml")):
        from mdp.io.own_data import load_own  # noqa: PLC0415 - it builds on this module

        return load_own(Path(name))
    if name not in names() and is_dir(name):
        from mdp.io.own_data import load_folder  # noqa: PLC0415

        return load_folder(Path(name))
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names())}"
        raise RecipeError(
            f"unknown dataset {name!r}; {hint} (your own: give the path of its .yaml file, or of a "
            "folder of unlabelled photos)"
        )
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    return Dataset(
        name=name,
        labels=module.LABELS,
        splits=module.SPLITS,
        train=module.TRAIN,
        val=module.VAL,
        home=module.HOME,
        source=module.__file__ or name,
        samples=module.samples,
        read=module.read,
        terms=module.TERMS,
        detail=getattr(module, "detail", None),
    )


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
    detail = f" ({dataset.detail(samples)})" if dataset.detail else ""
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


def read_pair(sample: Sample) -> Pair:
    """Photo and label map of a sample whose files hold them as they are.

    Raises DatasetError when a file cannot be read or their sizes differ, naming both.
    """
    return same_size(sample, read_rgb(sample.image), read_labels(sample.labels))


def same_size(sample: Sample, rgb: NDArray[np.uint8], raw: NDArray[np.integer]) -> Pair:
    """The pair, unless the sizes differ.  Raises DatasetError naming both files and sizes."""
    if rgb.shape[:2] != raw.shape:
        photo, labels = (f"{size[1]} x {size[0]}" for size in (rgb.shape, raw.shape))
        turned = " (one of them turned: is it an EXIF-rotated photo?)" if rgb.shape[1::-1] == raw.shape else ""
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


def home_of(name: str, root: Path, places: Sequence[str], marker: str, home: str) -> Path:
    """The folder, among `places` under `root`, that holds `marker`, if only in a zip archive.

    What is in it is to be asked of `found`.  Raises Absent naming all of them.
    """
    for place in places:
        if exists(root, root / place / marker):
            return root / place
    looked = ", ".join(str(root / place / marker) for place in places)
    there = contents(root) if is_dir(root) else f"there is no folder {root}: set --root or MDP_DATA"
    there += _unusable_in(root / place for place in places if place != ".")
    raise Absent(f"{name}: not found; looked for {looked} ({there}); {home}")


def contents(folder: Path) -> str:
    """What a folder has, or the nearest one above it that is there, for error messages."""
    while not is_dir(folder) and folder != folder.parent:
        folder = folder.parent
    entries = sorted(printable(name) for name in _entries(folder))
    text = ", ".join(entries[:8]) + (f" and {len(entries) - 8} more" if len(entries) > 8 else "")
    return f"{printable(folder)} has {text or 'nothing'}{_unusable_in([folder])}"


def _unusable_in(folders: Iterable[Path]) -> str:
    """The zip archives in the folders that are not read, and why."""
    reasons = {path: unusable(path) for folder in folders for path in archives(folder)}
    return "".join(f"; {printable(path.name)}: {reason}" for path, reason in reasons.items() if reason)


def paired(name: str, pairs: Sequence[tuple[Path, Path]], home: str) -> list[Sample]:
    """Samples of the pairs of files.

    Raises DatasetError listing the first files that are missing, or naming one that nobody could print.
    """
    # one listing a folder: a look at each of COCO's 236,574 files takes minutes on a network disk
    there = {folder: _entries(folder) for folder in {path.parent for pair in pairs for path in pair}}
    missing = [printable(path) for pair in pairs for path in pair if path.name not in there[path.parent]]
    if missing:
        listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise DatasetError(f"{name}: {len(missing)} of {2 * len(pairs)} files are missing: {listed}; {home}")
    for path in (path for pair in pairs for path in pair):
        refuse_controls(path)
    return [Sample(str(image), str(labels), name) for image, labels in pairs]


def refuse_controls(path: Path) -> None:
    """Raises DatasetError for a file name with control characters, which would be obeyed wherever it is printed."""
    if has_controls(path.name):
        raise DatasetError(f"{printable(path)}: control characters in a file name; rename it")


def _entries(folder: Path) -> set[str]:
    """The names in a folder, none if there is no such folder.  Raises ResourceError when it may not be read."""
    try:
        return set(names_in(folder))
    except PermissionError as error:
        raise ResourceError(f"{printable(folder)}: the folder cannot be read: {error.strerror}") from error
    except (OSError, ValueError):
        return set()


def lines_of(path: Path) -> list[str]:
    """The lines of a list file, stripped, blank ones left out.  Raises DatasetError when it cannot be read."""
    return [line for _, line in numbered_lines(path)]


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a list file with their numbers, stripped, blank ones left out.

    Raises DatasetError when it cannot be read or holds control characters.
    """
    try:
        text = read_bytes(str(path), "list file", _LIST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{printable(path)}: the list file is not UTF-8 text: {error.reason}") from error
    found = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        if has_controls(line.replace("\t", "")):
            raise DatasetError(f"{printable(path)}: line {number}: control characters in {shown(line)}")
        if len(line) > _LINE:
            raise DatasetError(f"{printable(path)}: line {number}: {len(line)} characters; a line has at most {_LINE}")
        if line.strip():
            found.append((number, line.strip()))
    return found


def ids_of(path: Path) -> list[str]:
    """The lines of a list file of ids, each the stem of a file.

    Raises DatasetError naming file and line for a path in place of an id: it might lead anywhere.
    """
    lines = numbered_lines(path)
    for number, line in lines:
        if "/" in line or "\\" in line or line in (".", ".."):
            raise DatasetError(f"{printable(path)}: line {number}: expected an id, not a path, got {shown(line)}")
    return [line for _, line in lines]


def names_of(folder: Path) -> list[str]:
    """The names in a folder, sorted, hidden ones left out; none if there is no such folder."""
    return sorted(name for name in _entries(folder) if not name.startswith("."))


def files_in(folder: Path, *suffixes: str) -> list[Path]:
    """The files of a folder with one of the suffixes (any case), sorted, hidden ones left out.

    Raises DatasetError when the folder is missing, ResourceError when it may not be read.
    """
    if not is_dir(folder):
        raise DatasetError(f"{printable(folder)}: the folder is missing; {contents(folder.parent)}")
    paths = (folder / name for name in names_of(folder))
    return [path for path in paths if path.suffix.lower() in suffixes]


def files_below(folder: Path, ending: str) -> list[Path]:
    """The files, in all the folders in a folder, whose names end so, sorted; none if there is no such folder."""
    folders = [folder / name for name in names_of(folder) if is_dir(folder / name)]
    return [place / name for place in folders for name in names_of(place) if name.endswith(ending)]
