"""Known mistakes: ways for label maps to be another thing than a dataset's label space says.

All is guessed from which values occur and what the files are called; nothing here reads a file.  The file of a dataset
says in `MISTAKES` what is known of it, and `mdp check` asks it; of a dataset that somebody describes all are asked, for
it may be a public one.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Mistake(NamedTuple):
    """A guess at what the label maps are, and the YAML lines that would read them, where a YAML file describes them."""

    kind: str
    advice: str
    yaml: tuple[str, ...] = ()


class LabelMaps(NamedTuple):
    """The label maps of a split: which raw values occur in them, and what the files are called."""

    official: bool  # whether they are to be those of the dataset itself, and not of one with as many classes
    classes: int  # of the label space that they are to be of
    values: frozenset[int]  # that occur
    unknown: frozenset[int]  # those of them that are no class
    files: Sequence[str]
    training: bool

    @property
    def top(self) -> int:
        """The largest value, 255 aside; 0 when there is none."""
        return max(self.values - {255}, default=0)


def _nothing(maps: LabelMaps) -> Mistake | None:
    return None


class Mistakes(NamedTuple):
    """The ways in which the files of a dataset are known to go wrong."""

    edition: tuple[str, str] = ("", "")  # a folder's name (a pattern) that shows another edition, and what to do then
    colored: str = ""  # what label maps in colour are
    unknown: Callable[[LabelMaps], Mistake | None] = _nothing  # what values that are no class show
    suspicious: Callable[[LabelMaps], Mistake | None] = _nothing  # what is wrong though every value is a class
