"""Label Studio's masks: for each photo one PNG a class, `task-1-annotation-2-by-3-tag-CLASS-0.png`.

What a sample keeps is the files' common beginning, `FOLDER/task-1-annotation-2-by-3-*.png`.  The files do not say
which photo a task is: it is the one named after the number, or the one that the project's JSON export names, where
that lies beside the masks.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from mdp.io.annotations.json_file import digest_of, parsed
from mdp.io.annotations.marks import Annotated, Mark
from mdp.io.annotations.patches import cropped
from mdp.io.errors import DatasetError
from mdp.io.files.label_maps import read_labels
from mdp.io.files.reading import names_in, printable, shown, stamp

NAME = "Label Studio"
ORDERED = False
SET = 128  # a mask's pixels are 0 or 255, at smooth edges something between: set from here on
_NAME = re.compile(r"(task-(\d+)-annotation-(\d+)-by-.+?)-(?:tag|[^-]+)-(.+)-\d+\.png", re.IGNORECASE)
_TAGGED = re.compile(r"(task-(\d+)-annotation-(\d+)-by-.+?)-tag-(.+)-\d+\.png", re.IGNORECASE)
_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")  # what Label Studio puts before the names of photos


def mask_name(name: str) -> tuple[str, int, str] | None:
    """Beginning, task and class in the name of a mask; None for another file's.

    >>> mask_name("task-1-annotation-2-by-3-tag-street-lamp-0.png")
    ('task-1-annotation-2-by-3', 1, 'street-lamp')
    """
    found = _TAGGED.fullmatch(name) or _NAME.fullmatch(name)
    return (found[1], int(found[2]), found[4]) if found else None


def annotated(path: Path) -> list[Annotated]:
    """A photo for each task that has masks.  Raises DatasetError for a task that was annotated twice."""
    begins: dict[int, str] = {}
    for name in sorted(names_in(path)):
        mask = mask_name(name)
        if mask and begins.setdefault(mask[1], mask[0]) != mask[0]:
            raise DatasetError(
                f"{printable(path)}: task {mask[1]} has two annotations, {begins[mask[1]]} and {mask[0]}; "
                "keep the masks of one of them"
            )
    photos = _photos(path)
    return [
        Annotated(
            str(path / f"{begin}-*.png"), [*photos.get(task, ()), str(task), f"task-{task}"],
            f"task {task} (name its photo {task}.jpg, or lay the project's JSON export beside the masks)",
        )
        for task, begin in sorted(begins.items())
    ]  # fmt: skip


def class_names(path: Path) -> Iterable[str]:
    """The classes in the names of the masks, sorted."""
    return sorted({mask[2] for mask in map(mask_name, names_in(path)) if mask})


def files(labels: str) -> list[str]:
    """The masks of a photo, sorted."""
    folder, _, begin = labels.removesuffix("-*.png").rpartition("/")
    return [f"{folder}/{name}" for name in _by_beginning(folder, stamp(folder).changed).get(begin, ())]


def content(labels: str) -> bytes:
    """The names of the masks, and digests of what they hold."""
    return repr([(PurePosixPath(file).name, digest_of(file)) for file in files(labels)]).encode()


def marks(labels: str, size: tuple[int, int]) -> list[Mark]:
    """A photo's masks, sorted by their names.  Raises DatasetError for one of another size."""
    drawn = []
    masks = files(labels)
    if not masks:
        raise DatasetError(f"{printable(labels)}: the masks are missing")
    for file in masks:
        mask = read_labels(file) >= SET
        if mask.shape != size:
            raise DatasetError(
                f"{printable(file)}: {mask.shape[1]} x {mask.shape[0]} pixels, its photo has {size[1]} x {size[0]}"
            )
        found = mask_name(PurePosixPath(file).name)
        assert found
        drawn.append(Mark(found[2], cropped(mask)))
    return drawn


@lru_cache(maxsize=8)
def _by_beginning(folder: str, _: int) -> Mapping[str, list[str]]:
    """The masks of a folder by their beginnings; it is listed again when it changed."""
    found: dict[str, list[str]] = {}
    for name in sorted(names_in(Path(folder))):
        mask = mask_name(name)
        if mask:
            found.setdefault(mask[0], []).append(name)
    return found


def _photos(path: Path) -> dict[int, list[str]]:
    """The names that photos of tasks may have, from a JSON export of the project in that folder."""
    found: dict[int, list[str]] = {}
    for name in sorted(name for name in names_in(path) if name.lower().endswith(".json")):
        tasks = parsed(str(path / name))
        if not isinstance(tasks, list):
            raise DatasetError(f"{printable(path / name)}: expected a list of tasks, got {shown(tasks)}")
        for task in tasks:
            if isinstance(task, Mapping) and isinstance(task.get("id"), int):
                photo = _photo(task.get("data", task))
                found[task["id"]] = [photo, _UPLOAD.sub("", photo, count=1)] if photo else []
    return found


def _photo(data: Any) -> str:
    """The name of a task's photo; "" where it has none."""
    value = data.get("image", data.get("img")) if isinstance(data, Mapping) else None
    return PurePosixPath(value.partition("?")[0]).name if isinstance(value, str) else ""
