"""FIFO queues of embeddings: one for all (MoCo, eq. 1; SwAV) and one for each class (the region bank, section 3.3).

Rows are compared with queries by a dot product and never receive a gradient.
Shape legend: B images, C classes, D embedding channels, Q rows of a queue.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.prototype_bank import Prototypes


def noise_queue(rng: torch.Generator, size: int, channels: int, device: torch.device | str = "cpu") -> Tensor:
    """A queue (Q, D) of random unit vectors: MoCo's start, so that there are negatives from the first step on.

    Raises ValueError unless it has room for a row.
    """
    if size < 1:
        raise ValueError(f"queue size: expected at least 1 row, got {size}")
    return F.normalize(torch.randn(size, channels, generator=rng), dim=1).to(device)


def enqueue(queue: Tensor, rows: Tensor) -> Tensor:
    """The queue (Q, D) with `rows` (B, D) at its end and its oldest B rows gone; only the last Q rows count.

    >>> enqueue(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[4.0]])).flatten().tolist()
    [2.0, 3.0, 4.0]
    """
    return torch.cat([queue, rows.detach().to(queue.dtype)])[-len(queue) :]


class AlignedQueues(NamedTuple):
    """Two queues in which a row of the one belongs to the same row of the other; both move together."""

    keys: Tensor  # (Q, D) what queries are compared with
    features: Tensor  # (Q, F) what neighbours are found by

    def enqueue(self, keys: Tensor, features: Tensor) -> "AlignedQueues":
        """The queues with keys (B, D) and features (B, F) at their ends.  Raises ValueError for other numbers."""
        if len(keys) != len(features):
            raise ValueError(f"{len(keys)} keys and {len(features)} features: expected as many")
        return AlignedQueues(enqueue(self.keys, keys), enqueue(self.features, features))


class ClassQueues(NamedTuple):
    """The last Q image-level embeddings of each class, as rings."""

    rows: Tensor  # (C, Q, D) float32; zeros where nothing was put yet
    pushed: Tensor  # (C,) int64: how many were ever put in; the next one goes to slot `pushed` modulo Q

    @property
    def filled(self) -> Tensor:
        """Which slots hold an embedding, (C, Q) bool."""
        return torch.arange(self.rows.shape[1], device=self.rows.device) < self.pushed[:, None]


def empty_queues(classes: int, size: int, channels: int, device: torch.device | str = "cpu") -> ClassQueues:
    """Queues that hold nothing.  Raises ValueError unless they have room for a row."""
    if size < 1:
        raise ValueError(f"queue size: expected at least 1 row a class, got {size}")
    rows = torch.zeros(classes, size, channels, device=device)
    return ClassQueues(rows, torch.zeros(classes, dtype=torch.int64, device=device))


def enqueue_classes(queues: ClassQueues, means: Tensor, present: Tensor) -> ClassQueues:
    """The queues with each image's classes put in, image by image; the oldest rows make room.

    `means` (B, C, D) are the classes' mean embeddings in each image, `present` (B, C) says which there are.  Raises
    ValueError when classes or channels are others than the queues'.
    """
    if means.shape[1:] != queues.rows.shape[::2] or present.shape != means.shape[:2]:
        raise ValueError(
            f"means {tuple(means.shape)} and present {tuple(present.shape)} for queues of (classes, rows, channels) "
            f"{tuple(queues.rows.shape)}"
        )
    size = queues.rows.shape[1]
    order = present.cumsum(0)  # (B, C): the how-many-th of its class in this batch
    total = order[-1]  # (C,)
    kept = present & (order > total - size)  # only the last Q of a class can stay
    if kept.is_cuda:
        slots = (queues.pushed + order - 1) % size + size * torch.arange(len(total), device=total.device)  # (B, C)
        slots = torch.where(kept, slots, len(total) * size).flatten()
        return ClassQueues(_placed(queues.rows, slots, means.flatten(0, 1)), queues.pushed + total)
    image, label = kept.nonzero(as_tuple=True)  # (R,) rows to put in
    slot = (queues.pushed[label] + order[image, label] - 1) % size  # (R,)
    rows = queues.rows.index_put((label, slot), means[image, label].detach().to(queues.rows.dtype))
    return ClassQueues(rows, queues.pushed + total)


def enqueue_rows(queues: ClassQueues, rows: Tensor, labels: Tensor) -> ClassQueues:
    """The queues with each of `rows` (N, D) put into that of its class `labels` (N,), in their order; -1 is no class.

    An image may have several rows of a class.  Raises ValueError when numbers of rows or channels differ.

    >>> full = enqueue_rows(empty_queues(2, 2, 1), torch.arange(4.0)[:, None], torch.tensor([1, 1, 0, 1]))
    >>> full.rows.squeeze(2).tolist(), full.pushed.tolist()
    ([[2.0, 0.0], [3.0, 1.0]], [1, 3])
    """
    if len(rows) != len(labels) or rows.shape[1:] != queues.rows.shape[2:]:
        raise ValueError(
            f"rows {tuple(rows.shape)} and labels {tuple(labels.shape)} for queues of (classes, rows, channels) "
            f"{tuple(queues.rows.shape)}"
        )
    size = queues.rows.shape[1]
    classes = len(queues.pushed)
    own, order = torch.where(labels < 0, classes, labels).sort(stable=True)  # (N,), those of no class last
    counts = queues.pushed.new_zeros(classes + 1).scatter_add_(0, own, torch.ones_like(own))  # (C + 1,)
    place = (
        torch.arange(len(own), device=own.device) - (counts.cumsum(0) - counts)[own]
    )  # (N,) among those of its class
    kept = (own < classes) & (place >= counts[own] - size)  # only the last Q of a class can stay
    pushed = torch.cat([queues.pushed, queues.pushed[:1]])  # (C + 1,)
    slots = torch.where(kept, own * size + (pushed[own] + place) % size, classes * size)  # (N,)
    total = counts[:classes]
    if kept.is_cuda:
        return ClassQueues(_placed(queues.rows, slots, rows[order]), queues.pushed + total)
    put = queues.rows.flatten(0, 1).index_put((slots[kept],), rows[order[kept]].detach().to(queues.rows.dtype))
    return ClassQueues(put.view(queues.rows.shape), queues.pushed + total)


def _placed(queues: Tensor, slots: Tensor, rows: Tensor) -> Tensor:
    """The queues (C, Q, D) with `rows` (N, D) at their slots (N,) of C Q; C Q itself takes what does not stay.

    To leave those out a GPU would have to be waited for: how many they are depends on the labels.
    """
    flat = torch.cat([queues.flatten(0, 1), queues.new_zeros(1, queues.shape[2])])  # (C Q + 1, D)
    flat.index_copy_(0, slots, rows.detach().to(flat.dtype))
    return flat[:-1].view(queues.shape)


def queue_prototypes(queues: ClassQueues) -> Prototypes:
    """The mean of what each class's queue holds, of unit length."""
    vectors = F.normalize(queues.rows.sum(1), dim=1)  # (C, D); empty slots are zeros
    return Prototypes(vectors, queues.pushed > 0)


class Ring(NamedTuple):
    """The last Q rows that were put in, in any order, and how many ever were."""

    rows: Tensor  # (Q, ...); zeros where nothing was put yet
    pushed: Tensor  # () int64 on the CPU, so that asking waits for no device

    @property
    def full(self) -> bool:
        """Whether all of its rows were put in."""
        return int(self.pushed) >= len(self.rows)

    def push(self, rows: Tensor) -> "Ring":
        """The ring with rows (B, ...) in the place of its oldest; of more than Q the last count."""
        size, count = len(self.rows), len(rows)
        start = int(self.pushed) + max(0, count - size)
        slots = torch.arange(start, int(self.pushed) + count, device=rows.device) % size
        kept = rows.detach()[-size:].to(self.rows.dtype)
        return Ring(self.rows.index_copy(0, slots, kept), self.pushed + count)


def empty_ring(size: int, shape: Sequence[int], device: torch.device | str = "cpu") -> Ring:
    """A ring of `size` rows of that shape that holds nothing.

    >>> ring = empty_ring(2, (1,)).push(torch.tensor([[1.0], [2.0], [3.0]]))
    >>> sorted(ring.rows.flatten().tolist()), ring.full
    ([2.0, 3.0], True)

    Raises ValueError unless it has room for a row.
    """
    if size < 1:
        raise ValueError(f"queue size: expected at least 1 row, got {size}")
    return Ring(torch.zeros(size, *shape, device=device), torch.zeros((), dtype=torch.int64))
