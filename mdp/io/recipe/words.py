"""What words of a command line stand for: several names in one, numbers, criteria with their weights."""

import csv
import os
from collections.abc import Iterable
from typing import Any


def names(texts: Iterable[str]) -> list[str]:
    """The names in some texts, each of which may hold several, between commas."""
    return [name for text in texts for name in _names_in(text)]


def _names_in(text: str) -> list[str]:
    """The names between commas; a comma is part of a name in quotes, or where it is part of a path that is there."""
    parts = next(csv.reader([text], skipinitialspace=True), []) if '"' in text else text.split(",")
    found = []
    while parts:
        ends = (end for end in range(len(parts), 1, -1) if os.path.exists(_path_of(",".join(parts[:end]))))
        end = next(ends, 1)
        found.append(",".join(parts[:end]).strip())
        parts = parts[end:]
    return [name for name in found if name]


def _path_of(name: str) -> str:
    """The path of a dataset that may name a split behind a colon."""
    path, colon, split = name.strip().rpartition(":")
    return path if colon and "/" not in split and not os.path.exists(name.strip()) else name.strip()


def numbers(text: str, such_as: str) -> list[float]:
    """The numbers between commas.  Raises ValueError for anything else.

    >>> numbers("0.5,1", such_as="1")
    [0.5, 1.0]
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"expected numbers such as {such_as}, got {text!r}") from error


def image_count(text: str | None) -> int | None:
    """A number of images for pictures; None stays None.  Raises ValueError for anything else."""
    if text is None:
        return None
    if not (text.isdecimal() and 1 <= int(text) <= 1000):
        raise ValueError(f"expected a number of images, 1 to 1000, got {text!r}; RUN goes before --gallery")
    return int(text)


def criteria(text: str) -> dict[str, Any]:
    """The section `criterion` of names with weights; a weight that is none is refused by the recipe, as in a file.

    >>> criteria("cross_entropy,dice=3")
    {'name': 'cross_entropy', 'plus': {'dice': {'weight': 3.0}}}
    """
    (first, settings), *others = map(_term, text.split(","))
    return {"name": first, **settings, "plus": dict(others)}


def _term(text: str) -> tuple[str, dict[str, Any]]:
    name, equals, weight = text.partition("=")
    try:
        return name.strip(), {"weight": float(weight)} if equals else {}
    except ValueError:
        return name.strip(), {"weight": weight}
