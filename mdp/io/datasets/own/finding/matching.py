"""Which label map belongs to which photo of a split's folders: by the same path, or by templates of names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mdp.io.datasets.own.endings import LABELS, PHOTOS, SECOND_LABELS, SECOND_PHOTOS
from mdp.io.datasets.own.finding.folders import Files, by_stem, plain
from mdp.io.datasets.own.finding.templates import Match, Template, proposal
from mdp.io.datasets.own.place import Place
from mdp.io.errors import DatasetError
from mdp.io.files.reading import is_dir, printable


class Folders(NamedTuple):
    """The folders of a split, relative to the dataset's, and how the names in them are made."""

    images: str
    labels: str
    image: Template | None = None  # of a photo's name; None: any
    label: Template | None = None  # of a label map's name; None: that of the photo, any ending


@dataclass(frozen=True)
class Found:
    """The files of a split's folders."""

    pairs: dict[str, Path]  # photo, below its folder, and its label map, which may be missing
    ids: dict[str, list[str]]  # the last part of a photo's id, and the photos that have it
    labels: dict[Path, str]  # the label maps that are there, and their paths below their folder
    unfit: list[str]  # photos that the template does not fit


def find(folders: Folders, place: Place, listing: Files) -> Found:
    """The photos and label maps of a split.

    Raises DatasetError where a photo would be its own label map, or two photos have one stem or one label map.
    """
    images, labels = place.folder / folders.images, place.folder / folders.labels
    others = {images, labels, *place.others}
    passed = {other for other in others if images in other.parents}
    seen = listing.below(images, _endings(PHOTOS, folders.image), passed)
    matches = {photo: match for photo in seen if (match := _match(folders.image, photo, images))}
    there = _label_maps(folders, labels, listing, {other for other in others if labels in other.parents})
    names = _by_name(folders, there, matches, labels)
    wanted = {photo: labels / _label_of(folders, photo, match, names) for photo, match in matches.items()}
    if images == labels:  # what is the label map of another is no photo
        taken = {path for photo, path in wanted.items() if path != images / photo}
        wanted = {photo: path for photo, path in wanted.items() if images / photo not in taken}
        _refuse_own(place, images, wanted, there)
    if folders.image is None:
        kept = set(by_stem(wanted, images, SECOND_PHOTOS).values())
        wanted = {photo: path for photo, path in wanted.items() if photo in kept}
    _refuse_shared(wanted, images)
    ids: dict[str, list[str]] = {}
    for photo in wanted:
        name = PurePosixPath(photo).name
        for key in {plain(PurePosixPath(photo).stem), plain(name), *map(plain, matches[photo].fields.values())}:
            ids.setdefault(key, []).append(photo)
    kept_maps = {labels / path: path for path in there if images != labels or path not in wanted}
    return Found(wanted, ids, kept_maps, [str(images / photo) for photo in seen if photo not in matches])


def _endings(known: tuple[str, ...], made: Template | None) -> tuple[str, ...]:
    """The endings to look for: a template may name another."""
    return known if made is None else (*known, PurePosixPath(made.text).suffix.lower())


def _match(image: Template | None, photo: str, images: Path) -> Match | None:
    if image is not None:
        return image.match(photo, images)
    folder, slash, name = photo.rpartition("/")
    return Match(folder + slash, dict.fromkeys(("stem", "id"), PurePosixPath(name).stem))


def _label_maps(folders: Folders, labels: Path, listing: Files, passed: set[Path]) -> list[str]:
    """The paths, below their folder, of the label maps that the template may mean."""
    if folders.label is None:
        return listing.below(labels, LABELS, passed)
    if not is_dir(labels):
        return []  # each is missing, and is said to be
    paths = listing.below(labels, _endings(LABELS, folders.label), passed)
    return [path for path in paths if folders.label.lazy.fullmatch(path)]


def _by_name(folders: Folders, there: Sequence[str], photos: Mapping[str, Match], labels: Path) -> dict[str, str]:
    """Label maps by their names, without their endings where any will do."""
    if folders.label is not None and not folders.label.text.endswith(".*"):
        return {plain(path): path for path in there}
    if folders.images == folders.labels and folders.label is None:
        if folders.image is None:
            return {plain(str(PurePosixPath(path).with_suffix(""))): path for path in there}  # refused by name
        there = [path for path in there if path not in photos]
    return by_stem(there, labels, SECOND_LABELS)


def _label_of(folders: Folders, photo: str, match: Match, names: Mapping[str, str]) -> str:
    """The path of a photo's label map below its folder, also where there is none."""
    if folders.label is None:
        path = match.folder + next(iter(match.fields.values()))
        return names.get(plain(path), f"{path}.png")
    path = folders.label.fill(match)
    if path.endswith(".*"):
        return names.get(plain(path[:-2]), f"{path[:-2]}.png")
    return names.get(plain(path), path)


def _refuse_own(place: Place, images: Path, wanted: Mapping[str, Path], there: Sequence[str]) -> None:
    """Raises DatasetError for a photo that would be its own label map, with the templates to write."""
    own = [photo for photo, path in wanted.items() if path == images / photo]
    if own:
        image, label = proposal(own, there) or ("{id}.jpg", "{id}_mask.png")
        raise DatasetError(
            f"{place.where}: {printable(images / own[0])} would be its own label map, since photos and label maps lie "
            f'in one folder; say which are which, such as image: "{printable(image)}", label: "{printable(label)}"'
        )


def _refuse_shared(wanted: Mapping[str, Path], images: Path) -> None:
    first: dict[Path, str] = {}
    for photo, path in wanted.items():
        if path in first:
            raise DatasetError(
                f"{printable(images / photo)} and {printable(first[path])} have one label map, {printable(path)}; "
                "write templates that tell them apart"
            )
        first[path] = photo


def hint(folders: Folders, found: Found) -> str:
    """Words on label maps without photo where photos have none, with the templates that may bring them together."""
    used = set(found.pairs.values())
    rest = [path for path in found.labels if path not in used]
    lonely = [photo for photo, path in found.pairs.items() if path not in found.labels]
    if not lonely or not rest:
        return ""
    text = f"{len(rest)} label maps have no photo, such as {printable(rest[0])}"
    made = proposal(lonely, [found.labels[path] for path in rest]) if folders.image is None else None
    if made:
        text += f'; if they are theirs, write image: "{printable(made[0])}", label: "{printable(made[1])}"'
    return f"{text}; "
