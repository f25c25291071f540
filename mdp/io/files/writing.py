"""Writing files whole or not at all."""

import csv
import errno
import io
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mdp.io.errors import ResourceError

_SHORT = 50  # characters: a name may be so long that nothing can be added to it
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)  # some network file systems do not know it


# Writing


def write_atomically(path: Path, chunks: Sequence[bytes | memoryview], previous: Path | None = None) -> None:
    """Writes a file so that it is there whole or not at all, also after a power cut.

    The file that was there before is renamed to `previous`, if that is given, once the new one is safely on the disk.
    Raises ResourceError naming the file when the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name[:_SHORT]}.{os.getpid()}.tmp")
    try:
        _write_synced(temporary, chunks)
        _put(temporary, path, previous)
        for folder in {path.parent, (previous or path).parent}:
            _sync_folder(folder)  # a new name is on the disk only once its folder is
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if not isinstance(error, OSError):
            raise
        need = sum(len(chunk) for chunk in chunks) / 2**20
        raise ResourceError(
            f"{path}: cannot be written ({need:.1f} MiB): {error.strerror}{_room(path, error)}"
        ) from error


def _write_synced(path: Path, chunks: Sequence[bytes | memoryview]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:  # one call writes 2 GiB at most, and less when a disk fills up
                rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put(temporary: Path, path: Path, previous: Path | None) -> None:
    """Renames the finished file into place, the old one to `previous` just before; undone when it fails half-way."""
    moved = False
    if previous is not None:
        with suppress(FileNotFoundError):
            os.replace(path, previous)
            moved = True
    try:
        os.replace(temporary, path)
    except OSError:
        if previous is not None and moved:
            with suppress(OSError):
                os.replace(previous, path)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def _room(path: Path, error: OSError) -> str:
    if error.errno != errno.ENOSPC:
        return ""
    try:
        return f"; {shutil.disk_usage(path.parent).free / 2**20:.1f} MiB are free there"
    except OSError:
        return ""


def make(folder: Path) -> Path:
    """The folder, made if need be.  Raises ResourceError when it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{folder}: cannot make the folder: {error.strerror}") from error
    return folder


def write_text(path: Path, text: str) -> None:
    """Writes a small text file whole or not at all, as UTF-8; names of files that are none are written as they are."""
    write_atomically(path, [text.encode(errors="surrogateescape")])


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as the text of a CSV file; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
