"""Photos without label maps: all those below a folder."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mdp.io.datasets._dataset import Absent, LeftOut, Sample
from mdp.io.datasets._layouts import refuse_controls
from mdp.io.datasets.own import borders
from mdp.io.datasets.own.endings import LABELS, PHOTOS
from mdp.io.datasets.own.place import Place, Used
from mdp.io.errors import MdpError, ResourceError
from mdp.io.files.reading import is_dir, listed, printable, read_bytes, stray_entry, way_out

_LOSSY = (".jpg", ".jpeg", ".webp")
_WORD = "masks?|labels?|gt|seg|segmentation|annotations?|labelids|labeltrainids"
_MARK = re.compile(rf"(?P<stem>.+)[_. -](?:{_WORD})|(?:{_WORD})[_. -](?P<other>.+)", re.IGNORECASE)


@dataclass(frozen=True)
class Unlabelled:
    """The photos below a folder, at any depth."""

    images: str

    @property
    def paths(self) -> Mapping[str, str | None]:
        """The folder."""
        return {"images": self.images}

    def samples(self, place: Place) -> list[Sample]:
        """The photos, sorted."""
        return photos_below(place.dataset, place.folder / self.images, place.border)

    def left_out(self, place: Place, used: Used) -> list[LeftOut]:
        """Label maps beside their photos."""
        return label_maps_among(place.folder / self.images, place.border)


def photos_below(name: str, folder: Path, border: str) -> list[Sample]:
    """The photos below a folder, at any depth; label maps beside their photos are none.

    Links are followed, as subsets of ImageNet are often made of them, but never in a circle nor past the border.
    Raises DatasetError when the folder is missing, or for what is no file or outside.
    """
    if not is_dir(folder):
        raise Absent(f"{name}: the folder {printable(folder)} is missing")
    return [Sample(str(path), "", name) for path in _all_below(folder, border)[0]]


def label_maps_among(folder: Path, border: str) -> list[LeftOut]:
    """The label maps below a folder of photos, which are not taken for photos."""
    maps = _all_below(folder, border)[1] if is_dir(folder) else []
    return [("label maps beside photos", list(map(str, maps)))] if maps else []


def label_maps_left(samples: Sequence[Sample]) -> str:
    """A remark on the label maps in the photos' folders; "" where there are none."""
    folders = dict.fromkeys(Path(sample.image).parent for sample in samples)
    count = sum(len(_label_maps(_within(folder, os.sep)[1])) for folder in folders)
    return f"left out: {count:,} label maps beside them" if count else ""


def _all_below(folder: Path, border: str) -> tuple[list[Path], list[Path]]:
    """The photos and the label maps below a folder, sorted."""
    photos: list[Path] = []
    maps: set[Path] = set()
    visited: set[str] = set()  # real paths: two links may lead to one folder, or back to one above
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        borders.refuse(way_out(current, border), printable(current))
        real = os.path.realpath(current)
        if real not in visited:
            visited.add(real)
            folders, inside = _within(current, border)
            waiting += folders
            photos += inside
            maps |= _label_maps(inside)
    return sorted(path for path in photos if path not in maps), sorted(maps)


def _label_maps(paths: Sequence[Path]) -> set[Path]:
    """Those files of a folder that are the label map of another: `a_mask.png` beside `a.jpg`, or an indexed `a.png`."""
    stems = Counter(path.stem for path in paths)
    return {
        path
        for path in paths
        if path.suffix.lower() in LABELS and path.suffix.lower() not in _LOSSY
        if ((mark := _MARK.fullmatch(path.stem)) and (mark["stem"] or mark["other"]) in stems)
        or (stems[path.stem] > 1 and path.suffix.lower() == ".png" and _indexed(path))
    }


def _indexed(path: Path) -> bool:
    """Whether a PNG file holds indices or grey values, as label maps do."""
    try:
        data = read_bytes(str(path), "photo")
    except MdpError:
        return False  # whoever reads it is told
    return data.startswith(b"\x89PNG") and data[25:26] in (b"\0", b"\3")


def _within(folder: Path, border: str) -> tuple[list[Path], list[Path]]:
    """The folders and the photos in a folder, hidden ones left out."""
    folders, photos = [], []
    try:
        entries = [(folder / name, odd) for name, odd in listed(folder)]
    except OSError as error:
        raise ResourceError(f"{printable(folder)}: the folder cannot be read: {error.strerror}") from error
    for path, odd in entries:
        if path.name.startswith("."):
            continue
        refuse_controls(path)
        if odd and is_dir(path):
            folders.append(path)
        elif path.suffix.lower() in PHOTOS:
            borders.refuse(stray_entry(path, border) if odd else "", printable(path))
            photos.append(path)
    return folders, photos
