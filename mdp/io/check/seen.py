"""The photos that a run has learnt from, and those before it that it started from: a compact list in its folder.

Who scores the run looks whether a photo to score is among them: the same file, the same pixels, or a near duplicate as
`mdp check` finds them.  Pixels and looks come from the check before training; without it files only are compared.
"""

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdp.core.protocols import Counted
from mdp.io.check.leaks import BANDS, NEAR, Print
from mdp.io.check.scan import difference_hash, pixel_hash
from mdp.io.data.manifest import NONE, DataPart
from mdp.io.errors import MdpError
from mdp.io.files.reading import printable, read_bytes
from mdp.io.processes.world import World

FILE = "photos_seen.npz"  # in a run's folder
_LIMIT = 2**30  # bytes of it
_LISTED = 3  # photos named on a line
_KEPT = 1000  # photos named in JSON
_Numbers = NDArray[np.uint64]


class Seen(NamedTuple):
    """Photos; 0 stands for what is not known of one."""

    runs: list[str]  # kinds of runs and their datasets: `pretrain voc`
    names: list[str]
    run: NDArray[np.int64]  # of each photo, an index of `runs`
    files: _Numbers
    pixels: _Numbers
    looks: _Numbers


class Photo(NamedTuple):
    """A photo to look for; 0 stands for what is not known of it."""

    name: str
    file: int
    pixels: int = 0
    look: int = 0


class Twin(NamedTuple):
    """A photo to score that was seen in training."""

    photo: str
    seen: str  # the name that it was seen under
    run: str
    exact: bool


# The list of a run


def learnt_from(kind: str, data: Sequence[DataPart], prints: Sequence[Print], before: Seen | None) -> Seen:
    """The photos that a run of that kind trains on, as far as they are files, and those that its weights have seen."""
    known = {found.image: found for found in prints}
    training = [part for part in data if part.role == "train"]
    photos = [[photo for photo in photos_of(part, known) if photo.file or photo.pixels] for part in training]
    columns = np.array([photo[1:] for some in photos for photo in some], dtype=np.uint64).reshape(-1, 3).T
    own = Seen(
        [f"{kind} {part.dataset}" for part in training],
        [photo.name for some in photos for photo in some],
        np.repeat(np.arange(len(training)), [len(some) for some in photos]),
        *columns,
    )
    return own if before is None else _joined(before, own)


def _joined(first: Seen, second: Seen) -> Seen:
    columns = ((a, b) for a, b in zip(first[3:], second[3:], strict=True))
    run = np.concatenate([first.run, second.run + len(first.runs)])
    return Seen(first.runs + second.runs, first.names + second.names, run, *map(np.concatenate, columns))


def photos_of(part: DataPart, prints: Mapping[str, Print]) -> list[Photo]:
    """The photos of a part, with what a check found of them."""
    ids = np.where(part.photos.marks[:, 2] == NONE, 0, part.photos.contents + part.photos.marks[:, 0].astype(np.uint64))
    found = []
    for sample, name, file in zip(part.samples, part.photos.names, ids.tolist(), strict=True):
        one = prints.get(sample.image)
        pixels, look = (_number(one.pixel_hash), one.look or 0) if one else (0, 0)
        found.append(Photo(name, file, pixels, look))
    return found


def _number(digest: str) -> int:
    """The first 64 bits of a digest in hexadecimal."""
    return int(digest[:16] or "0", 16)


def as_file(seen: Seen) -> bytes:
    """The list as the content of a file."""
    arrays: dict[str, Any] = {**seen._asdict(), "runs": _bytes_of(seen.runs), "names": _bytes_of(seen.names)}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _bytes_of(lines: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"), dtype=np.uint8)


def read_seen(folder: Path) -> Seen | None:
    """The list in a run's folder; None where there is none, or a damaged one."""
    try:
        data = read_bytes(str(folder / FILE), "list of photos", _LIMIT)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            runs, names = (_lines_of(arrays[key]) for key in ("runs", "names"))
            files, pixels, looks = (arrays[key].astype(np.uint64) for key in ("files", "pixels", "looks"))
            seen = Seen(runs, names, arrays["run"].astype(np.int64), files, pixels, looks)
    except (MdpError, OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
        return None
    same = len({len(column) for column in seen[1:]}) == 1 and (not len(seen.run) or seen.run.max() < len(seen.runs))
    return seen if same else None


def _lines_of(array: NDArray[np.uint8]) -> list[str]:
    return array.tobytes().decode("utf-8", "surrogateescape").split("\n")[:-1]


# Looking for photos in it


def twins(seen: Seen, photos: Sequence[Photo]) -> list[Twin]:
    """Those of the photos that were seen, each with the one that it is, or else looks like."""
    files, pixels, near = _Index(seen.files), _Index(seen.pixels), _Looks(seen.looks)
    found = []
    for photo in photos:
        exact = next(iter(pixels.of(photo.pixels) or files.of(photo.file)), None)
        at = near.like(photo.look) if exact is None else exact
        if at is not None:
            found.append(Twin(photo.name, seen.names[at], seen.runs[seen.run[at]], exact is not None))
    return found


class _Index:
    """Where numbers stand in a column."""

    def __init__(self, column: _Numbers) -> None:
        self.order = np.argsort(column, kind="stable")
        self.sorted = column[self.order]

    def of(self, value: int) -> list[int]:
        """The places of a number; none of 0."""
        if not value:
            return []
        first, last = (int(np.searchsorted(self.sorted, np.uint64(value), side)) for side in ("left", "right"))
        return [int(at) for at in self.order[first:last]]


class _Looks:
    """Looks by bands of their bits: what differs in two bits at most has one band in common."""

    def __init__(self, looks: _Numbers) -> None:
        self.looks = looks
        self.bands = [(first, width, _Index(self._band(looks, first, width))) for first, width in BANDS]

    @staticmethod
    def _band(looks: _Numbers, first: int, width: int) -> _Numbers:
        band = looks >> np.uint64(first) & np.uint64((1 << width) - 1)
        return np.where(looks == 0, 0, band + np.uint64(1))  # 0 is nothing known

    def like(self, look: int) -> int | None:
        """The place of a look that differs in few bits."""
        if not look:
            return None
        places = (at for first, width, index in self.bands for at in index.of((look >> first & ((1 << width) - 1)) + 1))
        return next((at for at in places if (int(self.looks[at]) ^ look).bit_count() <= NEAR), None)


class Looked:
    """An observer of photos while they are scored: takes what `twins` compares."""

    def __init__(self, part: DataPart) -> None:
        self.photos = photos_of(part, {})
        self.found: list[tuple[int, Photo]] = []

    def observe_(self, counted: Counted) -> None:
        rgb = counted.image.permute(1, 2, 0).contiguous().numpy()
        seen = self.photos[counted.index]._replace(pixels=_number(pixel_hash(rgb)), look=difference_hash(rgb) or 0)
        self.found.append((counted.index, seen))


# In words


def told(found: Sequence[Twin], photos: int) -> str:
    """How many photos to score were seen in training, with the first of them; "" where none was."""
    if not found:
        return ""
    exact, near = [twin for twin in found if twin.exact], [twin for twin in found if not twin.exact]
    parts = [f"{len(some):,} {how} ({_some(some, word)})" for some, how, word in (
        (exact, "exactly", "is"), (near, "nearly", "is like")) if some]  # fmt: skip
    return f"{len(found):,} of the {photos:,} photos to score were seen in training: {', '.join(parts)}"


def _some(found: Sequence[Twin], word: str) -> str:
    some = ", ".join(f"{printable(twin.photo)} {word} {printable(twin.seen)} of {twin.run}" for twin in found[:_LISTED])
    return some + (", ..." if len(found) > _LISTED else "")


def as_json(found: Sequence[Twin], photos: int) -> dict[str, Any]:
    """The same for programs."""
    return {
        "photos": photos,
        "exact": sum(twin.exact for twin in found),
        "near": sum(not twin.exact for twin in found),
        "twins": [twin._asdict() for twin in found[:_KEPT]],
        "text": told(found, photos),
    }


def seen_before(looked: Looked, seen: Seen, photos: int, world: World) -> dict[str, Any]:
    """Which of so many photos, looked at by all processes, were seen, for programs and (`text`) for people."""
    found = sorted(photo for some in world.gather_objects(looked.found) for photo in some)
    return as_json(twins(seen, [photo for _, photo in found]), photos)
