"""One more batch in the prototype bank, and the prototypes (eq. 3): its time should not grow with the bank.

And what the bank keeps: batches have few of the classes, so that tables of all of them would be zeros mostly.

Shape legend: T batches in the bank, C = 342 classes, D = 256 channels.
"""

from collections import deque
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import cycle, islice
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate, Run
from benchmarks.peers import peer
from mdp.core.prototype_bank import ClassSums, PrototypeBank, empty_bank, prototypes, push

CLASSES = 342
CHANNELS = 256
PRESENT = 60  # classes in a batch
LARGEST_COPIED = 512  # T of the largest bank that is worth copying in each step


def cases() -> dict[str, Callable[[], Case]]:
    """By T."""
    steps = {f"T={size}": partial(_case, size) for size in (128, 512, 2048)}
    return {**steps, **{f"kept, T={size}": partial(_kept, size) for size in (512, 2048)}}


def _case(size: int) -> Case:
    entries = [
        Entry("push + prototypes", "ours", _ours(size)),
        Entry("a dense (T, C, D) ring, summed", "plain", _dense(size)),
        Entry("reading and writing the sums once", "floor", _floor()),
    ]
    if size <= LARGEST_COPIED:
        module = "lightly.models.modules.memory_bank"
        entries.append(peer("MemoryBankModule, summed", module, partial(_lightly, size), exact=False))
    gates = [Gate("plain", 30.0)] if size >= 512 else []
    if size > 128:
        entries.append(Entry("T=128", "ours", _ours(128), exact=False))
        gates.append(Gate("T=128", at_most=1.25))
    return Case(
        "bank", f"T={size}, {PRESENT} of {CLASSES} classes a batch", tuple(entries), tuple(gates), partial(_exact, size)
    )


def _kept(size: int) -> Case:
    entries = (
        Entry("a full bank", "ours", partial(_full, size)),
        Entry("a table of all classes for each batch", "plain", partial(_full_of_tables, size)),
    )
    gates = (Gate("plain", 4.5, what="memory"),)
    label = f"kept after {size + size // 4} pushes, T={size}, {PRESENT} of {CLASSES} classes a batch"
    return Case("bank", label, entries, gates, partial(_last, size))


@cache
def _batches() -> tuple[ClassSums, ...]:
    """The class sums that are pushed, in turn."""
    rng = inputs.rng_of(1)
    found = []
    for _ in range(8):
        some = torch.randperm(CLASSES, generator=rng)[:PRESENT]
        counts = torch.zeros(CLASSES, dtype=torch.int64)
        counts[some] = torch.randint(1, 6, (PRESENT,), generator=rng)
        sums = torch.randn(CLASSES, CHANNELS, generator=rng) * counts[:, None]
        found.append(ClassSums(sums, counts))
    return tuple(found)


def _filled(size: int) -> list[ClassSums]:
    """T entries with memory of their own, as a run would have them."""
    batches = _batches()
    return [ClassSums(*(t.clone() for t in batches[i % len(batches)])) for i in range(size)]


def _total(window: list[ClassSums]) -> ClassSums:
    sums = torch.zeros(CLASSES, CHANNELS, dtype=torch.float64)
    for entry in window:
        sums += entry.sums
    return ClassSums(sums, torch.stack([entry.counts for entry in window]).sum(0))


def _ours(size: int) -> Run:
    pushed = cycle(_batches())
    held: list[PrototypeBank] = []  # made by the first call, so that a process has only the bank that it measures

    def run() -> Tensor:
        if not held:
            bank = empty_bank(CLASSES, CHANNELS, size)
            for sums in _filled(size):
                bank = push(bank, sums)
            held.append(bank)
        held[0] = push(held[0], next(pushed))
        return prototypes(held[0]).vectors

    return run


def _pushed(size: int) -> Iterator[ClassSums]:
    """A quarter more batches than the bank has room for, each with memory of its own."""
    return (ClassSums(*(part.clone() for part in batch)) for batch in islice(cycle(_batches()), size + size // 4))


class Filled(NamedTuple):
    """What a run gives: its prototypes are compared, its bank is only kept while memory is looked at."""

    vectors: Tensor
    bank: Callable[[], object]


def _full(size: int) -> Filled:
    bank = empty_bank(CLASSES, CHANNELS, size)
    for batch in _pushed(size):
        bank = push(bank, batch)
    return Filled(prototypes(bank).vectors, lambda: bank)


def _full_of_tables(size: int) -> Filled:
    kept: deque[ClassSums] = deque()
    sums = torch.zeros(CLASSES, CHANNELS, dtype=torch.float64)
    counts = torch.zeros(CLASSES, dtype=torch.int64)
    for batch in _pushed(size):
        kept.append(batch)
        sums, counts = sums + batch.sums.double(), counts + batch.counts
        if len(kept) > size:
            gone = kept.popleft()
            sums, counts = sums - gone.sums.double(), counts - gone.counts
    return Filled(F.normalize((sums / counts.clamp(min=1)[:, None]).float(), dim=1), lambda: kept)


def _last(size: int) -> tuple[Tensor]:
    """Prototypes of the batches that are left."""
    kept = list(islice(cycle(_batches()), size + size // 4))[-size:]
    total = _total(kept)
    return (F.normalize(total.sums / total.counts.clamp(min=1)[:, None], dim=1),)


def _dense(size: int) -> Run:
    pushed = cycle(_batches())
    held: list[tuple[Tensor, Tensor]] = []
    place = cycle(range(size))

    def run() -> Tensor:
        if not held:
            window = _filled(size)
            held.append((torch.stack([e.sums for e in window]), torch.stack([e.counts for e in window])))
        (sums, counts), batch, i = held[0], next(pushed), next(place)
        sums[i], counts[i] = batch
        return F.normalize(sums.sum(0) / counts.sum(0).clamp(min=1)[:, None], dim=1)

    return run


def _lightly(size: int, module: ModuleType) -> Run:
    """Rows of sums and counts; it gives the bank as it was before the batch."""
    pushed = cycle([torch.cat([b.sums, b.counts[:, None].float()], 1) for b in _batches()])
    held: list[Callable[..., tuple[Tensor, Tensor]]] = []

    def run() -> Tensor:
        if not held:
            held.append(module.MemoryBankModule(size=(size * CLASSES, CHANNELS + 1), feature_dim_first=False))
        _, rows = held[0](next(pushed), update=True)
        total = rows.view(size, CLASSES, -1).sum(0)
        return F.normalize(total[:, :-1] / total[:, -1:].clamp(min=1), dim=1)

    return run


def _floor() -> Run:
    total = torch.zeros(CLASSES, CHANNELS, dtype=torch.float64)
    sums = _batches()[0].sums
    return lambda: total.add_(sums)


def _exact(size: int) -> tuple[Tensor]:
    """After the first push."""
    batches = _batches()
    total = _total([*_filled(size)[1:], batches[0]])
    return (F.normalize(total.sums / total.counts.clamp(min=1)[:, None], dim=1),)
