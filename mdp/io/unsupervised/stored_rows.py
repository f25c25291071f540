"""Vectors of images, written by whoever has looked at them and read a part at a time: in memory, or in a file.

The file has no more than the rows, and lies where its results go, or in the temporary folder.  Once all processes have
opened it, it has no name any more: its room is free again however the command ends.
Shape legend: N rows, D channels.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from mdp.io.errors import ResourceError
from mdp.io.files.reading import printable
from mdp.io.processes.world import World

IN_MEMORY = 2**28  # bytes of vectors; more are kept in a file
_FLOAT = 4  # bytes


class StoredRows:
    """Rows (N, D) float32: each is put once, by any process, and read by all once all are there."""

    def __init__(self, total: int, channels: int, file: BinaryIO | None) -> None:
        self.total, self.channels, self.file = total, channels, file
        self.held = torch.zeros(total, channels) if file is None else torch.empty(0)

    def put(self, start: int, rows: Tensor) -> None:
        """Rows (r, D) from number `start` on.  Raises ResourceError when the disk has no room."""
        if self.file is None:
            self.held[start : start + len(rows)] = rows
            return
        try:
            self.file.seek(start * self.channels * _FLOAT)
            self.file.write(rows.contiguous().numpy().tobytes())
            self.file.flush()
        except OSError as error:
            name = printable(Path(self.file.name))
            raise ResourceError(f"{name}: {error.strerror or error}; see {_WHERE}") from error

    def between(self, start: int, stop: int) -> Tensor:
        """Some rows; the file is mapped for so long only, so that its pages count for nothing afterwards."""
        stop = min(stop, self.total)
        if self.file is None:
            return self.held[start:stop]
        offset, shape = start * self.channels * _FLOAT, (stop - start, self.channels)
        return torch.from_numpy(np.array(np.memmap(self.file, np.float32, "r", offset, shape)))

    def parts(self, size: int) -> Iterator[tuple[int, Tensor]]:
        """All rows, so many at a time, each part with the number of its first row."""
        for start in range(0, self.total, size):
            yield start, self.between(start, start + size)


_WHERE = "--out, whose disk it is on, or TMPDIR"


@contextmanager
def row_files(
    folder: Path | None, world: World, **sizes: tuple[int, int]
) -> Iterator[tuple[dict[str, StoredRows], str]]:
    """Room for rows (N, D) by name, and a line that says how much there is; no file stays, whatever happens.

    Several processes share files, one keeps what is small in memory.  Raises ResourceError without room for them, or
    where processes do not see the same folder.
    """
    total = _FLOAT * sum(count * channels for count, channels in sizes.values())
    what = f"{sum(count for count, _ in sizes.values()):,} region vectors: {_size(total)}"
    if world.size == 1 and total <= IN_MEMORY:
        yield {name: StoredRows(*size, None) for name, size in sizes.items()}, f"{what}, in memory"
        return
    made = world.broadcast_main(lambda: _made(folder, total, sizes))
    where, _, problem = made.partition("\n")
    if problem:
        raise ResourceError(problem)
    with ExitStack() as stack:
        try:
            files = {name: _opened(Path(where) / name, stack) for name in sizes}
            if any(world.any_true(None in files.values())):  # asked of all, so that all have them open
                raise ResourceError(f"{where}: not all processes see this folder; they have to be of one machine")
        finally:
            if world.main:
                shutil.rmtree(where, ignore_errors=True)
        yield {name: StoredRows(*sizes[name], file) for name, file in files.items()}, f"{what}, in {printable(where)}"


def _opened(path: Path, stack: ExitStack) -> BinaryIO | None:
    """The file, to read and to write, until the stack is left; None where there is none."""
    try:
        return stack.enter_context(path.open("r+b"))
    except OSError:
        return None


def _made(folder: Path | None, total: int, sizes: dict[str, tuple[int, int]]) -> str:
    """The folder with an empty file of its size for each name; behind a line's end, why there is none."""
    parent = next((path for path in (folder, *folder.parents) if path.is_dir()), None) if folder else None
    parent = parent or Path(tempfile.gettempdir())
    try:
        free = shutil.disk_usage(parent).free
        if free < total:
            short = f"the region vectors take {_size(total)} and {_size(free)} are free"
            return f"\n{printable(parent)}: {short}; see {_WHERE}"
        made = Path(tempfile.mkdtemp(prefix=".mdp-regions-", dir=parent))
        for name, (count, channels) in sizes.items():
            with (made / name).open("wb") as file:
                os.truncate(file.fileno(), count * channels * _FLOAT)
    except OSError as error:
        return f"\n{printable(parent)}: {error.strerror or error}; see {_WHERE}"
    return str(made)


def _size(count: int) -> str:
    """Bytes in words.

    >>> _size(1_300_000_000)
    '1.3 GB'
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
