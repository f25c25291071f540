"""Nearest neighbours in a memory, and the loss that pulls to them: laws, hand values, float64 references."""

import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mdp.core import contrast
from mdp.core.contrast import instance_nce, neighbour_nce
from mdp.core.neighbours import nearest, nearest_of_parts, vote
from mdp.core.queues import AlignedQueues, noise_queue
from tests.laws import pure_call
from tests.tensors import rng_of, seeds


class Case(NamedTuple):
    """Queries with their keys, and a memory that they have neighbours in."""

    queries: Tensor
    keys: Tensor
    queues: AlignedQueues
    features: Tensor
    k: int
    rng: torch.Generator


def unit(rng: torch.Generator, rows: int, channels: int) -> Tensor:
    return F.normalize(torch.randn(rows, channels, generator=rng), dim=1)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rng, rows, size = rng_of(draw(seeds)), draw(st.integers(1, 9)), draw(st.integers(1, 12))
    channels, wide = draw(st.integers(2, 5)), draw(st.integers(2, 6))
    queues = AlignedQueues(unit(rng, size, channels), unit(rng, size, wide))
    return Case(
        unit(rng, rows, channels), unit(rng, rows, channels), queues, unit(rng, rows, wide),
        draw(st.integers(1, size)), rng,
    )  # fmt: skip


@given(cases(), st.integers(1, 4))
def test_neighbours_are_those_of_a_sort_whatever_the_size_of_the_parts(case: Case, part: int) -> None:
    similarity, places = pure_call(nearest, case.features, case.queues.features, case.k, part)
    everything = case.features.double() @ case.queues.features.double().T
    expected = everything.sort(dim=1, descending=True).values[:, : case.k]
    torch.testing.assert_close(similarity.double(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(everything.gather(1, places), expected, rtol=0, atol=1e-6)
    assert all(len({*row}) == case.k for row in places.tolist())


@given(cases(), st.integers(1, 5))
def test_a_bank_in_parts_has_the_neighbours_of_the_whole(case: Case, size: int) -> None:
    bank, k = case.queues.features, case.k
    parts = list(zip((10 * torch.arange(len(bank))).split(size), bank.split(size), strict=True))
    empty = (torch.empty(0, dtype=torch.int64), bank[:0])
    similarity, numbers = pure_call(nearest_of_parts, case.features, [empty, *parts], k)
    expected, places = nearest(case.features, bank, k)
    torch.testing.assert_close(similarity, expected, rtol=0, atol=1e-6)
    products = case.features @ bank.T
    torch.testing.assert_close(products.gather(1, numbers // 10), products.gather(1, places), rtol=0, atol=1e-6)
    assert nearest_of_parts(case.features, parts, len(bank) + 3)[0].shape == (len(case.features), len(bank))


@given(cases())
def test_neighbours_do_not_depend_on_the_length_of_a_query(case: Case) -> None:
    _, places = nearest(case.features, case.queues.features, 1)
    _, longer = nearest(case.features * 8, case.queues.features, 1)  # a power of two: the same bits
    assert torch.equal(places, longer)


def test_more_neighbours_than_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="a row of the bank for each neighbour"):
        nearest(torch.zeros(2, 3), torch.zeros(4, 3), 5)
    with pytest.raises(ValueError, match="as many channels"):
        nearest(torch.zeros(2, 3), torch.zeros(4, 2), 1)


@given(cases(), st.floats(0.05, 1))
def test_both_losses_and_their_gradients_are_those_of_explicit_sums_in_float64(case: Case, temperature: float) -> None:
    _, places = nearest(case.features, case.queues.features, case.k)
    found = pure_call(neighbour_nce, case.queries, case.keys, case.queues.keys, places, temperature)
    exact = case.queries.double().requires_grad_()
    logits = exact @ case.queues.keys.double().T / temperature
    positive = (exact * case.keys.double()).sum(1, keepdim=True) / temperature
    instances = -torch.cat([positive, logits], 1).log_softmax(1)[:, 0].sum()
    neighbours = -logits.log_softmax(1).gather(1, places).mean(1).sum()
    expected = torch.stack([instances, neighbours])
    torch.testing.assert_close(torch.stack(found[:2]).double(), expected, rtol=1e-5, atol=1e-5)
    assert int(found.hits) == int((positive > logits.amax(1, keepdim=True)).sum())
    queries = case.queries.clone().requires_grad_()
    total = neighbour_nce(queries, case.keys, case.queues.keys, places, temperature)
    (total.instances + 0.4 * total.neighbours).backward()
    (instances + 0.4 * neighbours).backward()
    assert queries.grad is not None
    torch.testing.assert_close(queries.grad.double(), exact.grad, rtol=1e-4, atol=1e-4)


@given(cases())
def test_chunks_change_nothing(case: Case) -> None:
    _, places = nearest(case.features, case.queues.features, case.k)
    whole = neighbour_nce(case.queries, case.keys, case.queues.keys, places, 0.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrast, "_CHUNK_BYTES", 1)  # a query at a time
        parts = neighbour_nce(case.queries, case.keys, case.queues.keys, places, 0.2)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)


@given(cases())
def test_the_instance_loss_is_mocos_and_the_order_of_the_memory_is_nothing(case: Case) -> None:
    _, places = nearest(case.features, case.queues.features, case.k)
    found = neighbour_nce(case.queries, case.keys, case.queues.keys, places, 0.2)
    moco = instance_nce(case.queries, case.keys, case.queues.keys, 0.2, unit=True).total
    torch.testing.assert_close(found.instances, moco, rtol=1e-5, atol=1e-5)
    order = torch.randperm(len(case.queues.keys), generator=case.rng)
    moved = AlignedQueues(case.queues.keys[order], case.queues.features[order])
    _, theirs = nearest(case.features, moved.features, case.k)
    again = neighbour_nce(case.queries, case.keys, moved.keys, theirs, 0.2)
    torch.testing.assert_close(again, found, rtol=1e-4, atol=1e-4)


def test_equal_logits_cost_the_logarithm_of_how_many_there_are() -> None:
    zero, places = torch.zeros(3, 4), torch.arange(6).view(3, 2)
    found = neighbour_nce(zero, zero, torch.ones(16, 4), places, 0.2)
    assert float(found.instances) == pytest.approx(3 * math.log(17))
    assert float(found.neighbours) == pytest.approx(3 * math.log(16))
    own, queue = torch.eye(4)[:1], torch.eye(4)[1:].repeat(5, 1)  # the memory is at right angles to the query
    found = neighbour_nce(own, own, queue, torch.tensor([[2]]), 0.2)
    assert float(found.instances) == pytest.approx(math.log(1 + 15 * math.exp(-5)), rel=1e-4)
    assert float(found.neighbours) == pytest.approx(math.log(15), rel=1e-6)
    everyone = torch.arange(15).expand(1, 15)  # all are neighbours: the mean of the log-softmax over the memory
    assert float(neighbour_nce(own, own, queue, everyone, 0.2).neighbours) == pytest.approx(math.log(15), rel=1e-6)


def test_only_queries_have_a_gradient() -> None:
    rng = rng_of(0)
    queries, keys, queue = (unit(rng, rows, 4).requires_grad_() for rows in (3, 3, 7))
    found = neighbour_nce(queries, keys, queue, torch.zeros(3, 1, dtype=torch.long), 0.2)
    assert not found.hits.requires_grad
    (found.instances + found.neighbours).backward()
    assert queries.grad is not None
    assert keys.grad is None
    assert queue.grad is None


def test_without_neighbours_the_second_loss_and_its_gradient_are_zero() -> None:
    rng = rng_of(0)
    queries, keys, queue = unit(rng, 3, 4).requires_grad_(), unit(rng, 3, 4), unit(rng, 7, 4)
    found = neighbour_nce(queries, keys, queue, torch.zeros(3, 0, dtype=torch.long), 0.2)
    assert float(found.neighbours.detach()) == 0
    (both,) = torch.autograd.grad(found.instances + found.neighbours, queries)
    (one,) = torch.autograd.grad(neighbour_nce(queries, keys, queue, torch.zeros(3, 1).long(), 0.2).instances, queries)
    assert torch.equal(both, one)


def test_keys_and_neighbours_of_other_queries_are_refused() -> None:
    rows, queue = torch.zeros(3, 4), torch.zeros(7, 4)
    with pytest.raises(ValueError, match="a key and some neighbours for each query"):
        neighbour_nce(rows, rows[:2], queue, torch.zeros(3, 1, dtype=torch.long), 0.2)
    with pytest.raises(ValueError, match="a key and some neighbours for each query"):
        neighbour_nce(rows, rows, queue, torch.zeros(2, 1, dtype=torch.long), 0.2)


@given(seeds, st.integers(1, 8), st.integers(1, 5), st.integers(2, 5))
def test_a_vote_is_the_sum_of_the_neighbours_weights(seed: int, rows: int, k: int, classes: int) -> None:
    rng = rng_of(seed)
    similarity, labels = torch.rand(rows, k, generator=rng), torch.randint(classes, (rows, k), generator=rng)
    found = pure_call(vote, similarity, labels, 0.07, classes)
    for row in range(rows):
        votes = [
            sum(math.exp(float(s) / 0.07) for s, c in zip(similarity[row], labels[row], strict=True) if int(c) == label)
            for label in range(classes)
        ]
        assert votes[int(found[row])] == pytest.approx(max(votes), rel=1e-4)


def test_the_nearest_alone_decides_and_many_outvote_one_that_is_hardly_nearer() -> None:
    labels = torch.tensor([[0, 1, 1]])
    assert vote(torch.tensor([[0.9, 0.89, 0.89]]), labels, 0.07, 2).tolist() == [1]
    assert vote(torch.tensor([[0.9, 0.5, 0.5]]), labels, 0.07, 2).tolist() == [0]
    assert vote(torch.tensor([[0.9]]), torch.tensor([[3]]), 1e-4, 4).tolist() == [3]  # no overflow


@given(seeds, st.integers(1, 6), st.lists(st.integers(1, 5), max_size=4))
def test_aligned_queues_stay_aligned_and_after_enough_rows_nothing_old_is_left(
    seed: int, size: int, batches: list[int]
) -> None:
    rng = rng_of(seed)
    start = noise_queue(rng, size, 3)
    queues = AlignedQueues(start, start.repeat(1, 2))
    for rows in batches:
        keys = unit(rng, rows, 3)
        queues = pure_call(queues.enqueue, keys, keys.repeat(1, 2))
        assert torch.equal(queues.features, queues.keys.repeat(1, 2))
        assert len(queues.keys) == size
    kept = (queues.keys[:, None] == start).all(2).any()
    assert bool(kept) == (sum(batches) < size)


def test_queues_of_other_numbers_are_refused() -> None:
    queues = AlignedQueues(torch.zeros(4, 2), torch.zeros(4, 3))
    with pytest.raises(ValueError, match="2 keys and 3 features: expected as many"):
        queues.enqueue(torch.zeros(2, 2), torch.zeros(3, 3))
