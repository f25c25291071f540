"""The vectors of photos as a file of rows, which is mapped into memory a part at a time.

`rows.npy` is an array (N, D) that NumPy opens; while it is written it has as many rows as photos are done.
Shape legend: N rows, D channels, r rows of a photo.
"""

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from mdp.io.data.loader import load
from mdp.io.data.pool import Key, Pool
from mdp.io.data.workers import Watch
from mdp.io.errors import DatasetError, ResourceError
from mdp.io.files.reading import UNREADABLE_ARRAYS
from mdp.io.files.writing import write_text
from mdp.io.journal.counter import Counter
from mdp.io.unsupervised.pipeline.stage import Stage
from mdp.io.unsupervised.pipeline.vectors import MiddleItems, Source

FILE = "rows.npy"
_PHOTOS = 32  # that pass the network together, always the same ones: their bits may depend on it
_HEADER = 128  # bytes


class Rows(NamedTuple):
    """A file of rows that is complete."""

    path: Path
    total: int  # N
    channels: int  # D
    dtype: str
    each: int  # r

    def parts(self, size: int, device: torch.device) -> Iterator[Tensor]:
        """The rows, so many at a time, float32."""
        for start in range(0, self.total, size):
            yield torch.from_numpy(self.between(start, start + size)).to(device)

    def between(self, start: int, stop: int) -> NDArray[np.float32]:
        """Some rows; the file is mapped for so long only, so that its pages count for nothing afterwards."""
        shape = min(stop, self.total) - start, self.channels
        offset = _HEADER + start * self.channels * np.dtype(self.dtype).itemsize
        return np.memmap(self.path, self.dtype, "r", offset, shape).astype(np.float32)

    def at(self, indices: Tensor) -> Tensor:
        """The rows with these numbers, of any shape: (..., D) float32."""
        mapped = np.memmap(self.path, self.dtype, "r", _HEADER, (self.total, self.channels))
        wanted, place = torch.unique(indices, return_inverse=True)  # in the file's order
        return torch.from_numpy(mapped[wanted.numpy()].astype(np.float32))[place]


def rows_of(folder: Path) -> Rows:
    """The rows of a stage that is done.  Raises DatasetError for a file that is not such."""
    path = folder / FILE
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        images = len((folder / "images.txt").read_bytes().splitlines())
    except UNREADABLE_ARRAYS as error:
        raise DatasetError(f"{path}: not a file of rows: {error}") from error
    count, channels = mapped.shape
    return Rows(path, count, channels, mapped.dtype.name, count // images)


def write_rows(
    stage: Stage, source: Source, kind: str, pool: Pool, side: int, store: str, workers: int, progress: Counter
) -> None:
    """Writes the rows of all photos of a pool; goes on behind those that are there.

    Raises Preempted when a signal came, ResourceError when the disk has no room, DatasetError for a damaged photo.
    """
    path, count = stage.folder / FILE, len(pool.samples)
    first = MiddleItems(pool, side)[0, 0]
    if isinstance(first, DatasetError):
        raise first
    assert isinstance(first, Tensor)
    _, each, channels = source.rows(first[None], kind).shape
    width = each * channels * np.dtype(store).itemsize  # bytes of a photo
    _expect_room(path, count * width, stage.position * width)
    begin, world = stage.position, stage.world
    batches = [range(start, min(start + _PHOTOS, count)) for start in range(begin, count, _PHOTOS)]
    keys: Iterator[list[Key]] = ([(0, index) for index in batch] for batch in batches[world.rank :: world.size])
    watch = Watch(name=lambda key: pool.name(key[1]), stop=lambda: stage.stop)
    loaded = load(MiddleItems(pool, side), keys, workers, None, stack=torch.stack, watch=watch)
    with _opened(path) if world.main else nullcontext(-1) as file, closing(loaded) as items:
        if world.main:
            os.ftruncate(file, _HEADER + begin * width)
            os.lseek(file, 0, os.SEEK_SET)
            _append(file, _header((count * each, channels), store))
            os.lseek(file, 0, os.SEEK_END)
        for number in range(0, len(batches), world.size):  # a batch for each process, appended in their order
            images = next(items) if number + world.rank < len(batches) else None
            own = b"" if images is None else source.rows(images, kind).cpu().numpy().astype(store).tobytes()
            rows = world.gather_objects(own)
            done = batches[min(number + world.size, len(batches)) - 1].stop
            if world.main:
                _append(file, b"".join(rows))
            progress.tell(done, count)
            if stage.due:
                if world.main:
                    os.fsync(file)
                stage.note(done)
        if world.main:
            os.fsync(file)
    if world.main:
        write_text(stage.folder / "images.txt", "".join(f"{sample.image}\n" for sample in pool.samples))


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The file to write to.  Raises ResourceError, naming it, when something is not written."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            yield file
        finally:
            os.close(file)
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written: {error.strerror}") from error


def _append(file: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:  # one call writes 2 GiB at most, and less when a disk fills up
        rest = rest[os.write(file, rest) :]


def _header(shape: tuple[int, int], store: str) -> bytes:
    """NumPy's, which it fills up to a multiple of 64 bytes."""
    text = io.BytesIO()
    npy.write_array_header_1_0(text, {"descr": np.dtype(store).str, "fortran_order": False, "shape": shape})
    header = text.getvalue()
    assert len(header) == _HEADER, "an array of two dimensions"
    return header


def _expect_room(path: Path, need: int, there: int) -> None:
    """Raises ResourceError when the disk has less than the rows take."""
    free = shutil.disk_usage(path.parent).free
    if need - there > free:
        raise ResourceError(
            f"{path}: takes {need / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free; take luss.store=float16, or "
            "another --out"
        )
