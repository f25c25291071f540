"""k-means of rows that come in parts, restarts in lockstep: a restart's time beside libraries that hold all rows.

Shape legend: N rows, D channels, K clusters, R restarts.
"""

from collections.abc import Callable
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate, Run
from benchmarks.peers import peer
from mdp.core.kmeans import kmeans, random_starts

CLUSTERS, ITERATIONS, RESTARTS = 50, 5, 4
FLOATS = 2**22  # of a part's scores, as `mdp luss cluster` takes it


def cases() -> dict[str, Callable[[], Case]]:
    """ImageNet-S50's features in small, and as many as a third of them are."""
    return {f"N={rows} D={channels} K={CLUSTERS}": partial(_case, rows, channels)
            for rows, channels in ((4096, 128), (21504, 512))}  # fmt: skip


def _case(count: int, channels: int) -> Case:
    rng = inputs.rng_of(3)
    centres = torch.randn(CLUSTERS, channels, generator=rng)
    rows = centres[torch.randint(CLUSTERS, (count,), generator=rng)] + torch.randn(count, channels, generator=rng)
    starts = rows[random_starts(rng, count, CLUSTERS, RESTARTS)]  # (R, K, D)
    size = FLOATS // (RESTARTS * CLUSTERS)
    entries = (
        Entry(
            f"{RESTARTS} restarts together",
            "ours",
            lambda: kmeans(lambda: torch.split(rows, size), starts, ITERATIONS).centres,
        ),
        peer(f"KMeans, {RESTARTS} times", "sklearn.cluster", partial(_sklearn, rows, starts)),
        peer(
            f"Kmeans, {RESTARTS} times", "faiss", partial(_faiss, rows, starts), exact=False
        ),  # it samples no rows here
        Entry(f"{RESTARTS} restarts one after the other", "plain", lambda: _plain(rows, starts)),
        Entry("the products", "floor", lambda: _products(rows, starts, size)),
    )
    gates = (
        Gate("best peer", at_least=1 / 1.1),
        Gate("floor", at_most=1.5),
        Gate("floor", at_most=2.0, what="memory"),  # a part and its scores
    )
    large = count > 2**14  # small rows are quick in all, and calls of torch are what ours takes
    size_words = f"N={count} D={channels} K={CLUSTERS}, {ITERATIONS} iterations"
    return Case(
        "k-means", size_words, entries, gates if large else (), lambda: (_plain(rows.double(), starts.double()),)
    )


def _plain(rows: Tensor, starts: Tensor) -> Tensor:
    """Lloyd's iterations on all rows at once."""
    found = []
    for start in starts:
        centres = start
        for _ in range(ITERATIONS):
            own = torch.cdist(rows, centres).argmin(1)
            sums = torch.zeros_like(centres).index_add_(0, own, rows)
            centres = sums / torch.bincount(own, minlength=len(centres))[:, None]
        found.append(centres)
    return torch.stack(found)


def _products(rows: Tensor, starts: Tensor, size: int) -> None:
    flat = starts.flatten(0, 1).T.contiguous()
    for _ in range(ITERATIONS + 1):
        for part in torch.split(rows, size):
            part @ flat


def _sklearn(rows: Tensor, starts: Tensor, module: ModuleType) -> Run:
    data = rows.numpy()

    def run() -> Tensor:
        made = [
            module.KMeans(
                CLUSTERS, init=start.numpy(), n_init=1, max_iter=ITERATIONS, tol=0, algorithm="lloyd", copy_x=False
            )
            for start in starts
        ]
        return torch.stack([torch.from_numpy(one.fit(data).cluster_centers_) for one in made])

    return run


def _faiss(rows: Tensor, starts: Tensor, module: ModuleType) -> Run:
    data = rows.numpy()

    def run() -> Tensor:
        found = []
        for start in starts:
            own = module.Kmeans(data.shape[1], CLUSTERS, niter=ITERATIONS, max_points_per_centroid=len(data))
            own.train(data, init_centroids=start.numpy())
            found.append(torch.from_numpy(own.centroids))
        return torch.stack(found)

    return run
