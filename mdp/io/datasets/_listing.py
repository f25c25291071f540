"""The photos in the folders of a folder, as ImageNet has them: listed once, and remembered until a folder changes.

A thousand folders with 1.3 million names take minutes on a network disk.  What was listed is kept beside the checked
files, in `~/.cache/mdp/listings`: a folder for which the time of its last change is the same is not listed again, and
one that changed within the last seconds before it was listed always is, since times are coarse on some disks.
Whatever is wrong with what is kept costs time, never a run.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mdp.io.datasets._layouts import contents, names_of, refuse_controls
from mdp.io.errors import DatasetError
from mdp.io.files.reading import is_dir, printable

_MARK = "mdp listing 1"
_COARSE = 2 * 10**9  # nanoseconds; FAT has the coarsest times
_KEPT = 20  # listings; the oldest are forgotten


class _Folder(NamedTuple):
    """What is kept of a folder."""

    changed: int  # nanoseconds; 0: not to be relied on
    files: str  # names, a line each: a tenth of the memory of as many strings


def folders_of(folder: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """The folders in a folder, sorted, each with the names of its files with one of the suffixes, sorted.

    Hidden ones are left out.  Raises DatasetError where the folder is missing, or a name has control characters.
    """
    if not is_dir(folder):
        raise DatasetError(f"{printable(folder)}: the folder is missing; {contents(folder.parent)}")
    kept = _file_of(folder, suffixes)
    known, fresh, there = _read(kept), False, set()
    for name in names_of(folder):
        path = folder / name
        if not is_dir(path):
            continue
        changed = _changed(path)
        found = known.get(name)
        if found is None or not changed or found.changed != changed:
            files = [file for file in names_of(path) if os.path.splitext(file)[1].lower() in suffixes]
            reliable = bool(changed) and changed < time.time_ns() - _COARSE and changed == _changed(path)
            found = _Folder(changed if reliable else 0, "\n".join(files))
            for inside in (path, *(path / file for file in files)):
                refuse_controls(inside)
            known[name], fresh = found, True
        there.add(name)
        yield name, found.files.split("\n") if found.files else []
    if fresh or there != known.keys():
        _write(kept, {name: known[name] for name in known if name in there})


def _changed(folder: Path) -> int:
    """When a folder changed last; 0 for one in a zip archive."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


# What is kept


def _file_of(folder: Path, suffixes: tuple[str, ...]) -> Path | None:
    """Where the listing of a folder is kept; None where there is no place."""
    name = hashlib.sha256("\0".join((os.path.realpath(folder), *suffixes)).encode("utf-8", "surrogateescape"))
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # there is no home folder
        return None
    return Path(base) / "mdp" / "listings" / f"{name.hexdigest()}.txt"


def _read(kept: Path | None) -> dict[str, _Folder]:
    """The folders of a listing; none of a missing or damaged one."""
    if kept is None:
        return {}
    try:
        text = kept.read_text("utf-8", "surrogateescape")
    except OSError:
        return {}
    if not text.startswith(f"{_MARK}\n/") or not text.endswith("\n/"):
        return {}
    known = {}
    for part in text.removeprefix(_MARK).removesuffix("\n/").split("\n/")[1:]:  # no name begins with a slash
        head, _, files = part.partition("\n")
        changed, _, name = head.partition(" ")
        if not changed.isdigit():
            return {}
        known[name] = _Folder(int(changed), files)
    return known


def _write(kept: Path | None, known: dict[str, _Folder]) -> None:
    """Keeps a listing, whole or not at all."""
    if kept is None:
        return
    temporary = kept.with_name(f".{kept.name}.{os.getpid()}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            file.write(_MARK)
            for name, folder in known.items():
                file.write(f"\n/{folder.changed} {name}\n{folder.files}")
            file.write("\n/")
        temporary.replace(kept)
        for old in sorted(kept.parent.glob("*.txt"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            old.unlink(missing_ok=True)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
