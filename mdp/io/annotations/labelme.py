"""LabelMe's JSON: a file for each photo, with its shapes in the order in which they were drawn.

What a sample keeps is the path of the file.  The photo that may stand in it (`imageData`) is not looked at.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mdp.io.annotations.json_file import parsed
from mdp.io.annotations.labelme_shapes import mask_patch, shape_patch
from mdp.io.annotations.marks import Annotated, Mark
from mdp.io.annotations.patches import Patch
from mdp.io.errors import DatasetError
from mdp.io.files.decoding import open_image
from mdp.io.files.reading import names_in, printable, shown

NAME = "LabelMe"
ORDERED = True
IGNORED = "__ignore__"  # the label, and the line of `labels.txt`, that labelme's own programs take for no class


def annotated(path: Path) -> list[Annotated]:
    """A photo for each JSON file of the folder: the one of its stem, or else the one that the file names."""
    return [Annotated(str(file), (file.stem,), "imagePath") for file in json_files(path)]


def json_files(path: Path) -> list[Path]:
    """The JSON files of a folder, sorted, hidden ones left out."""
    return [path / name for name in sorted(names_in(path)) if name.lower().endswith(".json") and name[0] != "."]


def photo_name(labels: str) -> str:
    """The name of the photo that a file is about, without its folder, which may be one of another machine."""
    value = read(labels).get("imagePath")
    if not isinstance(value, str) or not PurePosixPath(value.replace("\\", "/")).name:
        raise DatasetError(f"{printable(labels)}: imagePath: expected the name of a photo, got {shown(value)}")
    return PurePosixPath(value.replace("\\", "/")).name


def class_names(path: Path) -> Iterable[str]:
    """The labels of all shapes of all files, sorted: shapes come in any order."""
    labels = {shape["label"] for file in json_files(path) for shape in _shapes(read(str(file)), printable(file))}
    return sorted(labels - {IGNORED})


def files(labels: str) -> list[str]:
    """The file."""
    return [labels]


def content(labels: str) -> bytes:
    """The file's shapes; the photo that it may hold besides is not looked at."""
    values = read(labels)
    return json.dumps([values.get("imageHeight"), values.get("imageWidth"), values["shapes"]]).encode()


def marks(labels: str, size: tuple[int, int]) -> list[Mark]:
    """A photo's shapes in their order.  Raises DatasetError naming file, shape and label."""
    values, name = read(labels), printable(labels)
    height, width = values.get("imageHeight"), values.get("imageWidth")
    if (height is not None and height != size[0]) or (width is not None and width != size[1]):
        turned = "; is it an EXIF-rotated photo?" if (width, height) == size else ""
        raise DatasetError(
            f"{name}: imageWidth x imageHeight: {width} x {height}, its photo has {size[1]} x {size[0]}{turned}"
        )
    drawn = []
    for index, shape in enumerate(_shapes(values, name)):
        try:
            drawn.append(Mark(shape["label"], _patch(shape, size, name)))
        except ValueError as error:
            raise DatasetError(f"{name}: shapes: entry {index} ({shown(shape['label'])}): {error}") from error
    return drawn


def _patch(shape: Mapping[str, Any], size: tuple[int, int], name: str) -> Patch:
    """The pixels of a shape.  Raises ValueError, or DatasetError for a damaged mask."""
    kind = "polygon" if shape.get("shape_type") is None else shape["shape_type"]
    points = shape.get("points")
    if not isinstance(kind, str) or not isinstance(points, list):
        raise ValueError(f"expected shape_type and points, got {shown(kind)} and {shown(points)}")
    if kind != "mask":
        return shape_patch(kind, points, size)
    try:
        data = base64.b64decode(shape.get("mask") or "", validate=True)
    except (TypeError, binascii.Error) as error:
        raise ValueError(f"mask: expected a PNG in base64: {error}") from error
    mask = np.array(open_image(name, data, ("PNG",), "mask")) != 0
    if mask.ndim != 2:
        raise ValueError("mask: expected a PNG with one channel")
    return mask_patch(mask, points, size)


# The file


def read(path: str) -> Mapping[str, Any]:
    """What a file holds.  Raises DatasetError for what is not LabelMe's."""
    values = parsed(path)
    if not is_labelme(values):
        raise DatasetError(f"{printable(path)}: not a file of LabelMe: expected `shapes` and `imagePath`")
    assert isinstance(values, Mapping)
    return values


def is_labelme(values: Any) -> bool:
    """Whether parsed JSON has the parts of LabelMe's."""
    return isinstance(values, Mapping) and isinstance(values.get("shapes"), list) and "imagePath" in values


def _shapes(values: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The shapes, each with a label.  Raises DatasetError naming the entry."""
    for index, shape in enumerate(values["shapes"]):
        if not isinstance(shape, Mapping) or not isinstance(shape.get("label"), str):
            raise DatasetError(f"{name}: shapes: entry {index}: expected a label, got {shown(shape)}")
    return list(values["shapes"])
