"""Class means and sums, bank and prototypes (eq. 3), against brute force and by hand."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdp.core.labels import IGNORE
from mdp.core.prototype_bank import (
    ClassSums,
    Prototypes,
    _pooled_by_index,
    _pooled_by_product,
    add,
    class_means,
    class_similarity,
    class_sums,
    effective_rank,
    empty_bank,
    mean_cosine,
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
def test_class_means_are_the_means_of_the_pixels_of_each_image(scene: Scene) -> None:
    classes = len(scene.known.vectors)
    means, present = pure_call(class_means, scene.embeddings, scene.labels, classes)
    assert means.shape == (len(scene.labels), classes, scene.embeddings.shape[1])
    for i, label in product(range(len(scene.labels)), range(classes)):
        expected = image_means(scene.embeddings[i : i + 1], scene.labels[i : i + 1], label)
        assert present[i, label] == bool(expected)
        if expected:
            torch.testing.assert_close(means[i, label].double(), expected[0], atol=1e-6, rtol=0)
        else:
            assert means[i, label].eq(0).all()


@given(scenes())
def test_pooling_by_index_is_pooling_by_product(scene: Scene) -> None:
    pixels = scene.embeddings.flatten(2).mT
    rank = torch.randint(0, 4, pixels.shape[:2], generator=scene.rng)
    torch.testing.assert_close(_pooled_by_index(pixels, rank, 3), _pooled_by_product(pixels, rank, 3))


@given(scenes())
def test_class_sums_are_class_means_summed_over_the_images(scene: Scene) -> None:
    classes = len(scene.known.vectors)
    means, present = class_means(scene.embeddings, scene.labels, classes)
    sums = class_sums(scene.embeddings, scene.labels, classes)
    torch.testing.assert_close(sums.sums, torch.stack(list(means)).sum(0))
    assert sums.counts.tolist() == [int(column.sum()) for column in present.T]


@given(scenes())
def test_an_images_class_means_do_not_depend_on_the_rest_of_the_batch(scene: Scene) -> None:
    classes = len(scene.known.vectors)
    means, present = class_means(scene.embeddings, scene.labels, classes)
    for i in range(len(scene.labels)):
        alone, seen = class_means(scene.embeddings[i : i + 1], scene.labels[i : i + 1], classes)
        torch.testing.assert_close(means[i], alone[0])
        assert torch.equal(present[i], seen[0])


def test_class_means_are_float32_and_without_gradient() -> None:
    embeddings = torch.ones(1, 2, 1, 3, dtype=torch.bfloat16).requires_grad_()
    means, present = class_means(embeddings, torch.tensor([[[0, 0, IGNORE]]]), 2, unit=True)
    assert means.dtype == torch.float32
    assert not means.requires_grad
    assert means.tolist() == [[[1, 1], [0, 0]]]
    assert present.tolist() == [[True, False]]


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
        bank = pure_call(push, bank, class_sums(embeddings, labels, classes, unit=True))
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
        for a, b in zip(pack_bank(back).values(), pack_bank(bank).values(), strict=True):
            assert torch.equal(a, b)
        bank = push(bank, class_sums(scene.embeddings, scene.labels, classes))


def test_a_bank_unpacked_into_less_room_keeps_the_newest() -> None:
    bank = empty_bank(1, 1, 3)
    for value in (1.0, 2.0, 4.0):
        bank = push(bank, ClassSums(torch.tensor([[value]]), torch.tensor([1])))
    assert unpack_bank(pack_bank(bank), 2).total.sums.tolist() == [[6.0]]


@given(scenes())
def test_similarity_is_the_dot_product_of_each_pixel_and_each_prototype(scene: Scene) -> None:
    similarity = pure_call(class_similarity, scene.embeddings, scene.known)
    assert similarity.shape == (len(scene.labels), len(scene.known.vectors), *scene.labels.shape[1:])
    for image, of_image in zip(scene.embeddings.double(), similarity, strict=True):
        for label, vector in enumerate(scene.known.vectors.double()):
            expected = [[float(image[:, r, c] @ vector) for c in range(image.shape[2])] for r in range(image.shape[1])]
            torch.testing.assert_close(of_image[label].double(), torch.tensor(expected).double(), atol=1e-6, rtol=0)


@given(scenes())
def test_a_class_without_prototype_is_never_the_most_similar(scene: Scene) -> None:
    present = torch.rand(len(scene.known.vectors), generator=scene.rng) < 0.5
    present[0] = True
    similarity = pure_call(class_similarity, scene.embeddings, Prototypes(scene.known.vectors, present))
    assert similarity[:, ~present].eq(-torch.inf).all()
    assert similarity[:, present].isfinite().all()
    assert present[similarity.argmax(1)].all()


def test_by_hand_a_pixel_halfway_between_two_prototypes() -> None:
    known = Prototypes(torch.eye(3)[:, :2], torch.tensor([True, True, False]))
    similarity = class_similarity(torch.tensor([0.6, 0.8]).view(1, 2, 1, 1), known)
    torch.testing.assert_close(similarity.flatten(), torch.tensor([0.6, 0.8, -torch.inf]))


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
    with pytest.raises(ValueError, match="differ in grid"):
        class_means(torch.rand(2, 2, 3, 3), torch.zeros(1, 3, 3, dtype=torch.long), 2)
    with pytest.raises(ValueError, match="at least 1 batch"):
        empty_bank(2, 3, 0)
