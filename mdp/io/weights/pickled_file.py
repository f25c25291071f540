"""The two forms of file that torch.save writes, a zip archive and (before version 1.6) a row of pickles and numbers.

Both are read here without torch's own reader, which believes the sizes they state: 400 bytes can ask for gigabytes, or
for numbers beyond the end of a storage.  What is read is what `pickles.py` has found inside the bytes the file has.
"""

import io
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from mdp.io.weights.pickle_parts import PickledTensor, Storage
from mdp.io.weights.pickles import follow

_PICKLE = 128 * 2**20  # bytes
_INFLATION = 4  # times the size of the file: weights hardly shrink when they are packed
_MAGIC = 0x1950A86A20F9469CFC6C  # opens the files that torch wrote before version 1.6
_DTYPES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool,
}  # fmt: skip


class Pickled(NamedTuple):
    """What a file holds, with stand-ins for its tensors, and how to read their numbers while it is open."""

    value: Any
    skipped: Counter[str]  # classes of the objects in it that are left out
    numbers: Callable[[Storage], bytearray]
    swapped: bool  # whether its numbers have the byte order that this machine has not


def read_pickled(file: BinaryIO, size: int) -> Pickled:
    """What a `.pth` file of that size holds.  Raises ValueError, saying why, unless all of it is in the file."""
    start = file.read(4)
    file.seek(0)
    return _read_zip(file, size) if start == b"PK\x03\x04" else _read_legacy(file, size)


def tensors_of(pickled: Pickled, wanted: Mapping[str, PickledTensor]) -> dict[str, Tensor]:
    """The tensors of their stand-ins; those that share a storage in the file share it here."""
    storages: dict[str, bytearray] = {}
    return {name: _tensor(pickled, found, storages) for name, found in wanted.items()}


def _tensor(pickled: Pickled, found: PickledTensor, storages: dict[str, bytearray]) -> Tensor:
    storage, dtype = found.storage, _DTYPES[found.storage.kind]
    if storage.numbers == 0:
        return torch.empty(found.shape, dtype=dtype)
    if storage.key not in storages:
        storages[storage.key] = pickled.numbers(storage)
    count = storage.start + storage.numbers
    row = torch.frombuffer(storages[storage.key], dtype=dtype, count=count)
    if pickled.swapped:
        row = row.view(torch.uint8).view(count, -1).flip(1).view(dtype).view(count)
    return row.as_strided(found.shape, found.stride, storage.start + found.offset)


# A zip archive


def _read_zip(file: BinaryIO, size: int) -> Pickled:
    archive = zipfile.ZipFile(file)  # closes with the file
    members = {member.filename: member for member in archive.infolist()}
    if len(members) < len(archive.infolist()) or min(m.header_offset for m in members.values()) != 0:
        raise ValueError("its table of contents is not one that torch writes")
    unpacked = sum(member.file_size for member in members.values())
    if unpacked > _INFLATION * size:
        raise ValueError(f"{size} bytes that unpack to {unpacked}")
    damaged = archive.testzip()  # torch writes the checksums and never looks at them
    if damaged is not None:
        raise ValueError(f"{damaged} does not match its checksum")
    pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise ValueError("there is not one data.pkl in it")
    if members[pickles[0]].file_size > _PICKLE:
        raise ValueError(f"its data.pkl has more than {_PICKLE} bytes")
    folder = pickles[0].removesuffix(".pkl")
    sizes = {name.removeprefix(f"{folder}/"): member.file_size for name, member in members.items()}

    def fetch(storage: Storage) -> None:
        if storage.size > sizes.get(storage.key, -1):
            raise ValueError(f"storage {storage.key} states {storage.size} bytes and has {sizes.get(storage.key, 0)}")

    def numbers(storage: Storage) -> bytearray:
        return bytearray(archive.read(f"{folder}/{storage.key}"))

    found = follow(io.BytesIO(archive.read(pickles[0])), fetch)
    order = f"{folder.rpartition('/')[0]}/byteorder"
    swapped = order in members and archive.read(order) == (b"big" if sys.byteorder == "little" else b"little")
    return Pickled(found.value, found.skipped, numbers, swapped)


# Before version 1.6


def _read_legacy(file: BinaryIO, size: int) -> Pickled:
    """Five pickles (magic number, protocol, system, what was saved, storage keys), then the storages themselves."""
    stream = io.BytesIO(file.read(_PICKLE))
    stated: dict[str, Storage] = {}
    total = 0

    def fetch(storage: Storage) -> None:
        nonlocal total
        known = stated[storage.key].size if storage.key in stated else -1
        if storage.size > known:
            stated[storage.key] = storage
            total += storage.size - max(known, 0)
        if total > size:
            raise ValueError(f"storages of {total} bytes in a file of {size}")

    if follow(stream, fetch).value != _MAGIC:
        raise ValueError("neither of the formats that torch.save writes")
    _, _, found, keys = (follow(stream, fetch) for _ in range(4))
    places = _places(file, stream.tell(), size, keys.value, stated)

    def numbers(storage: Storage) -> bytearray:
        start, end = places[storage.key]
        file.seek(start)
        return bytearray(file.read(end - start))

    return Pickled(found.value, found.skipped, numbers, False)


def _places(
    file: BinaryIO, start: int, size: int, keys: Iterable[Any], stated: Mapping[str, Storage]
) -> dict[str, tuple[int, int]]:
    """Where the numbers of each storage begin and end: each is its count in eight bytes and as many numbers."""
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        if not isinstance(key, str) or key not in stated:
            raise ValueError("its list of storages is damaged")
        file.seek(start)
        count = int.from_bytes(file.read(8), "little")
        places[key] = start + 8, start + 8 + count * _DTYPES[stated[key].kind].itemsize
        start = places[key][1]
        if start > size or start - places[key][0] < stated[key].size:
            raise ValueError(f"storage {key} states {stated[key].size} bytes and has others")
    if places.keys() < stated.keys():
        raise ValueError("its list of storages is damaged")
    return places
