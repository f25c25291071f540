"""Raw values of label maps as a YAML file names them: numbers, ranges such as `128..255`, lists of both.

A range has both its ends; `128..` has no upper and `..-1` no lower one.  `128-255` and `128-` are the same where no
number is negative.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mdp.io.errors import RecipeError
from mdp.io.files.reading import shown

LOWEST, HIGHEST = -(2**31), 2**32 - 1  # of whole numbers of 32 bits, with a sign or without
_RANGE = re.compile(r"\s*(-?\d{1,10})?\s*\.\.\s*(-?\d{1,10})?\s*|\s*(\d{1,10})\s*-\s*(\d{1,10})?\s*")
_EXPECTED = f"expected a whole number {LOWEST}..{HIGHEST} or a range such as 128..255"


class Range(NamedTuple):
    """Raw values from `first` to `last`."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}..{self.last}"


def ranges_of(value: Any, where: str, path: Path) -> list[Range]:
    """The values that a number, a range or a list of both names.  Raises RecipeError naming file and key."""
    return [_range(item, where, path) for item in (value if isinstance(value, list) else [value])]


def _range(value: Any, where: str, path: Path) -> Range:
    if isinstance(value, int) and not isinstance(value, bool) and LOWEST <= value <= HIGHEST:
        return Range(value, value)
    if isinstance(value, str) and re.fullmatch(r"\s*-\d+\s*", value):
        end = value.strip()
        raise RecipeError(f"{path}: {where}: {shown(value)} may be a number or a range; write {end} or ..{end[1:]}")
    found = _RANGE.fullmatch(value) if isinstance(value, str) else None
    ends = [end for end in found.groups() if end] if found else []
    if not found or not ends:
        raise RecipeError(f"{path}: {where}: {_EXPECTED}, got {shown(value)}")
    first, last = found[1] or found[3], found[2] or found[4]
    made = Range(LOWEST if first is None else int(first), HIGHEST if last is None else int(last))
    if not LOWEST <= made.first <= made.last <= HIGHEST:
        raise RecipeError(f"{path}: {where}: {_EXPECTED}, whose first end is no larger, got {shown(value)}")
    return made


def without(ranges: Iterable[Range], taken: Sequence[Range]) -> list[Range]:
    """The ranges without the values of others.

    >>> without([Range(0, 9)], [Range(3, 4), Range(9, 12)])
    [Range(first=0, last=2), Range(first=5, last=8)]
    """
    rest = list(ranges)
    for cut in taken:
        parts = [(Range(part.first, min(part.last, cut.first - 1)), Range(max(part.first, cut.last + 1), part.last))
                 for part in rest]  # fmt: skip
        rest = [part for pair in parts for part in pair if part.first <= part.last]
    return rest
