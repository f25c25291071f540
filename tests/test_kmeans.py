"""k-means in parts and in lockstep: scipy's from the same start, laws, hand values, and clusters that run empty."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdp.core.kmeans import advance, clusters_of, kmeans, nearest_centres, random_starts, spread_starts
from tests.laws import pure_call
from tests.tensors import rng_of, seeds


def parts_of(rows: Tensor, size: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: rows.split(size)


def blobs(rng: torch.Generator, clusters: int, each: int, channels: int) -> Tensor:
    """Rows around centres that are far apart."""
    centres = 20 * torch.randn(clusters, channels, generator=rng)
    return (centres[:, None] + torch.randn(clusters, each, channels, generator=rng)).flatten(0, 1)


@given(seeds, st.integers(1, 5), st.integers(1, 4), st.integers(1, 9))
def test_from_the_same_start_the_centres_are_scipys(seed: int, clusters: int, channels: int, iterations: int) -> None:
    vq = pytest.importorskip("scipy.cluster.vq")
    rng = rng_of(seed)
    rows = torch.randn(40, channels, generator=rng)
    start = rows[random_starts(rng, len(rows), clusters, 1)[0]]
    found = kmeans(parts_of(rows, 7), start[None], iterations)
    exact = rows.double().numpy()
    expected = start.double().numpy()
    for _ in range(iterations):
        labels, distances = vq.vq(exact, expected)
        expected = np.stack([exact[labels == k].mean(0) for k in range(clusters)])
    labels, distances = vq.vq(exact, expected)
    np.testing.assert_allclose(found.best.numpy(), expected, rtol=1e-4, atol=1e-4)
    assert float(found.inertia[0]) == pytest.approx(float((distances**2).sum()), rel=1e-3, abs=1e-3)
    assert found.counts[0].tolist() == np.bincount(labels, minlength=clusters).tolist()


@given(seeds, st.integers(1, 30))
def test_restarts_side_by_side_in_any_parts_are_those_one_after_the_other(seed: int, size: int) -> None:
    rng = rng_of(seed)
    rows = blobs(rng, 3, 10, 2)
    starts = rows[random_starts(rng, len(rows), 3, 4)]
    together = kmeans(parts_of(rows, size), starts, 5)
    for restart in range(4):
        alone = kmeans(parts_of(rows, len(rows)), starts[restart : restart + 1], 5)
        torch.testing.assert_close(together.centres[restart], alone.centres[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(together.inertia[restart], alone.inertia[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(kmeans(parts_of(rows, size), starts, 5).centres, together.centres)  # the same bits again
    again = nearest_centres(rows, together.best[None])[1].sum()
    torch.testing.assert_close(again, together.inertia.min(), rtol=1e-4, atol=1e-4)


@given(seeds, st.integers(1, 8))
def test_more_iterations_are_never_worse_and_a_fixed_point_stays(seed: int, iterations: int) -> None:
    rng = rng_of(seed)
    rows = torch.randn(30, 3, generator=rng, dtype=torch.float64)
    starts = rows[random_starts(rng, len(rows), 4, 2)]
    found = [kmeans(parts_of(rows, 30), starts, count) for count in (0, iterations, 60)]
    for before, after in itertools.pairwise(found):
        assert (after.inertia <= before.inertia + 1e-9).all()
    assert torch.equal(kmeans(parts_of(rows, 30), found[-1].centres, 1).centres, found[-1].centres)


def test_a_cluster_that_runs_empty_takes_half_of_the_largest() -> None:
    rows = torch.tensor([[0.0, 8.0], [1.0, 8.0], [2.0, 8.0], [100.0, 8.0]])
    starts = torch.tensor([[[1.0, 8.0], [100.0, 8.0], [5000.0, 8.0]]])
    one = kmeans(parts_of(rows, 4), starts, 1).centres[0]
    low, high = 1 - 1 / 1024, 1 + 1 / 1024
    torch.testing.assert_close(one, torch.tensor([[low, 8 * high], [100.0, 8.0], [high, 8 * low]]))
    found = kmeans(parts_of(rows, 4), starts, 10)
    assert (found.counts > 0).all()
    assert found.counts.sum() == 4


def test_the_first_of_equally_near_centres_is_taken() -> None:
    labels, squares = nearest_centres(torch.tensor([[1.0], [3.0]]), torch.tensor([[[0.0], [2.0], [4.0]]]))
    assert labels.tolist() == [[0, 1]]
    assert squares.tolist() == [[1.0, 1.0]]


@given(seeds, st.integers(1, 6), st.integers(0, 6), st.integers(1, 3))
def test_restarts_begin_at_different_rows(seed: int, clusters: int, more: int, restarts: int) -> None:
    starts = pure_call(random_starts, rng_of(seed), clusters + more, clusters, restarts)
    assert starts.shape == (restarts, clusters)
    assert all(len({*row}) == clusters and max(row) < clusters + more for row in starts.tolist())


@given(seeds, st.integers(2, 6))
def test_spread_starts_are_in_different_blobs(seed: int, clusters: int) -> None:
    rng = rng_of(seed)
    centres = 1e4 * torch.eye(clusters)
    rows = (centres[:, None] + torch.randn(clusters, 5, clusters, generator=rng)).flatten(0, 1)
    chosen = pure_call(spread_starts, rng, rows, clusters)
    assert sorted(index // 5 for index in chosen.tolist()) == list(range(clusters))


def test_spread_starts_of_equal_rows_are_different_ones() -> None:
    assert sorted(spread_starts(rng_of(0), torch.ones(4, 2), 4).tolist()) == [0, 1, 2, 3]


def test_more_clusters_than_rows_are_refused() -> None:
    for ask in (lambda: random_starts(rng_of(0), 3, 4, 1), lambda: spread_starts(rng_of(0), torch.zeros(3, 1), 4)):
        with pytest.raises(ValueError, match="clusters: expected 1 to 3, as many as there are rows at the most, got 4"):
            ask()


@given(seeds, st.integers(0, 4))
def test_centres_are_all_that_the_next_iterations_depend_on(seed: int, stopped: int) -> None:
    rng = rng_of(seed)
    rows = blobs(rng, 3, 8, 2)
    starts = rows[random_starts(rng, len(rows), 3, 2)]
    whole = kmeans(parts_of(rows, 5), starts, 4)
    centres = starts
    for _ in range(stopped):
        centres = pure_call(advance, parts_of(rows, 5), centres)
    again = kmeans(parts_of(rows, 5), centres, 4 - stopped)
    assert torch.equal(again.centres, whole.centres)
    assert torch.equal(clusters_of(parts_of(rows, 5), again.centres).inertia, whole.inertia)
