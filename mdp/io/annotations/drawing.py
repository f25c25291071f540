"""Label maps that are drawn from annotations when they are asked for, and kept.

They lie in `~/.cache/mdp/labels` (or below `$XDG_CACHE_HOME`), each under a digest of all that it depends on, so that
one that is there is right; in each of 256 folders the oldest go when it holds more than its share.  Whatever is wrong
with them costs time, never a run: the whole folder may be removed at any time.
"""

import hashlib
import os
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from mdp.io.annotations import coco, label_studio, labelme, yolo
from mdp.io.annotations.json_file import digest_of
from mdp.io.annotations.marks import Format
from mdp.io.annotations.patches import OVERLAPS, ignore
from mdp.io.errors import DatasetError, MdpError
from mdp.io.files.label_maps import read_labels
from mdp.io.files.reading import Stamp, printable, shown, stamp

_VERSION = 1  # of what the same files are drawn to
_FOLDER_BYTES = 2**24  # of each of the 256 folders: 4 GiB in all

COCO: Format = coco
LABELME: Format = labelme
LABEL_STUDIO: Format = label_studio
YOLO: Format = yolo


class Drawing(NamedTuple):
    """How annotations become a label map."""

    values: Mapping[str, int]  # the raw value of each label; labels that are never a class have `UNDECIDED`
    overlap: str  # a key of OVERLAPS


def format_of(labels: str) -> Format | None:
    """The format of the annotations that a sample's labels name; None for a label map."""
    if ".json#" in labels:
        return COCO
    if labels.lower().endswith(".json"):
        return LABELME
    if labels.lower().endswith(".txt"):
        return YOLO
    return LABEL_STUDIO if re.search(r"task-\d+-annotation-[^/]*-\*\.png$", labels) else None


def files_behind(labels: str) -> list[str]:
    """The files in which a sample's labels stand: several for masks of single classes, one that many share for COCO."""
    found = format_of(labels)
    return found.files(labels) if found else [labels]


def stamp_of(labels: str) -> Stamp:
    """Size and time of change of the files in which a sample's labels stand."""
    stamps = [stamp(file) for file in files_behind(labels)]
    if len(stamps) == 1:
        return stamps[0]
    inside = hashlib.sha256(repr(stamps).encode()).hexdigest()
    return Stamp(sum(part.size for part in stamps), max((part.changed for part in stamps), default=-1), inside)


def draw(labels: str, size: tuple[int, int], drawing: Drawing) -> NDArray[np.uint16]:
    """The label map (H, W) of the annotations of a photo of that size: raw values, `REST` where there are none.

    Raises DatasetError, naming file and annotation, for what cannot be drawn and for labels that are no class.
    """
    marks = _format(labels).marks(labels, size)
    unknown = sorted({mark.label for mark in marks} - set(drawing.values))
    if unknown:
        raise DatasetError(
            f"{printable(labels)}: {_listed(unknown)} in no class; name it under `classes`, as the label of a class "
            "(`labels: [...]`), or under `ignore`"
        )
    valued = [(drawing.values[mark.label], mark.patch) for mark in marks]
    drawn = OVERLAPS[drawing.overlap](valued, size)
    if drawing.overlap == "later" and not _format(labels).ORDERED and (drawn != ignore(valued, size)).any():
        raise DatasetError(
            f"{printable(labels)}: two classes overlap, and none of them is the later one; add `overlap: smaller` or "
            "`overlap: ignore` to the dataset's YAML file"
        )
    return drawn


def read_drawn(labels: str, size: tuple[int, int], drawing: Drawing) -> NDArray[np.integer]:
    """What `draw` gives, from the cache where it is there."""
    path = _cached(labels, size, drawing)
    if path is None:
        return draw(labels, size, drawing)
    with suppress(MdpError):  # not there, or damaged: it is drawn again
        kept = read_labels(str(path))
        if kept.shape == size:
            return kept
    drawn = draw(labels, size, drawing)
    with suppress(OSError):
        _keep(path, drawn)
    return drawn


def _format(labels: str) -> Format:
    found = format_of(labels)
    assert found, labels
    return found


def _listed(labels: Sequence[str]) -> str:
    names = ", ".join(shown(label) for label in labels[:4]) + (", ..." if len(labels) > 4 else "")
    return f"the label{'s' * (len(labels) > 1)} {names} {'is' if len(labels) == 1 else 'are'}"


# The cache


def cache_folder() -> Path | None:
    """The folder of label maps that were drawn; None where there is no home folder."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mdp" / "labels"
    except RuntimeError:
        return None


def _cached(labels: str, size: tuple[int, int], drawing: Drawing) -> Path | None:
    """Where the label map is kept: under a digest of the annotations, how they are drawn, and the size."""
    folder = cache_folder()
    if folder is None:
        return None
    files = files_behind(labels)
    if not files:
        return None
    contents = [digest_of(file) for file in files]
    names = [name.removeprefix(os.path.dirname(files[0])) for name in (labels, *files)]
    told = repr((_VERSION, PIL.__version__, contents, names, size, sorted(drawing.values.items()), drawing.overlap))
    key = hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()
    return folder / key[:2] / f"{key}.png"


def _keep(path: Path, drawn: NDArray[np.uint16]) -> None:
    """Writes a label map whole or not at all; of two processes that do so at once the later one's stays."""
    data = BytesIO()
    Image.fromarray(drawn).save(data, "PNG", compress_level=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{threading.get_ident()}")
    try:
        temporary.write_bytes(data.getbuffer())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _forget_oldest(path.parent)


def _forget_oldest(folder: Path) -> None:
    """Removes the label maps that were written first while a folder holds more than its share."""
    with os.scandir(folder) as entries:
        files = sorted((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path) for entry in entries)
    excess = sum(size for _, size, _ in files) - _FOLDER_BYTES
    for _, size, path in files[:-1]:
        if excess <= 0:
            return
        with suppress(FileNotFoundError):  # another process was quicker
            os.unlink(path)
        excess -= size
