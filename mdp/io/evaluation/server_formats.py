"""Predictions as benchmarks' servers take them: Cityscapes' labelIds, ImageNet-S's two-byte ids.

Each format says which file a photo's prediction goes to and what its pixels hold.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mdp.core.labels import IGNORE, LabelSpace
from mdp.io.datasets import cityscapes
from mdp.io.errors import DatasetError, RecipeError
from mdp.io.files.reading import printable

_FRAME = re.compile(r"[A-Za-z-]+_\d+_\d+")  # city, sequence and frame: what the official script finds a file by


class Format(NamedTuple):
    """How a server takes predictions."""

    name: str
    path: Callable[[PurePath], PurePath]  # from a photo's path, relative to where all are, to the prediction's
    encode: Callable[[NDArray[np.integer]], Image.Image]  # classes (H, W)


def cityscapes_format(space: LabelSpace) -> Format:
    """8-bit PNGs of labelIds, named `<city>_<sequence>_<frame>_pred_labelIds.png`, in one folder for each city.

    Raises RecipeError for classes that Cityscapes does not have.
    """
    ids = dict(zip(cityscapes.CLASSES, cityscapes.LABEL_IDS, strict=True))
    strange = [name for name in space.classes if name not in ids]
    if strange:
        raise RecipeError(
            f"--save-as cityscapes: {len(strange)} of the {len(space.classes)} classes of {space.name} are not "
            f"Cityscapes', such as {printable(strange[0])!r}; its names are {', '.join(ids)}"
        )
    table = np.array([ids[name] for name in space.classes], dtype=np.uint8)

    def path(photo: PurePath) -> PurePath:
        frame = _FRAME.match(photo.name)
        if frame is None:
            raise DatasetError(
                f"{printable(photo)}: the Cityscapes server knows photos by names such as "
                "lindau_000000_000019_leftImg8bit.png; leave --save-as out"
            )
        return photo.with_name(f"{frame[0]}_pred_labelIds.png")

    return Format("cityscapes", path, lambda classes: Image.fromarray(table[classes]))


def imagenet_s_format(space: LabelSpace) -> Format:
    """RGB PNGs whose id is R + 256 G, named as the photo, in the photo's folder; ids are those of the label files."""
    table = raw_values(space)

    def encode(classes: NDArray[np.integer]) -> Image.Image:
        raw = table[classes]
        return Image.fromarray(np.stack([raw % 256, raw // 256, np.zeros_like(raw)], -1).astype(np.uint8))

    return Format("imagenet-s", lambda photo: photo.with_suffix(".png"), encode)


def raw_values(space: LabelSpace) -> NDArray[np.int64]:
    """The value (C,) that a label file has for each class; the smallest where there are several.

    Raises RecipeError for a class that has none.

    >>> raw_values(LabelSpace(name="a", classes=("road", "car"), lookup={7: 0, 26: 1, 3: 1, 0: -1})).tolist()
    [7, 3]
    """
    if space.lookup is None:
        return np.arange(len(space.classes))
    smallest = {target: raw for raw, _, target in sorted(space.entries, reverse=True) if target != IGNORE}
    without = [name for label, name in enumerate(space.classes) if label not in smallest]
    if without:
        raise RecipeError(
            f"--save-as imagenet-s: label files of {space.name} have no value for {printable(without[0])}"
        )
    return np.array([smallest[label] for label in range(len(space.classes))], dtype=np.int64)


FORMATS: Mapping[str, Callable[[LabelSpace], Format]] = {
    "cityscapes": cityscapes_format,
    "imagenet-s": imagenet_s_format,
}


def format_of(name: str, space: LabelSpace) -> Format:
    """The format of that name for predictions in a label space.  Raises RecipeError for names and classes not known."""
    if name not in FORMATS:
        raise RecipeError(f"--save-as {name}: expected {' or '.join(FORMATS)}")
    return FORMATS[name](space)


def relative_paths(photos: list[str]) -> list[PurePath]:
    """Paths of photos relative to the deepest folder that has all of them.

    >>> [str(path) for path in relative_paths(["val/ulm/a.png", "val/bonn/a.png"])]
    ['ulm/a.png', 'bonn/a.png']
    """
    paths = [Path(os.path.abspath(photo)) for photo in photos]  # not resolved: links are part of the structure
    common = os.path.commonpath([path.parent for path in paths])
    return [PurePath(path.relative_to(common)) for path in paths]
