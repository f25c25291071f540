"""YOLO's outlines: a text file for each photo, with a line `class x y x y x y ...` for each object.

Corners are shares of the photo's width and height.  Classes are numbers, whose names stand in a `data.yaml`; as
annotations go by names here, the name of a number is its digits.  What a sample keeps is the path of the text file.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from mdp.io.annotations.labelme_shapes import shape_patch
from mdp.io.annotations.marks import Annotated, Mark
from mdp.io.errors import DatasetError
from mdp.io.files.reading import names_in, printable, read_bytes, shown

NAME = "YOLO"
ORDERED = True
_NOT_PHOTOS = ("classes.txt", "notes.txt", "train.txt", "val.txt", "test.txt")  # lists that may lie in the folder
_BYTES = 2**26
_BEYOND = 0.01  # of the photo, that a corner may lie outside of it, as Ultralytics' own reader lets it


def text_files(path: Path) -> list[Path]:
    """The text files of a folder, sorted, hidden ones and lists left out."""
    names = [name for name in sorted(names_in(path)) if name.lower().endswith(".txt") and name[0] != "."]
    return [path / name for name in names if name.lower() not in _NOT_PHOTOS]


def is_yolo(path: str) -> bool:
    """Whether a text file begins with a line of numbers, as outlines and boxes do."""
    lines = content(path)[:4096].split(b"\n")
    return re.fullmatch(rb"\d{1,5}(\s+-?[\d.]+(e-?\d+)?){4,}\s*", lines[0] + b" ") is not None


def annotated(path: Path) -> list[Annotated]:
    """A photo for each text file of the folder: the one of its stem."""
    return [Annotated(str(file), (file.stem,), "its photo") for file in text_files(path)]


def class_names(path: Path) -> Iterable[str]:
    """The numbers of all objects of all files, in their order."""
    return sorted({label for file in text_files(path) for label, _ in _objects(str(file))}, key=int)


def files(labels: str) -> list[str]:
    """The file."""
    return [labels]


def content(labels: str) -> bytes:
    """The file."""
    return read_bytes(labels, "annotation file", _BYTES)


def marks(labels: str, size: tuple[int, int]) -> list[Mark]:
    """A photo's outlines in their order.  Raises DatasetError naming file and line."""
    height, width = size
    return [  # six digits, as most programs write them, are no more exact than that: 0.583333 of 96 pixels is 56
        Mark(label, shape_patch("polygon", [(round(x * width, 2), round(y * height, 2)) for x, y in corners], size))
        for label, corners in _objects(labels)
    ]


def _objects(path: str) -> list[tuple[str, list[tuple[float, float]]]]:
    """The number of each object's class, and its corners.  Raises DatasetError naming file and line."""
    name = printable(path)
    try:
        lines = content(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{name}: expected lines of numbers: {error.reason}") from error
    found = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if not re.fullmatch(r"\d{1,5}", words[0]):
            raise DatasetError(f"{name}: line {number}: expected the number of a class, got {shown(words[0])}")
        if len(words) == 5:
            raise DatasetError(f"{name}: line {number}: a box, where an outline of three corners or more is needed")
        if len(words) < 7 or len(words) % 2 == 0:
            raise DatasetError(
                f"{name}: line {number}: expected `class x y x y x y ...` with three corners or more, got "
                f"{len(words)} numbers"
            )
        shares = [_share(word, f"{name}: line {number}: ") for word in words[1:]]
        found.append((str(int(words[0])), list(zip(shares[::2], shares[1::2], strict=True))))
    return found


def _share(word: str, where: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not -_BEYOND <= value <= 1 + _BEYOND:
        raise DatasetError(f"{where}expected shares of the photo's width and height from 0 to 1, got {shown(word)}")
    return value
