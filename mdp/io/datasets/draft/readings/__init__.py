"""Kinds of layouts, one file each, those that leave least to guess first; a file is added by its name in the list.

`drafts(tree)` gives what the folder may be, the likeliest first; none where it is not of that kind.
"""

from typing import Protocol

from mdp.io.datasets.draft.readings import (
    coco,
    label_maps,
    label_studio,
    labelme,
    nnunet,
    unlabelled,
    yolo,
)
from mdp.io.datasets.draft.text import Draft
from mdp.io.datasets.draft.tree import Tree


class Reading(Protocol):
    """A file of this folder."""

    def drafts(self, tree: Tree) -> list[Draft]:
        """What the folder may be; none where it is not of this kind.  Raises DatasetError for damaged files."""


READINGS: tuple[Reading, ...] = (coco, labelme, label_studio, yolo, nnunet, label_maps, unlabelled)
