"""Follows the pickle of a weights file opcode by opcode: nothing is imported, called or allocated for it.

What the opcodes make is in `pickle_parts.py`.
"""

import io
import pickletools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mdp.io.weights.pickle_parts import Storage, Unknown, built, called, extended, filled, imported, storage

_PICKLE = 4 * 2**20  # bytes; the pickle of most weights has some hundred thousand. Longer ones are counted first:
_OPCODES = 10**6  # what makes them long must be text, such as the numbers of NumPy's arrays in logs of training


class Followed(NamedTuple):
    """A pickle's value, with stand-ins, and the classes of the objects in it that are left out."""

    value: Any
    skipped: Counter[str]


Fetch = Callable[[Storage], None]  # raises ValueError unless the file has it


def follow(stream: io.BytesIO, fetch: Fetch) -> Followed:
    """The value of the stream's next pickle, with stand-ins for what is not plain.  Raises ValueError, saying why."""
    _count_first(stream)
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}
    unknown: list[Unknown] = []
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            name = opcode.name
            if name == "STOP":
                skipped = Counter(one.name.replace(" ", ".") for one in unknown if not one.is_module())
                return Followed(stack.pop(), skipped)
            if name in _MAKE:
                takes, make = _MAKE[name]
                items = _take(stack, takes if takes >= 0 else len(stack) - marks.pop() - takes - 1)
                stack.append(make([*items, argument] if name == "GLOBAL" else items))
                if isinstance(stack[-1], Storage) and name == "BINPERSID":
                    fetch(stack[-1])
                elif name in ("REDUCE", "NEWOBJ") and isinstance(stack[-1], Unknown):
                    unknown.append(stack[-1])
            else:
                _move(name, argument, stack, marks, memo)
    except (IndexError, KeyError) as error:
        raise ValueError("its pickle is damaged") from error
    raise ValueError("its pickle is cut short")


def _count_first(stream: io.BytesIO) -> None:
    """Raises ValueError for a long pickle of many opcodes, each of which could make an object."""
    start = stream.tell()
    if stream.getbuffer().nbytes - start <= _PICKLE:
        return
    for count, (opcode, _, _) in enumerate(pickletools.genops(stream)):
        if count > _OPCODES:
            raise ValueError(f"its pickle has more than {_PICKLE} bytes and {_OPCODES} parts")
        if opcode.name == "STOP":
            break
    stream.seek(start)


_CONSTANTS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "BINSTRING"}


def _move(name: str, argument: Any, stack: list[Any], marks: list[int], memo: dict[Any, Any]) -> None:
    """The opcodes that make nothing out of what is on the stack."""
    if name in _CONSTANTS:
        stack.append(argument)
    elif name == "MARK":
        marks.append(len(stack))
    elif name in ("BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name == "POP_MARK" or (name == "POP" and marks and marks[-1] == len(stack)):
        del stack[marks.pop() :]
    elif name == "POP":
        stack.pop()
    elif name == "PROTO" and argument != 2:
        raise ValueError(f"it has pickle protocol {argument}, torch.save's is 2")
    elif name != "PROTO":
        raise ValueError(f"its pickle has {name}, which weights have no use for")


def _take(stack: list[Any], count: int) -> list[Any]:
    """The last `count` values, taken off the stack."""
    if not 0 <= count <= len(stack):
        raise ValueError("its pickle is damaged")
    start = len(stack) - count
    items = stack[start:]
    del stack[start:]
    return items


# opcode -> how many values it takes (-1: those after the mark, -2: also the one before it), what it makes of them
_MAKE: Mapping[str, tuple[int, Callable[[list[Any]], Any]]] = {
    "NONE": (0, lambda _: None),
    "NEWTRUE": (0, lambda _: True),
    "NEWFALSE": (0, lambda _: False),
    "EMPTY_TUPLE": (0, tuple),
    "EMPTY_LIST": (0, list),
    "EMPTY_SET": (0, list),
    "EMPTY_DICT": (0, lambda _: {}),
    "GLOBAL": (0, imported),
    "TUPLE1": (1, tuple),
    "TUPLE2": (2, tuple),
    "TUPLE3": (3, tuple),
    "TUPLE": (-1, tuple),
    "BINPERSID": (1, storage),
    "REDUCE": (2, called),
    "NEWOBJ": (2, called),
    "BUILD": (2, built),
    "APPEND": (2, extended),
    "APPENDS": (-2, extended),
    "SETITEM": (3, filled),
    "SETITEMS": (-2, filled),
}
