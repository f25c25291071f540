"""Where a split's files lie, and what finds them: the Protocol of the files in `sources`."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from mdp.io.datasets._dataset import LeftOut, Sample

Used = Callable[[], Collection[str]]  # the files of all splits' samples, which takes as long as to find them


class Place(NamedTuple):
    """The folder that a split's paths start from, and what messages about its files name."""

    dataset: str
    folder: Path
    border: str  # the real path of the folder that no link may leave
    outside: bool  # whether paths may lead out of the folder
    where: str  # FILE.yaml: splits.KEY
    home: str  # where to get the data
    others: frozenset[Path] = frozenset()  # folders of other splits, which are not looked into from above


class Source(Protocol):
    """Where a split's photos and label maps come from."""

    @property
    def paths(self) -> Mapping[str, str | None]:
        """The paths among its keys, as they are written: they are refused where they lead out of the folder."""

    def samples(self, place: Place) -> list[Sample]:
        """The split's images.  Raises DatasetError naming what is missing, with file and line where there is one."""

    def left_out(self, place: Place, used: Used) -> list[LeftOut]:
        """What lies in its folders and is in no sample, of whatever split: each kind in words, and the files."""


class SourceModule(Protocol):
    """A file of `sources`."""

    @property
    def KEYS(self) -> tuple[str, ...]:
        """The keys of a split that it reads, besides `images` and `count`; the last one calls for it."""

    def source(self, split: Mapping[str, str], where: str) -> Source:
        """The source that a split describes.  Raises RecipeError naming the key, `where` before it."""
