"""Checkpoints: named tensors and a JSON description in the safetensors layout; nothing in them is ever executed.

A file is an 8-byte length, a JSON header and the raw tensors, so that any safetensors reader opens it.  The header's
free text carries the format version, what the run was, a CRC-32 for every tensor and a SHA-256 of the header itself:
a flipped bit anywhere is refused by name instead of becoming another number.
Files are written beside their place, synced, and renamed over it: a reader sees the old file or the new one.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mdp.io.errors import CheckpointError, ResourceError

VERSION = 1
_HEADER_LIMIT = 100 * 2**20  # bytes; safetensors' own limit
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class Checkpoint(NamedTuple):
    """Named tensors, and what they are."""

    tensors: dict[str, Tensor]
    about: dict[str, Any]  # JSON: kind, step, recipe, label spaces, scores


def save(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Writes a checkpoint atomically.

    Raises ResourceError, naming the file and the space needed, when it cannot be written; the file that was there
    before stays whole.
    """
    # the largest items first, so that every tensor starts aligned
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    parts = {name: tensors[name].detach().cpu().contiguous() for name in names}
    entries: dict[str, Any] = {}
    checksums, start = {}, 0
    for name, tensor in parts.items():
        data = _bytes(tensor)
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, start + len(data)],
        }
        checksums[name] = zlib.crc32(data)
        start += len(data)
    texts = {"format": "mdp", "version": str(VERSION), "about": json.dumps(about), "crc32": json.dumps(checksums)}
    header = _dump({**entries, "__metadata__": {**texts, "header_sha256": _digest(entries, texts)}})
    header += b" " * (-len(header) % 8)
    chunks: list[bytes | memoryview] = [len(header).to_bytes(8, "little"), header, *map(_bytes, parts.values())]
    write_atomically(path, chunks)


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint and checks every byte of it.

    Raises CheckpointError, naming the file and what is wrong, for anything that is not a whole checkpoint of mdp.
    """
    tensors, texts = read_tensors(path)
    if texts.get("format") != "mdp":
        raise CheckpointError(f"{path}: not a checkpoint of mdp; give a plain weights file to --init instead")
    if texts.get("version") != str(VERSION):
        raise CheckpointError(f"{path}: format version {texts.get('version')}, this mdp reads version {VERSION}")
    return Checkpoint(tensors, json.loads(texts["about"]))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the free text of any file in the safetensors layout.

    Raises CheckpointError when the layout is broken: lengths, types, holes or overlaps.
    """
    try:
        if not path.is_file():
            raise CheckpointError(
                f"{path}: expected a checkpoint file, found {'a folder' if path.is_dir() else 'none'}"
            )
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(size - 8, _HEADER_LIMIT):
                raise CheckpointError(f"{path}: cut short or not a checkpoint ({size} bytes)")
            header = json.loads(file.read(length))
            payload = bytearray(file.read())
    except OSError as error:
        raise ResourceError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged or not a checkpoint: the header is not JSON") from error
    try:
        texts = header.pop("__metadata__", {})
        digest = texts.pop("header_sha256", None)
        if (digest or texts.get("format") == "mdp") and digest != _digest(header, texts):
            raise CheckpointError(f"{path}: damaged: the header does not match its checksum")
        return _unpack(header, payload, json.loads(texts.get("crc32", "{}"))), texts
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged: {error}") from error


def _unpack(header: dict[str, Any], payload: bytearray, checksums: dict[str, int]) -> dict[str, Tensor]:
    """The tensors that the header describes.  Raises ValueError unless they fill the payload and match their sums."""
    tensors, expected = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: tuple(item[1]["data_offsets"])):
        dtype, shape, (start, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        count = 1
        for side in shape:
            count *= side
        if start != expected or end - start != count * dtype.itemsize or end > len(payload):
            raise ValueError(f"tensor {name} does not fit its place")
        if checksums and zlib.crc32(memoryview(payload)[start:end]) != checksums[name]:
            raise ValueError(f"tensor {name} does not match its checksum")
        tensors[name] = (
            torch.frombuffer(payload, dtype=dtype, count=count, offset=start).clone().view(shape)
            if count
            else torch.empty(shape, dtype=dtype)
        )
        expected = end
    if expected != len(payload):
        raise ValueError(f"{len(payload) - expected} bytes belong to no tensor")
    return tensors


def _bytes(tensor: Tensor) -> memoryview:
    array: Any = tensor.reshape(-1).view(torch.uint8).numpy()  # a buffer, whatever the stubs say
    return memoryview(array)


def _dump(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(entries: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    return hashlib.sha256(_dump({**entries, "__metadata__": dict(texts)})).hexdigest()


def write_atomically(path: Path, chunks: Sequence[bytes | memoryview]) -> None:
    """Writes a file so that it is there whole or not at all, also after a power cut.

    Raises ResourceError naming the file when the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        need = sum(len(chunk) for chunk in chunks) / 2**20
        raise ResourceError(f"{path}: cannot be written ({need:.1f} MiB): {error.strerror}") from error
