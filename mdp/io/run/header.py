"""The header of a file in the safetensors layout: reading and checking it needs no torch.

A file is an 8-byte length, a JSON header and the raw tensors.  The header's free text carries the format version, what
the run was, a CRC-32 for every tensor, a SHA-256 of all tensors together, of the run's settings and of the header
itself.  `header_sha256` is the one rule that all versions share, so that a newer version can be told from damage.
"""

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mdp.io.errors import CheckpointError, ResourceError
from mdp.io.files.reading import printable

VERSION = 2
HEADER_LIMIT = 16 * 2**20  # bytes; hundreds of times what the largest network here needs
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
_DIGITS = re.compile(r"[1-9][0-9]{0,5}")


class TensorEntry(NamedTuple):
    """A tensor that a header describes, and where it lies after the header."""

    dtype: str  # a key of ITEM_BYTES
    shape: tuple[int, ...]
    start: int  # bytes
    end: int


class Header(NamedTuple):
    """The description of a file's tensors, and its free text."""

    tensors: dict[str, TensorEntry]  # in the order of the file
    texts: dict[str, str]  # as written: format, version, about, checksums
    size: int  # bytes of the whole file


def read_about(path: Path) -> dict[str, Any]:
    """The JSON in which a checkpoint describes itself; only the header is read and checked.

    Raises CheckpointError, naming the file and what is wrong, unless it is the header of a checkpoint of mdp.
    """
    return about_of(path, read_header(path))


def read_header(path: Path) -> Header:
    """The header of any file in the safetensors layout, checked against its own checksum where it has one.

    Raises CheckpointError when it is damaged, or when the file is too short or too long for it.
    """
    with named(path), opened(path, "checkpoint file") as file:
        return header_of(file)


def config_hash(about: Mapping[str, Any]) -> str:
    """SHA-256 of the run's settings as canonical JSON; empty without settings."""
    return hashlib.sha256(canonical(about["recipe"])).hexdigest() if "recipe" in about else ""


# Versions


def _from_1(texts: dict[str, str]) -> dict[str, str]:
    """Version 2 added the two hashes; version 1 has a checksum for every tensor, which is checked all the same."""
    return {**texts, "version": "2", "config_sha256": config_hash(json.loads(texts["about"]))}


UPGRADES: dict[int, Callable[[dict[str, str]], dict[str, str]]] = {1: _from_1}  # version -> texts of the next one


def current_texts(path: Path, header: Header) -> dict[str, str]:
    """The texts of a checkpoint as the present version would have them.

    Raises CheckpointError for files that are no checkpoint of mdp.
    """
    texts = header.texts
    if texts.get("format") != "mdp":
        raise CheckpointError(f"{path}: not a checkpoint of mdp; give a plain weights file to --init instead")
    for version in range(int(texts["version"]), VERSION):
        texts = UPGRADES[version](texts)
    return texts


def about_of(path: Path, header: Header) -> dict[str, Any]:
    """The JSON in which a checkpoint describes itself.  Raises CheckpointError where its settings have another sum."""
    with named(path):
        texts = current_texts(path, header)
        about: dict[str, Any] = json.loads(texts["about"])
        if not isinstance(about, dict) or texts["config_sha256"] != config_hash(about):
            raise ValueError("its settings do not match their checksum")
        return about


# Reading


@contextmanager
def opened(path: Path, what: str) -> Iterator[BinaryIO]:
    """A plain file, open for reading; nothing else is even opened, for a named pipe would wait for ever.

    Raises CheckpointError when there is no plain file of that name, ResourceError when it cannot be read.
    """
    if "\0" in str(path):
        raise CheckpointError(f"{printable(path)}: expected a {what}, found a null character in its path")
    try:
        _expect_plain(path, what, path.stat().st_mode)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            _expect_plain(path, what, os.fstat(descriptor).st_mode)  # it may have been replaced in between
            yield file
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"{path}: expected a {what}, found none") from error
    except OSError as error:
        raise ResourceError(f"{path}: cannot be read: {error.strerror or error}") from error


def _expect_plain(path: Path, what: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
        raise CheckpointError(f"{path}: expected a {what}, found {kind}")


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Names the file in what its reading found wrong."""
    try:
        yield
    except RecursionError as error:
        raise CheckpointError(f"{path}: damaged or not a checkpoint: nested too deeply") from error
    except (ValueError, KeyError) as error:
        missing = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{path}: damaged or not a checkpoint: {printable(missing)}") from error


def header_of(file: BinaryIO) -> Header:
    """The header, with `file` left at the first tensor.  Raises ValueError unless it fits the file and its sums."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 2 <= length <= min(size - 8, HEADER_LIMIT):
        raise ValueError(f"{size} bytes, cut short or of another kind")
    header = _parsed(file.read(length), size)
    return Header(dict(header.tensors), dict(header.texts), header.size)


@lru_cache(maxsize=4)  # a command looks at the same few again and again: the bytes say whether it is the same one
def _parsed(raw: bytes, size: int) -> Header:
    """The header whose bytes these are, of a file of that size.  Raises ValueError."""
    try:
        entries = json.loads(raw.decode(), object_pairs_hook=_unique)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError("the header is not JSON") from error
    if not isinstance(entries, dict):
        raise ValueError("the header is not a table")
    texts = entries.pop("__metadata__", {})
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("the header's texts are not texts")
    _check_header(raw, entries, texts)
    tensors = {name: _tensor_entry(name, entry) for name, entry in entries.items()}
    tensors = dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)))
    expected = 0  # every size is held against the file before memory is taken for it
    for name, tensor in tensors.items():
        if tensor.start != expected or tensor.end - tensor.start != math.prod(tensor.shape) * ITEM_BYTES[tensor.dtype]:
            raise ValueError(f"tensor {name} does not fit its place")
        expected = tensor.end
    if expected != size - 8 - len(raw):
        raise ValueError(
            f"cut short or too long: {size - 8 - len(raw)} bytes of tensors where {expected} are described"
        )
    return Header(tensors, texts, size)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("the header has the same name twice")
    return table


def _check_header(raw: bytes, entries: dict[str, Any], texts: dict[str, str]) -> None:
    """Checks the header's own sum, which is taken out of `texts`, then the version.  Raises ValueError."""
    ours = texts.get("format") == "mdp"
    # we write one spelling only, so that even a flip that means the same (\u00fc, \u00FC) is seen
    spelling = canonical({**entries, "__metadata__": texts}) if ours else b""
    digest = texts.pop("header_sha256", None)
    if (digest or ours) and digest != digest_of(entries, texts):
        raise ValueError("the header does not match its checksum")
    if not ours:
        return
    if raw != spelling + b" " * (-len(spelling) % 8):
        raise ValueError("the header is not as mdp writes it")
    version = texts.get("version", "")
    if not _DIGITS.fullmatch(version):
        raise ValueError(f"its format version is {version!r}")
    if int(version) > VERSION:
        raise ValueError(f"written by a newer mdp (format version {version}, this one reads up to {VERSION}); update")


def _tensor_entry(name: str, entry: Any) -> TensorEntry:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} is not described as a tensor")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ValueError(f"tensor {name} has the type {dtype}; mdp reads {', '.join(ITEM_BYTES)}")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2 or len(shape) > 64:
        raise ValueError(f"tensor {name} has no proper shape and place")
    if not all(type(number) is int and 0 <= number < 2**48 for number in (*shape, *offsets)):
        raise ValueError(f"tensor {name} has a shape or place out of range")
    return TensorEntry(dtype, tuple(shape), offsets[0], offsets[1])


def canonical(value: Any) -> bytes:
    """The one spelling in which headers are written and summed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def digest_of(entries: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """SHA-256 of a header without that sum itself."""
    return hashlib.sha256(canonical({**entries, "__metadata__": dict(texts)})).hexdigest()
