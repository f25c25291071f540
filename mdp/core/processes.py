"""The processes that share a batch, as an argument: what a pure function may ask of the others.

A batch of B images is cut into consecutive parts, one for each process, as even as can be.  Whatever is asked is asked
by all processes at the same place, whatever their part holds: nothing here depends on the data.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Processes(NamedTuple):
    """This process among those that share a batch, or a part of one."""

    images: tuple[int, ...]  # each process's images of a batch, in order of rank
    rank: int
    all_sum: Callable[[Tensor], Tensor]  # the sum over processes, the same bits on each
    all_rows: Callable[[Tensor, tuple[int, ...]], Tensor]  # `gather`, of so many rows of each process
    some_rows: Callable[[Tensor, Tensor, tuple[int, ...]], Tensor]  # `take`, likewise

    def gather(self, tensor: Tensor) -> Tensor:
        """(b, ...) of each process -> (B, ...), in order of rank; without gradient."""
        return self.all_rows(tensor, self.images)

    def take(self, tensor: Tensor, index: Tensor) -> Tensor:
        """(b, ...), index (B,) -> for each own image i row index[i] of all."""
        return self.some_rows(tensor, index, self.images)

    def part(self, number: int, parts: int) -> "Processes":
        """The same processes with one of so many parts of their images: rows that are gathered are that part's."""
        return self._replace(images=tuple(even_parts(images, parts)[number] for images in self.images))

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
    return Processes(
        (images,), 0, lambda tensor: tensor, lambda tensor, _: tensor, lambda tensor, index, _: taken(tensor, index)
    )


def taken(tensor: Tensor, index: Tensor) -> Tensor:
    """The rows that `index`, on the CPU, names; without waiting for a device."""
    return tensor.index_select(0, index.to(tensor.device, non_blocking=True))


class Exchange(NamedTuple):
    """Which rows a process sends to whom, and where those go that it gets; on the CPU."""

    sent: Tensor  # own rows, those for the first process first
    sent_to: list[int]  # how many to each process
    got_from: list[int]  # how many from each process
    places: Tensor  # (b,) of what comes, that of the first process first


def plan_exchange(index: Tensor, images: tuple[int, ...], rank: int) -> Exchange:
    """How each process gets the rows `index` (B,) of the whole batch that its own images ask for, and no others."""
    owner = torch.repeat_interleave(torch.arange(len(images)), torch.tensor(images))  # (B,) of a row
    wanted = torch.split(index, list(images))  # by each process
    start = sum(images[:rank])
    asked = [rows[owner[rows] == rank] - start for rows in wanted]
    mine = owner[wanted[rank]]  # (b,): whose the rows are that this process wants
    counts = torch.bincount(mine, minlength=len(images)).tolist()
    return Exchange(torch.cat(asked), [len(rows) for rows in asked], counts, mine.argsort(stable=True))


def even_parts(count: int, parts: int) -> tuple[int, ...]:
    """`count` things in so many parts, as even as can be, larger ones first.

    >>> even_parts(8, 3)
    (3, 3, 2)
    """
    return tuple(count // parts + (i < count % parts) for i in range(parts))


def rows_of(value: Any, rows: slice) -> Any:
    """Those rows of every tensor in nested tuples, which keep their types; None stays None."""
    if value is None:
        return None
    if isinstance(value, Tensor):
        return value[rows]
    return _like(value, [rows_of(item, rows) for item in value])


def join_rows(values: Sequence[Any]) -> Any:
    """The rows of nested tuples of one form, one value's after the other's: what `rows_of` took apart.

    >>> join_rows([(torch.zeros(1), ()), (torch.ones(2), ())])
    (tensor([0., 1., 1.]), ())
    """
    if values[0] is None:
        return None
    if isinstance(values[0], Tensor):
        return torch.cat(list(values))
    return _like(values[0], [join_rows(items) for items in zip(*values, strict=True)])


def _like(value: Any, items: Sequence[Any]) -> Any:
    return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
