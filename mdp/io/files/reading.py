"""Reading the files people give us: whatever is wrong with one is one clear line, and nothing waits for ever.

Names of files come from archives and lists that somebody else made: before one is put into a message it goes through
`printable`, so that a name cannot move the cursor, colour the terminal or hide behind a line break.  A path may lead
into a zip archive as into a folder, `data/photos.zip/train/a.jpg`; it is read without unpacking.
"""

import os
import re
import stat
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from mdp.io.errors import DatasetError, MdpError, ResourceError
from mdp.io.files import zips

# what NumPy raises for an .npy or .npz file that is none, is cut short or says impossible things
UNREADABLE_ARRAYS = (
    OSError, EOFError, ValueError, LookupError, TypeError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_PIXELS = 2**26  # an 8k x 8k photo
_BYTES = 2**28  # such a photo of 8-bit RGB takes 201 MB without compression
STAY_INSIDE = "paths must stay inside, unless the dataset's YAML file says `outside: true`"
# C0 and C1 controls, line and paragraph separators, overrides of the writing direction
_CONTROLS = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_CONTROL = re.compile(f"[{_CONTROLS}\ud800-\udc7f\udd00-\udfff]")  # and halves of characters, in no file name
_UNPRINTABLE = re.compile(f"[{_CONTROLS}\ud800-\udfff]")  # and what stands for a byte of a name that is no UTF-8


def printable(text: object) -> str:
    r"""The text with everything escaped that a terminal might obey, or could not print.

    >>> print(printable("a\x1b[31m.png"), printable("b\udcff.png"))
    a\x1b[31m.png b\xff.png
    """
    return _UNPRINTABLE.sub(_escaped, str(text))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # Python's stand-in for a byte of a file name
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape", "surrogatepass").decode()


def shown(value: object, length: int = 80) -> str:
    """A value as Python writes it, on one line, cut where a message would be buried under it."""
    text = printable(repr(value))
    return text if len(text) <= length else f"{text[:length]}... ({len(text)} characters)"


def has_controls(text: str) -> bool:
    """Whether the text holds what no name should: control characters, line breaks and tabs among them."""
    return _CONTROL.search(text) is not None


def most_pixels() -> int:
    """Pixels of the largest image that is read: what the environment's MDP_MAX_PIXELS says, or 67,108,864.

    Raises ResourceError where it says no number.
    """
    text = os.environ.get("MDP_MAX_PIXELS", "")
    if not text:
        return _PIXELS
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:19]) < 2**40:
        raise ResourceError(f"MDP_MAX_PIXELS: expected a number of pixels, such as {4 * _PIXELS}, got {shown(text)}")
    return int(text)


def read_bytes(path: str, what: str, limit: int | None = None, error: type[MdpError] = DatasetError) -> bytes:
    """A file's content, of at most so many bytes (by default what the largest image may take).

    Raises `error` when it is missing, no plain file or above the limit, ResourceError when it may not be read.
    """
    name = printable(path)
    limit = max(_BYTES, 4 * most_pixels()) if limit is None else limit
    try:
        zipped = zips.split(path)
        if zipped and zipped[1]:
            return _unzipped(*zipped, what, limit)
        status = os.stat(path)
        # opening a named pipe would wait for ever, opening a device may do anything; the second look is for what
        # took the file's place in between
        _refuse_others(status, name, what, limit, error)
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            _refuse_others(status, name, what, limit, error)
            return file.read(status.st_size)
    except (FileNotFoundError, NotADirectoryError) as reason:
        raise error(f"{name}: the {what} is missing") from reason
    except (PermissionError, MemoryError) as reason:
        raise ResourceError(f"{name}: cannot be read: {_reason(reason)}") from reason
    except IsADirectoryError as reason:
        raise error(f"{name}: expected a {what}, found a folder") from reason
    except zips.Unusable as reason:
        raise error(f"{name}: {printable(reason)}") from reason
    except (OSError, ValueError) as reason:
        raise error(f"{name}: cannot be read: {_reason(reason)}") from reason


def _unzipped(path: str, inside: str, what: str, limit: int) -> bytes:
    held = zips.archive(path)
    entry = held.entry(inside)
    if entry is None:
        raise IsADirectoryError if inside in held.folders else FileNotFoundError
    return zips.read(held, entry, what, limit)


def _refuse_others(status: os.stat_result, name: str, what: str, limit: int, error: type[MdpError]) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise error(f"{name}: expected a {what}, found a folder")
    if not stat.S_ISREG(status.st_mode):
        raise error(f"{name}: expected a {what}, found a device or pipe")
    if status.st_size > limit:
        raise error(f"{name}: {status.st_size} bytes; a {what} has at most {limit}")


def _reason(error: BaseException) -> str:
    """Why, without the file's name, which stands before it already."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return printable(text)


def way_out(path: Path, border: str) -> str:
    """How a path leaves the folder `border` (a real path) through symbolic links; "" if it does not."""
    real = os.path.realpath(path)
    if real == border or real.startswith(border.rstrip(os.sep) + os.sep):
        return ""
    return f"leads out of the dataset's folder {printable(border)}, to {printable(real)}; {STAY_INSIDE}"


def stray_entry(path: Path, border: str) -> str:
    """Why an entry of a dataset's folder is unusable: no file, or a link out of the border; "" if nothing.

    Nothing is opened.
    """
    out = way_out(path, border)
    if out:
        return out
    if zips.split(str(path)):
        return "is a folder, not a file" if is_dir(path) else ""  # links in archives are refused
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return f"cannot be read: {_reason(error)}"
    if stat.S_ISREG(mode):
        return ""
    return "is a folder, not a file" if stat.S_ISDIR(mode) else "is a device or pipe, not a file"


# What there is, in folders and in zip archives


class Stamp(NamedTuple):
    """Size and time of a file, one of which changes when the file does."""

    size: int  # bytes; -1 where there is no file
    changed: int  # nanoseconds; of a file in a zip archive, when the archive was changed
    inside: str = ""  # of a file in an archive: the archive's size and the file's checksum


def stamp(path: str) -> Stamp:
    """Size and time of change of a file, without opening it."""
    try:
        zipped = zips.split(path)
        if not zipped or not zipped[1]:
            status = os.stat(path)
            return Stamp(status.st_size, status.st_mtime_ns)
        held = zips.archive(zipped[0])
        entry = held.entry(zipped[1])
    except (OSError, ValueError, zips.Unusable):
        return Stamp(-1, -1)
    return Stamp(entry.size, held.changed, f"{held.size} {entry.crc:08x}") if entry else Stamp(-1, -1)


def is_file(path: Path | str) -> bool:
    """Whether there is a plain file.  Raises DatasetError for a path into a zip archive that is not read."""
    held = _held(path)
    return os.path.isfile(path) if held is None else held[0].entry(held[1]) is not None


def is_dir(path: Path | str) -> bool:
    """Whether there is a folder, which a zip archive is too.  Raises DatasetError for one that is not read."""
    held = _held(path)
    return os.path.isdir(path) if held is None else held[1] in held[0].folders


def names_in(folder: Path) -> list[str]:
    """The names in a folder, in no order.  Raises what `listed` raises."""
    held = _held(folder)
    return os.listdir(folder) if held is None else [name for name, _ in listed(folder)]


def listed(folder: Path) -> list[tuple[str, bool]]:
    """The names in a folder, each with whether it is anything but a plain file.

    Raises OSError as listing does, DatasetError for a zip archive that is not read.
    """
    held = _held(folder)
    if held is None:
        with os.scandir(folder) as entries:
            return [(entry.name, not entry.is_file(follow_symlinks=False)) for entry in entries]
    archive, inside = held
    if inside not in archive.folders:
        raise FileNotFoundError(f"{printable(folder)}: no such folder")
    return [(name, False) for name in archive.files[inside]] + [(name, True) for name in archive.folders[inside]]


def _held(path: Path | str) -> tuple[zips.Archive, str] | None:
    """The zip archive that a path leads into, and the path inside; None where it leads into none."""
    zipped = zips.split(str(path))
    if not zipped:
        return None
    try:
        return zips.archive(zipped[0]), zipped[1]
    except zips.Unusable as error:
        raise DatasetError(f"{printable(zipped[0])}: {printable(error)}") from error
    except OSError as error:
        raise ResourceError(f"{printable(zipped[0])}: cannot be read: {_reason(error)}") from error


def exists(root: Path, path: Path) -> bool:
    """Whether `locate` finds it."""
    return bool(_matches(root, path))


def locate(root: Path, path: Path) -> Path:
    """Where a file or folder lies: a zip archive below the root is read as if it were unpacked where it lies.

    What really is unpacked comes first.  The path itself where it is nowhere.  Raises DatasetError when two archives
    of one folder hold it.
    """
    matches = _matches(root, path)
    if len(matches) > 1:
        names = " and ".join(printable(match) for match in matches[:2])
        raise DatasetError(f"{printable(path)}: there are {names}; remove the zip archive that is not meant")
    return matches[0] if matches else path


def _matches(root: Path, path: Path) -> list[Path]:
    """The path where it is there, else its paths in those zip archives of the nearest folder above that hold it."""
    if is_dir(path) or is_file(path):
        return [path]
    for folder in path.parents:
        if folder != root and root not in folder.parents:
            break
        inside = path.relative_to(folder)
        matches = [archive / inside for archive in archives(folder) if not unusable(archive)]
        matches = [match for match in matches if is_dir(match) or is_file(match)]
        if matches:
            return matches
    return []


def archives(folder: Path) -> list[Path]:
    """The zip files that lie in a folder, sorted."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.lower().endswith(".zip") and name[0] != ".")
    except (OSError, ValueError):
        return []
    return [folder / name for name in names if os.path.isfile(folder / name)]


def unusable(path: Path) -> str:
    """Why a zip archive is not read; "" if it is."""
    try:
        _held(path)
    except MdpError as error:
        return str(error).removeprefix(f"{printable(path)}: ")
    return ""
