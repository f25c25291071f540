"""Splits that are drawn from the training images: `val: 20%`.

The draw belongs to the data: it is a function of the photos' names and of the seed beside the share (0 where none is
written), so that every run, whatever its own seed, trains and is scored on the same images.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from mdp.io.datasets._dataset import LeftOut, Sample
from mdp.io.datasets.own.place import Place, Source, Used
from mdp.io.datasets.own.yaml_values import refuse_unknown
from mdp.io.errors import DatasetError, RecipeError
from mdp.io.files.reading import shown


@dataclass(frozen=True)
class Share:
    """A part of the training images."""

    split: str
    part: Fraction
    seed: int

    def count(self, images: int) -> int:
        """The number of images of the split, where so many are there to draw from."""
        return max(1, round(images * self.part))

    def __str__(self) -> str:
        return f"{float(100 * self.part):g}% drawn by seed {self.seed}"


@dataclass(frozen=True)
class Drawn:
    """One of the splits drawn from the images of a source, or what they leave for training."""

    source: Source
    shares: tuple[Share, ...]
    split: str  # of the source itself: that which is trained on
    chosen: str  # which of the splits this is

    @property
    def paths(self) -> Mapping[str, str | None]:
        """The paths of the source."""
        return self.source.paths

    def samples(self, place: Place) -> list[Sample]:
        """The images of the split, in the order of the source.  Raises DatasetError where none is left to train on."""
        everything = self.source.samples(self._at(place))
        rest: list[Sample] = list(everything)
        mine: list[Sample] = []
        for share in self.shares:
            order = sorted(rest, key=lambda sample: _rank(sample, share.seed, place.folder))
            taken = set(order[: share.count(len(everything))])
            mine = [sample for sample in rest if sample in taken] if share.split == self.chosen else mine
            rest = [sample for sample in rest if sample not in taken]
        if everything and not rest:
            raise DatasetError(f"{place.where}: of {len(everything)} images none is left to train on; draw less")
        return rest if self.chosen == self.split else mine

    def left_out(self, place: Place, used: Used) -> list[LeftOut]:
        """What the source leaves out, for the training split alone."""
        return self.source.left_out(self._at(place), used) if self.chosen == self.split else []

    def remark(self) -> str:
        """Words for the line that counts the split's images."""
        if self.chosen == self.split:
            return "; ".join(f"without those of {share.split}, {share}" for share in self.shares)
        return next(f"of {self.split}, {share}" for share in self.shares if share.split == self.chosen)

    def expected(self, images: int | None) -> int | None:
        """How many images there should be, where all splits together should have so many."""
        if images is None:
            return None
        counts = {share.split: share.count(images) for share in self.shares}
        return counts.get(self.chosen, images - sum(counts.values()))

    def _at(self, place: Place) -> Place:
        return place._replace(where=place.where.replace(f"splits.{self.chosen}", f"splits.{self.split}"))


def _rank(sample: Sample, seed: int, folder: Path) -> bytes:
    name = os.path.relpath(sample.image, folder).encode("utf-8", "surrogateescape")
    return hashlib.sha256(f"{seed} ".encode() + name).digest()


def share_of(key: str, value: Any, where: str, path: Path) -> Share | None:
    """The share that a split is, `20%` or `{share: 20%, seed: 1}`; None for one with files of its own.

    Raises RecipeError naming file and key.
    """
    if isinstance(value, Mapping) and "share" in value:
        refuse_unknown(value, ("share", "seed"), f"{where}.", path)
        text, seed = value["share"], value.get("seed", 0)
    elif isinstance(value, str) and value.strip().endswith("%"):
        text, seed = value, 0
    else:
        return None
    found = re.fullmatch(r"\s*(\d{1,2}(?:\.\d{1,6})?)\s*%\s*", text) if isinstance(text, str) else None
    if not found or not Fraction(found[1]):
        raise RecipeError(f"{path}: {where}: expected a share of the training images such as 20%, got {shown(text)}")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise RecipeError(f"{path}: {where}.seed: expected a whole number of 0 or more, got {shown(seed)}")
    return Share(key, Fraction(found[1]) / 100, seed)
