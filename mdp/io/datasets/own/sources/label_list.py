"""A list of photos, one a line, each with its label map or in folders that hold both."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mdp.io.datasets._dataset import Sample
from mdp.io.datasets._layouts import numbered_lines, paired
from mdp.io.datasets.own import borders
from mdp.io.datasets.own.endings import PHOTOS
from mdp.io.datasets.own.place import Place
from mdp.io.datasets.own.sources import label_files
from mdp.io.errors import DatasetError
from mdp.io.files.reading import printable, shown

KEYS = (*label_files.KEYS, "list")


@dataclass(frozen=True)
class LabelList:
    """The photos that a list names."""

    file: str
    files: label_files.LabelFiles  # where a line that is no pair of paths finds its photo and its label map

    @property
    def paths(self) -> Mapping[str, str | None]:
        """The list, both folders and the template."""
        return {**self.files.paths, "list": self.file}

    def samples(self, place: Place) -> list[Sample]:
        """The photos and their label maps, in the order of the list."""
        order = place.folder / self.file
        borders.refuse_strays([(order, f"{place.where}.list: ")], place.border)
        lines = numbered_lines(order)
        texts = Counter(line for _, line in lines)
        if len(texts) != len(lines):
            twice = next(line for line, count in texts.items() if count > 1)
            raise DatasetError(f"{order}: {len(lines) - len(texts)} lines are there twice, such as {shown(twice)}")
        by_stem = any(len(line.split()) == 1 for line in texts)
        photos = label_files.photos_of(place.folder, self.files) if by_stem else {}
        labels = label_files.label_maps_of(place.folder, self.files) if by_stem else {}
        pairs, placed = [], []
        for number, line in lines:
            where = f"{printable(order)}: line {number}: "
            pair = _pair(line, place.folder, self.files, photos, labels, where, place.outside)
            pairs.append(pair)
            placed += [(path, where) for path in pair]
        borders.refuse_strays(placed, place.border)
        return paired(place.dataset, pairs, place.home)


def source(split: Mapping[str, str], where: str) -> LabelList:
    """The list that a split names."""
    return LabelList(split["list"], label_files.source(split, where))


def _pair(
    line: str,
    base: Path,
    entry: label_files.LabelFiles,
    photos: Mapping[str, Path],
    labels: Mapping[str, Path],
    where: str,
    outside: bool,
) -> tuple[Path, Path]:
    """The files of a line: `image labels`, or an id or image path that names the photo by its stem."""
    words = line.split()
    if len(words) == 2:
        if not outside:
            for word in words:
                borders.refuse_way_out(word, where.removesuffix(": "))
        return base / words[0], base / words[1]
    plain = PurePosixPath(line).name
    if len(words) != 1 or plain in ("", ".", "..") or "\\" in line:
        raise DatasetError(f"{where}expected `id`, `image` or `image labels`, written with /, got {shown(line)}")
    # the folders of a path are not looked at: lists often come with those of another machine
    # an id may hold dots: only a suffix of a photo is cut off
    stem = label_files.plain(PurePosixPath(plain).stem if PurePosixPath(plain).suffix.lower() in PHOTOS else plain)
    photo = photos.get(stem, base / entry.images / plain)
    return photo, label_files.label_map_of(photo, base, entry, labels)
