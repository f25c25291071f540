"""Folders and lists of datasets as their makers lay them out."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mdp.io.datasets._dataset import Absent, Sample
from mdp.io.errors import DatasetError, ResourceError
from mdp.io.files.reading import (
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

_LIST_BYTES = 2**28  # the list of ImageNet's 1,281,167 photos has 77 MB
_LINE = 1024  # characters of a list's line


def home_of(name: str, root: Path, folders: Sequence[str], marker: str, home: str) -> Path:
    """The folder, among `folders` under `root`, that holds `marker`, if only in a zip archive.

    What is in it is to be asked of `locate`.  Raises Absent naming all of them.
    """
    for folder in folders:
        if exists(root, root / folder / marker):
            return root / folder
    looked = ", ".join(str(root / folder / marker) for folder in folders)
    there = contents(root) if is_dir(root) else f"there is no folder {root}: set --root or MDP_DATA"
    there += _unusable_in(root / folder for folder in folders if folder != ".")
    raise Absent(f"{name}: not found; looked for {looked} ({there}); {home}")


def contents(folder: Path) -> str:
    """The first names in a folder, or in the nearest one above it that is there, for error messages."""
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
        return set()  # `paired` lists what is missing, with where to get it


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
    lines = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        if has_controls(line.replace("\t", "")):
            raise DatasetError(f"{printable(path)}: line {number}: control characters in {shown(line)}")
        if len(line) > _LINE:
            raise DatasetError(f"{printable(path)}: line {number}: {len(line)} characters; a line has at most {_LINE}")
        if line.strip():
            lines.append((number, line.strip()))
    return lines


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
    return [inner / name for inner in folders for name in names_of(inner) if name.endswith(ending)]
