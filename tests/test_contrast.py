"""Targets and the contrastive kernel (eq. 4, 7, 8): laws, hand values, naive float64 references."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mdp.core.contrast import class_logits, nce, pixel_rows, prototype_nce
from mdp.core.labels import IGNORE
from mdp.core.prototype_bank import Prototypes
from mdp.core.targets import (
    Targets,
    hard_targets,
    mixed_targets,
    pixel_similarity,
    prototype_similarity,
    relaxed_targets,
    sparse_targets,
    targets_by_class,
)
from tests.laws import pure_call
from tests.tensors import Scene, rng_of, scenes

TAU = 0.07


def naive(rows: Tensor, known: Prototypes, targets: Targets) -> float:
    """The same loss pixel by pixel and class by class in float64, with explicit exponentials."""
    total, weight = 0.0, 0.0
    for i, row in enumerate(rows.double()):
        out = set() if targets.left_out is None else set(targets.left_out[i].tolist())
        logits = {
            c: float(row @ vector.double()) / TAU for c, vector in enumerate(known.vectors) if bool(known.present[c])
        }
        for label, share in zip(targets.classes[i].tolist(), targets.weights[i].tolist(), strict=True):
            if share > 0:
                top = max(logits.values())
                denominator = sum(math.exp(value - top) for c, value in logits.items() if c not in out)
                total -= share * (logits[label] - top - math.log(denominator))
        weight += float(targets.valid[i])
    return total / weight if weight else 0.0


def loss_of(scene: Scene, targets: Targets) -> float:
    return prototype_nce(scene.embeddings, scene.known, targets, TAU).mean().item()


def mixed_of(scene: Scene, share: float) -> Targets:
    second = torch.randint(-1, len(scene.known.vectors), scene.labels.shape, generator=scene.rng)
    return mixed_targets(scene.labels, second, torch.full((len(scene.labels),), share))


kinds = st.sampled_from(["hard", "mixed", "sparse pixel", "sparse prototype", "sparse mixed", "relaxed"])


def targets_of(kind: str, scene: Scene) -> Targets:
    base = mixed_of(scene, 0.3) if "mixed" in kind else hard_targets(scene.labels)
    if kind in ("hard", "mixed"):
        return base
    similarity = pixel_similarity(pixel_rows(scene.embeddings), scene.known)
    if "prototype" in kind:
        similarity = prototype_similarity(base, scene.known)
    if kind == "relaxed":
        return relaxed_targets(base, similarity, scene.known, 2)
    return sparse_targets(base, similarity, scene.known, 2, 0.1)


@given(scenes(), st.sampled_from(["csc1", "csc2"]), st.integers(1, 4))
def test_targets_found_for_each_class_are_those_found_for_each_pixel(scene: Scene, variant: str, k: int) -> None:
    def found(base: Targets) -> Targets:
        similarity = prototype_similarity(base, scene.known)
        if variant == "csc1":
            return relaxed_targets(base, similarity, scene.known, k)
        return sparse_targets(base, similarity, scene.known, k, 0.1)

    pixels = found(hard_targets(scene.labels))
    classes = pure_call(targets_by_class, scene.labels, found(hard_targets(torch.arange(len(scene.known.present)))))
    assert torch.equal(classes.weights, pixels.weights)
    assert torch.equal(classes.classes * (classes.weights > 0), pixels.classes * (pixels.weights > 0))
    assert torch.equal(classes.valid, pixels.valid)
    if variant == "csc1":
        assert classes.left_out is not None
        assert pixels.left_out is not None
        assert torch.equal(classes.left_out, pixels.left_out)


@given(scenes(), kinds)
def test_every_form_equals_the_naive_float64_loss(scene: Scene, kind: str) -> None:
    targets = targets_of(kind, scene)
    loss = pure_call(prototype_nce, scene.embeddings, scene.known, targets, TAU)
    assert math.isclose(float(loss.mean()), naive(pixel_rows(scene.embeddings), scene.known, targets), abs_tol=2e-5)


@given(scenes(), kinds)
def test_gradients_equal_those_of_a_float64_copy(scene: Scene, kind: str) -> None:
    targets = targets_of(kind, scene)
    single = scene.embeddings.clone().requires_grad_()
    prototype_nce(single, scene.known, targets, TAU, unit=True).mean().backward()
    double = scene.embeddings.double().requires_grad_()
    logits = pixel_rows(double) @ scene.known.vectors.double().T / TAU
    if targets.left_out is not None:
        out = F.one_hot(targets.left_out, logits.shape[1] + 1).sum(1)[:, :-1].bool()
        normal = torch.logsumexp(logits.masked_fill(out, -torch.inf), 1, keepdim=True)
    else:
        normal = torch.logsumexp(logits, 1, keepdim=True)
    terms = (normal - logits.gather(1, targets.classes)) * targets.weights
    (terms.sum() / targets.valid.sum().clamp(min=1e-30)).backward()
    assert single.grad is not None
    assert double.grad is not None
    assert single.grad.isfinite().all()
    assert torch.allclose(single.grad.double(), double.grad, atol=1e-5)


@given(scenes())
def test_hard_targets_give_torchs_cross_entropy(scene: Scene) -> None:
    logits = class_logits(pixel_rows(scene.embeddings), scene.known, TAU)
    expected = F.cross_entropy(logits, scene.labels.flatten(), ignore_index=IGNORE, reduction="sum")
    assert math.isclose(
        float(nce(logits, hard_targets(scene.labels)).total), float(expected), rel_tol=1e-5, abs_tol=1e-5
    )


@given(scenes())
def test_a_share_of_one_is_the_hard_loss(scene: Scene) -> None:
    share = torch.ones(len(scene.labels))
    mixed = mixed_targets(scene.labels, torch.zeros_like(scene.labels), share)
    assert math.isclose(loss_of(scene, mixed), loss_of(scene, hard_targets(scene.labels)), rel_tol=1e-5, abs_tol=1e-6)


@given(scenes(), st.floats(0.01, 0.99))
def test_swapping_the_images_and_the_share_leaves_the_mixed_loss(scene: Scene, share: float) -> None:
    second = torch.randint(-1, len(scene.known.vectors), scene.labels.shape, generator=scene.rng)
    shares = torch.full((len(scene.labels),), share)
    first = pure_call(mixed_targets, scene.labels, second, shares)
    swapped = mixed_targets(second, scene.labels, 1 - shares)
    assert math.isclose(loss_of(scene, first), loss_of(scene, swapped), abs_tol=1e-4)


@given(scenes(), st.sampled_from([1, 2, 9]))
def test_a_weight_of_zero_switches_sparse_coding_off(scene: Scene, k: int) -> None:
    base = hard_targets(scene.labels)
    similarity = pure_call(pixel_similarity, pixel_rows(scene.embeddings), scene.known)
    sparse = pure_call(sparse_targets, base, similarity, scene.known, k, 0.0)
    assert math.isclose(loss_of(scene, sparse), loss_of(scene, base), rel_tol=1e-5, abs_tol=1e-6)


@given(scenes(), st.integers(1, 4))
def test_sparse_coding_never_pulls_to_the_pixels_own_class_or_an_absent_one(scene: Scene, k: int) -> None:
    present = torch.rand(len(scene.known.vectors), generator=scene.rng) < 0.7
    known = Prototypes(scene.known.vectors, present)
    base = mixed_of(scene, 0.4)
    similarity = pure_call(prototype_similarity, base, known)
    sparse = sparse_targets(base, similarity, known, k, 0.1)
    for i in range(len(base.valid)):
        own = set(base.classes[i][base.weights[i] > 0].tolist())
        added, weights = sparse.classes[i, 2:], sparse.weights[i, 2:]
        pulled = added[weights > 0].tolist()
        assert not own & set(pulled)
        assert len(set(pulled)) == len(pulled)
        assert all(bool(present[c]) for c in pulled)
        if base.valid[i] == 0:
            assert not pulled
        else:
            candidates = [c for c in range(len(present)) if present[c] and c not in own]
            assert len(pulled) == min(k, len(candidates))
            best = sorted((float(similarity[i, c]) for c in candidates), reverse=True)[: len(pulled)]
            assert sorted((float(similarity[i, c]) for c in pulled), reverse=True) == best


@given(scenes(), kinds)
def test_an_ignored_pixel_contributes_neither_loss_nor_gradient(scene: Scene, kind: str) -> None:
    targets = targets_of("hard" if "mixed" in kind else kind, scene)
    embeddings = scene.embeddings.clone().requires_grad_()
    prototype_nce(embeddings, scene.known, targets, TAU).mean().backward()
    assert embeddings.grad is not None
    ignored = (scene.labels == IGNORE)[:, None].expand_as(embeddings)
    assert embeddings.grad[ignored].eq(0).all()


def test_identical_prototypes_give_the_log_of_their_number() -> None:
    known = Prototypes(torch.ones(7, 4) / 2, torch.ones(7, dtype=torch.bool))
    embeddings = F.normalize(torch.randn(2, 4, 3, 3, generator=rng_of(0)), dim=1)
    labels = torch.randint(0, 7, (2, 3, 3), generator=rng_of(1))
    loss = prototype_nce(embeddings, known, hard_targets(labels), TAU).mean()
    assert math.isclose(float(loss), math.log(7), abs_tol=1e-5)


def test_an_absent_class_does_not_compete() -> None:
    known = Prototypes(torch.ones(7, 4) / 2, torch.tensor([True] * 3 + [False] * 4))
    embeddings = F.normalize(torch.randn(1, 4, 2, 2, generator=rng_of(0)), dim=1)
    loss = prototype_nce(embeddings, known, hard_targets(torch.zeros(1, 2, 2)), TAU).mean()
    assert math.isclose(float(loss), math.log(3), abs_tol=1e-5)


def test_by_hand_two_classes_at_right_angles() -> None:
    known = Prototypes(torch.eye(2), torch.ones(2, dtype=torch.bool))
    embeddings = torch.tensor([[[[1.0]], [[0.0]]]])
    loss = prototype_nce(embeddings, known, hard_targets(torch.zeros(1, 1, 1)), 0.5).mean()
    assert math.isclose(float(loss), math.log(1 + math.exp(-2)), abs_tol=1e-6)
    # eq. 8 by hand: K = 1, alpha = 0.1 adds 0.1 * (-log p(other)) = 0.1 * (2 + log(1 + e^-2))
    base = hard_targets(torch.zeros(1, 1, 1))
    sparse = sparse_targets(base, torch.tensor([[1.0, 0.0]]), known, 1, 0.1)
    both = prototype_nce(embeddings, known, sparse, 0.5).mean()
    assert math.isclose(float(both), 1.1 * math.log(1 + math.exp(-2)) + 0.2, abs_tol=1e-6)


@pytest.mark.parametrize("kind", ["hard", "mixed", "sparse pixel", "relaxed"])
def test_a_batch_without_a_valid_pixel_has_loss_and_gradient_zero(kind: str) -> None:
    labels = torch.full((2, 2, 2), IGNORE)
    embeddings = F.normalize(torch.randn(2, 3, 2, 2, generator=rng_of(0)), dim=1)
    known = Prototypes(torch.eye(3), torch.tensor([True, False, True]))
    scene = Scene(embeddings.requires_grad_(), labels, known, rng_of(1))
    targets = mixed_targets(labels, labels, torch.tensor([0.2, 0.7])) if kind == "mixed" else targets_of(kind, scene)
    loss = prototype_nce(embeddings, known, targets, TAU).mean()
    loss.backward()
    assert loss.item() == 0
    assert embeddings.grad is not None
    assert embeddings.grad.eq(0).all()


def test_nothing_known_and_nothing_labelled_is_still_finite() -> None:
    known = Prototypes(torch.zeros(3, 3), torch.zeros(3, dtype=torch.bool))
    embeddings = F.normalize(torch.randn(1, 3, 2, 2, generator=rng_of(0)), dim=1).requires_grad_()
    loss = prototype_nce(embeddings, known, hard_targets(torch.full((1, 2, 2), IGNORE)), TAU).mean()
    loss.backward()
    assert loss.item() == 0
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


def test_prototypes_receive_no_gradient() -> None:
    vectors = torch.eye(3).requires_grad_()
    embeddings = F.normalize(torch.randn(1, 3, 2, 2, generator=rng_of(0)), dim=1).requires_grad_()
    known = Prototypes(vectors, torch.ones(3, dtype=torch.bool))
    prototype_nce(embeddings, known, hard_targets(torch.zeros(1, 2, 2)), TAU).mean().backward()
    assert vectors.grad is None


def test_the_loss_is_float32_under_autocast() -> None:
    known = Prototypes(torch.eye(3), torch.ones(3, dtype=torch.bool))
    embeddings = F.normalize(torch.randn(1, 3, 2, 2, generator=rng_of(0)), dim=1)
    targets = hard_targets(torch.zeros(1, 2, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside: Any = prototype_nce(embeddings, known, targets, TAU).mean()
    assert inside.dtype == torch.float32
    assert float(inside) == float(prototype_nce(embeddings, known, targets, TAU).mean())


def test_a_mixed_pixel_with_one_void_label_keeps_the_other_with_its_weight() -> None:
    targets = mixed_targets(torch.tensor([[[2]]]), torch.tensor([[[IGNORE]]]), torch.tensor([0.25]))
    assert targets.weights.tolist() == [[0.25, 0.0]]
    assert targets.valid.tolist() == [0.25]


def test_logits_and_targets_of_different_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="rows of logits"):
        nce(torch.zeros(3, 2), hard_targets(torch.zeros(2)))
