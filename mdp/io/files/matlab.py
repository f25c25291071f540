"""Label maps in MATLAB 5 files, as SBD distributes them: just enough of the format, without SciPy.

A file is a header of 128 bytes and elements (type, length, data), some of them zlib-compressed; a matrix element
holds flags, dimensions, a name and its data, a struct or cell holds matrices.  Only what label maps need is read:
numeric matrices, nested in structs and cells.  A file unpacks to at most 256 MB and 100,000 elements in all.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdp.io.errors import DatasetError, ResourceError
from mdp.io.files.reading import printable, read_bytes

_LIMIT = 2**28  # bytes, packed or unpacked
_COUNT = 100_000  # elements: a boundary cell array of SBD has some hundreds
_PIXELS = 2**26  # of a label map, as for images
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT = 1, 2
_DEPTH = 8
_DAMAGE = (
    ValueError,
    IndexError,
    KeyError,
    struct.error,
    zlib.error,
    TypeError,
    OverflowError,
    AttributeError,
    EOFError,
)


def read_mat(path: str) -> dict[str, Any]:
    """Every variable of the file: numeric matrices as arrays, structs as dicts of lists, cells as lists.

    Raises DatasetError naming the file when it is missing, damaged or holds what is not read here, ResourceError when
    memory is short.
    """
    data = read_bytes(path, "label map", _LIMIT)
    path = printable(path)
    if data.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise DatasetError(f"{path}: a MATLAB 7.3 (HDF5) file; save it with `-v7`")
    try:
        return _variables(data)
    except MemoryError as error:
        raise ResourceError(f"{path}: memory is short for the label map ({len(data)} bytes)") from error
    except _DAMAGE as error:
        reason = printable(error)[:200]
        raise DatasetError(f"{path}: damaged or not a MATLAB 5 file ({reason}); replace it") from error


def _variables(data: bytes) -> dict[str, Any]:
    """The matrices of a file by name.  Raises one of `_DAMAGE`."""
    if data[:6] != b"MATLAB" or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("not a MATLAB 5 file")
    order = "<" if data[126:128] == b"IM" else ">"
    variables, room, tickets = {}, _LIMIT, iter(range(_COUNT))
    for kind, body in _elements(memoryview(data)[128:], order, tickets):
        if kind == _COMPRESSED:
            unpacked = _unpack(body, room)
            room -= len(unpacked)
            kind, body = _elements(memoryview(unpacked), order, tickets)[0]  # noqa: PLW2901
        if kind == _MATRIX:
            name, value = _matrix(body, order, tickets, 0)
            if name in variables:
                raise ValueError(f"two matrices are called {name!r}")
            variables[name] = value
    return variables


def _unpack(packed: memoryview, room: int) -> bytes:
    """A compressed element.  Raises ValueError unless all of it, its checksum too, is there and fits into the room."""
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(packed, room) if room > 0 else b""
    if not unpacker.eof:
        raise ValueError("a compressed element is cut short or too large")
    return unpacked


def read_label_mat(path: str, variable: str | None = None) -> NDArray[np.integer]:
    """The label map of a `.mat` file: the variable, else SBD's `GTcls.Segmentation` or the only flat matrix.

    Raises DatasetError naming the file and what it holds instead.
    """
    variables = read_mat(path)
    path = printable(path)
    if variable is not None:
        variables = {variable: variables[variable]} if variable in variables else variables
    elif isinstance(variables.get("GTcls"), dict):
        variables = {"GTcls.Segmentation": next(iter(variables["GTcls"].get("Segmentation", [])), None)}
    maps = {
        name: value
        for name, value in variables.items()
        if isinstance(value, np.ndarray) and value.ndim == 2 and min(value.shape) > 1
    }
    if len(maps) != 1 or variable not in (None, *maps):
        names = printable(", ".join(list(variables)[:8]) or "nothing")[:200]
        wanted = "one label matrix" if variable is None else f"the label matrix {variable}"
        raise DatasetError(f"{path}: expected {wanted}, found {names}")
    ((name, values),) = maps.items()
    name = printable(name)[:80]
    if values.size > _PIXELS:
        raise DatasetError(
            f"{path}: {name} has {values.shape[1]} x {values.shape[0]} pixels; at most {_PIXELS} are read"
        )
    whole = values.dtype.kind in "iu" or (np.isfinite(values).all() and (values == np.trunc(values)).all())
    if not (whole and values.min() >= 0 and values.max() <= 65535):
        raise DatasetError(f"{path}: {name} holds numbers that are not labels (0..65535)")
    return values.astype(np.uint16)


def _elements(data: memoryview, order: str, tickets: Iterator[int]) -> list[tuple[int, memoryview]]:
    """The (type, data) pairs that `data` is made of; each takes a ticket, of which a file has so many."""
    elements, position = [], 0
    while position + 8 <= len(data):
        kind, length = struct.unpack_from(order + "II", data, position)
        if kind >> 16:  # small element: the length in the upper half, the data in the second word
            small = True
            kind, length, body = kind & 0xFFFF, kind >> 16, position + 4
            position += 8
        else:
            small = False
            body = position + 8
            # compressed elements are not padded, all others are, to 8 bytes
            position = body + (length if kind == _COMPRESSED else -(-length // 8) * 8)
        if body + length > len(data) or (small and length > 4):
            raise ValueError("an element is cut short")
        elements.append((kind, data[body : body + length]))
        if next(tickets, None) is None:
            raise ValueError(f"more than {_COUNT} elements")
    return elements


def _matrix(body: memoryview, order: str, tickets: Iterator[int], depth: int) -> tuple[str, Any]:
    """Name and value of a matrix element."""
    if depth > _DEPTH:
        raise ValueError("nested too deeply")
    parts = _elements(body, order, tickets)
    if not parts:
        return "", np.zeros((0, 0))
    kind = struct.unpack_from(order + "I", parts[0][1])[0] & 0xFF
    shape = [int(side) for side in np.frombuffer(parts[1][1], order + "i4")]
    name = bytes(parts[2][1]).decode("latin-1")
    if kind == _CELL:
        return name, [_matrix(part, order, tickets, depth + 1)[1] for _, part in parts[3:]]
    if kind == _STRUCT:
        width = int(np.frombuffer(parts[3][1], order + "i4")[0])
        names = bytes(parts[4][1])
        if width < 1 or len(names) > _COUNT:
            raise ValueError(f"struct {name!r} has {len(names)} bytes of field names, {width} each")
        fields = [names[i : i + width].split(b"\0")[0].decode("latin-1") for i in range(0, len(names), width)]
        values = [_matrix(part, order, tickets, depth + 1)[1] for _, part in parts[5:]]
        return name, {field: values[i :: len(fields)] for i, field in enumerate(fields)}
    if kind < 6:  # characters, objects, sparse matrices: nothing a label map needs
        return name, None
    stored, numbers = parts[3]
    flat = np.frombuffer(numbers, order + _NUMBERS[stored])
    count = 1
    for side in shape:
        count *= side
    if len(flat) != count:
        raise ValueError(f"matrix {name!r}: {len(flat)} numbers for a shape of {shape[:4]}")
    return name, flat.reshape(shape, order="F")  # MATLAB writes column after column
