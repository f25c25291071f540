"""The lines of a list of photos: `id`, `image` or `image,label`, with a comma, a tab or spaces between.

A line is taken for what names files that are there, as a whole first; what can be read in two ways or in none is
refused with file and line.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from os.path import normpath
from pathlib import Path, PurePosixPath

from mdp.io.datasets.own import borders
from mdp.io.datasets.own.endings import LABELS, PHOTOS
from mdp.io.datasets.own.finding.folders import Files, plain
from mdp.io.datasets.own.finding.matching import Folders, Found, find
from mdp.io.datasets.own.place import Place
from mdp.io.errors import DatasetError
from mdp.io.files.reading import is_dir, printable, shown

Pair = tuple[Path, Path]

_SEPARATOR = re.compile(r"\s*[,;\t]\s*|\s+")
_SEPARATORS = 16  # in a line; each may be the one
_PHOTO_WORDS = {"image", "images", "img", "photo", "photos", "picture", "rgb"}
_LABEL_WORDS = {"label", "labels", "mask", "masks", "annotation", "annotations", "segmentation", "gt"}
_NAME_WORDS = {"id", "name", "file", "filename", "stem", "path"}
_EXPECTED = "expected `id`, `image` or `image,label` of files that are there (a tab or space will do for the comma)"


def refuse_repeated(order: Path, lines: Sequence[tuple[int, str]]) -> None:
    """Raises DatasetError for a list with a line twice."""
    texts = Counter(line for _, line in lines)
    if len(texts) != len(lines):
        twice = next(line for line, count in texts.items() if count > 1)
        raise DatasetError(f"{order}: {len(lines) - len(texts)} lines are there twice, such as {shown(twice)}")


class Lines:
    """Reads the lines of one list."""

    def __init__(self, folders: Folders, place: Place) -> None:
        self._folders, self._place, self._listing = folders, place, Files(place.border)
        self._images, self._labels = place.folder / folders.images, place.folder / folders.labels
        self._label_first = False  # as a header may say
        self._stems: dict[tuple[Path, bool], dict[str, list[str]]] = {}
        self._taken: dict[Pair, str] = {}

    def pair(self, line: str, where: str, *, first: bool) -> Pair | None:
        """Photo and label map of a line, where they should be; None for a header, which only the `first` can be.

        Raises DatasetError, `where` before it, for a line that is not understood or names what another does.
        """
        pair = self._pair(line, where, first)
        if pair in self._taken:
            raise DatasetError(f"{where}{shown(line)} is the same photo and label map as {shown(self._taken[pair])}")
        if pair:
            self._taken[pair] = line
        return pair

    def _pair(self, line: str, where: str, first: bool) -> Pair | None:
        name = _unquoted(line)
        whole = self._photo(name)
        if whole:
            return whole
        columns = [(right, left) if self._label_first else (left, right) for left, right in _columns(line)]
        pairs = {pair for left, right in columns if (pair := self._both(left, right))}
        if len(pairs) > 1:
            raise DatasetError(f"{where}{shown(line)} can be read in {len(pairs)} ways; put the names into quotes")
        if pairs:
            return self._in_order(pairs.pop(), where)
        if first and self._header(name, columns):
            return None
        several = _SEPARATOR.search(name) is not None
        if several:
            self._refuse_ways_out(re.split(_SEPARATOR, line), where)
        two = several and len(line.split()) == 2 and not re.search(r'[,;"]', line)
        pair = (self._place.folder / columns[0][0], self._place.folder / columns[0][1]) if two else None
        if pair and is_dir(pair[0]):
            return pair  # to be named as the folder that it is
        found = self._by_tail(name, where) or pair  # of which it is to be named what is missing
        if found:
            return found
        last = PurePosixPath(name).name
        if several or last in ("", "..") or "\\" in line:
            raise DatasetError(f"{where}{_EXPECTED}, written with /, got {shown(line)}")
        return self._images / last, self._labels / f"{last}.png"

    # A photo alone

    def _photo(self, text: str) -> Pair | None:
        """The photo of that path, from the dataset's folder or from `images`, with or without its ending."""
        path = self._there(text, self._images, PHOTOS)
        if path is None or self._images not in path.parents:
            return None
        photo = path.relative_to(self._images).as_posix()
        return (path, self._found.pairs[photo]) if photo in self._found.pairs else None

    def _by_tail(self, text: str, where: str) -> Pair | None:
        """The only photo of that name whose folders are those of the path, as far as it names some.

        Raises DatasetError where there are several, or the folders are others: it may be another set's photo.
        """
        given = PurePosixPath(text)
        if "\\" in text or given.name in ("", "..") or not (named := self._named(given)):
            return None
        paths = [Path(normpath(self._images / photo)) for photo in named]
        fit = [photo for photo, path in zip(named, paths, strict=True) if self._fits(given, path)]
        if len(fit) > 1:
            both = " and ".join(printable(self._images / photo) for photo in fit[:2])
            raise DatasetError(f"{where}{shown(text)} may be {both}; write the path from the dataset's folder")
        if not fit:
            raise DatasetError(
                f"{where}{shown(text)} has other folders than {printable(paths[0])}, the photo of that name; "
                "if it is that one, write its path from the dataset's folder, or its name alone"
            )
        return self._images / fit[0], self._found.pairs[fit[0]]

    def _named(self, given: PurePosixPath) -> list[str]:
        """The photos with the name of a path, its ending left out or not: an id may hold dots."""
        stem = given.stem if given.suffix.lower() in PHOTOS else given.name
        ids = self._found.ids
        return ids.get(plain(given.name)) or ids.get(plain(stem), [])

    def _fits(self, given: PurePosixPath, path: Path) -> bool:
        """Whether the folders of a path are the last ones of a photo's; absolute ones down from the dataset's own."""
        if ".." in given.parts:
            return Path(normpath(self._place.folder / given)).parent == path.parent
        folders = tuple(map(plain, path.parent.parts))
        if given.is_absolute():  # of another machine, perhaps
            home = Path(normpath(self._place.folder))
            if home not in path.parents:
                return given.parent == PurePosixPath(path.parent)
            folders = folders[len(home.parts) - 1 :]
            return tuple(map(plain, given.parent.parts))[-len(folders) :] == folders
        asked = tuple(map(plain, given.parent.parts))
        return not asked or folders[-len(asked) :] == asked

    # A photo and its label map

    def _both(self, left: str, right: str) -> Pair | None:
        photo = self._there(left, self._images, PHOTOS)
        label = self._there(right, self._labels, LABELS) if photo else None
        return (photo, label) if photo and label else None

    def _in_order(self, pair: Pair, where: str) -> Pair:
        """Raises DatasetError for a label map in the place of a photo."""
        photo, label = pair
        apart = self._images != self._labels and self._labels not in self._images.parents
        if photo == label or (apart and self._labels in photo.parents):
            raise DatasetError(
                f"{where}{printable(photo)} stands in the place of a photo and is a label map; write the photo first, "
                "or a first line `label,image`"
            )
        return pair

    def _header(self, name: str, columns: Sequence[tuple[str, str]]) -> bool:
        """Whether a first line, which names no file, says what the columns hold."""
        kinds = {(_kind(left), _kind(right)) for left, right in columns} if columns else {(_kind(name), "")}
        if kinds not in ({("photo", "label")}, {("label", "photo")}, {("photo", "")}):
            return False
        self._label_first = ("label", "photo") in kinds
        return not self._named(PurePosixPath(name))

    def _refuse_ways_out(self, texts: Sequence[str], where: str) -> None:
        if not self._place.outside:
            for text in texts:
                borders.refuse_way_out(text, where.removesuffix(": "))

    # Names of files

    def _there(self, text: str, folder: Path, endings: tuple[str, ...]) -> Path | None:
        """The file of that path from the dataset's folder or else from `folder`; there its ending may be left out."""
        text = text.strip()
        if not text or PurePosixPath(text).name in ("", "..") or (borders.leads_out(text) and not self._place.outside):
            return None
        known = PurePosixPath(text).suffix.lower() in endings
        for path in dict.fromkeys((self._place.folder / text, folder / text)):
            if known and path.name in self._listing.names(path.parent):
                return path
        inside = folder.joinpath(*PurePosixPath(text).parts)
        for path in dict.fromkeys((self._place.folder / text, inside)):
            if folder == path.parent or folder in path.parents:
                named = self._by_stem(path.parent, endings).get(plain(path.name), [])
                if len(named) == 1:
                    return path.parent / named[0]
        return None

    def _by_stem(self, folder: Path, endings: tuple[str, ...]) -> dict[str, list[str]]:
        """The files of a folder with one of the endings, by name and by stem, in one spelling."""
        key = folder, endings is PHOTOS
        if key not in self._stems:
            stems: dict[str, list[str]] = {}
            for name in self._listing.names(folder):
                if PurePosixPath(name).suffix.lower() in endings:
                    for text in {plain(PurePosixPath(name).stem), plain(name)}:
                        stems.setdefault(text, []).append(name)
            self._stems[key] = stems
        return self._stems[key]

    @cached_property
    def _found(self) -> Found:
        """The photos and label maps of the folders; not looked for where all lines are pairs."""
        return find(self._folders, self._place, self._listing)


def _unquoted(line: str) -> str:
    """The line without quotes around all of it."""
    fields = _fields(line, ",") if line.startswith('"') else []
    return fields[0] if len(fields) == 1 else line


def _columns(line: str) -> Iterator[tuple[str, str]]:
    """The ways to see two columns in a line."""
    if '"' in line:
        for separator in (",", ";", "\t", " "):
            fields = _fields(line, separator)
            if len(fields) == 2:
                yield fields[0], fields[1]
    found = list(_SEPARATOR.finditer(line))
    if len(found) <= _SEPARATORS:
        for match in found:
            left, right = line[: match.start()], line[match.end() :]
            yield left, right
            if '"' in line:
                yield _unquoted(left), _unquoted(right)


def _fields(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True), [])
    except csv.Error:
        return []


def _kind(text: str) -> str:
    """Whether a word at the head of a column says photos or label maps; "" otherwise.

    >>> _kind("image_path"), _kind("Mask"), _kind("image mask file"), _kind("0001")
    ('photo', 'label', 'label', '')
    """
    words = set(re.split(r"[\s_.-]+", text.strip(" \"'").lower()))
    if not words <= _PHOTO_WORDS | _LABEL_WORDS | _NAME_WORDS:
        return ""
    return "label" if words & _LABEL_WORDS else "photo"
