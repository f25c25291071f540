"""Checkpoints: named tensors and a JSON description in the safetensors layout; nothing in them is ever executed.

A file is an 8-byte length, a JSON header and the raw tensors, so that any safetensors reader opens it.  The header's
free text carries the format version, what the run was, a CRC-32 for every tensor, a SHA-256 of all tensors together, of
the run's settings and of the header itself: a flipped bit anywhere is refused by name instead of becoming another
number.  `header_sha256` is the one rule that all versions share, so that a newer version can be told from damage.
Files are written beside their place, synced, and renamed over it: a reader sees the old file or the new one.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from mdp.io.errors import CheckpointError, ResourceError
from mdp.io.files.writing import write_atomically
from mdp.io.run.header import (
    HEADER_LIMIT,
    VERSION,
    Header,
    TensorEntry,
    about_of,
    canonical,
    config_hash,
    digest_of,
    header_of,
    named,
    opened,
)

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class Checkpoint(NamedTuple):
    """Named tensors, and what they are."""

    tensors: dict[str, Tensor]
    about: dict[str, Any]  # JSON: kind, step, recipe, label spaces, scores


def save(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any], previous: Path | None = None) -> None:
    """Writes a checkpoint atomically; the file that was there before is kept as `previous` if that is given.

    Raises ResourceError, naming the file and the space needed, when it cannot be written; the file that was there
    before stays whole.
    """
    parts, entries = _laid_out(tensors)
    checksums, payload = {}, hashlib.sha256()
    for name, data in parts.items():
        checksums[name] = zlib.crc32(data)
        payload.update(data)
    description = json.dumps(about)
    texts = {
        "format": "mdp",
        "version": str(VERSION),
        "about": description,
        "crc32": json.dumps(checksums),
        "payload_sha256": payload.hexdigest(),
        "config_sha256": config_hash(json.loads(description)),  # as read back: numbers as keys are texts
    }
    _write(path, parts, entries, {**texts, "header_sha256": digest_of(entries, texts)}, previous)


def save_plain(path: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """Writes tensors and free text in the safetensors layout for other libraries: no checkpoint, no checksums.

    Raises ResourceError as `save` does.
    """
    parts, entries = _laid_out(tensors)
    _write(path, parts, entries, texts, None)


def _laid_out(tensors: Mapping[str, Tensor]) -> tuple[dict[str, memoryview], dict[str, Any]]:
    """The bytes of the tensors in the order of the file, and the header's entries for them."""
    parts, entries, start = {}, {}, 0
    # the largest items first, so that every tensor starts aligned
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        tensor = tensors[name].detach().cpu().contiguous()
        parts[name] = _bytes(tensor)
        end = start + len(parts[name])
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    return parts, entries


def _write(
    path: Path,
    parts: Mapping[str, memoryview],
    entries: Mapping[str, Any],
    texts: Mapping[str, str],
    previous: Path | None,
) -> None:
    header = canonical({**entries, "__metadata__": dict(texts)})
    header += b" " * (-len(header) % 8)  # the tensors after it start aligned
    if len(header) > HEADER_LIMIT:
        raise CheckpointError(f"{path}: its description has {len(header)} bytes; at most {HEADER_LIMIT} are read back")
    chunks: list[bytes | memoryview] = [len(header).to_bytes(8, "little"), header, *parts.values()]
    write_atomically(path, chunks, previous)


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint and checks every byte of it.

    Raises CheckpointError, naming the file and what is wrong, for anything that is not a whole checkpoint of mdp.
    """
    with named(path), opened(path, "checkpoint file") as file:
        header = header_of(file)
        about = about_of(path, header)  # before the tensors: another format is refused at once
        return Checkpoint(_tensors(file, header), about)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the free text of any file in the safetensors layout.

    Raises CheckpointError when the layout is broken: lengths, types, holes or overlaps.
    """
    with named(path), opened(path, "checkpoint file") as file:
        header = header_of(file)
        return _tensors(file, header), header.texts


# Reading


def _tensors(file: BinaryIO, header: Header) -> dict[str, Tensor]:
    """The tensors, read straight into their own memory.  Raises ValueError unless they match their sums."""
    ours = header.texts.get("format") == "mdp"
    checksums = json.loads(header.texts["crc32"]) if ours else {}
    if not isinstance(checksums, dict):
        raise ValueError("its checksums are not a table")
    tensors, payload = {}, hashlib.sha256()
    for name, entry in header.tensors.items():
        tensor = _empty(file, entry)
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


def _empty(file: BinaryIO, entry: TensorEntry) -> Tensor:
    """Memory for a tensor; its size has been held against that of the file."""
    try:
        return torch.empty(entry.shape, dtype=_DTYPES[entry.dtype])
    except (RuntimeError, MemoryError) as error:
        raise ResourceError(f"{file.name}: not enough memory for {entry.end - entry.start} bytes of it") from error


def _bytes(tensor: Tensor) -> memoryview:
    array: Any = tensor.reshape(-1).view(torch.uint8).numpy()  # a buffer, whatever the stubs say
    return memoryview(array)
