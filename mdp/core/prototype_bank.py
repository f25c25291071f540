"""Class prototypes and the bank that keeps them current (paper, sections 3.2 and 3.3, eq. 3).

A prototype is the mean, over the images that contain a class, of the class's mean pixel embedding in the image:
every image counts once, whatever the area of the class.  The bank keeps, for the last T batches, the sum of those
image means and the number of images, and a running total that does not drift.
Shape legend: B images, C classes, D embedding channels, h x w feature grid, T batches in the bank, R rows of a batch
that are not zero, S those of all batches.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.bank_entries import BankEntry, as_rows, filled, in_blocks, newest_as_rows
from mdp.core.float64 import device_of_float64, in_float64
from mdp.core.label_checks import expect_grid, expect_labels
from mdp.core.labels import IGNORE


class ClassSums(NamedTuple):
    """Sums of image-level class embeddings; adds across batches, shards and processes."""

    sums: Tensor  # (C, D) float: sum over images of the class's mean embedding in the image
    counts: Tensor  # (C,) int64: number of images that contain the class


class PrototypeBank(NamedTuple):
    """The class sums of the last `size` batches, oldest first, and their total.

    A tuple of small entries and a running float64 total push in the time of two additions whatever T is, where a
    copied (T, C, D) ring takes hundreds of milliseconds at the paper's largest size.
    """

    window: tuple[BankEntry, ...]  # at most `size` entries
    total: ClassSums  # float64 sums: adding and taking away the same float32 rows leaves no drift to speak of
    size: int  # T


class Prototypes(NamedTuple):
    """One vector a class, and which classes have been seen at all."""

    vectors: Tensor  # (C, D) float32; zeros where the class is absent
    present: Tensor  # (C,) bool


class ImageMeans(NamedTuple):
    """The mean embedding of every class in every image that has it; U is the largest number of classes in an image."""

    means: Tensor  # (B, U, D) float32
    classes: Tensor  # (B, U) int64; C where an image has fewer than U
    present: Tensor  # (B, C) bool


def image_means(embeddings: Tensor, labels: Tensor, classes: int) -> ImageMeans:
    """Each class's mean embedding in each image, e_{i,k}, for the classes that are there; without gradient.

    `embeddings` (B, D, h, w), `labels` (B, h, w) in -1 .. classes - 1; pixels labelled -1 enter nothing.  An image has
    a dozen of hundreds of classes: their ranks among them make a product of matrices small.

    Raises ValueError when the grids differ, and for values that are no class.
    """
    expect_grid(embeddings, labels)
    expect_labels(labels, classes)
    count = len(embeddings)
    row = torch.where(labels == IGNORE, classes, labels.long()).flatten(1)  # (B, P)
    pixels = row.new_zeros(count, classes + 1).scatter_add_(1, row, torch.ones_like(row))  # (B, C+1)
    pixels[:, classes] = 0  # the ignored ones
    present = pixels > 0
    # on a GPU the number of ranks would have to be waited for
    width = classes if labels.is_cuda else max(1, int(present.sum(1).max())) if count else 1
    rank = torch.where(present, present.cumsum(1) - 1, width)  # (B, C+1)
    numbers = torch.arange(classes + 1, device=row.device).expand(count, -1)
    found = torch.full((count, width + 1), classes, device=row.device).scatter_(1, rank, numbers)[:, :width]  # (B, U)
    by_rows = embeddings.is_contiguous(memory_format=torch.channels_last)
    pool = _pooled_by_index if by_rows or labels.is_cuda else _pooled_by_product
    with torch.autocast(embeddings.device.type, enabled=False):
        sums = pool(embeddings.detach().float().flatten(2).mT, rank.gather(1, row), width)  # (B, U, D)
    means = sums / pixels.gather(1, found).clamp(min=1)[..., None]
    return ImageMeans(means, found, present[:, :classes])


def _pooled_by_product(pixels: Tensor, rank: Tensor, width: int) -> Tensor:
    """(B, P, D) pixels summed by rank, (B, U, D); rank U means none of them."""
    table = pixels.new_zeros(*rank.shape, width + 1).scatter_(2, rank[..., None], 1)  # (B, P, U+1)
    return table[..., :width].mT @ pixels


def _pooled_by_index(pixels: Tensor, rank: Tensor, width: int) -> Tensor:
    """The same by addition into rows: two to four times as fast where pixels are rows already, or where U is large."""
    row = rank + (width + 1) * torch.arange(len(rank), device=rank.device)[:, None]  # (B, P): own rows for each image
    sums = pixels.new_zeros(len(rank) * (width + 1), pixels.shape[2])
    sums.index_add_(0, row.flatten(), pixels.flatten(0, 1))
    return sums.view(len(rank), width + 1, pixels.shape[2])[:, :width]


def _of_unit_length(embeddings: Tensor) -> Tensor:
    """Embeddings (B, D, h, w) divided by their length, without gradient."""
    return F.normalize(embeddings.detach().float(), dim=1)


def class_means(embeddings: Tensor, labels: Tensor, classes: int, unit: bool = False) -> tuple[Tensor, Tensor]:
    """Each class's mean embedding in each image as (B, C, D) float32, zeros where it is not, and where it is (B, C).

    `embeddings` (B, D, h, w) are divided by their length first, unless `unit` says that they have unit length, or are
    to be taken as they are.  `labels` (B, h, w) in -1 .. classes - 1, -1 being ignored.  Raises ValueError when the
    grids differ, and for values that are no class.
    """
    found = image_means(embeddings if unit else _of_unit_length(embeddings), labels, classes)
    table = found.means.new_zeros(len(labels), classes + 1, embeddings.shape[1])  # row C collects what is no class
    table.scatter_(1, found.classes[..., None].expand_as(found.means), found.means)
    return table[:, :classes], found.present


def class_sums(embeddings: Tensor, labels: Tensor, classes: int, unit: bool = False) -> ClassSums:
    """Sums over images of each class's mean embedding (the numerator and denominator of eq. 3).

    `embeddings` (B, D, h, w) are divided by their length first, unless `unit` says that they have unit length, or are
    to be taken as they are.  `labels` (B, h, w) in -1 .. classes - 1, -1 being ignored.  Raises ValueError when the
    grids differ, and for values that are no class.

    >>> sums = class_sums(torch.ones(1, 2, 1, 3), torch.tensor([[[0, 0, -1]]]), classes=2, unit=True)
    >>> sums.sums.tolist(), sums.counts.tolist()
    ([[1.0, 1.0], [0.0, 0.0]], [1, 0])
    """
    means, found, present = image_means(embeddings if unit else _of_unit_length(embeddings), labels, classes)
    sums = means.new_zeros(classes + 1, embeddings.shape[1]).index_add_(0, found.flatten(), means.flatten(0, 1))
    return ClassSums(sums[:classes], present.sum(0))


def add(a: ClassSums, b: ClassSums) -> ClassSums:
    """The class sums of both batches together.  Raises ValueError when their classes or channels differ."""
    _expect_alike(a, b)
    return ClassSums(a.sums + b.sums, a.counts + b.counts)


def _expect_alike(a: ClassSums, b: ClassSums) -> None:
    """Raises ValueError unless both have as many classes and channels: one class would be added to all."""
    if a.sums.shape != b.sums.shape or a.counts.shape != b.counts.shape:
        raise ValueError(f"class sums of (classes, channels) {tuple(a.sums.shape)} and {tuple(b.sums.shape)} differ")


def empty_bank(classes: int, channels: int, size: int, device: torch.device | str = "cpu") -> PrototypeBank:
    """A bank that has seen nothing.  Raises ValueError unless it has room for a batch."""
    if size < 1:
        raise ValueError(f"bank size: expected at least 1 batch, got {size}")
    sums = torch.zeros(classes, channels, dtype=torch.float64, device=device_of_float64(device))
    return PrototypeBank((), ClassSums(sums, torch.zeros(classes, dtype=torch.int64, device=device)), size)


def push(bank: PrototypeBank, sums: ClassSums) -> PrototypeBank:
    """The bank with one more batch; the oldest batch leaves when the bank is full.

    Classes absent from a batch age like the others.  On a CPU a batch takes the memory of the classes that it has; on
    another device it stays a table until `hold_rows` says how many they are.  Raises ValueError when classes or
    channels differ.
    """
    _expect_alike(bank.total, sums)
    total = ClassSums(bank.total.sums + in_float64(sums.sums), bank.total.counts + sums.counts)
    window = (*bank.window, BankEntry(*sums))
    if len(window) > bank.size:
        _less_(total, window[0])
        window = window[1:]
    return PrototypeBank(newest_as_rows(window), total, bank.size)


def filled_classes(sums: ClassSums) -> Tensor:
    """Which classes' rows are not zero, (C,) bool: after `class_sums` those with an image."""
    return filled(*sums)


def hold_rows(bank: PrototypeBank, rows: int) -> PrototypeBank:
    """The bank, told how many rows of its newest batch are not zero, so that it need not keep the others.

    The host would have to wait for a GPU to learn it by itself: whoever reads numbers of a step anyway reads the sum of
    `filled_classes` among them.  A batch of which nothing is said stays a table; of one that has more rows than are
    said the last would be lost.  Raises ValueError for a bank without batches, and for numbers that no batch can have.
    """
    classes = len(bank.total.counts)
    if not bank.window or not 0 <= rows <= classes:
        raise ValueError(f"{rows} rows of the newest of {len(bank.window)} batches: expected 0 to {classes}, of one")
    if bank.window[-1].classes is not None:  # a CPU knows without being told
        return bank
    window = (*bank.window[:-1], bank.window[-1]._replace(rows=rows))
    return bank._replace(window=newest_as_rows(window))


def _less_(total: ClassSums, gone: BankEntry) -> None:
    """Takes a batch from the total."""
    sums = in_float64(gone.sums)
    if gone.classes is None:
        total.sums.sub_(sums)
        total.counts.sub_(gone.counts)
        return
    row = gone.classes.long()  # (R,), each class once
    at = row.to(total.sums.device)
    total.sums.index_copy_(0, at, total.sums[at] - sums)
    total.counts.index_copy_(0, row, total.counts[row] - gone.counts)


def prototypes(bank: PrototypeBank, normalise: bool = True) -> Prototypes:
    """Every class's prototype (eq. 3), of unit length unless told otherwise; without gradient."""
    counts = bank.total.counts
    vectors = (bank.total.sums / in_float64(counts.clamp(min=1))[:, None]).float().to(counts.device)  # (C, D)
    # the total of a class that left the bank is a rounding residue, not a direction
    vectors = torch.where(counts[:, None] > 0, vectors, 0.0)
    if normalise:
        vectors = F.normalize(vectors, dim=1)
    return Prototypes(vectors, counts > 0)


def class_similarity(embeddings: Tensor, known: Prototypes) -> Tensor:
    """Dot product of each pixel embedding (B, D, h, w) with each prototype, (B, C, h, w); -inf for absent classes."""
    with torch.autocast(embeddings.device.type, enabled=False):
        similarity = torch.einsum("bdhw,cd->bchw", embeddings.float(), known.vectors)  # (B, C, h, w)
    return similarity.masked_fill(~known.present[None, :, None, None], -torch.inf)


def mean_cosine(known: Prototypes) -> float:
    """Mean cosine between different prototypes: near 1 means collapse.  NaN below two classes."""
    vectors = F.normalize(in_float64(known.vectors[known.present]), dim=1)
    count = len(vectors)
    if count < 2:
        return float("nan")
    return float((vectors.sum(0).square().sum() - vectors.square().sum()) / (count * (count - 1)))


def effective_rank(known: Prototypes) -> float:
    """exp(entropy of the normalised singular values) of the prototypes (Roy and Vetterli, EUSIPCO 2007).

    From 1 (all prototypes on a line: collapse) to min(C, D).  0 when there is no prototype.
    """
    values = torch.linalg.svdvals(known.vectors[known.present].cpu().double())
    if len(values) == 0 or values.sum() == 0:
        return 0.0
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())


def pack_bank(bank: PrototypeBank) -> dict[str, Tensor]:
    """The bank as named tensors, for a checkpoint; a GPU is waited for where it has tables of unknown rows."""
    entries = as_rows(bank.window)
    device = bank.total.counts.device
    none = torch.zeros(0, dtype=torch.int32, device=device)
    rows = [torch.zeros(0, bank.total.sums.shape[1], device=device), *(entry.sums for entry in entries)]
    return {
        "rows": torch.cat(rows),  # (S, D)
        "row_classes": torch.cat([none, *(entry.classes for entry in entries if entry.classes is not None)]),  # (S,)
        "row_counts": torch.cat([none, *(entry.counts for entry in entries)]),  # (S,)
        "batch_rows": torch.tensor([len(entry.sums) for entry in entries], dtype=torch.int32),  # (T,)
        "total_sums": bank.total.sums,
        "total_counts": bank.total.counts,
    }


def unpack_bank(tensors: dict[str, Tensor], size: int) -> PrototypeBank:
    """The bank that `pack_bank` packed, with room for `size` batches; the newest entries are kept.

    A bank of tables, as all were packed once, is known by its names.
    """
    total = ClassSums(tensors["total_sums"].clone(), tensors["total_counts"].clone())
    if "sums" in tensors:
        entries = [BankEntry(*table) for table in zip(tensors["sums"], tensors["counts"], strict=True)]
    else:
        rows = tensors["batch_rows"].tolist()
        entries = in_blocks(tensors["rows"], tensors["row_counts"], tensors["row_classes"], rows)
    for old in entries[: max(0, len(entries) - size)]:
        _less_(total, old)
    return PrototypeBank(tuple(as_rows(entries[-size:])), total, size)
