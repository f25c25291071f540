"""Photos without label maps: all those below a folder."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mdp.io.datasets._dataset import Absent, Sample
from mdp.io.datasets._layouts import refuse_controls
from mdp.io.datasets.own import borders
from mdp.io.datasets.own.endings import PHOTOS
from mdp.io.datasets.own.place import Place
from mdp.io.errors import ResourceError
from mdp.io.files.reading import is_dir, listed, printable, stray_entry, way_out


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


def photos_below(name: str, folder: Path, border: str) -> list[Sample]:
    """The photos below a folder, at any depth.

    Links are followed, as subsets of ImageNet are often made of them, but never in a circle nor past the border.
    Raises DatasetError when the folder is missing, or for what is no file or outside.
    """
    if not is_dir(folder):
        raise Absent(f"{name}: the folder {printable(folder)} is missing")
    paths: list[Path] = []
    visited: set[str] = set()  # real paths: two links may lead to one folder, or back to one above
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        borders.refuse(way_out(current, border), printable(current))
        real = os.path.realpath(current)
        if real not in visited:
            visited.add(real)
            folders, photos = _within(current, border)
            waiting += folders
            paths += photos
    return [Sample(str(path), "", name) for path in sorted(paths)]


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
