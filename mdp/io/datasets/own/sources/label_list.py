"""A list of photos, one a line, each with its label map or in folders that hold both."""

from collections.abc import Mapping
from dataclasses import dataclass

from mdp.io.datasets._dataset import LeftOut, Sample
from mdp.io.datasets._layouts import numbered_lines, paired
from mdp.io.datasets.own import borders
from mdp.io.datasets.own.finding.list_lines import Lines, refuse_repeated
from mdp.io.datasets.own.finding.matching import Folders
from mdp.io.datasets.own.place import Place, Used
from mdp.io.datasets.own.sources import label_files
from mdp.io.files.reading import printable

KEYS = (*label_files.KEYS, "list")


@dataclass(frozen=True)
class LabelList:
    """The photos that a list names."""

    file: str
    folders: Folders  # where a line that is no pair of paths finds its photo and its label map

    @property
    def paths(self) -> Mapping[str, str | None]:
        """The list, both folders and the templates."""
        return {**label_files.LabelFiles(self.folders).paths, "list": self.file}

    def samples(self, place: Place) -> list[Sample]:
        """The photos and their label maps, in the order of the list.

        Raises DatasetError, with file and line, for one that is not understood: nothing is guessed.
        """
        order = place.folder / self.file
        borders.refuse_strays([(order, f"{place.where}.list: ")], place.border)
        lines = numbered_lines(order)
        refuse_repeated(order, lines)
        reading = Lines(self.folders, place)
        pairs, placed = [], []
        for position, (number, line) in enumerate(lines):
            where = f"{printable(order)}: line {number}: "
            pair = reading.pair(line, where, first=position == 0)
            if pair:
                pairs.append(pair)
                placed += [(path, where) for path in pair]
        borders.refuse_strays(placed, place.border)
        return paired(place.dataset, pairs, place.home)

    def left_out(self, place: Place, used: Used) -> list[LeftOut]:
        """Nothing: a list says what there is."""
        return []


def source(split: Mapping[str, str], where: str) -> LabelList:
    """The list that a split names."""
    return LabelList(split["list"], label_files.folders_of(split, where))
