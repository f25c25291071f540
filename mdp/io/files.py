"""Reading the files people give us: whatever is wrong with one is one clear line, and nothing waits for ever.

Names of files come from archives and lists that somebody else made: before one is put into a message it goes through
`printable`, so that a name cannot move the cursor, colour the terminal or hide behind a line break.
"""

import os
import re
import stat
from pathlib import Path

from mdp.io.errors import DatasetError, MdpError, ResourceError

_BYTES = 2**28  # the largest photo that is read, 8192 x 8192 of 8-bit RGB, takes 201 MB without compression
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


def read_bytes(path: str, what: str, limit: int = _BYTES, error: type[MdpError] = DatasetError) -> bytes:
    """A file's content.

    Raises `error` when it is missing, no plain file or above the limit, ResourceError when it may not be read.
    """
    name = printable(path)
    try:
        found = os.stat(path)
        # opening a named pipe would wait for ever, opening a device may do anything; the second look is for what
        # took the file's place in between
        _refuse_others(found, name, what, limit, error)
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(handle, "rb") as file:
            found = os.fstat(handle)
            _refuse_others(found, name, what, limit, error)
            return file.read(found.st_size)
    except (FileNotFoundError, NotADirectoryError) as reason:
        raise error(f"{name}: the {what} is missing") from reason
    except (PermissionError, MemoryError) as reason:
        raise ResourceError(f"{name}: cannot be read: {_reason(reason)}") from reason
    except (OSError, ValueError) as reason:
        raise error(f"{name}: cannot be read: {_reason(reason)}") from reason


def _refuse_others(found: os.stat_result, name: str, what: str, limit: int, error: type[MdpError]) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise error(f"{name}: expected a {what}, found a folder")
    if not stat.S_ISREG(found.st_mode):
        raise error(f"{name}: expected a {what}, found a device or pipe")
    if found.st_size > limit:
        raise error(f"{name}: {found.st_size} bytes; a {what} has at most {limit}")


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
    """What makes an entry of a dataset's folder unusable: no file, or a link out of the border; "" if nothing.

    Nothing is opened.
    """
    out = way_out(path, border)
    if out:
        return out
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return f"cannot be read: {_reason(error)}"
    if stat.S_ISREG(mode):
        return ""
    return "is a folder, not a file" if stat.S_ISDIR(mode) else "is a device or pipe, not a file"
