"""How the prototype bank holds a batch: as a table of all classes at first, then as the rows of it that are not zero.

A batch has some sixty of hundreds of classes.  Tables become rows `BLOCK` at a time, in one piece of memory: pieces of
60 kB, one for each batch, would lie in the holes that larger tensors leave and keep these from being used again, as
tables of 350 kB do (docs/log.md, 2026-12-01).
Shape legend: C classes, D embedding channels, K tables, R rows of a batch, S rows of several.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 16  # batches: at the paper's size 5 MB of tables, 1 MB of rows


class BankEntry(NamedTuple):
    """The class sums of a batch: a table of all classes, or the rows of it that are not zero."""

    sums: Tensor  # (C, D) or (R, D) float
    counts: Tensor  # (C,) int64 or (R,) int32
    classes: Tensor | None = None  # (R,) int32, ascending: whose rows these are; None for a table
    rows: int | None = None  # R, where the host knows it


def filled(sums: Tensor, counts: Tensor) -> Tensor:
    """Which rows of a table (C, D), and numbers of images (C,), are not zero, (C,) bool: the classes with an image."""
    return (counts != 0) | (sums.abs().amax(1) != 0)


def newest_as_rows(window: tuple[BankEntry, ...]) -> tuple[BankEntry, ...]:
    """The window, its newest entries made rows where they are `BLOCK` tables, without waiting for a GPU."""
    newest = window[-BLOCK:]
    on_cpu = newest[0].counts.device.type == "cpu"
    if len(newest) < BLOCK or any(entry.classes is not None or (entry.rows is None and not on_cpu) for entry in newest):
        return window
    return (*window[:-BLOCK], *_rows(newest))


def as_rows(entries: Sequence[BankEntry]) -> list[BankEntry]:
    """All entries as rows; those that are rows stay as they are.  A GPU is waited for where their number is unknown."""
    found: list[BankEntry] = []
    for start in range(0, len(entries), BLOCK):
        part = entries[start : start + BLOCK]
        tables = [entry for entry in part if entry.classes is None]
        rows = iter(_rows(tables) if tables else ())
        found += [next(rows) if entry.classes is None else entry for entry in part]
    return found


def _rows(tables: Sequence[BankEntry]) -> list[BankEntry]:
    """Tables as rows in one piece of memory."""
    there = torch.stack([filled(entry.sums, entry.counts) for entry in tables])  # (K, C)
    numbers = [entry.rows for entry in tables if entry.rows is not None]
    if len(numbers) < len(tables):
        numbers = there.sum(1).tolist()
    order = (~there).byte().argsort(dim=1, stable=True)  # the classes that are there first, ascending
    images = torch.stack([entry.counts for entry in tables]).gather(1, order)  # (K, C)
    classes, counts = (
        torch.cat([row[:count] for row, count in zip(table, numbers, strict=True)])  # (S,)
        for table in (order, images)
    )
    sums = tables[0].sums.new_empty(len(classes), tables[0].sums.shape[1])  # (S, D)
    for entry, row, rows in zip(tables, torch.split(classes, numbers), torch.split(sums, numbers), strict=True):
        torch.index_select(entry.sums.detach(), 0, row, out=rows)
    return entries_of(sums, counts.int(), classes.int(), numbers)


def entries_of(sums: Tensor, counts: Tensor, classes: Tensor, numbers: list[int]) -> list[BankEntry]:
    """Rows of several batches, (S, D), (S,) and (S,), as an entry for each; `numbers` say how many rows each has."""
    parts = (torch.split(part, numbers) for part in (sums, counts, classes))
    return [BankEntry(*batch) for batch in zip(*parts, numbers, strict=True)]


def in_blocks(sums: Tensor, counts: Tensor, classes: Tensor, numbers: list[int]) -> list[BankEntry]:
    """The same from copies, `BLOCK` batches in one piece of memory each: what leaves the bank is free then."""
    found: list[BankEntry] = []
    begin = 0
    for start in range(0, len(numbers), BLOCK):
        block = numbers[start : start + BLOCK]
        rows = slice(begin, begin := begin + sum(block))
        found += entries_of(sums[rows].clone(), counts[rows].clone(), classes[rows].clone(), block)
    return found
