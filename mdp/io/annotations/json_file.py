"""JSON files of annotation tools: read whole, and known by their content."""

import hashlib
import json
from functools import lru_cache
from typing import Any

from mdp.io.errors import DatasetError
from mdp.io.files.reading import Stamp, printable, read_bytes, stamp

_BYTES = 2**30  # COCO-Stuff's for 118,287 photos has 650 MB; of LabelMe's most is the photo once more


def parsed(path: str) -> Any:
    """The values in a JSON file.  Raises DatasetError, naming line and column, for one that is not JSON."""
    data, name = _bytes(path), printable(path)
    if data.startswith(b"version https://git-lfs"):
        raise DatasetError(f"{name}: a pointer of Git LFS in place of the file; fetch it with `git lfs pull`")
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DatasetError(f"{name}: expected JSON: {error.msg} in {where}") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise DatasetError(f"{name}: expected JSON: {printable(error)[:200]}") from error


def digest_of(path: str) -> str:
    """SHA-256 of a file; it is read again when its size or time of change are others."""
    return _digest(path, stamp(path))


@lru_cache(maxsize=4096)
def _digest(path: str, _: Stamp) -> str:
    return hashlib.sha256(_bytes(path)).hexdigest()


def _bytes(path: str) -> bytes:
    return read_bytes(path, "annotation file", _BYTES)
