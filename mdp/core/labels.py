"""Label spaces: what the numbers in label maps mean, and how several datasets share one list of classes.

Every dataset keeps its own namespace; the union is the plain concatenation of the class lists (paper, section 3.3).
This is the one place where label values are range-checked: later checks would stall a GPU at every step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORE = -1  # the ignore_index inside mdp: 255 is a class like any other once 342 classes are in
_UNKNOWN = -2
_RAW_VALUES = 65536  # label files hold 8 or 16 bits

RGB = tuple[int, int, int]


class UnknownLabels(ValueError):
    """A label map holds values that its label space does not know; `counts` says which, and on how many pixels."""

    def __init__(self, space: str, counts: Mapping[int, int]) -> None:
        self.counts = dict(counts)
        listed = ", ".join(f"{value} ({count} pixels)" for value, count in list(self.counts.items())[:8])
        more = f" and {len(self.counts) - 8} more" if len(self.counts) > 8 else ""
        super().__init__(f"values outside the label space of {space}: {listed}{more}")


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """The classes of one dataset, and how the raw values in its label files map to them.

    `lookup` maps raw values to classes, or to `IGNORE` for values that are never a class; without it raw values are
    class numbers.  `ignore_index` is the raw value (0..65535) that is ignored, None if there is none.  `colors` are
    for display only.  Unlabelled photos have no classes, and all their pixels are ignored.

    Raises ValueError for repeated names and for targets outside the class list.

    >>> space = LabelSpace(name="site", classes=("road", "car"), lookup={7: 0, 26: 1, 0: IGNORE})
    >>> space.to_classes(np.array([[7, 26], [0, 255]])).tolist()
    [[0, 1], [-1, -1]]
    """

    name: str
    classes: tuple[str, ...]
    ignore_index: int | None = 255
    lookup: Mapping[int, int] | None = None
    colors: tuple[RGB, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes):
            twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
            raise ValueError(f"label space {self.name}: class names given twice: {', '.join(twice)}")
        if self.colors and len(self.colors) != len(self.classes):
            raise ValueError(f"label space {self.name}: {len(self.colors)} colors for {len(self.classes)} classes")
        for raw, target in (self.lookup or {}).items():
            if not (0 <= raw < _RAW_VALUES and IGNORE <= target < len(self.classes)):
                raise ValueError(
                    f"label space {self.name}: raw value {raw} maps to {target}; raw values are "
                    f"0..{_RAW_VALUES - 1}, classes 0..{len(self.classes) - 1} (or {IGNORE} for ignored)"
                )

    @cached_property
    def table(self) -> NDArray[np.int16]:
        """Raw value -> class, `IGNORE`, or -2 where the value is unknown; shape (65536,)."""
        table = np.full(_RAW_VALUES, _UNKNOWN, dtype=np.int16)
        if self.lookup is None:
            table[: len(self.classes)] = np.arange(len(self.classes))
        else:
            table[list(self.lookup.keys())] = list(self.lookup.values())
        if self.ignore_index is not None:
            table[self.ignore_index] = IGNORE
        return table

    def to_classes(self, raw: NDArray[np.integer]) -> NDArray[np.int16]:
        """Class numbers of a raw label map of any shape; ignored pixels are `IGNORE`.

        Raises UnknownLabels for values outside the label space.
        """
        classes: NDArray[np.int16] = self.table[raw]
        if classes.size and classes.min() == _UNKNOWN:
            values, counts = np.unique(raw[classes == _UNKNOWN], return_counts=True)
            raise UnknownLabels(self.name, dict(zip(values.tolist(), counts.tolist(), strict=True)))
        return classes


@dataclass(frozen=True)
class LabelUnion:
    """Several label spaces side by side, in order; classes are never merged.

    Raises ValueError when two spaces share a name.

    >>> union = LabelUnion([LabelSpace(name="a", classes=("wall",)), LabelSpace(name="b", classes=("wall", "car"))])
    >>> union.names, union.to_union(np.array([1, 255]), "b")
    (('a/wall', 'b/wall', 'b/car'), tensor([ 2, -1], dtype=torch.int16))
    """

    spaces: Sequence[LabelSpace]
    ignore_index: int = field(default=IGNORE, init=False)

    def __post_init__(self) -> None:
        names = [space.name for space in self.spaces]
        if len(set(names)) != len(names):
            raise ValueError(f"two label spaces share a name: {', '.join(names)}")

    @cached_property
    def _slices(self) -> dict[str, slice]:
        ends = np.cumsum([len(space.classes) for space in self.spaces]).tolist()
        starts = [0, *ends[:-1]]
        return {space.name: slice(start, end) for space, start, end in zip(self.spaces, starts, ends, strict=True)}

    @cached_property
    def _tables(self) -> dict[str, NDArray[np.int16]]:
        """For each dataset: raw value -> class of the union, `IGNORE`, or -2 where the value is unknown; (65536,)."""
        return {
            space.name: np.where(space.table < 0, space.table, space.table + np.int16(self._slices[space.name].start))
            for space in self.spaces
        }

    @property
    def size(self) -> int:
        """C, the number of classes of the union."""
        return sum(len(space.classes) for space in self.spaces)

    @property
    def names(self) -> tuple[str, ...]:
        """`dataset/class` for every class of the union, in order."""
        return tuple(f"{space.name}/{label}" for space in self.spaces for label in space.classes)

    def classes_of(self, name: str) -> slice:
        """Where the classes of dataset `name` lie in the union."""
        return self._slices[name]

    def to_union(self, raw: NDArray[np.integer], name: str) -> Tensor:
        """Union classes (int16, `IGNORE` where ignored) of a raw label map of dataset `name`.

        Raises UnknownLabels for values outside that dataset's label space, KeyError for an unknown dataset.
        """
        classes = self._tables[name].take(raw)
        if classes.size and classes.min() == _UNKNOWN:
            next(space for space in self.spaces if space.name == name).to_classes(raw)  # raises UnknownLabels
        return torch.from_numpy(classes)
