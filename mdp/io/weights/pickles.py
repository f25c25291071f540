"""Looks into a pickled weights file before torch opens it: nothing is imported, called or allocated for it.

torch reads such files without running code in them, but it believes the sizes they state: 400 bytes can ask for
gigabytes, or for numbers beyond the end of a storage.  Here the pickle is followed opcode by opcode, with a stand-in
for every tensor, and anything is refused that is no plain tensor inside the bytes that the file really has.
"""

import io
import math
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

_PICKLE = 4 * 2**20  # bytes; a state_dict's, without its numbers, has some hundred thousand at most
_INFLATION = 4  # times the size of the file: weights hardly shrink when they are packed
_MAGIC = 0x1950A86A20F9469CFC6C  # opens the files that torch wrote before version 1.6
_SIZES = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
}  # fmt: skip
_STORAGES = {f"torch {name}Storage": size for name, size in _SIZES.items()}
_DTYPES = {
    f"torch {name}"
    for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
}


@dataclass(frozen=True)
class _Global:
    """A name that the pickle imports; here it stays a name."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """Numbers in a row."""

    key: str
    numbers: int
    size: int  # bytes


@dataclass(frozen=True)
class _Tensor:
    """A tensor that fits its storage."""


Fetch = Callable[[str, int], None]  # (key, bytes): raises ValueError unless the file has them


def check_pickled(file: BinaryIO, size: int) -> None:
    """Raises ValueError, saying why, unless a `.pth` file of that size holds plain tensors that fit into it."""
    start = file.read(4)
    file.seek(0)
    if start == b"PK\x03\x04":
        _check_zip(file, size)
    else:
        _check_legacy(file, size)
    file.seek(0)


def _check_zip(file: BinaryIO, size: int) -> None:
    with zipfile.ZipFile(file) as archive:
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

        def fetch(key: str, needed: int) -> None:
            if needed > sizes.get(key, -1):
                raise ValueError(f"storage {key} states {needed} bytes and has {sizes.get(key, 0)}")

        _follow(io.BytesIO(archive.read(pickles[0])), fetch)


def _check_legacy(file: BinaryIO, size: int) -> None:
    """Five pickles (magic number, protocol, system, tensors, storage keys), then the storages themselves."""
    stream = io.BytesIO(file.read(_PICKLE))
    stated: dict[str, int] = {}

    def fetch(key: str, needed: int) -> None:
        stated[key] = max(needed, stated.get(key, 0))
        if sum(stated.values()) > size:
            raise ValueError(f"storages of {sum(stated.values())} bytes in a file of {size}")

    if _follow(stream, fetch) != _MAGIC:
        raise ValueError("neither of the formats that torch.save writes")
    for _ in range(4):
        _follow(stream, fetch)


# Following a pickle

_CONSTANTS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}


def _follow(stream: io.BytesIO, fetch: Fetch) -> Any:
    """The value of the stream's next pickle, with stand-ins for what is not plain.  Raises ValueError."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            name = opcode.name
            if name == "STOP":
                return stack.pop()
            if name == "MARK":
                marks.append(len(stack))
            elif name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name in _CONSTANTS:
                stack.append(argument)
            elif name in _MAKE:
                takes, make = _MAKE[name]
                items = _take(stack, takes if takes >= 0 else len(stack) - marks.pop() - takes - 1)
                stack.append(make([*items, argument] if name == "GLOBAL" else items))
                if name == "BINPERSID":
                    fetch(stack[-1].key, stack[-1].size)
            elif name == "PROTO" and argument != 2:
                raise ValueError(f"it has pickle protocol {argument}, torch.save's is 2")
            elif name != "PROTO":
                raise ValueError(f"its pickle has {name}, which weights have no use for")
    except (IndexError, KeyError) as error:
        raise ValueError("its pickle is damaged") from error
    raise ValueError("its pickle is cut short")


def _take(stack: list[Any], count: int) -> list[Any]:
    """The last `count` values, taken off the stack."""
    if not 0 <= count <= len(stack):
        raise ValueError("its pickle is damaged")
    start = len(stack) - count
    items = stack[start:]
    del stack[start:]
    return items


def _extended(items: list[Any]) -> list[Any]:
    """[list, value, ...] -> the list with the values."""
    target, *values = items
    if not isinstance(target, list):
        raise ValueError("its pickle is damaged")
    target.extend(values)
    return target


def _filled(items: list[Any]) -> dict[Any, Any]:
    """[table, key, value, ...] -> the table with them; keys that are no plain value could take for ever to compare."""
    target, *values = items
    keys = values[::2]
    if not isinstance(target, dict) or not all(key is None or isinstance(key, str | int | float) for key in keys):
        raise ValueError("its pickle has a table whose keys are no names")
    target.update(zip(keys, values[1::2], strict=False))
    return target


def _allowed(items: list[Any]) -> _Global:
    (name,) = items
    if name not in _CALLS and name not in _STORAGES and name not in _DTYPES:
        raise ValueError(f"it asks for {name.replace(' ', '.')}, which is not part of plain weights")
    return _Global(name)


def _storage(items: list[Any]) -> _Storage:
    """The stand-in for ("storage", type, key, device, count) and, in old files, a view."""
    (entry,) = items
    if not isinstance(entry, tuple) or len(entry) not in (5, 6) or entry[0] != "storage":
        raise ValueError("its pickle names a storage in an unknown way")
    kind, key, count = entry[1], entry[2], entry[4]
    if not isinstance(kind, _Global) or kind.name not in _STORAGES or not isinstance(key, str) or not _counts([count]):
        raise ValueError("its pickle names a storage in an unknown way")
    return _Storage(key, count, count * _STORAGES[kind.name])


def _counts(values: Any) -> bool:
    return isinstance(values, tuple | list) and all(type(value) is int and 0 <= value < 2**48 for value in values)


def _called(items: list[Any]) -> Any:
    function, arguments = items
    if not isinstance(function, _Global) or function.name not in _CALLS or not isinstance(arguments, tuple):
        raise ValueError("its pickle calls what is no function of weights")
    return _CALLS[function.name](*arguments[:4])


def _tensor(storage: Any = None, offset: Any = None, shape: Any = None, stride: Any = None) -> _Tensor:
    """The stand-in for a tensor.  Raises ValueError unless its numbers are in the storage, no more than it has."""
    if not isinstance(storage, _Storage) or not _counts([offset]) or not _counts(shape) or not _counts(stride):
        raise ValueError("it has a tensor without proper shape and storage")
    count = math.prod(shape)
    reach = offset + sum((side - 1) * step for side, step in zip(shape, stride, strict=False)) + 1
    if len(shape) != len(stride) or len(shape) > 64 or (count and (count > storage.numbers or reach > storage.numbers)):
        raise ValueError(f"a tensor of shape {list(shape)} does not fit its storage of {storage.numbers} numbers")
    return _Tensor()


def _parameter(value: Any = None, *_: Any) -> _Tensor:
    if not isinstance(value, _Tensor):
        raise ValueError("it has a parameter that is no tensor")
    return value


def _table(items: Any = (), *_: Any) -> dict[Any, Any]:
    table: dict[Any, Any] = {}
    if not isinstance(items, list | tuple) or not all(isinstance(i, list | tuple) and len(i) == 2 for i in items):
        raise ValueError("its pickle has a table that is none")
    for pair in items:
        _filled([table, *pair])
    return table


def _plain(value: Any = None, *_: Any) -> Any:
    """Sizes, devices, counters, sets and encoded bytes: made of what is in the pickle, and no larger."""
    if isinstance(value, _Global | _Storage) or type(value) in (int, float):
        raise ValueError("its pickle is damaged")
    return value


_CALLS: Mapping[str, Callable[..., Any]] = {
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
    "collections OrderedDict": _table,
    "torch.nn.parameter Parameter": _parameter,
    "collections Counter": _plain,
    "torch Size": _plain,
    "torch device": _plain,
    "builtins set": _plain,
    "__builtin__ set": _plain,
    "_codecs encode": _plain,
}

# opcode -> how many values it takes (-1: those after the mark, -2: also the one before it), what it makes of them
_MAKE: Mapping[str, tuple[int, Callable[[list[Any]], Any]]] = {
    "NONE": (0, lambda _: None),
    "NEWTRUE": (0, lambda _: True),
    "NEWFALSE": (0, lambda _: False),
    "EMPTY_TUPLE": (0, tuple),
    "EMPTY_LIST": (0, list),
    "EMPTY_SET": (0, list),
    "EMPTY_DICT": (0, lambda _: {}),
    "GLOBAL": (0, _allowed),
    "TUPLE1": (1, tuple),
    "TUPLE2": (2, tuple),
    "TUPLE3": (3, tuple),
    "TUPLE": (-1, tuple),
    "BINPERSID": (1, _storage),
    "REDUCE": (2, _called),
    "NEWOBJ": (2, _called),
    "BUILD": (2, lambda items: items[0]),  # without its attributes, such as a state_dict's _metadata
    "APPEND": (2, _extended),
    "APPENDS": (-2, _extended),
    "SETITEM": (3, _filled),
    "SETITEMS": (-2, _filled),
}
