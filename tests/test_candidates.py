"""Instances, pixels and regions as candidates (eq. 1, 2 and the region bank): laws, hand values, float64 loops."""

import math
from typing import NamedTuple
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mdp.core import contrast
from mdp.core.contrast import WeightedLoss, _in_chunks, instance_nce, pixel_nce, pixel_rows, region_nce
from mdp.core.labels import IGNORE
from mdp.core.queues import ClassQueues, empty_queues
from tests.laws import pure_call
from tests.tensors import rng_of, seeds

TAU = 0.07
forms = st.sampled_from(["all", "negatives"])


class Views(NamedTuple):
    """Two views of the same images, and a queue for each class."""

    queries: Tensor  # (B, D, h, w) unit length
    keys: Tensor  # (B, D, h, w) unit length
    query_labels: Tensor  # (B, h, w) in -1 .. C - 1
    key_labels: Tensor  # (B, h, w) in -1 .. C - 1
    queues: ClassQueues  # of C classes, some empty, some not yet full
    rng: torch.Generator


def unit(rng: torch.Generator, *shape: int, dim: int = 1) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=rng), dim=dim)


def queues_like(rng: torch.Generator, pushed: Tensor, size: int, channels: int) -> ClassQueues:
    queues = ClassQueues(unit(rng, len(pushed), size, channels, dim=2), pushed)
    return queues._replace(rows=queues.rows * queues.filled[..., None])


@st.composite
def views(draw: st.DrawFn) -> Views:
    rng = rng_of(draw(seeds))
    batch, channels, classes = draw(st.integers(1, 3)), draw(st.integers(2, 5)), draw(st.integers(1, 4))
    height, width, size = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    queries, keys = (unit(rng, batch, channels, height, width) for _ in range(2))
    query_labels, key_labels = (torch.randint(-1, classes, (batch, height, width), generator=rng) for _ in range(2))
    pushed = torch.randint(0, 2 * size + 1, (classes,), generator=rng)
    return Views(queries, keys, query_labels, key_labels, queues_like(rng, pushed, size, channels), rng)


def of_pixels(scene: Views) -> WeightedLoss:
    loss: WeightedLoss = pure_call(pixel_nce, scene.queries, scene.keys, scene.query_labels, scene.key_labels, TAU)
    return loss


def of_regions(scene: Views, form: str) -> WeightedLoss:
    loss: WeightedLoss = pure_call(region_nce, scene.queries, scene.query_labels, scene.queues, TAU, form)
    return loss


def noise_where(ignored: Tensor, embeddings: Tensor, rng: torch.Generator) -> Tensor:
    """Other embeddings at the ignored pixels of (B, h, w)."""
    return torch.where(ignored[:, None], torch.randn(embeddings.shape, generator=rng), embeddings)


# The same quotients term by term in float64, with explicit exponentials


def naive_instances(queries: Tensor, keys: Tensor, queue: Tensor) -> float:
    total = 0.0
    for query, key in zip(queries.double(), keys.double(), strict=True):
        positive = math.exp(float(query @ key) / TAU)
        negatives = sum(math.exp(float(query @ row) / TAU) for row in queue.double())
        total -= math.log(positive / (positive + negatives))
    return total


def naive_pixels(scene: Views) -> tuple[float, int]:
    total, weight = 0.0, 0
    for query, key, own, other in zip(*scene[:4], strict=True):
        pixels = list(zip(query.flatten(1).T.double(), own.flatten().tolist(), strict=True))
        candidates = [
            (row, label)
            for row, label in zip(key.flatten(1).T.double(), other.flatten().tolist(), strict=True)
            if label != IGNORE
        ]
        for row, label in pixels:
            positives = [math.exp(float(row @ k) / TAU) for k, c in candidates if c == label]
            if label != IGNORE and positives:
                everything = sum(math.exp(float(row @ k) / TAU) for k, _ in candidates)
                total -= sum(math.log(p / everything) for p in positives) / len(positives)
                weight += 1
    return total, weight


def naive_regions(scene: Views, form: str) -> tuple[float, int]:
    held = [
        [row.double() for row in rows[: min(int(pushed), len(rows))]]
        for rows, pushed in zip(scene.queues.rows, scene.queues.pushed, strict=True)
    ]
    total, weight = 0.0, 0
    for row, label in zip(pixel_rows(scene.queries).double(), scene.query_labels.flatten().tolist(), strict=True):
        if label != IGNORE and held[label]:
            exponentials = [[math.exp(float(row @ region) / TAU) for region in regions] for regions in held]
            negatives = sum(sum(values) for c, values in enumerate(exponentials) if c != label)
            for p in exponentials[label]:
                rivals = negatives + (sum(exponentials[label]) if form == "all" else p)
                total -= math.log(p / rivals) / len(held[label])
            weight += 1
    return total, weight


@given(seeds, st.integers(1, 4), st.integers(1, 9), st.integers(2, 5))
def test_the_instance_loss_equals_the_naive_float64_one(seed: int, batch: int, size: int, channels: int) -> None:
    rng = rng_of(seed)
    queries, keys, queue = unit(rng, batch, channels), unit(rng, batch, channels), unit(rng, size, channels)
    loss = pure_call(instance_nce, queries, keys, queue, TAU)
    assert math.isclose(float(loss.total), naive_instances(queries, keys, queue), rel_tol=1e-5, abs_tol=2e-5)
    assert loss.weight == batch


@given(views())
def test_the_pixel_loss_equals_the_naive_float64_one(scene: Views) -> None:
    loss = of_pixels(scene)
    total, weight = naive_pixels(scene)
    assert math.isclose(float(loss.total), total, rel_tol=1e-5, abs_tol=2e-5)
    assert loss.weight == weight


@given(views(), forms)
def test_the_region_loss_equals_the_naive_float64_one(scene: Views, form: str) -> None:
    loss = of_regions(scene, form)
    total, weight = naive_regions(scene, form)
    assert math.isclose(float(loss.total), total, rel_tol=1e-5, abs_tol=2e-5)
    assert loss.weight == weight


@given(seeds, st.integers(1, 5), st.integers(1, 9))
def test_the_instance_loss_is_torchs_cross_entropy(seed: int, batch: int, size: int) -> None:
    rng = rng_of(seed)
    queries, keys, queue = unit(rng, batch, 4), unit(rng, batch, 4), unit(rng, size, 4)
    logits = torch.cat([(queries * keys).sum(1, keepdim=True), queries @ queue.T], 1) / TAU
    expected = F.cross_entropy(logits, torch.zeros(batch, dtype=torch.long))
    torch.testing.assert_close(instance_nce(queries, keys, queue, TAU).mean(), expected)


# Equal logits: the log of the number of candidates


@given(st.integers(1, 5), st.integers(1, 9))
def test_equal_instances_give_the_log_of_one_and_the_queue(batch: int, size: int) -> None:
    loss = instance_nce(torch.ones(batch, 3), torch.ones(batch, 3), torch.ones(size, 3), TAU)
    assert math.isclose(float(loss.mean()), math.log(1 + size), abs_tol=1e-5)


@given(views())
def test_equal_pixels_give_the_log_of_the_number_of_valid_key_pixels(scene: Views) -> None:
    loss = of_pixels(scene._replace(queries=torch.zeros_like(scene.queries)))
    expected = sum(
        math.log(int((other != IGNORE).sum()))
        * sum(int((own == c).sum()) for c in set(other[other != IGNORE].tolist()))
        for own, other in zip(scene.query_labels, scene.key_labels, strict=True)
        if (other != IGNORE).any()
    )
    assert math.isclose(float(loss.total), expected, rel_tol=1e-5, abs_tol=1e-5)


@given(views())
def test_equal_regions_give_the_log_of_the_number_of_rows_that_compete(scene: Views) -> None:
    scene = scene._replace(queries=torch.zeros_like(scene.queries))
    rows = scene.queues.filled.sum(1).tolist()
    labels = [c for c in scene.query_labels.flatten().tolist() if c != IGNORE and rows[c]]
    every = of_regions(scene, "all")
    assert math.isclose(float(every.total), len(labels) * math.log(max(1, sum(rows))), rel_tol=1e-5, abs_tol=1e-5)
    negatives = of_regions(scene, "negatives")
    expected = sum(math.log(1 + sum(rows) - rows[c]) for c in labels)
    assert math.isclose(float(negatives.total), expected, rel_tol=1e-5, abs_tol=1e-5)


# By hand


def test_by_hand_a_key_at_right_angles_to_the_only_negative() -> None:
    query = torch.tensor([[1.0, 0.0]])
    loss = instance_nce(query, query, torch.tensor([[0.0, 1.0]]), 0.5).mean()
    assert math.isclose(float(loss), math.log(1 + math.exp(-2)), abs_tol=1e-6)


def test_by_hand_two_pixels_and_the_other_views_three() -> None:
    # the query (1, 0) of class 0; keys (1, 0) and (0, 1) of class 0, (0, 1) of class 1: logits 2, 0, 0
    queries = torch.tensor([[[[1.0, 1.0, 1.0]], [[0.0, 0.0, 0.0]]]])
    keys = torch.tensor([[[[1.0, 0.0, 0.0]], [[0.0, 1.0, 1.0]]]])
    loss = pixel_nce(queries, keys, torch.tensor([[[0, IGNORE, 2]]]), torch.tensor([[[0, 0, 1]]]), 0.5)
    assert math.isclose(float(loss.total), math.log(math.exp(2) + 2) - 1, abs_tol=1e-6)
    assert loss.weight == 1  # class 2 is not in the other view


def test_by_hand_one_pixel_and_three_regions() -> None:
    # the same logits 2, 0 of its class and 0 of another
    queues = ClassQueues(torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]]]), torch.tensor([2, 1]))
    pixel, label = torch.tensor([[[[1.0]], [[0.0]]]]), torch.tensor([[[0]]])
    every = region_nce(pixel, label, queues, 0.5, "all").mean()
    assert math.isclose(float(every), math.log(math.exp(2) + 2) - 1, abs_tol=1e-6)
    negatives = region_nce(pixel, label, queues, 0.5, "negatives").mean()
    assert math.isclose(float(negatives), (math.log(1 + math.exp(-2)) + math.log(2)) / 2, abs_tol=1e-6)


@given(seeds, st.integers(1, 4), forms)
def test_a_single_region_gives_loss_and_gradient_zero(seed: int, pixels: int, form: str) -> None:
    rng = rng_of(seed)
    queues = queues_like(rng, torch.tensor([0, 1]), 2, 3)
    embeddings = unit(rng, 1, 3, 1, pixels).requires_grad_()
    loss = region_nce(embeddings, torch.ones(1, 1, pixels, dtype=torch.long), queues, TAU, form)
    loss.mean().backward()
    assert math.isclose(loss.total.item(), 0, abs_tol=1e-5)
    assert loss.weight == pixels
    torch.testing.assert_close(embeddings.grad, torch.zeros_like(embeddings), atol=1e-5, rtol=0)


@given(seeds, st.integers(1, 5), st.integers(0, 2))
def test_regions_of_one_class_alone_have_no_negatives(seed: int, pushed: int, label: int) -> None:
    rng = rng_of(seed)
    queues = queues_like(rng, F.one_hot(torch.tensor(label), 3) * pushed, 4, 3)
    embeddings = unit(rng, 2, 3, 2, 2).requires_grad_()
    loss = region_nce(embeddings, torch.full((2, 2, 2), label), queues, TAU, "negatives").mean()
    loss.backward()
    assert loss.item() == 0
    assert embeddings.grad is not None
    assert embeddings.grad.eq(0).all()


@given(views())
def test_with_one_positive_a_pixel_both_denominators_agree(scene: Views) -> None:
    queues = ClassQueues(scene.queues.rows, scene.queues.pushed.clamp(max=1))
    scene = scene._replace(queues=queues)
    torch.testing.assert_close(of_regions(scene, "all"), of_regions(scene, "negatives"), atol=1e-5, rtol=1e-5)


# What does not count


@given(views())
def test_a_changed_ignored_pixel_changes_no_pixel_loss_and_no_gradient(scene: Views) -> None:
    queries = noise_where(scene.query_labels == IGNORE, scene.queries, scene.rng)
    keys = noise_where(scene.key_labels == IGNORE, scene.keys, scene.rng)
    answers = []
    for other in (scene, scene._replace(queries=queries, keys=keys)):
        leaf = other.queries.clone().requires_grad_()
        loss = pixel_nce(leaf, other.keys, other.query_labels, other.key_labels, TAU)
        loss.mean().backward()
        answers.append((loss.total.detach(), loss.weight, leaf.grad))
    torch.testing.assert_close(answers[0], answers[1])
    assert answers[0][2][(scene.query_labels == IGNORE)[:, None].expand_as(scene.queries)].eq(0).all()


@given(views(), forms)
def test_a_changed_ignored_pixel_or_empty_slot_changes_no_region_loss(scene: Views, form: str) -> None:
    queries = noise_where(scene.query_labels == IGNORE, scene.queries, scene.rng)
    noise = torch.randn(scene.queues.rows.shape, generator=scene.rng)
    rows = torch.where(scene.queues.filled[..., None], scene.queues.rows, noise)
    other = scene._replace(queries=queries, queues=scene.queues._replace(rows=rows))
    torch.testing.assert_close(of_regions(scene, form), of_regions(other, form))


@given(views())
def test_the_order_of_the_images_does_not_matter(scene: Views) -> None:
    order = torch.randperm(len(scene.queries), generator=scene.rng)
    permuted = Views(*(tensor[order] for tensor in scene[:4]), *scene[4:])
    torch.testing.assert_close(of_pixels(scene), of_pixels(permuted), rtol=1e-5, atol=1e-5)
    for form in ("all", "negatives"):
        torch.testing.assert_close(of_regions(scene, form), of_regions(permuted, form), rtol=1e-5, atol=1e-5)
    queue = unit(scene.rng, 5, scene.queries.shape[1])
    queries, keys = scene.queries[..., 0, 0], scene.keys[..., 0, 0]
    first = pure_call(instance_nce, queries, keys, queue, TAU)
    second = instance_nce(queries[order], keys[order], queue, TAU)
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


@given(views())
def test_pixels_never_look_across_images(scene: Views) -> None:
    whole = of_pixels(scene)
    singles = [of_pixels(Views(*(t[i : i + 1] for t in scene[:4]), *scene[4:])) for i in range(len(scene.queries))]
    expected = WeightedLoss(sum(s.total for s in singles), sum(s.weight for s in singles))  # type: ignore[arg-type]
    torch.testing.assert_close(whole, expected, rtol=1e-5, atol=1e-5)
    gradients = []
    for embeddings, labels in (
        (scene.keys, scene.key_labels),
        (unit(scene.rng, *scene.keys.shape), scene.query_labels),
    ):
        keys = torch.cat([scene.keys[:1], embeddings[1:]])
        key_labels = torch.cat([scene.key_labels[:1], labels[1:]])
        leaf = scene.queries.clone().requires_grad_()
        pixel_nce(leaf, keys, scene.query_labels, key_labels, TAU).total.backward()
        gradients.append(leaf.grad[0])
    torch.testing.assert_close(*gradients)


@given(views())
def test_an_anchor_whose_class_is_missing_from_the_other_view_weighs_nothing(scene: Views) -> None:
    leaf = scene.queries.clone().requires_grad_()
    loss = pixel_nce(leaf, scene.keys, scene.query_labels, scene.key_labels, TAU)
    loss.total.backward()
    has = torch.stack([torch.isin(own, other) for own, other in zip(scene.query_labels, scene.key_labels, strict=True)])
    has &= scene.query_labels != IGNORE
    assert loss.weight == has.sum()
    assert leaf.grad is not None
    assert leaf.grad[~has[:, None].expand_as(leaf)].eq(0).all()


@given(views(), forms)
def test_a_pixel_whose_class_has_no_rows_weighs_nothing(scene: Views, form: str) -> None:
    leaf = scene.queries.clone().requires_grad_()
    loss = region_nce(leaf, scene.query_labels, scene.queues, TAU, form)
    loss.total.backward()
    has = (scene.query_labels != IGNORE) & (scene.queues.pushed > 0)[scene.query_labels.clamp(min=0)]
    assert loss.weight == has.sum()
    assert leaf.grad is not None
    assert leaf.grad[~has[:, None].expand_as(leaf)].eq(0).all()


@pytest.mark.parametrize("ignored", ["queries", "keys", "both"])
def test_views_without_a_valid_pixel_have_loss_and_gradient_zero(ignored: str) -> None:
    nothing, something = torch.full((2, 2, 2), IGNORE), torch.zeros(2, 2, 2, dtype=torch.long)
    own = something if ignored == "keys" else nothing
    other = something if ignored == "queries" else nothing
    queries = unit(rng_of(0), 2, 3, 2, 2).requires_grad_()
    loss = pixel_nce(queries, unit(rng_of(1), 2, 3, 2, 2), own, other, TAU).mean()
    loss.backward()
    assert loss.item() == 0
    assert queries.grad is not None
    assert queries.grad.eq(0).all()


@pytest.mark.parametrize("form", ["all", "negatives"])
@pytest.mark.parametrize("label", [IGNORE, 1])
def test_pixels_without_label_or_region_have_loss_and_gradient_zero(label: int, form: str) -> None:
    queries = unit(rng_of(0), 2, 3, 2, 2).requires_grad_()
    for queues in (empty_queues(2, 4, 3), queues_like(rng_of(1), torch.tensor([3, 0]), 4, 3)):
        loss = region_nce(queries, torch.full((2, 2, 2), label), queues, TAU, form).mean()
        loss.backward()
        assert loss.item() == 0
        assert queries.grad is not None
        assert queries.grad.eq(0).all()


# Chunks


def plain_regions(embeddings: Tensor, scene: Views, form: str) -> Tensor:
    """The region loss with no chunks and no function of its own, for autograd to differentiate in float64."""
    regions = scene.queues.rows.to(embeddings.dtype)[scene.queues.filled]
    classes = scene.queues.filled.nonzero()[:, 0]
    total = embeddings.sum() * 0
    for row, label in zip(pixel_rows(embeddings), scene.query_labels.flatten(), strict=True):
        own = classes == label
        if label != IGNORE and own.any():
            logits = regions @ row / TAU
            for positive in logits[own]:
                rivals = logits if form == "all" else torch.cat([positive[None], logits[~own]])
                total = total + (rivals.logsumexp(0) - positive) / own.sum()
    return total


@given(views(), forms, st.sampled_from([1, 3, 10**9]))
def test_chunks_of_any_size_give_the_plain_float64_loss_and_gradient(scene: Views, form: str, size: int) -> None:
    logits = 4 * max(1, int(scene.queues.filled.sum()))  # bytes a pixel
    single, double = scene.queries.clone().requires_grad_(), scene.queries.double().requires_grad_()
    with patch.object(contrast, "_CHUNK_BYTES", size * logits):
        loss = pure_call(region_nce, single, scene.query_labels, scene.queues, TAU, form, unit=True)
    loss.total.backward()
    expected = plain_regions(double, scene, form)
    expected.backward()
    assert single.grad is not None
    assert double.grad is not None
    torch.testing.assert_close(loss.total.double(), expected, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-5, atol=1e-5 / TAU)


@given(seeds, st.integers(0, 7), st.integers(1, 9))
def test_chunks_cover_every_row_once_in_order(seed: int, count: int, size: int) -> None:
    rows = torch.randn(count, 3, generator=rng_of(seed)).requires_grad_()
    seen: list[tuple[int, int]] = []

    def loss(part: Tensor, start: int) -> Tensor:
        seen.append((start, len(part)))
        return (part.exp() * torch.arange(start, start + len(part))[:, None]).sum()

    total = _in_chunks(rows, loss, size)
    assert seen == [(start, min(size, count - start)) for start in range(0, count, size)]
    (gradient,) = torch.autograd.grad(total, rows)
    expected = rows.detach().exp() * torch.arange(count)[:, None]
    torch.testing.assert_close(total.detach(), expected.sum())
    torch.testing.assert_close(gradient, expected)
    assert pure_call(_in_chunks, rows.detach(), loss, size) == total


@given(views(), forms, st.floats(-4, 4))
def test_the_regions_gradient_scales_with_what_comes_in(scene: Views, form: str, scale: float) -> None:
    leaf = scene.queries.clone().requires_grad_()
    total = region_nce(leaf, scene.query_labels, scene.queues, TAU, form).total
    (once,) = torch.autograd.grad(total, leaf, retain_graph=True)
    (scaled,) = torch.autograd.grad(scale * total, leaf)
    torch.testing.assert_close(scaled, scale * once)


@given(views(), forms)
def test_the_regions_gradient_reaches_what_made_the_embeddings(scene: Views, form: str) -> None:
    weight = torch.ones((), requires_grad=True)
    region_nce(scene.queries * weight, scene.query_labels, scene.queues, TAU, form).total.backward()
    leaf = scene.queries.clone().requires_grad_()
    region_nce(leaf, scene.query_labels, scene.queues, TAU, form).total.backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, (leaf.grad * scene.queries).sum(), rtol=1e-4, atol=1e-4)


# Precision and gradients


@pytest.mark.parametrize("name", ["instances", "pixels", "all", "negatives"])
def test_losses_and_gradients_are_float32_under_autocast(name: str) -> None:
    rng = rng_of(0)
    queries, keys = unit(rng, 2, 4, 3, 3), unit(rng, 2, 4, 3, 3)
    labels = torch.randint(-1, 3, (2, 3, 3), generator=rng)
    queues = queues_like(rng, torch.tensor([1, 0, 5]), 2, 4)

    def loss_of(leaf: Tensor) -> WeightedLoss:
        if name == "instances":
            return instance_nce(pixel_rows(leaf), pixel_rows(keys), queues.rows[0], TAU)
        if name == "pixels":
            return pixel_nce(leaf, keys, labels, labels.flip(2), TAU)
        return region_nce(leaf, labels, queues, TAU, name)

    def answer(half: bool) -> tuple[Tensor, Tensor]:
        leaf = queries.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            loss = loss_of(leaf)
        loss.mean().backward()
        assert leaf.grad is not None
        return loss.mean(), leaf.grad

    inside, outside = answer(True), answer(False)
    assert all(tensor.dtype == torch.float32 for tensor in inside)
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))


def test_half_precision_embeddings_are_compared_in_float32() -> None:
    rng = rng_of(0)
    queries, keys = unit(rng, 2, 4, 3, 3).bfloat16(), unit(rng, 2, 4, 3, 3).bfloat16()
    labels, queues = torch.randint(-1, 3, (2, 3, 3), generator=rng), queues_like(rng, torch.tensor([1, 0, 5]), 2, 4)
    assert torch.equal(
        pixel_nce(queries, keys, labels, labels, TAU).mean(),
        pixel_nce(queries.float(), keys.float(), labels, labels, TAU).mean(),
    )
    assert region_nce(queries, labels, queues, TAU).mean() == region_nce(queries.float(), labels, queues, TAU).mean()
    first, second, queue = pixel_rows(queries), pixel_rows(keys), queues.rows[0]
    half = instance_nce(first, second, queue, TAU).mean()
    assert half == instance_nce(first.float(), second.float(), queue, TAU).mean()


@pytest.mark.parametrize("form", ["all", "negatives"])
def test_keys_queue_and_rows_receive_no_gradient(form: str) -> None:
    rng = rng_of(0)
    queries, keys = unit(rng, 2, 4, 3, 3).requires_grad_(), unit(rng, 2, 4, 3, 3).requires_grad_()
    labels = torch.zeros(2, 3, 3, dtype=torch.long)
    queue = unit(rng, 5, 4).requires_grad_()
    queues = ClassQueues(unit(rng, 3, 2, 4, dim=2).requires_grad_(), torch.tensor([2, 0, 1]))
    pixel_nce(queries, keys, labels, labels, TAU).mean().backward()
    region_nce(queries, labels, queues, TAU, form).mean().backward()
    instance_nce(pixel_rows(queries), pixel_rows(keys), queue, TAU).mean().backward()
    assert queries.grad is not None
    assert keys.grad is None
    assert queue.grad is None
    assert queues.rows.grad is None


@given(seeds, st.integers(1, 4), st.integers(1, 9))
def test_instance_gradients_equal_those_of_a_float64_copy(seed: int, batch: int, size: int) -> None:
    rng = rng_of(seed)
    single = unit(rng, batch, 4).requires_grad_()
    keys, queue = unit(rng, batch, 4), unit(rng, size, 4)
    double = single.detach().double().requires_grad_()
    instance_nce(single, keys, queue, TAU, unit=True).mean().backward()
    logits = torch.cat([(double * keys.double()).sum(1, keepdim=True), double @ queue.double().T], 1) / TAU
    F.cross_entropy(logits, torch.zeros(batch, dtype=torch.long)).backward()
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-5, atol=1e-5 / TAU)


@given(views())
def test_pixel_gradients_equal_those_of_a_float64_copy(scene: Views) -> None:
    single, double = scene.queries.clone().requires_grad_(), scene.queries.double().requires_grad_()
    pixel_nce(single, scene.keys, scene.query_labels, scene.key_labels, TAU, unit=True).total.backward()
    total = double.sum() * 0
    for query, key, own, other in zip(double, scene.keys.double(), *scene[2:4], strict=True):
        for row, label in zip(query.flatten(1).T, own.flatten(), strict=True):
            positive = other.flatten() == label
            if label != IGNORE and positive.any():
                logits = row @ key.flatten(1) / TAU
                total = total + logits[other.flatten() != IGNORE].logsumexp(0) - logits[positive].mean()
    total.backward()
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-5, atol=1e-5 / TAU)
