"""Sinkhorn's algorithm, swapped prediction, the ring that stands behind them, and the laws of SwAV."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mdp.core.batches import Batch
from mdp.core.clustering_loss import codes, swapped_loss
from mdp.core.methods import Data, Progress, swav
from mdp.core.networks import NetworkSettings
from mdp.core.photometry import PhotometrySettings
from mdp.core.processes import alone
from mdp.core.queues import Ring, empty_ring
from mdp.core.sinkhorn import sinkhorn
from mdp.core.views import two_views
from tests.laws import pure_call
from tests.tensors import rng_of, seeds

sizes = st.integers(1, 12)


def cosines(seed: int, rows: int, columns: int) -> Tensor:
    vectors = F.normalize(torch.randn(rows + columns, 8, generator=rng_of(seed)), dim=1)
    return vectors[:rows] @ vectors[rows:].T


def as_in_the_paper(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """SwAV's arithmetic: shares of one whole, transposed, in float64."""
    shares = (scores.double() / epsilon).exp().T
    shares /= shares.sum()
    for _ in range(iterations):
        shares /= shares.sum(1, keepdim=True) * len(shares)
        shares /= shares.sum(0, keepdim=True) * shares.shape[1]
    return (shares * shares.shape[1]).T


# Sinkhorn


@given(seeds, sizes, sizes, st.integers(1, 4))
@settings(max_examples=20)
def test_shares_are_those_of_the_papers_arithmetic_and_each_row_is_a_distribution(
    seed: int, rows: int, columns: int, iterations: int
) -> None:
    scores = cosines(seed, rows, columns)
    found = pure_call(sinkhorn, scores, 0.05, iterations)
    torch.testing.assert_close(found.double(), as_in_the_paper(scores, 0.05, iterations), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.sum(1), torch.ones(rows))
    shifted = sinkhorn(scores + 1, 0.05, iterations)  # adding to all scores changes nothing but the last digits
    torch.testing.assert_close(shifted, found, rtol=1e-3, atol=1e-5)


def test_with_many_turns_all_columns_are_used_alike() -> None:
    found = sinkhorn(cosines(0, 12, 5), 0.05, 300)
    torch.testing.assert_close(found.sum(0), torch.full((5,), 12 / 5), rtol=1e-3, atol=0)


def test_one_turn_by_hand() -> None:
    """exp(scores / epsilon) in proportion 1 2 / 3 4: columns over 4 and 6, then rows over 7/12 and 17/12."""
    scores = 0.05 * torch.tensor([[1.0, 2.0], [3.0, 4.0]]).log()
    torch.testing.assert_close(sinkhorn(scores, 0.05, 1), torch.tensor([[3 / 7, 4 / 7], [9 / 17, 8 / 17]]))


def test_opposite_cosines_at_the_smallest_epsilon_stay_finite() -> None:
    scores = torch.tensor([[1.0, -1.0], [1.0, -1.0], [0.9, -1.0]])
    found = sinkhorn(scores, 0.03, 3)
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(1), torch.ones(3))


# Codes and the loss


def test_codes_with_a_queue_are_the_last_rows_of_all_shares() -> None:
    earlier, scores = cosines(0, 7, 5), cosines(1, 3, 5)
    found = pure_call(codes, scores.requires_grad_(), earlier)
    assert torch.equal(found, sinkhorn(torch.cat([earlier, scores]))[7:])
    assert not found.requires_grad
    assert not torch.allclose(found, codes(scores))


@given(seeds, st.integers(2, 5), st.integers(1, 2))
@settings(max_examples=15)
def test_the_swapped_loss_is_the_mean_over_all_pairs_of_a_code_and_another_view(
    seed: int, views: int, count: int
) -> None:
    scores = torch.randn(views, 4, 6, generator=rng_of(seed))
    targets = torch.stack([codes(scores[view] / 10) for view in range(count)])
    found = pure_call(swapped_loss, targets, scores, 0.1)
    expected = [
        torch.stack([F.cross_entropy(scores[v] / 0.1, targets[i], reduction="none") for v in range(views) if v != i])
        for i in range(count)
    ]
    torch.testing.assert_close(found, torch.stack(expected).mean((0, 1)))


def test_with_two_views_swapping_them_changes_nothing_and_equal_scores_give_log_k() -> None:
    scores = cosines(0, 6, 5).view(2, 3, 5)
    targets = torch.stack([codes(view) for view in scores])
    assert torch.equal(swapped_loss(targets, scores, 0.1), swapped_loss(targets.flip(0), scores.flip(0), 0.1))
    torch.testing.assert_close(swapped_loss(targets, torch.zeros(2, 3, 5), 0.1), torch.full((3,), math.log(5)))
    with pytest.raises(ValueError, match="two views or more"):
        swapped_loss(targets[:1], scores[:1], 0.1)


# The ring


@given(st.integers(1, 6), st.lists(st.integers(1, 8), max_size=4))
@settings(max_examples=20)
def test_a_ring_holds_the_last_rows_and_says_when_it_is_full(size: int, counts: list[int]) -> None:
    ring, put = empty_ring(size, (2,)), 0
    for count in counts:
        rows = torch.arange(put + 1.0, put + count + 1)[:, None].expand(-1, 2)
        ring = pure_call(Ring.push, ring, rows)
        put += count
    held = sorted(ring.rows[:, 0].tolist())
    assert held == sorted([0.0] * (size - put) + [float(row) for row in range(max(1, put - size + 1), put + 1)])
    assert ring.full == (put >= size)


def test_a_ring_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 row"):
        empty_ring(0, (2,))


# SwAV

NETWORK = NetworkSettings(backbone="resnet18", width=8)
SMALL = swav.Settings(embedding=8, hidden=16, prototypes=6, frozen_steps=2, queue=8, queue_epoch=1, small_count=1)
DATA = Data(None, batch_size=4, epoch_batches=3, channels=64)  # type: ignore[arg-type]  # it knows no classes


def views(seed: int) -> list[Batch]:
    rng = rng_of(seed)
    return [Batch(torch.randn(4, 3, side, side, generator=rng), torch.empty(4, 0, 0)) for side in (64, 64, 32)]


def test_prototypes_stay_at_first_with_a_gradient_of_zeros_and_the_queue_begins_at_its_epoch() -> None:
    pair = swav.build(SMALL, NETWORK, DATA, rng_of(0))
    state = swav.initial_state(SMALL, DATA, rng_of(1), torch.device("cpu"))
    moved, rows, pushed = [], [], []
    for number in range(7):
        progress = Progress(number, 7, 3)
        ready = swav.prepare(pair, state, views(number), SMALL, rng_of(2), alone(4), progress)
        found = swav.loss(pair, ready.shared, ready.parts, SMALL, alone(4))
        pair.query.zero_grad()
        found.value.backward()  # type: ignore[no-untyped-call]
        state = swav.remember(ready.state, found.kept, SMALL, alone(4), {})
        assert pair.query.prototypes.weight.grad is not None
        moved.append(bool(pair.query.prototypes.weight.grad.any()))
        rows.append(int(ready.metrics["queue_rows"]))
        assert state is not None
        pushed.append(int(state.pushed))
    assert moved == [False, False, True, True, True, True, True]
    assert pushed == [0, 0, 0, 4, 8, 12, 16]  # an epoch is three steps
    assert rows == [0, 0, 0, 0, 0, 8, 8]  # it counts once it was full before the step


def test_the_head_sees_the_views_of_all_sizes_as_one_batch() -> None:
    pair = swav.build(SMALL, NETWORK, DATA, rng_of(0))
    large, small = torch.cat([view.images for view in views(0)[:2]]), views(0)[2].images
    found = pair.query((large, small))
    assert (found.embeddings.shape, found.scores.shape) == ((12, 8), (12, 6))
    alone_ = pair.query((large,)).embeddings
    assert not torch.allclose(found.embeddings[:8], alone_)  # whose normalisation has no small views
    pair.query.eval()
    torch.testing.assert_close(pair.query((large, small)).embeddings[:8], pair.query((large,)).embeddings)


def test_settling_gives_the_prototypes_length_one_and_their_direction() -> None:
    pair = swav.build(SMALL, NETWORK, DATA, rng_of(0))
    before = pair.query.prototypes.weight.detach().clone()
    swav.settle_(pair, SMALL)
    torch.testing.assert_close(pair.query.prototypes.weight.detach(), F.normalize(before, dim=1))


def test_its_views_are_two_large_ones_and_small_ones() -> None:
    plan = swav.view_plan(SMALL, two_views(32, (0.2, 1.0), PhotometrySettings(hue=0.2)))
    assert (plan.sizes, plan.photometry.hue) == ((224, 224, 96), 0.2)
    assert swav.view_plan(swav.Settings(), plan).sizes == (224, 224)
    with pytest.raises(ValueError, match="small_area"):
        swav.Settings(small_area=(0.5, 0.1))
