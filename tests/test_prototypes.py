"""Class sums, bank and prototypes (eq. 3), against brute force and by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdp.core.labels import IGNORE
from mdp.core.prototypes import (
    ClassSums,
    Prototypes,
    add,
    class_sums,
    effective_rank,
    empty_bank,
    mean_cosine,
    nearest_class,
    pack_bank,
    prototypes,
    push,
    unpack_bank,
)
from tests.laws import pure_call
from tests.tensors import Scene, rng_of, scenes, seeds


def image_means(embeddings: Tensor, labels: Tensor, label: int) -> list[Tensor]:
    """e_{i,k} of every image that has the class, by plain loops in float64."""
    means = []
    for image, grid in zip(embeddings.double(), labels, strict=True):
        pixels = [image[:, r, c] for r in range(grid.shape[0]) for c in range(grid.shape[1]) if grid[r, c] == label]
        if pixels:
            means.append(torch.stack(pixels).mean(0))
    return means


@given(scenes())
def test_class_sums_are_sums_of_image_means(scene: Scene) -> None:
    classes = len(scene.known.vectors)
    sums = pure_call(class_sums, scene.embeddings, scene.labels, classes)
    for label in range(classes):
        means = image_means(scene.embeddings, scene.labels, label)
        assert sums.counts[label] == len(means)
        expected = torch.stack(means).sum(0) if means else torch.zeros(scene.embeddings.shape[1], dtype=torch.float64)
        assert torch.allclose(sums.sums[label].double(), expected, atol=1e-6)


@given(scenes())
def test_the_order_of_the_images_does_not_matter(scene: Scene) -> None:
    order = torch.randperm(len(scene.labels), generator=scene.rng)
    first = class_sums(scene.embeddings, scene.labels, len(scene.known.vectors))
    second = class_sums(scene.embeddings[order], scene.labels[order], len(scene.known.vectors))
    assert torch.allclose(first.sums, second.sums, atol=1e-6)
    assert torch.equal(first.counts, second.counts)


@given(scenes())
def test_class_sums_of_two_shards_add_up_to_those_of_the_batch(scene: Scene) -> None:
    classes = len(scene.known.vectors)
    whole = class_sums(scene.embeddings, scene.labels, classes)
    shards = [class_sums(scene.embeddings[part], scene.labels[part], classes) for part in (slice(0, 1), slice(1, None))]
    together = pure_call(add, *shards)
    assert torch.allclose(whole.sums, together.sums, atol=1e-6)
    assert torch.equal(whole.counts, together.counts)


@given(scenes())
def test_an_ignored_pixels_embedding_changes_nothing(scene: Scene) -> None:
    noise = torch.randn(scene.embeddings.shape, generator=scene.rng)
    other = torch.where((scene.labels == IGNORE)[:, None], noise, scene.embeddings)
    classes = len(scene.known.vectors)
    assert torch.equal(
        class_sums(scene.embeddings, scene.labels, classes).sums, class_sums(other, scene.labels, classes).sums
    )


@given(scenes(), st.integers(1, 4), st.integers(1, 9))
def test_bank_prototypes_are_brute_force_means_over_the_last_batches(scene: Scene, size: int, batches: int) -> None:
    classes, channels = scene.known.vectors.shape
    bank = empty_bank(classes, channels, size)
    history: list[tuple[Tensor, Tensor]] = []
    for _ in range(batches):
        embeddings = torch.randn(scene.embeddings.shape, generator=scene.rng)
        labels = torch.randint(-1, classes, scene.labels.shape, generator=scene.rng)
        history.append((embeddings, labels))
        bank = pure_call(push, bank, class_sums(embeddings, labels, classes))
    known = pure_call(prototypes, bank, normalise=False)
    unit = prototypes(bank)
    for label in range(classes):
        means = [mean for e, y in history[-size:] for mean in image_means(e, y, label)]
        assert known.present[label] == bool(means)
        if means:
            expected = torch.stack(means).mean(0)
            assert torch.allclose(known.vectors[label].double(), expected, atol=1e-5)
            assert math.isclose(float(unit.vectors[label].norm()), 1.0, abs_tol=1e-5)
        else:
            assert known.vectors[label].eq(0).all()


def test_the_first_batch_has_no_influence_once_the_bank_has_turned_over() -> None:
    rng = rng_of(0)
    pushes = [ClassSums(torch.randn(3, 4, generator=rng), torch.tensor([1, 2, 1])) for _ in range(6)]
    with_first, without = empty_bank(3, 4, 5), empty_bank(3, 4, 5)
    huge = ClassSums(1e6 * torch.randn(3, 4, generator=rng), torch.tensor([9, 9, 9]))
    with_first = push(with_first, huge)
    for sums in pushes:
        with_first, without = push(with_first, sums), push(without, sums)
    assert torch.allclose(prototypes(with_first).vectors, prototypes(without).vectors, atol=1e-6)


def test_five_thousand_pushes_leave_no_drift() -> None:
    rng = rng_of(1)
    bank = empty_bank(8, 16, 20)
    for _ in range(5000):
        bank = push(bank, ClassSums(torch.randn(8, 16, generator=rng), torch.randint(0, 3, (8,), generator=rng)))
    fresh = sum(entry.sums.double() for entry in bank.window)
    assert torch.allclose(bank.total.sums, torch.as_tensor(fresh), atol=1e-10)


def test_by_hand_every_image_counts_once_whatever_the_area() -> None:
    # image 1: three pixels of class 0 at (1, 0); image 2: one pixel at (0, 1): the mean is (1/2, 1/2), not (3/4, 1/4)
    embeddings = torch.tensor([[[[1.0, 1.0, 1.0]], [[0.0, 0.0, 0.0]]], [[[0.0, 9.0, 9.0]], [[1.0, 9.0, 9.0]]]])
    labels = torch.tensor([[[0, 0, 0]], [[0, -1, -1]]])
    bank = push(empty_bank(1, 2, 1), class_sums(embeddings, labels, 1))
    assert prototypes(bank, normalise=False).vectors.tolist() == [[0.5, 0.5]]


def test_a_batch_of_ignored_pixels_leaves_the_prototypes_as_they_are() -> None:
    bank = push(empty_bank(2, 3, 4), ClassSums(torch.rand(2, 3), torch.tensor([1, 1])))
    nothing = class_sums(torch.rand(2, 3, 2, 2), torch.full((2, 2, 2), IGNORE), 2)
    after = push(bank, nothing)
    assert torch.equal(prototypes(bank).vectors, prototypes(after).vectors)


@given(scenes(), st.integers(1, 4))
def test_a_packed_bank_comes_back_as_it_was(scene: Scene, size: int) -> None:
    classes, channels = scene.known.vectors.shape
    bank = empty_bank(classes, channels, size)
    for _ in range(3):
        back = unpack_bank(pack_bank(bank), size)
        assert len(back.window) == len(bank.window)
        assert torch.equal(back.total.sums, bank.total.sums)
        assert torch.equal(back.total.counts, bank.total.counts)
        for a, b in zip(back.window, bank.window, strict=True):
            assert torch.equal(a.sums, b.sums)
            assert torch.equal(a.counts, b.counts)
        bank = push(bank, class_sums(scene.embeddings, scene.labels, classes))


def test_a_bank_unpacked_into_less_room_keeps_the_newest() -> None:
    bank = empty_bank(1, 1, 3)
    for value in (1.0, 2.0, 4.0):
        bank = push(bank, ClassSums(torch.tensor([[value]]), torch.tensor([1])))
    assert unpack_bank(pack_bank(bank), 2).total.sums.tolist() == [[6.0]]


@given(scenes())
def test_the_nearest_class_is_the_one_of_largest_cosine(scene: Scene) -> None:
    classes = len(scene.known.vectors)
    guess = pure_call(nearest_class, scene.embeddings, scene.known, slice(0, classes))
    cosine = torch.einsum("bdhw,cd->bchw", scene.embeddings.double(), scene.known.vectors.double())
    chosen = cosine.gather(1, guess[:, None])[:, 0]
    assert (chosen >= cosine.amax(1) - 1e-6).all()


def test_a_class_without_prototype_is_never_the_nearest() -> None:
    known = Prototypes(torch.zeros(3, 2), torch.tensor([False, True, False]))
    guess = nearest_class(torch.randn(1, 2, 2, 2, generator=rng_of(0)), known, slice(0, 3))
    assert guess.eq(1).all()
    with pytest.raises(ValueError, match="no class"):
        nearest_class(torch.randn(1, 2, 2, 2), known, slice(2, 3))


@given(seeds, st.integers(2, 8))
def test_mean_cosine_is_the_mean_over_pairs(seed: int, classes: int) -> None:
    vectors = torch.randn(classes, 4, generator=rng_of(seed))
    known = Prototypes(vectors, torch.ones(classes, dtype=torch.bool))
    pairs = [
        float(torch.cosine_similarity(vectors[i].double(), vectors[j].double(), dim=0))
        for i in range(classes)
        for j in range(classes)
        if i != j
    ]
    assert math.isclose(pure_call(mean_cosine, known), sum(pairs) / len(pairs), abs_tol=1e-6)


def test_collapse_shows_in_cosine_and_rank() -> None:
    line = torch.ones(5, 3) / 3**0.5
    collapsed = Prototypes(line, torch.ones(5, dtype=torch.bool))
    assert math.isclose(mean_cosine(collapsed), 1, abs_tol=1e-6)
    assert math.isclose(effective_rank(collapsed), 1, abs_tol=1e-3)
    spread = Prototypes(torch.eye(5), torch.ones(5, dtype=torch.bool))
    assert math.isclose(mean_cosine(spread), 0, abs_tol=1e-6)
    assert math.isclose(effective_rank(spread), 5, abs_tol=1e-6)
    nothing = Prototypes(torch.zeros(5, 3), torch.zeros(5, dtype=torch.bool))
    assert math.isnan(mean_cosine(nothing))
    assert effective_rank(nothing) == 0


def test_grids_that_differ_and_banks_without_room_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in grid"):
        class_sums(torch.rand(1, 2, 3, 3), torch.zeros(1, 3, 4, dtype=torch.long), 2)
    with pytest.raises(ValueError, match="at least 1 batch"):
        empty_bank(2, 3, 0)
