"""The processes that share a batch, as an argument: what a pure function may ask of the others.

A batch of B images is cut into consecutive parts, one for each process, as even as can be.  Whatever is asked is asked
by all processes at the same place, whatever their part holds: nothing here depends on the data.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor


class Processes(NamedTuple):
    """This process among those that share a batch."""

    images: tuple[int, ...]  # each process's images of a batch, in order of rank
    rank: int
    all_sum: Callable[[Tensor], Tensor]  # the sum over processes, the same bits on each
    gather: Callable[[Tensor], Tensor]  # (b, ...) of each process -> (B, ...), in order of rank; without gradient

    @property
    def total(self) -> int:
        """B, the images of the whole batch."""
        return sum(self.images)

    @property
    def own(self) -> slice:
        """Which rows of the whole batch are this process's."""
        start = sum(self.images[: self.rank])
        return slice(start, start + self.images[self.rank])


def alone(images: int) -> Processes:
    """One process that has the whole batch."""
    return Processes((images,), 0, lambda tensor: tensor, lambda tensor: tensor)


def even_parts(count: int, parts: int) -> tuple[int, ...]:
    """`count` things in so many parts, as even as can be, larger ones first.

    >>> even_parts(8, 3)
    (3, 3, 2)
    """
    return tuple(count // parts + (i < count % parts) for i in range(parts))


def rows_of(value: Any, rows: slice) -> Any:
    """Those rows of every tensor in nested tuples, which keep their types."""
    if isinstance(value, Tensor):
        return value[rows]
    items = [rows_of(item, rows) for item in value]
    return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
