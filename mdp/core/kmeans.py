"""k-means in bounded memory: the rows come in parts, and all restarts go over them together.

Lloyd's iterations (1982).  With R restarts in lockstep the rows are read once an iteration and not R times; the
assignment is one product, `|c|^2 / 2 - x c` being smallest.  Every answer is a function of rows and starts alone: of
equally near centres the first is taken, and parts are summed in their order.
Shape legend: N rows, D channels, K clusters, R restarts.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_SCORES = 2**17  # of a block of rows: half a MiB stays in a core's cache, and twice as much takes as long again
_ROWS = 256  # of a block at the least: many centres are read once for so many
_SHIFT = 1 / 1024  # how far the halves of a divided cluster are moved apart, in parts of each channel; faiss's


class Clusters(NamedTuple):
    """The outcome of each restart."""

    centres: Tensor  # (R, K, D)
    inertia: Tensor  # (R,) float64: the sum of squared distances to the nearest centre
    counts: Tensor  # (R, K) int64: the rows that are nearest to each centre

    @property
    def best(self) -> Tensor:
        """The centres (K, D) of the restart with the least inertia."""
        return self.centres[int(self.inertia.argmin())]


def random_starts(rng: torch.Generator, count: int, clusters: int, restarts: int) -> Tensor:
    """Which of `count` rows the restarts begin at, (R, K) int64: different rows in each.

    Raises ValueError when there are fewer rows than clusters.
    """
    _expect(count, clusters)
    return torch.stack([torch.randperm(count, generator=rng)[:clusters] for _ in range(restarts)])


def spread_starts(rng: torch.Generator, rows: Tensor, clusters: int) -> Tensor:
    """Which of rows (N, D) to begin at, (K,) int64, each far from those before it (k-means++, Arthur 2007).

    A row is drawn with a probability in proportion to its squared distance from the nearest one so far.  Raises
    ValueError when there are fewer rows than clusters.
    """
    _expect(len(rows), clusters)
    chosen = [int(torch.randint(len(rows), (), generator=rng))]
    away = torch.full((len(rows),), torch.inf, dtype=torch.float64, device=rows.device)
    for _ in range(1, clusters):
        away = torch.minimum(away, (rows - rows[chosen[-1]]).double().square().sum(1))
        away[chosen] = 0
        share = torch.rand((), generator=rng, dtype=torch.float64)
        if bool(away.sum() > 0):
            place = int(torch.searchsorted(away.cumsum(0), float(share) * float(away.sum()), right=True))
        else:  # all that are left equal one that was chosen
            place = next(index for index in range(len(rows)) if index not in chosen)
        chosen.append(min(place, len(rows) - 1))
    return torch.tensor(chosen)


def _expect(rows: int, clusters: int) -> None:
    if not 1 <= clusters <= rows:
        raise ValueError(f"clusters: expected 1 to {rows}, as many as there are rows at the most, got {clusters}")


def nearest_centres(rows: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Of rows (N, D) the nearest of centres (R, K, D) and the squared distance to it: (R, N) int64 and float64.

    >>> nearest_centres(torch.tensor([[0.0], [5.0]]), torch.tensor([[[1.0], [4.0]]]))[0].tolist()
    [[0, 1]]
    """
    best, numbers = _highest(rows, *_products(centres))
    squares = rows.double().square().sum(1) - 2 * best.double()  # (R, N)
    return numbers, squares.clamp(min=0)


def _products(centres: Tensor) -> tuple[Tensor, Tensor]:
    """The centres (R, K, D), and half of their squared lengths (R, K), less than which a product is to be."""
    return centres, centres.square().sum(2) / 2


def _highest(rows: Tensor, centres: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The largest product of rows (N, D) with a centre less half its squared length, and whose: (R, N) each."""
    restarts, clusters, channels = centres.shape
    scores = torch.addmm(-lengths.flatten(), rows, centres.reshape(-1, channels).T)  # (N, R K)
    best = scores.view(-1, restarts, clusters).max(2)  # (N, R)
    return best.values.T, best.indices.T.contiguous()


def kmeans(parts: Callable[[], Iterable[Tensor]], starts: Tensor, iterations: int) -> Clusters:
    """Clusters of the rows that `parts` gives again for every pass, each part (N', D), from starts (R, K, D).

    Ends early where an iteration moves no centre of any restart.  An empty cluster takes half of the largest one: both
    have its centre, shifted a little apart.  Holds one part, the centres and half a MiB of scores, or 256 rows of them.

    >>> rows = torch.tensor([[0.0], [1.0], [9.0], [11.0]])
    >>> kmeans(lambda: [rows[:3], rows[3:]], rows[None, :2], 10).best.flatten().tolist()
    [0.5, 10.0]
    """
    centres = starts.clone()
    for _ in range(iterations):
        moved = advance(parts, centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return clusters_of(parts, centres)


def advance(parts: Callable[[], Iterable[Tensor]], centres: Tensor) -> Tensor:
    """The centres (R, K, D) after an iteration: all that the next one depends on, so that it can be gone on with."""
    sums, counts = torch.zeros_like(centres), _no_counts(centres)
    for rows, _, numbers in _blocks(parts, centres):
        for restart, own in enumerate(numbers):
            sums[restart].index_add_(0, own, rows)
            counts[restart] += torch.bincount(own, minlength=centres.shape[1])
    return _divided(torch.where(counts[..., None] > 0, sums / counts.clamp(min=1)[..., None], 0.0), counts)


def clusters_of(parts: Callable[[], Iterable[Tensor]], centres: Tensor) -> Clusters:
    """What the clusters around centres (R, K, D) hold."""
    counts = _no_counts(centres)
    inertia = torch.zeros(len(centres), dtype=torch.float64, device=centres.device)
    for rows, best, numbers in _blocks(parts, centres):
        for restart, own in enumerate(numbers):
            counts[restart] += torch.bincount(own, minlength=centres.shape[1])
        inertia += (rows.double().square().sum(1) - 2 * best.double()).clamp(min=0).sum(1)
    return Clusters(centres, inertia, counts)


def _no_counts(centres: Tensor) -> Tensor:
    return torch.zeros(centres.shape[:2], dtype=torch.int64, device=centres.device)


def _blocks(parts: Callable[[], Iterable[Tensor]], centres: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Rows (N', D), a few at a time, with the largest products of theirs and the centres' numbers, (R, N') each."""
    products = _products(centres)
    size = max(_ROWS, _SCORES // products[1].numel())
    for part in parts():
        for start in range(0, len(part), size):
            rows = part[start : start + size].to(centres.dtype)
            yield rows, *_highest(rows, *products)


def _divided(centres: Tensor, counts: Tensor) -> Tensor:
    """Centres (R, K, D) in which an empty cluster has half of the largest one, the first of equals."""
    divided, held = centres.clone(), counts.clone()
    for restart, cluster in (counts == 0).nonzero().tolist():
        largest = int(held[restart].argmax())
        signs = torch.ones(centres.shape[2], device=centres.device, dtype=centres.dtype)
        signs[1::2] = -1
        middle = divided[restart, largest].clone()
        divided[restart, cluster], divided[restart, largest] = (
            middle * (1 + _SHIFT * signs),
            middle * (1 - _SHIFT * signs),
        )
        held[restart, cluster] = held[restart, largest] // 2
        held[restart, largest] -= held[restart, cluster]
    return divided
