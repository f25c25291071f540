"""COCO's JSON, for things and stuff: one file for all photos of a split, such as Roboflow's `_annotations.coco.json`.

What a sample keeps is `FILE.json#PHOTO`.  Ids of categories are of no account: classes go by their names.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from mdp.io.annotations.coco_masks import counts_of, polygon_patch, runs_patch
from mdp.io.annotations.json_file import parsed
from mdp.io.annotations.marks import Annotated, Mark
from mdp.io.annotations.patches import Patch, union
from mdp.io.errors import DatasetError
from mdp.io.files.reading import Stamp, printable, shown, stamp

NAME = "COCO"
ORDERED = True
_PARTS = ("images", "annotations", "categories")
_FEW = 4  # files in memory: of training and validation, things and stuff


class Photo(NamedTuple):
    """A photo and its annotations, as they stand in the file."""

    id: Any
    size: tuple[Any, Any]  # height, width; None where the file does not say
    annotations: list[Mapping[str, Any]]


class Coco(NamedTuple):
    """A file."""

    categories: dict[Any, str]  # id: name
    above: dict[Any, str]  # id: name of what it is sorted under
    photos: dict[str, Photo]  # by file name


def annotated(path: Path) -> list[Annotated]:
    """Every photo that the file lists.  Raises DatasetError naming file, key and id."""
    found = read(str(path))
    names = {photo: _place(photo) for photo in found.photos}
    return [
        Annotated(f"{path}#{name}", (places, PurePosixPath(places).name), f"image {shown(found.photos[name].id)}")
        for name, places in names.items()
    ]


def class_names(path: Path) -> Iterable[str]:
    """The names of its categories."""
    return read(str(path)).categories.values()


def files(labels: str) -> list[str]:
    """The file."""
    return [labels.rpartition(".json#")[0] + ".json"]


def content(labels: str) -> bytes:
    """The photo's entry and its annotations, with the names of their categories."""
    found, name = _opened(labels)
    size, annotations = found.photos[name].size, found.photos[name].annotations
    told = [[found.categories[entry["category_id"]], entry.get("segmentation")] for entry in annotations]
    return json.dumps([size, told]).encode()


def marks(labels: str, size: tuple[int, int]) -> list[Mark]:
    """A photo's annotations in the file's order.

    Raises DatasetError, naming file, annotation and photo, for sizes that are not the photo's and damaged outlines.
    """
    found, name = _opened(labels)
    path, photo = files(labels)[0], found.photos[name]
    height, width = photo.size
    if (height is not None and height != size[0]) or (width is not None and width != size[1]):
        turned = "; is it an EXIF-rotated photo?" if (width, height) == size else ""
        raise DatasetError(
            f"{printable(path)}: image {shown(photo.id)} ({printable(name)}): {width} x {height} pixels, "
            f"its photo has {size[1]} x {size[0]}{turned}"
        )
    drawn = []
    for entry in photo.annotations:
        try:
            patch = _patch(entry.get("segmentation"), size)
        except ValueError as error:
            raise DatasetError(
                f"{printable(path)}: annotation {shown(entry.get('id'))} of image {shown(photo.id)} "
                f"({printable(name)}): segmentation: {error}"
            ) from error
        drawn.append(Mark(found.categories[entry["category_id"]], patch))
    return drawn


def _opened(labels: str) -> tuple[Coco, str]:
    """The file that a sample's labels name, and which photo of it.  Raises DatasetError where that is gone."""
    path, _, name = labels.rpartition(".json#")
    found = read(f"{path}.json")
    if name not in found.photos:
        raise DatasetError(f"{printable(path)}.json: there is no image {shown(name)} any more")
    return found, name


def _patch(segmentation: Any, size: tuple[int, int]) -> Patch:
    """The pixels of a segmentation.  Raises ValueError."""
    if isinstance(segmentation, Mapping):
        if list(segmentation.get("size", ())) != list(size):
            raise ValueError(f"run lengths of size {shown(segmentation.get('size'))}, the photo has {list(size)}")
        counts = segmentation.get("counts")
        if not isinstance(counts, str | list):
            raise ValueError(f"counts: expected run lengths, got {shown(counts)}")
        return runs_patch(counts_of(counts) if isinstance(counts, str) else counts, size)
    if not segmentation:
        raise ValueError("there is none, only a box; draw it or remove the annotation")
    if not isinstance(segmentation, list) or not all(isinstance(part, list) for part in segmentation):
        raise ValueError(f"expected polygons [[x0, y0, x1, y1, ...]] or run lengths, got {shown(segmentation)}")
    return union([polygon_patch(part, size) for part in segmentation], size)


# The file


def read(path: str) -> Coco:
    """What a file holds.  Raises DatasetError, naming key and id, for what is not COCO or contradicts itself."""
    return _read(path, stamp(path))


@lru_cache(maxsize=_FEW)
def _read(path: str, _: Stamp) -> Coco:
    values, name = parsed(path), printable(path)
    if not is_coco(values):
        raise DatasetError(f"{name}: not COCO: {_else(values)}")
    entries = _entries(values, "categories", name)
    categories: dict[Any, Any] = {entry["id"]: entry.get("name") for entry in entries}
    above = {entry["id"]: entry["supercategory"] for entry in entries if isinstance(entry.get("supercategory"), str)}
    for key, category in categories.items():
        if not isinstance(category, str) or not category.strip():
            raise DatasetError(f"{name}: categories: {shown(key)}: expected a name, got {shown(category)}")
    photos: dict[Any, tuple[str, Photo]] = {}
    for entry in _entries(values, "images", name):
        file = entry.get("file_name")
        if not isinstance(file, str) or not PurePosixPath(_place(file)).name:
            raise DatasetError(f"{name}: image {shown(entry.get('id'))}: file_name: expected a name, got {shown(file)}")
        photos[entry["id"]] = file, Photo(entry["id"], (entry.get("height"), entry.get("width")), [])
    _refuse_twins(photos, name)
    for entry in _entries(values, "annotations", name):
        _add_(entry, photos, categories, name)
    above = {key: name for key, name in above.items() if name != categories[key]}
    return Coco(categories, above, dict(photos.values()))


def is_coco(values: Any) -> bool:
    """Whether parsed JSON has the parts of COCO's."""
    if not isinstance(values, Mapping) or not all(isinstance(values.get(part), list) for part in _PARTS):
        return False
    return not _is_panoptic(values)


def _is_panoptic(values: Mapping[str, Any]) -> bool:
    entries = values.get("annotations")
    return isinstance(entries, list) and any(
        "segments_info" in entry for entry in entries[:1] if isinstance(entry, Mapping)
    )


def _else(values: Any) -> str:
    if isinstance(values, Mapping) and "shapes" in values:
        return "it is a file of LabelMe, which has one for each photo; give the folder, `annotations: FOLDER`"
    if isinstance(values, Mapping) and _is_panoptic(values):
        return "it is COCO's panoptic form, whose label maps are PNG files"
    found = f"it has {shown(list(values)[:8])}" if isinstance(values, Mapping) else f"got {shown(values, 40)}"
    return f"expected lists images, annotations and categories; {found}"


def _entries(values: Mapping[str, Any], part: str, name: str) -> list[Mapping[str, Any]]:
    """The entries of a part, each with an id of its own.  Raises DatasetError."""
    seen: set[Any] = set()
    for index, entry in enumerate(values[part]):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("id"), int | str):
            raise DatasetError(f"{name}: {part}: entry {index}: expected an object with an id, got {shown(entry)}")
        if entry["id"] in seen:
            raise DatasetError(f"{name}: {part}: there are two with id {shown(entry['id'])}")
        seen.add(entry["id"])
    return list(values[part])


def _refuse_twins(photos: Mapping[Any, tuple[str, Photo]], name: str) -> None:
    counts = Counter(file for file, _ in photos.values())
    for file, count in counts.items():
        if count > 1:
            ids = ", ".join(shown(key) for key, (other, _) in photos.items() if other == file)
            raise DatasetError(f"{name}: images {ids} have one file_name, {shown(file)}; there has to be one of them")


def _add_(
    entry: Mapping[str, Any], photos: Mapping[Any, tuple[str, Photo]], categories: Mapping[Any, str], name: str
) -> None:
    """Adds an annotation to its photo.  Raises DatasetError where photo or category are not in the file."""
    where = f"{name}: annotation {shown(entry['id'])}"
    for key, known in (("image_id", photos), ("category_id", categories)):
        value = entry.get(key)
        if not isinstance(value, int | str) or value not in known:
            kind = "image" if key == "image_id" else "category"
            raise DatasetError(f"{where}: {key}: there is no {kind} {shown(value)}")
    photos[entry["image_id"]][1].annotations.append(entry)


def _place(file: str) -> str:
    """A file name as a path: some tools write Windows's."""
    return file.replace("\\", "/").removeprefix("./")
