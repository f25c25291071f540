"""Label maps in MATLAB 5 files, as SBD distributes them: just enough of the format, without SciPy.

A file is a header of 128 bytes and elements (type, length, data), some of them zlib-compressed; a matrix element
holds flags, dimensions, a name and its data, a struct or cell holds matrices.  Only what label maps need is read:
numeric matrices, nested in structs and cells.
"""

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdp.io.errors import DatasetError
from mdp.io.files import read_bytes

_LIMIT = 2**28  # bytes, packed or unpacked
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT = 1, 2
_DEPTH = 8


def read_mat(path: str) -> dict[str, Any]:
    """Every variable of the file: numeric matrices as arrays, structs as dicts of lists, cells as lists.

    Raises DatasetError naming the file when it is missing, damaged or holds what is not read here.
    """
    data = read_bytes(path, "label map")
    if data.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise DatasetError(f"{path}: a MATLAB 7.3 (HDF5) file; save it with `-v7`")
    try:
        if len(data) > _LIMIT or data[:6] != b"MATLAB" or data[126:128] not in (b"IM", b"MI"):
            raise ValueError("not a MATLAB 5 file")
        order = "<" if data[126:128] == b"IM" else ">"
        variables = {}
        for kind, body in _elements(data[128:], order):
            if kind == _COMPRESSED:
                unpacker = zlib.decompressobj()
                inner = unpacker.decompress(body, _LIMIT)
                if not unpacker.eof:  # the checksum at its end has not been seen
                    raise ValueError("a compressed element is cut short or too large")
                kind, body = _elements(inner, order)[0]  # noqa: PLW2901
            if kind == _MATRIX:
                name, value = _matrix(body, order, 0)
                variables[name] = value
    except (ValueError, IndexError, KeyError, struct.error, zlib.error, TypeError, OverflowError) as error:
        raise DatasetError(f"{path}: damaged or not a MATLAB 5 file ({error}); replace it") from error
    return variables


def read_label_mat(path: str) -> NDArray[np.integer]:
    """The label map of a `.mat` file: SBD's `GTcls.Segmentation`, or else the only two-dimensional matrix there is.

    Raises DatasetError naming the file and what it holds instead.
    """
    variables = read_mat(path)
    if isinstance(variables.get("GTcls"), dict):
        variables = {"GTcls.Segmentation": next(iter(variables["GTcls"].get("Segmentation", [])), None)}
    maps = {
        name: value
        for name, value in variables.items()
        if isinstance(value, np.ndarray) and value.ndim == 2 and min(value.shape) > 1
    }
    if len(maps) != 1:
        raise DatasetError(f"{path}: expected one label matrix, found {', '.join(variables) or 'nothing'}")
    ((name, values),) = maps.items()
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 65535 and (values % 1 == 0).all()):
        raise DatasetError(f"{path}: {name} holds numbers that are not labels (0..65535)")
    return values.astype(np.uint16)


def _elements(data: bytes, order: str) -> list[tuple[int, bytes]]:
    """The (type, data) pairs that `data` is made of."""
    found, place = [], 0
    while place + 8 <= len(data):
        kind, length = struct.unpack_from(order + "II", data, place)
        if kind >> 16:  # small element: the length in the upper half, the data in the second word
            kind, length, body = kind & 0xFFFF, kind >> 16, place + 4
            place += 8
        else:
            body = place + 8
            # compressed elements are not padded, all others are, to 8 bytes
            place = body + (length if kind == _COMPRESSED else -(-length // 8) * 8)
        if body + length > len(data) or (kind >> 16 and length > 4):
            raise ValueError("an element is cut short")
        found.append((kind, data[body : body + length]))
    return found


def _matrix(body: bytes, order: str, depth: int) -> tuple[str, Any]:
    """Name and value of a matrix element."""
    if depth > _DEPTH:
        raise ValueError("nested too deeply")
    parts = _elements(body, order)
    if not parts:
        return "", np.zeros((0, 0))
    kind = struct.unpack_from(order + "I", parts[0][1])[0] & 0xFF
    shape = [int(side) for side in np.frombuffer(parts[1][1], order + "i4")]
    name = parts[2][1].decode("latin-1")
    count = int(np.prod(shape, dtype=np.int64))
    if kind == _CELL:
        return name, [_matrix(part, order, depth + 1)[1] for _, part in parts[3:]]
    if kind == _STRUCT:
        width = int(np.frombuffer(parts[3][1], order + "i4")[0])
        fields = [
            parts[4][1][i : i + width].split(b"\0")[0].decode("latin-1") for i in range(0, len(parts[4][1]), width)
        ]
        values = [_matrix(part, order, depth + 1)[1] for _, part in parts[5:]]
        return name, {field: values[i :: len(fields)] for i, field in enumerate(fields)}
    if kind < 6:  # characters, objects, sparse matrices: nothing a label map needs
        return name, None
    stored, numbers = parts[3]
    flat = np.frombuffer(numbers, order + _NUMBERS[stored])
    if len(flat) != count or count < 0:
        raise ValueError(f"matrix {name!r}: {len(flat)} numbers for a shape of {shape}")
    return name, flat.reshape(shape, order="F")
