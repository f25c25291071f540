"""Class tables of annotation tools, in the form that `classes` has in a dataset's YAML file."""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mdp.io.annotations import coco, labelme, nnunet
from mdp.io.annotations.json_file import parsed
from mdp.io.errors import DatasetError
from mdp.io.files.reading import has_controls, printable, read_bytes, shown

_BYTES = 2**24
_VALUES = 65536  # of label maps
_CSV_HEAD = ("pixel value", "class")  # of Roboflow's _classes.csv
_CVAT_HEAD = "# label:color_rgb"  # of CVAT's labelmap.txt, whose lines are `name:r,g,b:parts:actions`

Table = dict[Any, Any]


def class_table(path: Path) -> Table:
    """The classes in a file: COCO's or nnU-Net's JSON, Roboflow's `_classes.csv`, CVAT's `labelmap.txt`, a name a line.

    Raises DatasetError naming file and line, or key.
    """
    if path.suffix.lower() == ".json":
        if path.name == nnunet.FILE and nnunet.is_nnunet(parsed(str(path))):
            return dict(nnunet.read(path).classes)
        return coco_table(coco.read(str(path)), str(path))
    lines = _lines(path)
    head = lines[0][1].lower() if lines else ""
    if tuple(part.strip() for part in head.split(",")) == _CSV_HEAD:
        read: Callable[[list[tuple[int, str]], str], Table] = _csv_table
    else:
        read = _cvat_table if head.startswith(_CVAT_HEAD) else _name_table
    table = read(lines, printable(path))
    if not table:
        raise DatasetError(f"{printable(path)}: expected names of classes, found none")
    return table


def coco_table(found: coco.Coco, path: str) -> Table:
    """COCO's categories by id.

    One that marks nothing and is only what others are sorted under is no class: Roboflow writes one.
    """
    used = {entry["category_id"] for photo in found.photos.values() for entry in photo.annotations}
    above = set(found.above.values())
    kept = {key: name for key, name in found.categories.items() if key in used or name not in above}
    ids: dict[str, list[Any]] = {}
    for key, name in kept.items():
        ids.setdefault(name, []).append(key)
    if not ids:
        raise DatasetError(f"{printable(path)}: categories: expected one or more")
    if not all(type(key) is int and 0 <= key < _VALUES for key in kept):
        return dict(enumerate(ids))  # such ids are in no label map
    return {keys[0]: name if len(keys) == 1 else {"name": name, "values": keys} for name, keys in ids.items()}


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file with their numbers, stripped, blank ones left out."""
    data, name = read_bytes(str(path), "class table", _BYTES), printable(path)
    try:
        lines = re.split(r"\r\n|\r|\n", data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DatasetError(f"{name}: expected names of classes in UTF-8: {error.reason}") from error
    for number, line in enumerate(lines, 1):
        if has_controls(line.replace("\t", "")):
            raise DatasetError(f"{name}: line {number}: control characters in {shown(line)}")
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def _csv_table(lines: list[tuple[int, str]], name: str) -> Table:
    """`Pixel Value, Class`, then a value and a name a line."""
    table: Table = {}
    for number, line in lines[1:]:
        cells = [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True))]
        if len(cells) != 2 or not re.fullmatch(r"\d{1,5}", cells[0]) or not cells[1]:
            raise DatasetError(f"{name}: line {number}: expected `value, name`, got {shown(line)}")
        if int(cells[0]) in table:
            raise DatasetError(f"{name}: line {number}: the value {cells[0]} is there twice")
        table[int(cells[0])] = cells[1]
    return table


def _cvat_table(lines: list[tuple[int, str]], name: str) -> Table:
    """`name:r,g,b:parts:actions` a line; names may hold colons."""
    table: Table = {}
    for number, line in lines:
        if line.startswith("#"):
            continue
        found = re.fullmatch(r"(.+?):\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*:[^:]*:[^:]*", line)
        color = [int(part) for part in found.groups()[1:]] if found else []
        if not found or max(color) > 255:
            raise DatasetError(f"{name}: line {number}: expected `name:r,g,b:parts:actions`, got {shown(line)}")
        table[len(table)] = {"name": found[1].strip(), "colors": ["#{:02x}{:02x}{:02x}".format(*color)]}
    return table


def _name_table(lines: list[tuple[int, str]], name: str) -> Table:
    """A name a line, counted from 0.  labelme's `__ignore__` is none: its programs count from the next one.

    Comments stand before the first name only, and no line between names is empty: either may be a class that somebody
    took out, and all names behind it would be counted wrong.
    """
    while lines and lines[0][1].startswith("#"):
        lines = lines[1:]
    for (before, _), (number, line) in zip([(0, ""), *lines], lines, strict=False):
        if before and number != before + 1:
            raise DatasetError(f"{name}: line {before + 1}: an empty line; names count by their place, so remove it")
        if line.startswith("#"):
            raise DatasetError(f"{name}: line {number}: a comment among names, which count by their place; remove it")
    numbered = [number for number, line in lines if re.match(r"\d+\s*[\s:;,=]\s*\S", line)]
    if numbered and len(numbered) == len(lines):
        raise DatasetError(
            f"{name}: line {numbered[0]}: a number before the name; a line is a name alone, counted from 0; write "
            "`classes: {0: NAME, ...}` in the YAML file where numbers say more"
        )
    return dict(enumerate(line for _, line in lines if line != labelme.IGNORED))
