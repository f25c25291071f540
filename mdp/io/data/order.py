"""Which image comes when: a function of the seed and the step."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mdp.io.data.pool import Key

# Order


def epoch_order(seed: int, epoch: int, sizes: Sequence[int], balance: bool = False) -> NDArray[np.int64]:
    """The sample indices of one epoch, as many as there are samples.

    A permutation of the union (the paper's uniform sampling); with `balance` every dataset fills an equal share,
    small ones repeating, large ones taking turns over the epochs.

    >>> epoch_order(0, 0, [1, 3], balance=True).tolist().count(0)
    2
    """
    rng = np.random.default_rng([seed, epoch])
    total, starts = sum(sizes), np.cumsum([0, *sizes[:-1]])
    if not balance:
        return rng.permutation(total)
    shares = [total // len(sizes) + (i < total % len(sizes)) for i in range(len(sizes))]
    parts = []
    for i, (size, start, share) in enumerate(zip(sizes, starts, shares, strict=True)):
        positions = np.arange(epoch * share, (epoch + 1) * share)  # positions in this dataset's own endless stream
        rounds = {r: np.random.default_rng([seed, i, int(r)]).permutation(size) for r in np.unique(positions // size)}
        parts.append(np.array([start + rounds[position // size][position % size] for position in positions]))
    return rng.permutation(np.concatenate(parts))


def epoch_batches(
    seed: int, sizes: Sequence[int], batch: int, balance: bool, start: int, steps: int
) -> Iterator[list[Key]]:
    """The keys of steps start .. steps - 1 in epochs of whole batches; an epoch's last incomplete batch is dropped.

    With `balance` a small dataset repeats within an epoch: its images are keyed by their position in the run
    instead, so that each repeat has draws of its own.
    """
    length = sum(sizes) // batch
    order, current = np.empty(0, dtype=np.int64), -1
    for step in range(start, steps):
        epoch, position = divmod(step, length)
        if epoch != current:
            order, current = epoch_order(seed, epoch, sizes, balance), epoch
        chosen = order[position * batch : (position + 1) * batch].tolist()
        yield [(step * batch + i if balance else epoch, index) for i, index in enumerate(chosen)]


def stream_batches(seed: int, size: int, batch: int, start: int, steps: int) -> Iterator[list[Key]]:
    """The keys of steps start .. steps - 1 cut from an endless stream of epochs, none of it dropped.

    With fewer samples than a batch holds, a batch repeats samples, each with draws of its own.
    """
    orders: dict[int, NDArray[np.int64]] = {}
    for step in range(start, steps):
        keys = []
        for position in range(step * batch, (step + 1) * batch):
            epoch = position // size
            if epoch not in orders:
                orders = {e: o for e, o in orders.items() if e >= epoch - 1}  # those that are over are not asked again
                orders[epoch] = epoch_order(seed, epoch, [size])
            keys.append((epoch, int(orders[epoch][position % size])))
        yield keys


def drawn_batches(seed: int, chances: NDArray[np.float64], batch: int, start: int, steps: int) -> Iterator[list[Key]]:
    """The keys of steps start .. steps - 1, every image drawn anew by the samples' chances, which add up to 1.

    Each position in the run has draws of its own.
    """
    bounds = np.cumsum(chances)
    for step in range(start, steps):
        draws = np.random.default_rng([seed, step]).random(batch) * bounds[-1]
        # a draw is below the last bound, so that an image of chance 0 is never found
        chosen = np.searchsorted(bounds, draws, side="right").tolist()
        yield [(step * batch + i, index) for i, index in enumerate(chosen)]
