"""The files that a run's data are: name, size and a digest of the content of each, kept in the run's folder.

The content tells, so that a copy or a moved folder is the same data; it is read again only where size or time of change
of a file are others.  Of a long file in a compressed format its first and last 4 KiB count: a PNG ends with a
checksum of its pixels, and a JPEG photo that was changed has another length.  A file in a zip archive has a checksum
there already.  Looking at 100,000 photos and their label maps takes ten seconds the first time, three afterwards.
"""

import hashlib
import io
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdp.io.annotations.drawing import format_of
from mdp.io.data.identity import DataDigest, reading_digest
from mdp.io.data.pool import Pool
from mdp.io.datasets._dataset import Dataset, Sample
from mdp.io.datasets.own.description import description_values
from mdp.io.errors import MdpError
from mdp.io.files import zips
from mdp.io.files.reading import UNREADABLE_ARRAYS, is_file, read_bytes

FILE = "files.npz"  # in a run's folder
_END = 4096  # bytes
_COMPRESSED = (".png", ".jpg", ".jpeg", ".webp")
_GROUP = 500  # files a thread takes at once
_LIMIT = 2**30  # bytes of a manifest
NONE, ENDS, CRC = 0, 1, 2  # no file; a digest of (both ends of) the content; CRC-32 of it


class Mark(NamedTuple):
    """A file: its size, and its content as a number of a certain kind."""

    size: int  # bytes; 0 where there is none
    changed: int  # nanoseconds
    content: int
    kind: int


class Files(NamedTuple):
    """Files in the order of their samples."""

    names: list[str]  # relative to the folder of the dataset
    marks: NDArray[np.int64]  # (N, 3): size, time of change, kind
    contents: NDArray[np.uint64]  # (N,)

    def mark(self, index: int) -> Mark:
        size, changed, kind = self.marks[index].tolist()
        return Mark(size, changed, int(self.contents[index]), kind)

    def digest(self) -> str:
        """A digest of the contents, whatever the files are called and when they were changed."""
        told = np.ascontiguousarray(self.marks[:, ::2]).tobytes() + self.contents.tobytes()
        return hashlib.blake2b(told, digest_size=8).hexdigest()


@dataclass(frozen=True, kw_only=True)
class DataPart:
    """The files that one dataset gives to a run, and how they are read."""

    dataset: str
    role: str
    reading: str
    photos: Files
    labels: Files
    samples: Sequence[Sample] = ()  # where they are now; a manifest that was read has none

    def digest(self) -> DataDigest:
        files = self.photos.digest(), self.labels.digest()
        return DataDigest(self.dataset, self.role, len(self.photos.names), *files, self.reading)


# Looking at the files


def look_at_pool(pool: Pool, role: str, root: str, known: Sequence[DataPart] = ()) -> list[DataPart]:
    """The parts of a pool; contents that `known` has are not read again where size and time are the same."""
    before = {(part.dataset, part.role): part for part in known}
    found = []
    for name, dataset in pool.datasets.items():
        samples = [sample for sample in pool.samples if sample.dataset == name]
        found.append(look_at(dataset, samples, role, root, before.get((name, role))))
    return found


def look_at(
    dataset: Dataset, samples: Sequence[Sample], role: str, root: str, known: DataPart | None = None
) -> DataPart:
    """The part that some samples of a dataset are."""
    photos, labels = [sample.image for sample in samples], [sample.labels for sample in samples]
    folders = _folders(dataset, root)
    return DataPart(
        dataset=dataset.name,
        role=role,
        reading=reading_digest(dataset.labels, _description(dataset)),
        photos=_files(photos, folders, known.photos if known else None),
        labels=_files(labels, folders, known.labels if known else None),
        samples=samples,
    )


def names_of(dataset: Dataset, samples: Sequence[Sample], root: str) -> list[str]:
    """The names of the photos, relative to the dataset's folder or to the root."""
    folders = _folders(dataset, root)
    return [_relative(sample.image, folders) for sample in samples]


def _folders(dataset: Dataset, root: str) -> list[str]:
    """The folders that names may be relative to, the inner one of two first."""
    folders = {f"{folder.rstrip('/')}/" for folder in (os.path.dirname(dataset.source), root) if folder}
    return sorted(folders, key=len, reverse=True)


def _description(dataset: Dataset) -> dict[Any, Any]:
    """What the YAML file of a dataset says; empty without one."""
    if not (dataset.source.endswith((".yaml", ".yml")) and is_file(dataset.source)):
        return {}
    return description_values(Path(dataset.source))


def _files(paths: Sequence[str], folders: Sequence[str], known: Files | None) -> Files:
    names = [_relative(path, folders) for path in paths]
    places = {name: index for index, name in enumerate(known.names)} if known else {}
    before = [known.mark(places[name]) if known and name in places else None for name in names]
    starts = range(0, len(paths), _GROUP)
    threads = ThreadPoolExecutor(8)  # on a network disk nearly all of it is waiting
    try:
        groups = threads.map(
            _marks, *([column[start : start + _GROUP] for start in starts] for column in (paths, names, before))
        )
        marks = [mark for group in groups for mark in group]
    finally:
        threads.shutdown(cancel_futures=True)
    told = np.array([(mark.size, mark.changed, mark.kind) for mark in marks], dtype=np.int64).reshape(-1, 3)
    return Files(names, told, np.array([mark.content for mark in marks], dtype=np.uint64))


def _relative(path: str, folders: Sequence[str]) -> str:
    return next((path.removeprefix(folder) for folder in folders if path.startswith(folder)), path)


def _marks(paths: Sequence[str], names: Sequence[str], before: Sequence[Mark | None]) -> list[Mark]:
    return [_mark(*file) for file in zip(paths, names, before, strict=True)]


def _mark(path: str, name: str, before: Mark | None) -> Mark:
    """Size and content of a file; what is none, or cannot be read, is told by its name."""
    try:
        drawn = format_of(path)
        if drawn:  # one file may have the annotations of many photos
            content = drawn.content(path)
            return Mark(len(content), 0, _number(content), ENDS)
        zipped = zips.split(path)
        if zipped and zipped[1]:
            entry = zips.archive(zipped[0]).entry(zipped[1])
            return Mark(entry.size, 0, entry.crc, CRC) if entry else _unread(name)
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return _unread(name)
        # the time of the last change of any kind: that of the content can be set by whoever copies
        size, changed = status.st_size, status.st_ctime_ns
        if before and before.kind == ENDS and (before.size, before.changed) == (size, changed):
            return before
        return Mark(size, changed, _number(_ends(path)), ENDS)
    except (OSError, ValueError, zips.Unusable, MdpError):
        return _unread(name)  # whoever reads it says what is wrong


def _unread(name: str) -> Mark:
    return Mark(0, 0, _number(name.encode("utf-8", "surrogateescape")), NONE)


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())


def _ends(path: str) -> bytes:
    """The bytes that tell a file's content: both ends of a long compressed one, all of another one as a digest."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(handle, "rb", buffering=0) as file:
        size = os.fstat(handle).st_size
        if size > 2 * _END and path.lower().endswith(_COMPRESSED):
            return os.pread(handle, _END, 0) + os.pread(handle, _END, size - _END)
        return hashlib.file_digest(file, "blake2b").digest()


def content_of(data: bytes, path: str) -> int:
    """The content of a mark of ENDS, where the file's bytes are at hand."""
    if len(data) > 2 * _END and path.lower().endswith(_COMPRESSED):
        return _number(data[:_END] + data[-_END:])
    return _number(hashlib.blake2b(data).digest())


# In a run's folder


def packed(parts: Sequence[DataPart]) -> bytes:
    """The parts as the content of a file."""
    arrays: dict[str, NDArray[Any]] = {}
    rows = []
    for number, part in enumerate(parts):
        rows.append("\t".join((part.dataset, part.role, part.reading)))
        for what, files in (("photos", part.photos), ("labels", part.labels)):
            arrays[f"{number}.{what}.names"] = _bytes_of(files.names)
            arrays[f"{number}.{what}.marks"], arrays[f"{number}.{what}.contents"] = files.marks, files.contents
    file = io.BytesIO()
    np.savez_compressed(file, parts=_bytes_of(rows), **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _bytes_of(lines: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"), dtype=np.uint8)


def unpacked(data: bytes) -> list[DataPart]:
    """`packed` backwards.  Raises one of several errors for anything else."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        rows = [row.split("\t") for row in _lines_of(arrays["parts"])]
        return [_part(arrays, number, *row) for number, row in enumerate(rows)]


def read_manifest(folder: Path) -> list[DataPart]:
    """The parts in a run's folder; none where there are none, or the file is damaged: then digests have to do."""
    try:
        return unpacked(read_bytes(str(folder / FILE), "list of files", _LIMIT))
    except (MdpError, *UNREADABLE_ARRAYS):
        return []


def _lines_of(array: NDArray[np.uint8]) -> list[str]:
    return array.tobytes().decode("utf-8", "surrogateescape").split("\n")[:-1]


def _part(arrays: Any, number: int, dataset: str, role: str, reading: str) -> DataPart:
    photos, labels = (
        Files(
            _lines_of(arrays[f"{number}.{what}.names"]),
            arrays[f"{number}.{what}.marks"].astype(np.int64).reshape(-1, 3),
            arrays[f"{number}.{what}.contents"].astype(np.uint64),
        )
        for what in ("photos", "labels")
    )
    if not len(photos.names) == len(photos.marks) == len(photos.contents) == len(labels.names) == len(labels.marks):
        raise ValueError("columns of different lengths")
    return DataPart(dataset=dataset, role=role, reading=reading, photos=photos, labels=labels)
