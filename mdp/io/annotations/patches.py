"""Label maps from outlined regions: the region of one annotation, and what holds where several overlap.

H x W is the size of a photo.  Values are raw label values, as they would stand in a label file.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

REST = 65534  # the raw value of pixels that no annotation covers
UNDECIDED = 65535  # the raw value of pixels that are never a class

_Pixel = TypeVar("_Pixel", bound=np.generic)


class Patch(NamedTuple):
    """The pixels of an annotation: a mask, and where its corner lies in the photo.  What is outside of it is not set.

    A photo may have hundreds of small ones, and full masks of them all would not fit into memory.
    """

    top: int
    left: int
    mask: NDArray[np.bool_]  # (h, w), inside the photo

    @property
    def area(self) -> int:
        """Pixels."""
        return int(np.count_nonzero(self.mask))


def cropped(mask: NDArray[np.bool_]) -> Patch:
    """The patch of a mask (H, W): the part of it that is set.

    >>> patch = cropped(np.array([[0, 0, 0], [0, 1, 1]], dtype=bool))
    >>> patch.top, patch.left, patch.mask.tolist()
    (1, 1, [[True, True]])
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return Patch(0, 0, mask[:0, :0])
    top, left = int(rows[0]), int(columns[0])
    return Patch(top, left, mask[top : rows[-1] + 1, left : columns[-1] + 1])


def whole(patch: Patch, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask (H, W) of a patch."""
    mask = np.zeros(size, dtype=bool)
    _part(mask, patch)[...] = patch.mask
    return mask


def union(patches: Sequence[Patch], size: tuple[int, int]) -> Patch:
    """The pixels that are in any of the patches, which lie in a photo of that size."""
    if len(patches) == 1:
        return patches[0]
    mask = np.zeros(size, dtype=bool)
    for patch in patches:
        _part(mask, patch)[...] |= patch.mask
    return cropped(mask)


def later(marks: Sequence[tuple[int, Patch]], size: tuple[int, int]) -> NDArray[np.uint16]:
    """The label map (H, W) of marks, each a raw value and its pixels: where marks overlap the later one holds."""
    labels = np.full(size, REST, dtype=np.uint16)
    for value, patch in marks:
        _part(labels, patch)[patch.mask] = value
    return labels


def smaller(marks: Sequence[tuple[int, Patch]], size: tuple[int, int]) -> NDArray[np.uint16]:
    """The label map (H, W) of marks: where marks overlap the one with fewer pixels holds, of equal ones the later.

    A thing that lies on another is the smaller one more often than not, in whichever order they were drawn.
    """
    return later(sorted(marks, key=lambda mark: -mark[1].area), size)


def ignore(marks: Sequence[tuple[int, Patch]], size: tuple[int, int]) -> NDArray[np.uint16]:
    """The label map (H, W) of marks: pixels of marks that overlap and differ in value are `UNDECIDED`."""
    labels = np.full(size, REST, dtype=np.uint16)
    for value, patch in marks:
        part = _part(labels, patch)
        taken = (part != REST) & (part != value)
        part[patch.mask] = np.where(taken, UNDECIDED, value)[patch.mask]
    return labels


OVERLAPS: dict[str, Callable[[Sequence[tuple[int, Patch]], tuple[int, int]], NDArray[np.uint16]]] = {
    "later": later,
    "smaller": smaller,
    "ignore": ignore,
}


def _part(pixels: NDArray[_Pixel], patch: Patch) -> NDArray[_Pixel]:
    """The view of (H, W) pixels that a patch covers."""
    height, width = patch.mask.shape
    return pixels[patch.top : patch.top + height, patch.left : patch.left + width]
