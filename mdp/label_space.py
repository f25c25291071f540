"""A label space: what the numbers in the label maps of one dataset mean.

Plain data: this file imports no torch, and NumPy only when a label map is at hand, so that datasets are listed at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IGNORE = -1  # the ignore_index inside mdp: 255 is a class like any other once 342 classes are in
UNKNOWN = -2  # in tables: a raw value that the label space does not know
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

    `lookup` maps raw values to classes, or to `IGNORE` for values that are never a class, and so do `ranges`; without
    `lookup` raw values are class numbers.  `ignore_index` is the raw value (0..65535) that is ignored, None if there is
    none.  `colors` are for display only.  Unlabelled photos have no classes, and all their pixels are ignored.

    Raises ValueError for repeated names and for targets outside the class list.

    >>> import numpy as np
    >>> space = LabelSpace(name="site", classes=("road", "car"), lookup={7: 0, 26: 1, 0: IGNORE})
    >>> space.to_classes(np.array([[7, 26], [0, 255]])).tolist()
    [[0, 1], [-1, -1]]
    """

    name: str
    classes: tuple[str, ...]
    ignore_index: int | None = 255
    lookup: Mapping[int, int] | None = None
    ranges: tuple[tuple[int, int, int], ...] = ()  # first and last raw value, and what all between map to
    colors: tuple[RGB, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes):
            twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
            raise ValueError(f"label space {self.name}: class names given twice: {', '.join(twice)}")
        if self.colors and len(self.colors) != len(self.classes):
            raise ValueError(f"label space {self.name}: {len(self.colors)} colors for {len(self.classes)} classes")
        for raw, last, target in self.entries:
            if not (0 <= raw <= last < _RAW_VALUES and IGNORE <= target < len(self.classes)):
                raise ValueError(
                    f"label space {self.name}: raw value {raw} maps to {target}; raw values are "
                    f"0..{_RAW_VALUES - 1}, classes 0..{len(self.classes) - 1} (or {IGNORE} for ignored)"
                )

    @property
    def entries(self) -> tuple[tuple[int, int, int], ...]:
        """First raw value, last raw value and target (a class or `IGNORE`) of all that `lookup` and `ranges` name."""
        return (*((raw, raw, target) for raw, target in (self.lookup or {}).items()), *self.ranges)

    @cached_property
    def table(self) -> NDArray[np.int16]:
        """Raw value -> class, `IGNORE`, or -2 where the value is unknown; shape (65536,)."""
        import numpy as np  # noqa: PLC0415 - whoever asks for a table has label maps

        table = np.full(_RAW_VALUES, UNKNOWN, dtype=np.int16)
        if self.lookup is None:
            table[: len(self.classes)] = np.arange(len(self.classes))
        else:
            table[list(self.lookup.keys())] = list(self.lookup.values())
        for first, last, target in self.ranges:
            table[first : last + 1] = target
        if self.ignore_index is not None:
            table[self.ignore_index] = IGNORE
        return table

    def to_classes(self, raw: NDArray[np.integer]) -> NDArray[np.int16]:
        """Class numbers of a raw label map of any shape; ignored pixels are `IGNORE`.

        Raises UnknownLabels for values outside the label space.
        """
        classes: NDArray[np.int16] = self.table[raw]
        if classes.size and classes.min() == UNKNOWN:
            import numpy as np  # noqa: PLC0415

            values, counts = np.unique(raw[classes == UNKNOWN], return_counts=True)
            raise UnknownLabels(self.name, dict(zip(values.tolist(), counts.tolist(), strict=True)))
        return classes
