"""Label spaces: what the numbers in label maps mean, and how several datasets share one list of classes.

Every dataset keeps its own namespace; the union is the plain concatenation of the class lists (paper, section 3.3).
This is the one place where label values are range-checked: later checks would stall a GPU at every step.  The space of
one dataset is plain data and stands in `mdp.label_space`, which needs no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdp.label_space import IGNORE, RGB, UNKNOWN, LabelSpace, UnknownLabels

__all__ = ["IGNORE", "RGB", "LabelSpace", "LabelUnion", "UnknownLabels"]


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

    @cached_property
    def _byte_tables(self) -> dict[str, bytes]:
        """The same for values of a byte, as int8, of the datasets whose classes fit into that; (256,)."""
        return {
            name: table[:256].astype(np.int8).tobytes()
            for name, table in self._tables.items()
            if table[:256].max() <= np.iinfo(np.int8).max
        }

    def _classes(self, raw: NDArray[np.integer], name: str) -> NDArray[np.int16]:
        table = self._byte_tables.get(name) if raw.dtype == np.uint8 else None
        if table is None:
            return self._tables[name].take(raw)
        # Python's own loop over bytes takes half the time of NumPy's look-up
        return np.frombuffer(bytearray(raw).translate(table), dtype=np.int8).astype(np.int16).reshape(raw.shape)

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
        classes = self._classes(raw, name)
        if classes.size and classes.min() == UNKNOWN:
            next(space for space in self.spaces if space.name == name).to_classes(raw)  # raises UnknownLabels
        return torch.from_numpy(classes)
