"""One run, one folder: an exclusive lock that the system frees when its process ends, however it ends.

It is a POSIX record lock on `.lock` in the folder: forked children do not inherit it, and there is no such thing as a
stale one.  The file's text only serves the message that another process gets; the file stays when the lock is freed,
because deleting it could let two processes hold locks on two files of that name.
"""

import errno
import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mdp.io.errors import ResourceError

NAME = ".lock"
_TAKEN = (errno.EACCES, errno.EAGAIN)
# Closing any descriptor of a file frees this process's record locks on it, so a folder is opened once per process
_held: set[tuple[int, int, int]] = set()  # process, device and inode of the folder


@contextmanager
def locked(folder: Path) -> Iterator[str]:
    """Holds the folder's lock; gives "", or a warning for people where the file system keeps no locks.

    A process that holds it already goes on.  Raises ResourceError naming the process that holds it, or when the lock
    file cannot be made.
    """
    key = _identity(folder)
    if key in _held:
        yield ""
        return
    descriptor = _open(folder)
    try:
        warning = _take(folder, descriptor)
        _held.add(key)
        yield warning
    finally:
        _held.discard(key)
        os.close(descriptor)  # frees the lock


def _identity(folder: Path) -> tuple[int, int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be locked: {error.strerror}") from error
    # the process is part of it: a forked child has this set, and not the lock
    return os.getpid(), status.st_dev, status.st_ino


def _open(folder: Path) -> int:
    try:  # O_NONBLOCK: a named pipe of that name is refused instead of waited for
        return os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise ResourceError(f"{folder / NAME}: cannot be made: {error.strerror}") from error


def _take(folder: Path, descriptor: int) -> str:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            raise ResourceError(
                f"{folder} is in use by {_holder(descriptor)}; wait for it or use another --out"
            ) from error
        return f"{folder}: this file system keeps no locks ({error.strerror}); see to it that no other run writes there"
    with suppress(OSError):  # a full disk spoils the message only
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(_ourselves()).encode(), 0)
    return ""


def _ourselves() -> dict[str, str | int]:
    return {"process": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _holder(descriptor: int) -> str:
    """Who the lock file says holds it; it may just be writing that."""
    try:
        text = json.loads(os.pread(descriptor, 10_000, 0))
        return f"process {text['process']} on {text['host']} since {text['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
