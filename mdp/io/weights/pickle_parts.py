"""What the parts of a pickle become where nothing of it is executed: plain values and stand-ins.

For every tensor there is a `PickledTensor` (where its numbers lie), for every object of a class that weights have no
use for an `Unknown` (its name, and what hangs on it).  Refused is what states more than the file has, and what asks for
a function that reaches outside: it would be called by others who load the file.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_SHOWN = 200  # characters of a class's name
_SIZES = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
}  # fmt: skip
_STORAGES = {f"torch {name}Storage" for name in _SIZES}


@dataclass(frozen=True)
class Name:
    """What the pickle imports; here it stays a name: `module name`."""

    name: str


@dataclass(frozen=True)
class Storage:
    """Numbers in a row, in the file under `key`."""

    key: str
    kind: str  # a key of _SIZES
    numbers: int
    start: int = 0  # of a view into the row (files before torch 0.4 have them)

    @property
    def size(self) -> int:
        """Bytes up to the end of it."""
        return (self.start + self.numbers) * _SIZES[self.kind]


@dataclass(frozen=True, eq=False)
class PickledTensor:
    """A tensor that fits its storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(eq=False)
class Unknown:
    """An object of a class that is none of weights; its class is not looked at."""

    name: str
    items: dict[str, Any] = field(default_factory=dict)  # of a kind of dictionary
    state: dict[str, Any] = field(default_factory=dict)  # its attributes

    def pairs(self) -> Iterator[tuple[str, Any]]:
        """What hangs on it, by name: its items, or else its attributes; a module's as its state_dict names them."""
        if not self.is_module():
            yield from (self.items or self.state).items()
            return
        for name in ("_parameters", "_buffers", "_modules"):
            group = self.state.get(name)
            if isinstance(group, dict):
                yield from group.items()

    def is_module(self) -> bool:
        """Whether it has the attributes of a torch.nn.Module."""
        return "_parameters" in self.state and "_modules" in self.state


# Names

# modules whose functions reach outside the pickle; an honest file has nothing of them
_OUTSIDE = {
    "os", "posix", "nt", "subprocess", "commands", "sys", "importlib", "imp", "runpy", "pty", "socket", "shutil",
    "ctypes", "webbrowser", "code", "codeop", "marshal", "pdb", "timeit", "tempfile", "urllib", "http", "builtins",
    "__builtin__",
}  # fmt: skip
_HARMLESS = {  # of the built-in names
    "object", "type", "dict", "list", "tuple", "str", "unicode", "int", "long", "float", "bool", "bytes", "complex",
    "set", "frozenset", "range", "xrange", "slice", "getattr", "Ellipsis", "NotImplemented",
}  # fmt: skip
_SIZED = ("Storage", "Tensor")  # torch.FloatTensor(10**9) takes gigabytes
_TORCHS = ("torch.hub", "torch.serialization", "torch.package", "torch.utils.cpp_extension")


def imported(items: list[Any]) -> Name:
    (name,) = items
    if _reaches_outside(name):
        raise ValueError(f"it asks for {name.replace(' ', '.')}, which is not part of plain weights")
    return Name(name[:_SHOWN])


def _reaches_outside(name: str) -> bool:
    """Whether it is a function for running code, opening files, or making tensors of any size."""
    module, _, last = name.rpartition(" ")
    if name in _CALLS or name in _STORAGES:
        return False
    if module == "torch":
        return last in ("load", "save", "compile", "from_file") or (last.endswith(_SIZED) and last != "Tensor")
    built_in = module in ("builtins", "__builtin__")
    return module in _TORCHS or (module.partition(".")[0] in _OUTSIDE and not (built_in and last in _HARMLESS))


# Calls

_MAKERS = ("_reconstruct", "_reconstructor", "__newobj__", "__newobj_ex__")  # functions that make what they are given


def called(items: list[Any]) -> Any:
    """What a call of the pickle makes: a stand-in, whose name is the class's."""
    function, arguments = items
    if not isinstance(function, Name | Unknown) or not isinstance(arguments, tuple):
        raise ValueError("its pickle calls what is no function of weights")
    if isinstance(function, Name) and function.name in _CALLS:
        return _CALLS[function.name](*arguments[:4])
    first = arguments[0] if arguments else None
    if not isinstance(first, Name | Unknown):
        return Unknown(function.name)
    if function.name in ("builtins getattr", "__builtin__ getattr"):  # so pickles name a class inside another
        return Name(f"{first.name}.{arguments[-1] if isinstance(arguments[-1], str) else '?'}"[:_SHOWN])
    return Unknown(first.name if function.name.endswith(_MAKERS) else function.name)


def storage(items: list[Any]) -> Storage | Name:
    """The stand-in for ("storage", type, key, device, count) and, in old files, (key, start, count) of a view.

    Old files name classes of modules so as well: ("module", class, file, source).
    """
    (entry,) = items
    if isinstance(entry, tuple) and len(entry) == 4 and entry[0] == "module" and isinstance(entry[1], Name):
        return entry[1]
    if not isinstance(entry, tuple) or len(entry) not in (5, 6) or entry[0] != "storage":
        raise ValueError("its pickle names a storage in an unknown way")
    kind, key, count, view = entry[1], entry[2], entry[4], entry[5] if len(entry) == 6 else None
    start, numbers = view[1:] if isinstance(view, tuple) and len(view) == 3 else (0, count)
    if not isinstance(kind, Name) or kind.name not in _STORAGES or not isinstance(key, str):
        raise ValueError("its pickle names a storage in an unknown way")
    if not _counts([count, start, numbers]) or start + numbers > count:
        raise ValueError("its pickle names a storage in an unknown way")
    return Storage(key, kind.name.removeprefix("torch ").removesuffix("Storage"), numbers, start)


def _counts(values: Any) -> bool:
    return isinstance(values, tuple | list) and all(type(value) is int and 0 <= value < 2**48 for value in values)


def _tensor(storage: Any = None, offset: Any = None, shape: Any = None, stride: Any = None) -> PickledTensor:
    """The stand-in for a tensor.  Raises ValueError unless its numbers are in the storage, no more than it has."""
    if not isinstance(storage, Storage) or not _counts([offset]) or not _counts(shape) or not _counts(stride):
        raise ValueError("it has a tensor without proper shape and storage")
    count = math.prod(shape)
    reach = offset + sum((side - 1) * step for side, step in zip(shape, stride, strict=False)) + 1
    if len(shape) != len(stride) or len(shape) > 64 or (count and (count > storage.numbers or reach > storage.numbers)):
        raise ValueError(f"a tensor of shape {list(shape)} does not fit its storage of {storage.numbers} numbers")
    return PickledTensor(storage, offset, tuple(shape), tuple(stride))


def _parameter(value: Any = None, *_: Any) -> PickledTensor:
    if not isinstance(value, PickledTensor):
        raise ValueError("it has a parameter that is no tensor")
    return value


def _with_attributes(function: Any = None, kind: Any = None, arguments: Any = None, *_: Any) -> Any:
    """A tensor of a class of its own, or with attributes: the tensor, where torch makes it in its usual ways."""
    rebuilt = isinstance(function, Name) and function.name.startswith("torch._utils _rebuild_")
    return called([function, arguments]) if rebuilt else Unknown(kind.name if isinstance(kind, Name) else "tensor")


def _table(items: Any = (), *_: Any) -> dict[str, Any]:
    table: dict[str, Any] = {}
    if not isinstance(items, list | tuple) or not all(isinstance(i, list | tuple) and len(i) == 2 for i in items):
        raise ValueError("its pickle has a table that is none")
    for pair in items:
        filled([table, *pair])
    if isinstance(items, list):
        items.clear()  # pickles have such a list once; named again, it could be copied again and again
    elif items:
        raise ValueError("its pickle has a table that is none")
    return table


def _plain(value: Any = None, *_: Any) -> Any:
    """Sizes, devices, counters, sets and encoded bytes: made of what is in the pickle, and no larger."""
    if isinstance(value, Name | Storage) or type(value) in (int, float):
        raise ValueError("its pickle is damaged")
    return value


_CALLS: Mapping[str, Callable[..., Any]] = {
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
    "torch._utils _rebuild_parameter_with_state": _parameter,
    "torch._tensor _rebuild_from_type_v2": _with_attributes,
    "torch.nn.parameter Parameter": _parameter,
    "collections OrderedDict": _table,
    "collections defaultdict": lambda *_: {},  # its items follow
    "collections Counter": _plain,
    "torch Size": _plain,
    "torch device": _plain,
    "builtins set": _plain,
    "__builtin__ set": _plain,
    "_codecs encode": _plain,
}


# Filling lists and tables


def extended(items: list[Any]) -> Any:
    """[list, value, ...] -> the list with the values; those of an unknown kind of list are dropped."""
    target, *values = items
    if isinstance(target, Unknown):
        return target
    if not isinstance(target, list):
        raise ValueError("its pickle is damaged")
    target.extend(values)
    return target


def filled(items: list[Any]) -> Any:
    """[table, key, value, ...] -> the table with them, its keys as text."""
    target, *values = items
    table = target.items if isinstance(target, Unknown) else target
    if not isinstance(table, dict):
        raise ValueError("its pickle is damaged")
    for key, value in zip(values[::2], values[1::2], strict=False):
        text = _key(key, len(table))
        if text in table:
            raise ValueError(f"its pickle has a table with {text[:_SHOWN]!r} twice")
        table[text] = value
    return target


def _key(key: Any, place: int) -> str:
    """A key as text: numbers could be made to collide in a table, and nested keys take for ever to compare."""
    if isinstance(key, str):
        return key
    if isinstance(key, Name | Unknown):
        return f"<{key.name.replace(' ', '.')} {place}>"
    if isinstance(key, PickledTensor):
        return f"<tensor {place}>"
    flat = key if isinstance(key, tuple) and len(key) <= 8 else (key,)
    if not all(part is None or isinstance(part, int | float) or _short(part) for part in flat):
        raise ValueError("its pickle has a table whose keys are no names")
    return str(key)


def _short(part: Any) -> bool:
    return isinstance(part, str) and len(part) <= _SHOWN


def built(items: list[Any]) -> Any:
    """[object, state] -> the object; of what is no unknown object the state goes, such as a state_dict's _metadata."""
    target, state = items
    if isinstance(target, Unknown) and isinstance(state, dict):
        target.state = state
    return target
