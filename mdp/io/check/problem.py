"""A problem that a check found, and how problems are put into words."""

from collections.abc import Sequence
from dataclasses import dataclass

from mdp.io.check.scan import Observation
from mdp.io.datasets._dataset import Sample

Observed = tuple[Sample, Observation]
LISTED = 10  # files named for each problem, and for all errors together


@dataclass(frozen=True)
class Problem:
    """Something wrong: `kind` is a word for programs, `text` a line for people."""

    kind: str
    error: bool  # or a warning
    text: str
    count: int = 0  # files it is about
    files: tuple[str, ...] = ()  # the first of them, each with what it has


def counted(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


def some(words: Sequence[str], most: int = 12) -> str:
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
