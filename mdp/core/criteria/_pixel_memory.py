"""The memory of the pixel contrast: regions and pixels of earlier steps, and prototypes of a pretraining run.

Shape legend: B images, C classes, D embedding channels, V pixels of an image's class, R valid rows, S prototypes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mdp.core.labels import IGNORE
from mdp.core.processes import Processes, taken
from mdp.core.queues import ClassQueues, empty_queues, enqueue_classes, enqueue_rows


class Memory(NamedTuple):
    """What anchors are contrasted with besides each other; a memory that there is not is None."""

    classes: int  # C
    regions: ClassQueues | None  # the means of classes in images
    pixels: ClassQueues | None
    sources: Tensor  # (S, D) prototypes of a pretraining run, of unit length
    related: Tensor  # (C, S) bool: of which classes they are positives


class Entries(NamedTuple):
    """The valid rows of a memory, one after the other; the prototypes last."""

    rows: Tensor  # (R, D) of unit length
    labels: Tensor  # (R,) int64, `IGNORE` for prototypes; on the CPU


class Kept(NamedTuple):
    """What images give to the memory, a row for each; None where there is no such memory."""

    means: Tensor | None  # (B, C, D) of unit length
    present: Tensor | None  # (B, C) bool
    rows: Tensor | None  # (B, C, V, D)
    drawn: Tensor | None  # (B, C, V) bool


def empty_memory(chosen: Sequence[str], classes: int, size: int, channels: int, device: torch.device) -> Memory:
    """A memory of the `chosen` of regions and pixels that holds nothing."""

    def empty(name: str) -> ClassQueues | None:
        return empty_queues(classes, size, channels, device) if name in chosen else None

    related = torch.zeros(classes, 0, dtype=torch.bool, device=device)
    return Memory(classes, empty("regions"), empty("pixels"), torch.zeros(0, channels, device=device), related)


def entries(memory: Memory, pushed: Sequence[Tensor]) -> Entries:
    """What the memory holds; how many rows were `pushed` (C,) into each of its queues is known on the CPU."""
    rows, labels = [], []
    for queues, count in zip(held(memory), pushed, strict=True):
        classes, size, _ = queues.rows.shape
        there = torch.arange(size) < count[:, None]  # (C, Q)
        labels.append(torch.arange(classes)[:, None].expand(-1, size)[there])
        every = queues.rows.flatten(0, 1)
        # full rings, which are large, are not copied for this
        full = len(labels[-1]) == len(every)
        rows.append(every if full else taken(every, there.flatten().nonzero().flatten()))
    nothing = torch.full((len(memory.sources),), IGNORE)
    return Entries(torch.cat([*rows, memory.sources]), torch.cat([*labels, nothing]))


def held(memory: Memory) -> list[ClassQueues]:
    """The queues that there are."""
    return [queues for queues in (memory.regions, memory.pixels) if queues is not None]


def known_classes(memory: Memory) -> Tensor:
    """Of which classes there is anything, (C,) bool."""
    found = memory.related.any(1)
    for queues in (memory.regions, memory.pixels):
        found = found if queues is None else found | (queues.pushed > 0)
    return found


def filled_up(memory: Memory, kept: Kept, processes: Processes) -> Memory:
    """The memory with what the images of all processes give, in their order."""
    everyone: list[Any] = [None if own is None else processes.gather(own) for own in kept]
    means, present, rows, drawn = everyone
    regions, pixels = memory.regions, memory.pixels
    if regions is not None:
        regions = enqueue_classes(regions, means, present)
    if pixels is not None:
        if drawn.is_cuda:  # where only those that are drawn would have to be waited for
            numbers = torch.arange(memory.classes, device=drawn.device)[:, None]  # (C, 1)
            pixels = enqueue_rows(pixels, rows.flatten(0, 2), torch.where(drawn, numbers, IGNORE).flatten())
        else:
            pixels = enqueue_rows(pixels, rows[drawn], drawn.nonzero()[:, 1])
    return memory._replace(regions=regions, pixels=pixels)


def pack_memory(memory: Memory) -> dict[str, Tensor]:
    """The memory as named tensors."""
    named = {"regions": memory.regions, "pixels": memory.pixels}
    sources = {"sources": memory.sources, "related": memory.related} if len(memory.sources) else {}
    return sources | {
        f"{name}.{key}": tensor
        for name, queues in named.items()
        if queues is not None
        for key, tensor in queues._asdict().items()
    }


def unpack_memory(tensors: Mapping[str, Tensor], empty: Memory) -> Memory:
    """The memory that `pack_memory` packed; `empty` is one like it that holds nothing."""

    def queues(name: str) -> ClassQueues | None:
        return ClassQueues(tensors[f"{name}.rows"], tensors[f"{name}.pushed"]) if f"{name}.rows" in tensors else None

    sources, related = tensors.get("sources", empty.sources), tensors.get("related", empty.related)
    return Memory(empty.classes, queues("regions"), queues("pixels"), sources, related)
