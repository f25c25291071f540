"""Decoded photos and label maps in memory that all processes of a machine share, each put there when it is first read.

The memory is a file without a name or a disk.  Whoever reads a sample first locks its place, so that two do not decode
the same; a lock ends with the process that holds it, and what a killed one left half-written is not taken for whole.
"""

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from mmap import mmap
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdp.io.data.cache.form import of_union, own

_ALIGNED = 64  # bytes
_PHOTO, _LABELS, _ELSEWHERE, _SIZE, _DTYPE = 0, 1, 2, 3, 5  # columns of what is said of a sample: see `Kept._state`
_COLUMNS = 6
_DTYPES = (torch.uint8, torch.float32)  # of photos
Pair = tuple[Tensor, Tensor]  # image (K, H, W), union labels (H, W) int16


class Places(NamedTuple):
    """Room for each sample of a pool, in bytes, and the form of its labels."""

    photos: NDArray[np.int64]  # (N,); 0: not kept
    labels: NDArray[np.int64]  # (N,)
    first: NDArray[np.int16]  # (N,) first class of the sample's dataset in the union
    form: torch.dtype

    @property
    def bytes(self) -> int:
        """All of it."""
        return int(self._ends()[-1]) if len(self.photos) else 0

    def _ends(self) -> NDArray[np.int64]:
        ends: NDArray[np.int64] = np.cumsum(_padded(self.photos) + _padded(self.labels))
        return ends

    def starts(self) -> NDArray[np.int64]:
        """Where each sample's room begins."""
        starts: NDArray[np.int64] = self._ends() - _padded(self.photos) - _padded(self.labels)
        return starts


class Kept:
    """The kept photos and label maps of a pool; as a part of that it goes to the loader's workers."""

    def __init__(self, places: Places, path: str = "") -> None:
        """`path` opens those of another process, which has to be alive.  Raises OSError where there is no such file."""
        self.places = places
        count = len(places.photos)
        self._starts = places.starts() + _head(count)
        length = max(1, _head(count) + places.bytes)  # nothing cannot be mapped
        if path:
            self.file = os.open(path, os.O_RDWR)
        else:
            self.file = os.memfd_create("mdp-kept")
            os.ftruncate(self.file, length)
        self.path = path or f"/proc/{os.getpid()}/fd/{self.file}"
        weakref.finalize(self, os.close, self.file)
        self._memory = mmap(self.file, length)
        # of each sample whether its photo, its labels, and its photo elsewhere are there; height, width, dtype.  Each
        # is a number of its own, written at once, after what it says
        self._state = np.frombuffer(self._memory, np.int32, _COLUMNS * count).reshape(count, _COLUMNS)

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, (self.places, self.path)

    # Reading through it

    def pair(self, index: int, read: Callable[[], Pair]) -> Pair:
        """Image and union labels of a sample, read and kept where they are not there yet."""
        if not self._has_pair(index):
            with self._alone(index):
                if not self._has_pair(index):
                    image, labels = read()
                    self._keep_photo(index, image)
                    self._keep_labels(index, labels)
                    return image, labels
        return self._photo(index), self.labels(index)

    def photo(self, index: int, read: Callable[[], Tensor]) -> Tensor:
        """The image alone."""
        if not self._state[index, _PHOTO]:
            with self._alone(index):
                if not self._state[index, _PHOTO]:
                    image = read()
                    self._keep_photo(index, image)
                    return image
        return self._photo(index)

    def _has_pair(self, index: int) -> bool:
        return bool(self._state[index, _PHOTO] and self._state[index, _LABELS])

    def has_labels(self, index: int) -> bool:
        """Whether `labels` can be asked for."""
        return bool(self._state[index, _LABELS])

    def labels(self, index: int) -> Tensor:
        """The union labels (H, W) int16 of a sample that has them."""
        height, width = self._size(index)
        start = int(self._starts[index] + _padded(self.places.photos[index]))
        kept = self._view(start, self.places.form, (height, width))
        return of_union(kept, int(self.places.first[index]))

    def _photo(self, index: int) -> Tensor:
        (height, width), item = self._size(index), _DTYPES[self._state[index, _DTYPE]]
        channels = int(self.places.photos[index]) // (height * width * item.itemsize)
        return self._view(int(self._starts[index]), item, (height, width, channels)).permute(2, 0, 1)

    def _size(self, index: int) -> tuple[int, int]:
        height, width = self._state[index, _SIZE : _SIZE + 2].tolist()
        return height, width

    def _view(self, start: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        count = int(np.prod(shape))
        return torch.frombuffer(self._memory, dtype=dtype, count=count, offset=start).view(shape)

    # What is elsewhere

    def elsewhere(self, index: int) -> tuple[int, int] | None:
        """Height and width of a sample whose photo, and labels if it has any, are where the network trains."""
        return self._size(index) if self._state[index, _ELSEWHERE] else None

    def note_elsewhere(self, index: int, size: tuple[int, int]) -> None:
        self._state[index, _SIZE : _SIZE + 2] = size
        self._state[index, _ELSEWHERE] = 1

    # Keeping

    @contextmanager
    def _alone(self, index: int) -> Iterator[None]:
        """While no other process reads this sample.

        The lock is of one byte of the file, and the system's.
        """
        import fcntl  # noqa: PLC0415 - not on Windows, which has no memory files either

        fcntl.lockf(self.file, fcntl.LOCK_EX, 1, index)
        try:
            yield
        finally:
            fcntl.lockf(self.file, fcntl.LOCK_UN, 1, index)

    def _keep_photo(self, index: int, image: Tensor) -> None:
        pixels = image.permute(1, 2, 0).contiguous()  # (H, W, K), as files have them
        room = int(self.places.photos[index])
        if image.dtype in _DTYPES and pixels.nbytes == room and self._write(int(self._starts[index]), pixels):
            self._state[index, _SIZE:] = (*pixels.shape[:2], _DTYPES.index(image.dtype))
            self._state[index, _PHOTO] = 1

    def _keep_labels(self, index: int, labels: Tensor) -> None:
        if self.has_labels(index):
            return
        kept = own(labels, int(self.places.first[index]), self.places.form)
        room, start = int(self.places.labels[index]), int(self._starts[index] + _padded(self.places.photos[index]))
        if kept.nbytes == room and self._write(start, kept):
            self._state[index, _SIZE : _SIZE + 2] = kept.shape
            self._state[index, _LABELS] = 1

    def _write(self, start: int, data: Tensor) -> bool:
        """Whether there was memory for it: written as to a file, since a page that cannot be had would be a signal."""
        flat = memoryview(data.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        with suppress(OSError):
            while flat:
                written = os.pwrite(self.file, flat, start)
                start, flat = start + written, flat[written:]
        return not flat


def _padded(size: Any) -> Any:
    return size + -size % _ALIGNED


def _head(count: int) -> int:
    """Bytes of what is said of so many samples."""
    return int(_padded(4 * _COLUMNS * count))
