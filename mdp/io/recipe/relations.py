"""Relations between classes of different datasets, from a CSV file.

It is the table that `mdp taxonomy` writes, or one with the columns dataset_a, class_a, relation, dataset_b, class_b.
"""

import csv
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from mdp.core.class_relations import Relation
from mdp.core.classifier_init import plain_name
from mdp.core.labels import LabelUnion
from mdp.io.errors import RecipeError
from mdp.io.files.reading import printable, read_bytes

_LIMIT = 64 * 2**20  # bytes
# how the word is called here, and whether the second class is the part; a sibling is another thing of one kind
_WORDS = {
    "equal": ("equal", False), "identity": ("equal", False), "same": ("equal", False),
    "part": ("part", False), "part_of": ("part", False), "child": ("part", False),
    "whole": ("part", True), "has_part": ("part", True), "parent": ("part", True),
    "overlap": ("overlap", False), "sibling": ("", False),
}  # fmt: skip
_LONG = ("dataset_a", "class_a", "relation", "dataset_b", "class_b")
_SHORT = ("relation", "first", "second")


class Relations(NamedTuple):
    """What a file says of the classes of a union."""

    relations: tuple[Relation, ...]
    line: str  # for people


def read_relations(path: Path, union: LabelUnion, key: str = "method.relations") -> Relations:
    """The relations between classes of the union; lines about other datasets are counted.

    Raises RecipeError, naming the `key` by which the file was given, file and line, for a file that is no such table,
    for an unknown relation, and for a class that its dataset does not have.
    """
    datasets, numbers = {space.name for space in union.spaces}, _numbers(union)
    found: list[Relation] = []
    others, siblings = 0, 0
    for number, (word, *ends) in _rows(path, key):
        where = f"{key}: {printable(path)}, line {number}"
        if word not in _WORDS:
            raise RecipeError(f"{where}: relation {printable(word)!r}: expected one of {', '.join(_WORDS)}")
        if any(dataset not in datasets for dataset, _ in ends):
            others += 1
            continue
        first, second = (_number(dataset, name, numbers, where) for dataset, name in ends)
        kind, turned = _WORDS[word]
        if not kind:
            siblings += 1
        elif first == second:
            raise RecipeError(f"{where}: {printable('/'.join(ends[0]))} stands on both sides")
        else:
            found.append(Relation(kind, *((second, first) if turned else (first, second))))
    counts = Counter(kind for kind, _, _ in set(found))
    parts = [f"{counts[kind]} {kind}" for kind in ("equal", "part", "overlap")]
    beside = [f"{siblings} siblings, which compete"] * bool(siblings) + [f"{others} of other datasets"] * bool(others)
    line = f"relations of classes: {', '.join(parts)} ({printable(path)}{''.join('; ' + text for text in beside)})"
    return Relations(tuple(dict.fromkeys(found)), line)


def _rows(path: Path, key: str) -> list[tuple[int, tuple[str, tuple[str, str], tuple[str, str]]]]:
    """The lines by their numbers: the relation, and dataset and class at both ends."""
    data = read_bytes(str(path), "file of relations", _LIMIT, RecipeError)
    try:
        lines = list(csv.reader(data.decode("utf-8-sig").splitlines(), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecipeError(f"{key}: {printable(path)}: not a CSV file in UTF-8: {error}") from error
    head, rows = tuple(lines[0]) if lines else (), []
    if head != _LONG and head[:3] != _SHORT:
        raise RecipeError(
            f"{key}: {printable(path)}: expected a first line {','.join(_LONG)} or {','.join(_SHORT)},..., "
            f"got {printable(','.join(head))[:200]!r}"
        )
    for number, cells in enumerate(lines[1:], 2):
        if not cells:
            continue
        if len(cells) != len(head):
            raise RecipeError(f"{key}: {printable(path)}, line {number}: expected {len(head)} cells, got {len(cells)}")
        if head == _LONG:
            rows.append((number, (cells[2], (cells[0], cells[1]), (cells[3], cells[4]))))
        else:
            rows.append((number, (cells[0], _ends(cells[1]), _ends(cells[2]))))
    return rows


def _ends(text: str) -> tuple[str, str]:
    """Dataset and class of `dataset/class`."""
    dataset, _, name = text.partition("/")
    return dataset, name


def _numbers(union: LabelUnion) -> dict[tuple[str, str], int]:
    """The number of each class of the union, by dataset and name, as it is and as names are compared."""
    exact: dict[tuple[str, str], int] = {}
    plain: dict[tuple[str, str], int] = {}
    for number, text in enumerate(union.names):
        dataset, name = _ends(text)
        exact[dataset, name] = number
        plain.setdefault((dataset, plain_name(name)), number)
    return {**plain, **exact}


def _number(dataset: str, name: str, numbers: dict[tuple[str, str], int], where: str) -> int:
    """The class; the first of several synonyms between commas is enough."""
    for key in (name, plain_name(name), plain_name(name.partition(",")[0])):
        if (dataset, key) in numbers:
            return numbers[dataset, key]
    raise RecipeError(f"{where}: {printable(dataset)} has no class {printable(name)!r}; see `mdp datasets`")
