"""FIFO queues, one for all and one for each class, against Python's deque and by hand."""

from collections import deque
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mdp.core.queues import (
    ClassQueues,
    empty_queues,
    enqueue,
    enqueue_classes,
    enqueue_rows,
    noise_queue,
    queue_prototypes,
)
from tests.laws import pure_call
from tests.tensors import rng_of, seeds


class Pushes(NamedTuple):
    """Some batches of class means, and which classes each image has."""

    batches: list[tuple[Tensor, Tensor]]  # of (B, C, D) and (B, C)
    size: int  # Q, often less than a batch has of a class
    classes: int
    channels: int


@st.composite
def several_pushes(draw: st.DrawFn) -> Pushes:
    rng = rng_of(draw(seeds))
    size, classes, channels = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    batches = []
    for images in draw(st.lists(st.integers(1, 7), min_size=1, max_size=5)):
        present = torch.rand(images, classes, generator=rng) < draw(st.sampled_from([0.2, 0.7, 1.0]))
        batches.append((torch.randn(images, classes, channels, generator=rng), present))
    return Pushes(batches, size, classes, channels)


def deques(pushes: Pushes) -> list[deque[Tensor]]:
    """What each class's queue holds, oldest first, by Python's own FIFO."""
    held: list[deque[Tensor]] = [deque(maxlen=pushes.size) for _ in range(pushes.classes)]
    for means, present in pushes.batches:
        for image, label in present.nonzero().tolist():
            held[label].append(means[image, label])
    return held


def queues_of(pushes: Pushes) -> ClassQueues:
    queues = empty_queues(pushes.classes, pushes.size, pushes.channels)
    for means, present in pushes.batches:
        queues = pure_call(enqueue_classes, queues, means, present)
    return queues


def oldest_first(queues: ClassQueues, label: int) -> list[Tensor]:
    """The ring of a class, unrolled."""
    size, pushed = queues.rows.shape[1], int(queues.pushed[label])
    return [queues.rows[label, number % size] for number in range(max(0, pushed - size), pushed)]


# One queue for all


@given(seeds, st.integers(1, 6), st.lists(st.integers(0, 8), max_size=4))
def test_a_queue_holds_what_a_deque_of_its_length_holds(seed: int, size: int, batches: list[int]) -> None:
    rng = rng_of(seed)
    queue = torch.randn(size, 3, generator=rng)
    held = deque(queue, maxlen=size)
    for count in batches:
        rows = torch.randn(count, 3, generator=rng)
        queue = pure_call(enqueue, queue, rows)
        held.extend(rows)
        assert torch.equal(queue, torch.stack(list(held)))


def test_by_hand_the_oldest_rows_leave_first() -> None:
    queue = torch.tensor([[1.0], [2.0], [3.0]])
    assert enqueue(queue, torch.tensor([[4.0], [5.0]])).flatten().tolist() == [3, 4, 5]
    assert enqueue(queue, torch.arange(4.0, 9.0)[:, None]).flatten().tolist() == [6, 7, 8]
    assert enqueue(queue, torch.zeros(0, 1)).flatten().tolist() == [1, 2, 3]


def test_rows_enter_a_queue_without_gradient_and_in_its_own_precision() -> None:
    rows = torch.ones(2, 3, dtype=torch.bfloat16).requires_grad_()
    queue = enqueue(torch.zeros(4, 3), rows)
    assert queue.dtype == torch.float32
    assert not queue.requires_grad


@given(seeds, st.integers(1, 20), st.integers(1, 9))
def test_a_queue_of_noise_has_rows_of_unit_length(seed: int, size: int, channels: int) -> None:
    queue = pure_call(noise_queue, rng_of(seed), size, channels)
    assert queue.shape == (size, channels)
    torch.testing.assert_close(queue.norm(dim=1), torch.ones(size))


def test_noise_depends_on_nothing_but_the_generator() -> None:
    queue = noise_queue(rng_of(0), 5, 4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        assert torch.equal(queue, noise_queue(rng_of(0), 5, 4))
    assert not torch.equal(queue, noise_queue(rng_of(1), 5, 4))


def test_noise_points_in_no_direction() -> None:
    queue = noise_queue(rng_of(0), 4096, 4)
    assert queue.mean(0).norm() < 0.05  # 1 / sqrt(4096) is 0.016
    torch.testing.assert_close(queue.T @ queue / 4096, torch.eye(4) / 4, atol=0.02, rtol=0)


# One queue for each class


@given(several_pushes())
def test_each_class_holds_what_a_deque_of_its_length_holds(pushes: Pushes) -> None:
    queues = queues_of(pushes)
    for label, held in enumerate(deques(pushes)):
        found = oldest_first(queues, label)
        assert len(found) == len(held)
        assert all(torch.equal(row, expected) for row, expected in zip(found, held, strict=True))
        assert queues.pushed[label] == sum(int(present[:, label].sum()) for _, present in pushes.batches)


@given(several_pushes())
def test_slots_are_filled_from_the_front_and_the_others_are_zero(pushes: Pushes) -> None:
    queues = queues_of(pushes)
    for label, held in enumerate(deques(pushes)):
        assert queues.filled[label].tolist() == [slot < len(held) for slot in range(pushes.size)]
    assert queues.rows[~queues.filled].eq(0).all()


@given(several_pushes())
def test_a_batch_at_once_is_its_images_one_by_one(pushes: Pushes) -> None:
    at_once = queues_of(pushes)
    singles = [(means[i : i + 1], present[i : i + 1]) for means, present in pushes.batches for i in range(len(means))]
    one_by_one = queues_of(pushes._replace(batches=singles))
    assert torch.equal(at_once.rows, one_by_one.rows)
    assert torch.equal(at_once.pushed, one_by_one.pushed)


@given(several_pushes())
def test_the_mean_of_an_absent_class_changes_nothing(pushes: Pushes) -> None:
    noisy = [(torch.where(present[..., None], means, 1e6), present) for means, present in pushes.batches]
    assert torch.equal(queues_of(pushes).rows, queues_of(pushes._replace(batches=noisy)).rows)


@given(several_pushes())
def test_the_prototype_of_a_queue_is_the_unit_mean_of_what_a_deque_holds(pushes: Pushes) -> None:
    known = pure_call(queue_prototypes, queues_of(pushes))
    for label, held in enumerate(deques(pushes)):
        assert known.present[label] == bool(held)
        if held:
            expected = F.normalize(torch.stack(list(held)).double().mean(0), dim=0)
            torch.testing.assert_close(known.vectors[label].double(), expected, atol=1e-4, rtol=0)
        else:
            assert known.vectors[label].eq(0).all()


@given(several_pushes())
def test_rows_with_labels_enter_as_those_of_images_do(pushes: Pushes) -> None:
    by_rows = empty_queues(pushes.classes, pushes.size, pushes.channels)
    for means, present in pushes.batches:
        by_rows = pure_call(enqueue_rows, by_rows, means[present], present.nonzero()[:, 1])
    queues = queues_of(pushes)
    assert torch.equal(by_rows.rows, queues.rows)
    assert torch.equal(by_rows.pushed, queues.pushed)
    with pytest.raises(ValueError, match=r"rows \(2, 9\) and labels \(2,\)"):
        enqueue_rows(queues, torch.zeros(2, 9), torch.zeros(2, dtype=torch.int64))


def test_by_hand_a_ring_of_two_overwrites_its_oldest() -> None:
    # class 0 comes in images 1, 2 and 4 with means 1, 2, 4; class 1 in image 3 only
    present = torch.tensor([[True, False], [True, False], [False, True], [True, False]])
    means = torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None].expand(4, 2, 1)
    queues = enqueue_classes(empty_queues(2, 2, 1), means[:2], present[:2])
    assert queues.rows.flatten().tolist() == [1, 2, 0, 0]
    queues = enqueue_classes(queues, means[2:], present[2:])
    assert queues.rows.flatten().tolist() == [4, 2, 3, 0]
    assert queues.pushed.tolist() == [3, 1]
    assert queues.filled.tolist() == [[True, True], [True, False]]


def test_by_hand_a_queue_of_one_keeps_the_last_image_of_a_batch() -> None:
    queues = enqueue_classes(empty_queues(1, 1, 1), torch.tensor([[[1.0]], [[2.0]], [[3.0]]]), torch.ones(3, 1).bool())
    assert queues.rows.flatten().tolist() == [3]
    assert queues.pushed.tolist() == [3]


def test_rows_enter_class_queues_without_gradient_and_in_float32() -> None:
    means = torch.ones(2, 3, 4, dtype=torch.float64).requires_grad_()
    queues = enqueue_classes(empty_queues(3, 2, 4), means, torch.ones(2, 3, dtype=torch.bool))
    assert queues.rows.dtype == torch.float32
    assert not queues.rows.requires_grad


def test_empty_queues_hold_and_know_nothing() -> None:
    queues = pure_call(empty_queues, 3, 2, 4)
    assert not queues.filled.any()
    known = queue_prototypes(queues)
    assert not known.present.any()
    assert known.vectors.eq(0).all()


@pytest.mark.parametrize("size", [0, -1])
def test_queues_without_room_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1 row, got {size}"):
        noise_queue(rng_of(0), size, 4)
    with pytest.raises(ValueError, match=f"at least 1 row a class, got {size}"):
        empty_queues(3, size, 4)
