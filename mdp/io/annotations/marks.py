"""What annotation files say of a photo, whatever tool wrote them: the Protocol of the formats."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from mdp.io.annotations.patches import Patch


class Mark(NamedTuple):
    """An annotation: the name of a class, and its pixels."""

    label: str
    patch: Patch


class Annotated(NamedTuple):
    """The annotations of one photo, before they are looked at."""

    labels: str  # what a sample keeps of them
    names: Sequence[str]  # of the photo: the first that is there is it; one without a suffix is a stem
    where: str  # for messages


class Format(Protocol):
    """A file of this folder that reads the annotations of a tool."""

    @property
    def NAME(self) -> str:
        """What people call it."""

    @property
    def ORDERED(self) -> bool:
        """Whether its annotations have an order, so that one of two that overlap is the later one."""

    def annotated(self, path: Path) -> list[Annotated]:
        """The photos that have annotations, or are listed as having none.  Raises DatasetError naming file and key."""

    def class_names(self, path: Path) -> Iterable[str]:
        """The names of classes in the order of the files."""

    def files(self, labels: str) -> list[str]:
        """The files in which the annotations of a photo stand."""

    def content(self, labels: str) -> bytes:
        """All that tells one photo's annotations from others: equal bytes are drawn alike."""

    def marks(self, labels: str, size: tuple[int, int]) -> list[Mark]:
        """The annotations of a photo of that size (H, W), in their order.

        Raises DatasetError naming file and annotation.
        """
