"""From what a command line names to the photos to be predicted: files, folders, patterns.

A photo keeps the name that it has below the folder that was named, so that what is made of it can mirror the folder.
Nothing is opened here: whether a file is a photo is judged by its suffix, and by the reader later.
"""

import difflib
import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from mdp.io.datasets import names as dataset_names
from mdp.io.datasets._layouts import contents
from mdp.io.errors import DatasetError, MdpError, RecipeError, ResourceError
from mdp.io.files.reading import has_controls, printable
from mdp.io.journal.counter import number_of

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
INDEX = "predictions.json"  # what marks a folder of predictions, which are no photos


class Photo(NamedTuple):
    """A photo to be predicted."""

    path: Path
    name: PurePath  # below the folder that was named; of a file that was named itself, its file name


class Matches(NamedTuple):
    """The files that a command line names."""

    photos: list[Photo]
    others: list[Path]  # other files in the folders


def find_photos(named: Sequence[str], leave_out: Sequence[Path] = ()) -> Matches:
    """The photos of files, folders (at any depth, hidden ones left out) and patterns, each once.

    Folders of predictions and those of `leave_out` are passed over.  Links are followed, but never in a circle.
    Raises DatasetError, with a suggestion, for what matches nothing or is no photo.
    """
    photos: dict[str, Photo] = {}
    others: dict[str, Path] = {}
    barred = {os.path.realpath(folder) for folder in leave_out}
    for text in named:
        matches = _photos_named(text, barred)
        for photo in matches.photos:
            photos.setdefault(os.path.abspath(photo.path), photo)
        for path in matches.others:
            others.setdefault(os.path.abspath(path), path)
    return Matches(list(photos.values()), list(others.values()))


def refuse_control_names(photo: Photo) -> None:
    """Raises DatasetError for a name that a terminal would obey: files would be made that carry it on."""
    if has_controls(str(photo.name)):
        raise DatasetError(f"{printable(photo.path)}: control characters in its name; rename it")


def _photos_named(text: str, barred: set[str]) -> Matches:
    if not text:
        raise RecipeError("an empty name where a photo was expected; for the current folder give .")
    path = Path(text)
    if os.path.isdir(path):
        return _below(text, path, barred)
    if os.path.lexists(path):
        _refuse_no_photo(text, path)
        return Matches([Photo(path, PurePath(path.name))], [])
    if glob.has_magic(text):
        return _matching(text, barred)
    raise _nothing(text)


def _refuse_no_photo(text: str, path: Path) -> None:
    name = printable(text)
    if path.suffix.lower() == ".safetensors":
        raise RecipeError(f"{name}: a checkpoint, not a photo; name it by --run")
    if path.suffix.lower() not in SUFFIXES:
        raise DatasetError(f"{name}: expected a photo ({' '.join(SUFFIXES)}) or a folder of photos")
    if not os.path.exists(path):
        raise DatasetError(f"{name}: a link that leads nowhere; mend or remove it")


# Folders


def _below(text: str, folder: Path, barred: set[str]) -> Matches:
    """The photos below a folder that was named.  Raises DatasetError when there is none, RecipeError for a run."""
    if (folder / "checkpoints").is_dir() and (folder / "config.yaml").exists():
        raise RecipeError(f"{printable(text)}: a run folder, not photos; name it by --run")
    matches = _walk(folder, barred)
    if not matches.photos:
        others = number_of(len(matches.others), "other file") if matches.others else contents(folder)
        raise DatasetError(f"{printable(text)}: no photos in it ({others}); looked for {' '.join(SUFFIXES)}")
    return matches


def _walk(folder: Path, barred: set[str]) -> Matches:
    """The photos at any depth, in order of their names.  Raises ResourceError for a folder that cannot be read."""
    photos: list[Photo] = []
    others: list[Path] = []
    visited, waiting = set(barred), [folder]
    while waiting:
        current = waiting.pop()
        real = os.path.realpath(current)
        if real in visited:
            continue
        visited.add(real)
        folders, files = _listing(current)
        if current != folder and INDEX in files:  # predictions; the folder that was named itself may hold photos too
            continue
        waiting += [current / name for name in folders]
        taken = [current / name for name in files if PurePath(name).suffix.lower() in SUFFIXES]
        photos += [Photo(path, path.relative_to(folder)) for path in taken]
        others += [current / name for name in files if PurePath(name).suffix.lower() not in SUFFIXES]
    return Matches(sorted(photos, key=lambda photo: photo.name.parts), others)


def _listing(folder: Path) -> tuple[list[str], list[str]]:
    """The names of folders and of other things in a folder, hidden ones left out."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise ResourceError(f"{printable(folder)}: the folder cannot be read: {error.strerror}") from error
    folders = {name for name in names if os.path.isdir(folder / name)}  # False, not an error, for a circle of links
    return sorted(folders), sorted(set(names) - folders)


# Patterns


def _matching(pattern: str, barred: set[str]) -> Matches:
    """The photos that match a pattern, and those below the folders that do; they are named from its fixed part on."""
    base = fixed_part(pattern)
    photos: list[Photo] = []
    others: list[Path] = []
    made: dict[Path, bool] = {}
    for path in map(Path, sorted(glob.glob(pattern, recursive=True))):
        if _is_made(path if path.is_dir() else path.parent, base, barred, made):
            continue
        if path.is_dir():
            matches = _walk(path, barred)
            photos += [Photo(photo.path, _name_from(base, photo.path)) for photo in matches.photos]
            others += matches.others
        elif path.suffix.lower() in SUFFIXES:
            photos.append(Photo(path, _name_from(base, path)))
        else:
            others.append(path)
    if not photos:
        raise _no_match(pattern, len(others))
    return Matches(photos, others)


def _is_made(folder: Path, base: Path, barred: set[str], known: dict[Path, bool]) -> bool:
    """Whether a folder below `base` is one of predictions, or in one."""
    if folder not in known:
        inner = folder != base and base in folder.parents
        own = os.path.realpath(folder) in barred or (inner and (folder / INDEX).exists())
        known[folder] = own or (inner and _is_made(folder.parent, base, barred, known))
    return known[folder]


def fixed_part(pattern: str) -> Path:
    """The folders of a pattern before its first wildcard.

    >>> fixed_part("photos/2026/*/x?.jpg").as_posix(), fixed_part("*.jpg").as_posix()
    ('photos/2026', '.')
    """
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed])


def _name_from(base: Path, path: Path) -> PurePath:
    """The path below `base`; of one that leads out of it by `..`, its file name."""
    below = PurePath(os.path.relpath(path, base))
    return PurePath(path.name) if ".." in below.parts else below


# Suggestions


def _nothing(text: str) -> MdpError:
    """The error for a path that is not there."""
    if text in dataset_names():
        return RecipeError(
            f"{text}: a dataset's name, where photos were expected; `mdp eval --target {text} --save` predicts a split"
        )
    path = Path(text)
    while not os.path.isdir(path.parent) and path != path.parent:
        path = path.parent  # the first part that is not there
    try:
        there = os.listdir(path.parent)
    except OSError:
        there = []
    close = difflib.get_close_matches(path.name, there, n=1)
    hint = f"did you mean {printable(path.with_name(close[0]))}?" if close else contents(path.parent)
    what = "" if path == Path(text) else f" (there is no {printable(path)})"
    return DatasetError(f"{printable(text)}: no such photo or folder{what}; {hint}")


def _no_match(pattern: str, others: int) -> DatasetError:
    """The error for a pattern without a photo, with one that would have some."""
    what = f"no image matches {printable(pattern)!r}"
    what += f" ({number_of(others, 'other file')})" if others else ""
    base = fixed_part(pattern)
    if not os.path.isdir(base):
        return DatasetError(f"{what}: {printable(_nothing(str(base)))}")
    for other in _near(pattern):
        if other != pattern and any(_photos_of(other)):
            return DatasetError(f"{what}; did you mean {printable(other)!r}?")
    return DatasetError(f"{what}; {contents(base)}")


def _near(pattern: str) -> Iterator[str]:
    """Patterns that differ in the suffix, or look at any depth, the likeliest first."""
    path = Path(pattern)
    stem = path.stem if path.suffix else path.name
    suffixes = Counter(Path(match).suffix for match in _photos_of(str(path.with_name(f"{stem}.*"))))
    for suffix, _ in suffixes.most_common():
        yield str(path.with_name(stem + suffix))
    yield str(fixed_part(pattern) / "**" / path.name)


def _photos_of(pattern: str) -> Iterable[str]:
    matches = glob.iglob(pattern, recursive=True)
    return (match for match in matches if Path(match).suffix.lower() in SUFFIXES and os.path.isfile(match))
