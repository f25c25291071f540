"""The operations on files of this process, watched and disturbed: what a crash or a full disk may do to each of them.

Everything that writes goes through a hook: os.open, write, fsync, ... and the files that `open` opens for writing.
"""

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

OPERATIONS = (
    "open", "write", "pwrite", "fsync", "replace", "rename", "unlink", "remove", "mkdir", "rmdir", "truncate",
    "ftruncate", "link", "symlink",
)  # fmt: skip
TWO_FILES = ("replace", "rename", "link", "symlink")
IN_PLACE = " in place"  # of a file that is there: it takes no room
KILLED = 9


class Event(NamedTuple):
    """One operation on a file."""

    name: str
    target: str  # the file's name; of a replace, both


Hook = Callable[[int, Event, Callable[[], Any], tuple[Any, ...]], Any]  # number, event, do it, arguments


@contextmanager
def watched(hook: Hook) -> Iterator[list[Event]]:
    """Sends the operations on files through the hook, and gives the list of them."""
    events: list[Event] = []
    names: dict[int, str] = {}  # descriptor -> file
    real: dict[Any, dict[str, Any]] = {
        os: {name: getattr(os, name) for name in OPERATIONS},
        builtins: {"open": builtins.open},
        io: {"open": io.open},
    }

    def asked(event: Event, do_it: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        events.append(event)
        return hook(len(events), event, do_it, arguments)

    def wrapper(name: str) -> Callable[..., Any]:
        def operation(*arguments: Any, **options: Any) -> Any:
            def do_it() -> Any:
                return real[os][name](*arguments, **options)

            if name == "open" and not _writes(Path(arguments[0]), arguments[1]):
                return do_it()
            if isinstance(arguments[0], int) and arguments[0] not in names:  # a pipe or a socket
                return do_it()
            places = arguments[: 2 if name in TWO_FILES else 1]
            target = " ".join(names.get(p, "") if isinstance(p, int) else Path(p).name for p in places)
            result = asked(Event(name, target), do_it, arguments)
            if name == "open":
                names[result] = target
            return result

        return operation

    def opened(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        def do_it() -> Any:
            return real[builtins]["open"](file, mode, *rest, **options)

        if isinstance(file, int) or not set(mode) & set("wax+") or str(file).startswith("/dev/"):
            return do_it()
        name, where = Path(file).name, IN_PLACE if "r" in mode else ""
        stream = asked(Event(f"open{where}", name), do_it, (file,))
        for operation in ("write", "truncate"):
            setattr(stream, operation, _through(asked, Event(f"{operation}{where}", name), getattr(stream, operation)))
        return stream

    for name in OPERATIONS:
        setattr(os, name, wrapper(name))
    builtins.open = io.open = opened
    try:
        yield events
    finally:
        for module, functions in real.items():
            for name, function in functions.items():
                setattr(module, name, function)


def _through(asked: Callable[..., Any], event: Event, function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: asked(event, lambda: function(*arguments), arguments)


def _writes(path: Path, flags: int) -> bool:
    """Whether a file is opened to be written, or a folder to be synced."""
    return not str(path).startswith("/dev/") and bool(flags & (os.O_WRONLY | os.O_RDWR) or path.is_dir())


def failing(point: int, fault: str) -> Hook:
    """A hook that lets operation `point` fail; with "X for good" the later ones too.

    "killed before", "killed after" and "killed half-way" end the process, any other word is the name of an error.
    """

    def hook(number: int, event: Event, do_it: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        word, lasting = fault.split(maxsplit=1)[0], fault.endswith("for good")
        if number != point and not (lasting and number > point):
            return do_it()
        if word in ("ENOSPC", "EDQUOT") and event.name.endswith(IN_PLACE):
            return do_it()
        if word != "killed":
            code = getattr(errno, word)
            raise OSError(code, os.strerror(code), event.target)
        if fault == "killed after":
            do_it()
        if fault == "killed half-way" and event.name == "write" and isinstance(arguments[0], int):
            os.pwrite(arguments[0], bytes(arguments[1][: len(arguments[1]) // 2]), 0)
        os._exit(KILLED)

    return hook
