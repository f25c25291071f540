"""Checkpoints: named tensors and a JSON description in the safetensors layout; nothing in them is ever executed.

A file is an 8-byte length, a JSON header and the raw tensors, so that any safetensors reader opens it.  The header's
free text carries the format version, what the run was, a CRC-32 for every tensor, a SHA-256 of all tensors together, of
the run's settings and of the header itself: a flipped bit anywhere is refused by name instead of becoming another
number.  `header_sha256` is the one rule that all versions share, so that a newer version can be told from damage.
Files are written beside their place, synced, and renamed over it: a reader sees the old file or the new one.
"""

import hashlib
import json
import math
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from mdp.io.errors import CheckpointError, ResourceError
from mdp.io.files.reading import printable
from mdp.io.files.writing import write_atomically

VERSION = 2
HEADER_LIMIT = 16 * 2**20  # bytes; hundreds of times what the largest network here needs
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_DIGITS = re.compile(r"[1-9][0-9]{0,5}")


class Checkpoint(NamedTuple):
    """Named tensors, and what they are."""

    tensors: dict[str, Tensor]
    about: dict[str, Any]  # JSON: kind, step, recipe, label spaces, scores


class Place(NamedTuple):
    """A tensor that a header describes, and where it lies after the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int  # bytes
    end: int


class Header(NamedTuple):
    """What a file says of itself, without its numbers."""

    places: dict[str, Place]  # in the order of the file
    texts: dict[str, str]  # as written: format, version, about, checksums
    size: int  # bytes of the whole file


def save(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any], previous: Path | None = None) -> None:
    """Writes a checkpoint atomically; the file that was there before is kept as `previous` if that is given.

    Raises ResourceError, naming the file and the space needed, when it cannot be written; the file that was there
    before stays whole.
    """
    parts, entries = _laid_out(tensors)
    checksums, payload = {}, hashlib.sha256()
    for name, tensor in parts.items():
        data = _bytes(tensor)
        checksums[name] = zlib.crc32(data)
        payload.update(data)
    description = json.dumps(about)
    texts = {
        "format": "mdp",
        "version": str(VERSION),
        "about": description,
        "crc32": json.dumps(checksums),
        "payload_sha256": payload.hexdigest(),
        "config_sha256": config_hash(json.loads(description)),
    }
    _write(path, parts, entries, {**texts, "header_sha256": _digest(entries, texts)}, previous)


def save_plain(path: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """Writes tensors and free text in the safetensors layout for other libraries: no checkpoint, no checksums.

    Raises ResourceError as `save` does.
    """
    parts, entries = _laid_out(tensors)
    _write(path, parts, entries, texts, None)


def _laid_out(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors in the order of the file, and the header's entries for them."""
    # the largest items first, so that every tensor starts aligned
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    parts = {name: tensors[name].detach().cpu().contiguous() for name in names}
    entries, start = {}, 0
    for name, tensor in parts.items():
        end = start + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    return parts, entries


def _write(
    path: Path, parts: Mapping[str, Tensor], entries: Mapping[str, Any], texts: Mapping[str, str], previous: Path | None
) -> None:
    header = _dump({**entries, "__metadata__": dict(texts)})
    header += b" " * (-len(header) % 8)
    if len(header) > HEADER_LIMIT:
        raise CheckpointError(f"{path}: its description has {len(header)} bytes; at most {HEADER_LIMIT} are read back")
    chunks: list[bytes | memoryview] = [len(header).to_bytes(8, "little"), header, *map(_bytes, parts.values())]
    write_atomically(path, chunks, previous)


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint and checks every byte of it.

    Raises CheckpointError, naming the file and what is wrong, for anything that is not a whole checkpoint of mdp.
    """
    with _named(path), opened(path, "checkpoint file") as file:
        header = _header(file)
        about = _about(path, header)  # before the tensors: another format is told at once
        return Checkpoint(_tensors(file, header), about)


def read_about(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, without its tensors; only the header is read and checked.

    Raises CheckpointError, naming the file and what is wrong, unless it is the header of a checkpoint of mdp.
    """
    return _about(path, read_header(path))


def read_header(path: Path) -> Header:
    """The header of any file in the safetensors layout, checked against its own checksum where it has one.

    Raises CheckpointError when it is damaged, or when the file is too short or too long for it.
    """
    with _named(path), opened(path, "checkpoint file") as file:
        return _header(file)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the free text of any file in the safetensors layout.

    Raises CheckpointError when the layout is broken: lengths, types, holes or overlaps.
    """
    with _named(path), opened(path, "checkpoint file") as file:
        header = _header(file)
        return _tensors(file, header), header.texts


def config_hash(about: Mapping[str, Any]) -> str:
    """SHA-256 of the run's settings as canonical JSON; empty without settings."""
    return hashlib.sha256(_dump(about["recipe"])).hexdigest() if "recipe" in about else ""


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


def _about(path: Path, header: Header) -> dict[str, Any]:
    with _named(path):
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
        found = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
        raise CheckpointError(f"{path}: expected a {what}, found {found}")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Names the file in what its reading found wrong."""
    try:
        yield
    except RecursionError as error:
        raise CheckpointError(f"{path}: damaged or not a checkpoint: nested too deeply") from error
    except (ValueError, KeyError) as error:
        missing = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{path}: damaged or not a checkpoint: {printable(missing)}") from error


def _header(file: BinaryIO) -> Header:
    """The header, with `file` left at the first tensor.  Raises ValueError unless it fits the file and its sums."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 2 <= length <= min(size - 8, HEADER_LIMIT):
        raise ValueError(f"{size} bytes, cut short or of another kind")
    raw = file.read(length)
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
    places = {name: _place(name, entry) for name, entry in entries.items()}
    places = dict(sorted(places.items(), key=lambda item: (item[1].start, item[1].end)))
    expected = 0
    for name, place in places.items():
        if place.start != expected or place.end - place.start != math.prod(place.shape) * place.dtype.itemsize:
            raise ValueError(f"tensor {name} does not fit its place")
        expected = place.end
    if expected != size - 8 - length:
        raise ValueError(f"cut short or too long: {size - 8 - length} bytes of tensors where {expected} are described")
    return Header(places, texts, size)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("the header has the same name twice")
    return table


def _check_header(raw: bytes, entries: dict[str, Any], texts: dict[str, str]) -> None:
    """Checks the header's own sum, which is taken out of `texts`, then the version.  Raises ValueError."""
    ours = texts.get("format") == "mdp"
    # we write one spelling only, so that even a flip that means the same (\u00fc, \u00FC) is seen
    spelling = _dump({**entries, "__metadata__": texts}) if ours else b""
    digest = texts.pop("header_sha256", None)
    if (digest or ours) and digest != _digest(entries, texts):
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


def _place(name: str, entry: Any) -> Place:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} is not described as a tensor")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"tensor {name} has the type {dtype}; mdp reads {', '.join(_DTYPES)}")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2 or len(shape) > 64:
        raise ValueError(f"tensor {name} has no proper shape and place")
    if not all(type(number) is int and 0 <= number < 2**48 for number in (*shape, *offsets)):
        raise ValueError(f"tensor {name} has a shape or place out of range")
    return Place(_DTYPES[dtype], tuple(shape), offsets[0], offsets[1])


def _tensors(file: BinaryIO, header: Header) -> dict[str, Tensor]:
    """The tensors, read straight into their own memory.  Raises ValueError unless they match their sums."""
    ours = header.texts.get("format") == "mdp"
    checksums = json.loads(header.texts["crc32"]) if ours else {}
    if not isinstance(checksums, dict):
        raise ValueError("its checksums are not a table")
    tensors, payload = {}, hashlib.sha256()
    for name, place in header.places.items():
        tensor = _empty(file, place)
        data = _bytes(tensor)
        if file.readinto(data) != len(data):  # type: ignore[attr-defined]
            raise ValueError(f"cut short in tensor {name}")
        if ours:
            payload.update(data)
            if zlib.crc32(data) != checksums.get(name):
                raise ValueError(f"tensor {name} does not match its checksum")
        tensors[name] = tensor
    if ours and header.texts["version"] != "1" and header.texts["payload_sha256"] != payload.hexdigest():
        raise ValueError("the tensors together do not match their checksum")
    return tensors


def _empty(file: BinaryIO, place: Place) -> Tensor:
    """Memory for a tensor; its place has been held against the size of the file."""
    try:
        return torch.empty(place.shape, dtype=place.dtype)
    except (RuntimeError, MemoryError) as error:
        raise ResourceError(f"{file.name}: not enough memory for {place.end - place.start} bytes of it") from error


def _bytes(tensor: Tensor) -> memoryview:
    array: Any = tensor.reshape(-1).view(torch.uint8).numpy()  # a buffer, whatever the stubs say
    return memoryview(array)


def _dump(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(entries: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    return hashlib.sha256(_dump({**entries, "__metadata__": dict(texts)})).hexdigest()
