"""Where the photos and label maps of a split come from, one file each; a split's keys say which.

A file has `KEYS` and `source(split, where)` (`SourceModule`), and its name in the list here: the first whose last key
is in the split is taken.
"""

from mdp.io.datasets.own.place import SourceModule
from mdp.io.datasets.own.sources import annotations, label_files, label_list

SOURCES: tuple[SourceModule, ...] = (annotations, label_list, label_files)
