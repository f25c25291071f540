"""A folder of photos and a folder of label maps, matched by their stems or by a template."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mdp.io.datasets._dataset import Sample
from mdp.io.datasets._layouts import files_in, paired
from mdp.io.datasets.own import borders
from mdp.io.datasets.own.endings import LABELS, PHOTOS
from mdp.io.datasets.own.place import Place
from mdp.io.errors import DatasetError, RecipeError
from mdp.io.files.reading import printable, shown

KEYS = ("label", "labels")


@dataclass(frozen=True)
class LabelFiles:
    """Every photo of a folder with the label map of its name."""

    images: str
    labels: str
    label: str | None  # template of a label file's name, with {stem}; None: the image's stem, any suffix

    @property
    def paths(self) -> Mapping[str, str | None]:
        """Both folders and the template."""
        return {"images": self.images, "labels": self.labels, "label": self.label}

    def samples(self, place: Place) -> list[Sample]:
        """The photos and their label maps, sorted."""
        photos, labels = photos_of(place.folder, self), label_maps_of(place.folder, self)
        pairs = [(photo, label_map_of(photo, place.folder, self, labels)) for photo in photos.values()]
        borders.refuse_strays([(path, "") for pair in pairs for path in pair], place.border)
        return paired(place.dataset, pairs, place.home)


def source(split: Mapping[str, str], where: str) -> LabelFiles:
    """The folders that a split names."""
    label = split.get("label")
    if label is not None and "{stem}" not in label:
        raise RecipeError(f'{where}.label: expected a template such as "{{stem}}_gt.png", got {shown(label)}')
    return LabelFiles(split.get("images", "."), split.get("labels", "."), label)


def photos_of(base: Path, entry: LabelFiles) -> dict[str, Path]:
    """The photos of a split by stem.  Raises DatasetError when two share one."""
    photos = by_stem(files_in(base / entry.images, *PHOTOS))
    if entry.label is None or base / entry.images != base / entry.labels:
        return photos
    # photos and label maps lie in one folder: what is the label map of another is no photo
    labels = {entry.label.replace("{stem}", stem) for stem in photos}
    return {stem: path for stem, path in photos.items() if path.name not in labels}


def label_maps_of(base: Path, entry: LabelFiles) -> dict[str, Path]:
    """Label files by stem, where no template names them."""
    return {} if entry.label is not None else by_stem(files_in(base / entry.labels, *LABELS))


def label_map_of(photo: Path, base: Path, entry: LabelFiles, labels: Mapping[str, Path]) -> Path:
    if entry.label is not None:
        return base / entry.labels / entry.label.replace("{stem}", photo.stem)
    return labels.get(plain(photo.stem), base / entry.labels / f"{photo.stem}.png")


def by_stem(paths: Sequence[Path]) -> dict[str, Path]:
    """Raises DatasetError when two files share a stem: there is no telling which one is meant."""
    stems: dict[str, Path] = {}
    for path in paths:
        stem = plain(path.stem)
        if stem in stems:
            raise DatasetError(f"{printable(path)} and {printable(stems[stem].name)} share a stem; remove one of them")
        stems[stem] = path
    return stems


def plain(stem: str) -> str:
    """One spelling of accented letters: macOS writes them decomposed, lists have them composed."""
    return unicodedata.normalize("NFC", stem)
