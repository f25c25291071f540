"""Criteria beside cross-entropy: laws, values by hand, and the libraries that have the same."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mdp.core.class_weights import balanced_weights, total_weight
from mdp.core.criteria.cross_entropy import cross_entropy, weighted_cross_entropy
from mdp.core.criteria.dice import DiceSums, dice, dice_sums
from mdp.core.criteria.focal import focal
from mdp.core.criteria.lovasz import jaccard_steps, lovasz_softmax
from mdp.core.labels import IGNORE
from mdp.core.ohem import hard_labels, hard_pixels
from tests.laws import pure_call
from tests.peers import library_or_skip
from tests.tensors import rng_of, seeds

ONE = torch.tensor(1.0)


def scene(seed: int, classes: int = 4, ignored: bool = True) -> tuple[Tensor, Tensor]:
    """Logits (B, C, H, W) and labels (B, H, W), some of them ignored."""
    rng = rng_of(seed)
    batch, height, width = (int(torch.randint(1, 5, (), generator=rng)) for _ in range(3))
    labels = torch.randint(IGNORE if ignored else 0, classes, (batch, height, width), generator=rng)
    return 3 * torch.randn(batch, classes, height, width, generator=rng), labels


def valid(labels: Tensor) -> Tensor:
    return (labels != IGNORE).sum()


def as_loss(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    weights = torch.tensor([0.5, 2.0, 0.0, 1.0])
    return {
        "weights and smoothing": lambda x, y: weighted_cross_entropy(x, y, total_weight(y, weights), weights, 0.1),
        "hard pixels": lambda x, y: cross_entropy(x, hard_labels(x, y, 0.5, 2), valid(y)),
        "focal": lambda x, y: focal(x, y, valid(y), 2.0, weights),
        "focal, gamma below 1": lambda x, y: focal(x, y, valid(y), 0.5),
        "dice": lambda x, y: dice(dice_sums(x, y)),
        "dice, squared": lambda x, y: dice(dice_sums(x, y, squared=True), 0.0),
        "lovasz": lovasz_softmax,
    }[name]


NAMES = ["weights and smoothing", "hard pixels", "focal", "focal, gamma below 1", "dice", "dice, squared", "lovasz"]


# What holds for all


@pytest.mark.parametrize("name", NAMES)
@given(seed=seeds)
def test_a_criterion_is_pure_finite_not_negative_and_blind_to_ignored_pixels(name: str, seed: int) -> None:
    loss = as_loss(name)
    logits, labels = scene(seed)
    value = pure_call(loss, logits, labels)
    assert value.isfinite()
    assert value >= 0
    leaf = logits.clone().requires_grad_()
    loss(leaf, labels).backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    hidden = (labels == IGNORE).unsqueeze(1).expand_as(logits)
    assert (leaf.grad[hidden] == 0).all()
    other = torch.where(hidden, torch.randn(logits.shape, generator=rng_of(seed)), logits)
    torch.testing.assert_close(loss(other, labels), value)


@pytest.mark.parametrize("name", NAMES)
def test_without_any_valid_pixel_it_is_nothing_with_gradient_nothing(name: str) -> None:
    logits = torch.randn(2, 4, 3, 3, generator=rng_of(0)).requires_grad_()
    value = as_loss(name)(logits, torch.full((2, 3, 3), IGNORE))
    assert value == 0
    value.backward()
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_counted_in_single(name: str, kind: torch.dtype) -> None:
    logits, labels = scene(3)
    value = as_loss(name)(logits.to(kind), labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, as_loss(name)(logits.to(kind).float(), labels))


@pytest.mark.parametrize("name", NAMES)
def test_extreme_logits_give_finite_losses_and_gradients(name: str) -> None:
    logits = torch.tensor([1e4, -1e4, 80.0, 0.0]).view(1, 4, 1, 1).repeat(1, 1, 1, 4).requires_grad_()
    value = as_loss(name)(logits, torch.arange(4).view(1, 1, 4))
    value.backward()
    assert value.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("weights and smoothing", "hard pixels")])
@given(seed=seeds)
def test_a_right_and_certain_network_loses_nothing(name: str, seed: int) -> None:
    _, labels = scene(seed)
    logits = 60.0 * F.one_hot(labels.clamp(min=0), 4).movedim(-1, 1).float()
    assert as_loss(name)(logits, labels) < 1e-5


# Class weights and smoothing


@given(seeds, st.floats(0, 1), st.booleans())
def test_weights_and_smoothing_are_the_sum_over_classes_that_the_docstring_says(
    seed: int, smoothing: float, weighted: bool
) -> None:
    logits, labels = scene(seed)
    weights = torch.rand(4, generator=rng_of(seed)) if weighted else torch.ones(4)
    log_p = logits.double().log_softmax(1)
    target = (1 - smoothing) * F.one_hot(labels.clamp(min=0), 4).movedim(-1, 1).double() + smoothing / 4
    terms = -(target * log_p * weights.double().view(1, 4, 1, 1)).sum(1)
    expected = terms[labels != IGNORE].sum() / 7
    value = weighted_cross_entropy(logits, labels, torch.tensor(7), weights if weighted else None, smoothing)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)


@given(seeds, st.floats(0, 0.9))
def test_divided_by_the_total_weight_it_is_torchs_mean(seed: int, smoothing: float) -> None:
    logits, labels = scene(seed)
    weights = torch.rand(4, generator=rng_of(seed)) + 0.1
    if not valid(labels):
        return
    value = weighted_cross_entropy(logits, labels, total_weight(labels, weights), weights, smoothing)
    expected = F.cross_entropy(logits, labels, weights, ignore_index=IGNORE, label_smoothing=smoothing)
    torch.testing.assert_close(value, expected)


@given(seeds)
def test_without_weights_and_smoothing_it_is_cross_entropy_bit_for_bit(seed: int) -> None:
    logits, labels = scene(seed)
    assert torch.equal(
        weighted_cross_entropy(logits, labels, valid(labels)), cross_entropy(logits, labels, valid(labels))
    )


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=30).filter(any))
def test_balanced_weights_give_every_class_the_same_say(counts: list[int]) -> None:
    weights = pure_call(balanced_weights, torch.tensor(counts)).double()
    says = [weight * count for weight, count in zip(weights.tolist(), counts, strict=True) if count]
    total = sum(counts)
    assert all(math.isclose(say, total / len(says), rel_tol=1e-6) for say in says)
    assert all(weight == 0 for weight, count in zip(weights.tolist(), counts, strict=True) if not count)


def test_impossible_weights_are_refused() -> None:
    for counts in ([0, 0], [-1, 3], []):
        with pytest.raises(ValueError, match="balanced weights: expected numbers of pixels"):
            balanced_weights(torch.tensor(counts))
    logits, labels = scene(0)
    with pytest.raises(ValueError, match="weights: expected one for each of 4 classes"):
        weighted_cross_entropy(logits, labels, ONE, torch.ones(3))
    with pytest.raises(ValueError, match="smoothing: expected a share"):
        weighted_cross_entropy(logits, labels, ONE, smoothing=1.5)


# Hard pixels


@given(seeds, st.floats(0, 1), st.integers(0, 20))
def test_hard_pixels_are_those_that_sorting_finds(seed: int, threshold: float, least: int) -> None:
    logits, labels = scene(seed)
    found = pure_call(hard_pixels, logits, labels, threshold, least)
    for image, one, marks in zip(logits.softmax(1), labels, found, strict=True):
        mask = one != IGNORE
        probability = image.gather(0, one.clamp(min=0)[None])[0]  # (H, W)
        known, _ = probability[mask].sort()
        limit = float("inf") if least >= len(known) else max(float(known[least]), threshold)
        assert torch.equal(marks, mask & (probability < limit))


@given(seeds)
def test_a_threshold_of_one_keeps_every_pixel_that_is_not_certain(seed: int) -> None:
    logits, labels = scene(seed)
    assert torch.equal(hard_labels(logits, labels, 1.0, 0), labels)


# Focal


@given(seeds)
def test_focal_without_focus_is_cross_entropy(seed: int) -> None:
    logits, labels = scene(seed)
    torch.testing.assert_close(focal(logits, labels, valid(labels), 0.0), cross_entropy(logits, labels, valid(labels)))


@given(seeds, st.floats(0, 5), st.floats(0, 1))
def test_focal_of_two_classes_is_the_papers_of_one_sigmoid(seed: int, gamma: float, alpha: float) -> None:
    logits, labels = scene(seed, classes=2, ignored=False)
    one = (logits[:, 1] - logits[:, 0]).double()
    target = labels.double()
    p_t = torch.sigmoid(one) * target + (1 - torch.sigmoid(one)) * (1 - target)
    alpha_t = alpha * target + (1 - alpha) * (1 - target)
    expected = -(alpha_t * (1 - p_t) ** gamma * p_t.log()).sum()
    weights = torch.tensor([1 - alpha, alpha])
    value = focal(logits, labels, ONE, gamma, weights)
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-5)


def test_focal_is_torchvisions() -> None:
    torchvision = library_or_skip("torchvision")
    logits, labels = scene(5, classes=2, ignored=False)
    one = logits[:, 1] - logits[:, 0]
    expected = torchvision.ops.sigmoid_focal_loss(one, labels.float(), alpha=0.25, gamma=2.0, reduction="sum")
    torch.testing.assert_close(focal(logits, labels, ONE, 2.0, torch.tensor([0.75, 0.25])), expected)


# Dice


@given(seeds, st.booleans())
def test_sums_of_parts_add_up_to_those_of_the_batch(seed: int, squared: bool) -> None:
    logits, labels = scene(seed)
    whole = pure_call(dice_sums, logits, labels, squared)
    parts = [dice_sums(logits[n : n + 1], labels[n : n + 1], squared) for n in range(len(labels))]
    for field in range(3):
        torch.testing.assert_close(sum(part[field] for part in parts), whole[field])


@given(seeds, st.booleans(), st.floats(0, 2))
def test_dice_is_its_formula_a_class_at_a_time(seed: int, squared: bool, smooth: float) -> None:
    logits, labels = scene(seed)
    mask, terms = labels != IGNORE, []
    for index in range(4):
        p, g = logits.double().softmax(1)[:, index][mask], (labels[mask] == index).double()
        if g.any():
            below = (p**2 if squared else p).sum() + (g**2).sum() + smooth
            terms.append(1 - (2 * (p * g).sum() + smooth) / below)
    expected = torch.stack(terms).mean() if terms else torch.zeros((), dtype=torch.float64)
    value = dice(dice_sums(logits, labels, squared), smooth)
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-5)


def test_dice_is_that_of_another_library() -> None:
    smp = library_or_skip("segmentation_models_pytorch")
    for seed in range(5):
        logits, labels = scene(seed, ignored=False)
        value = dice(dice_sums(logits, labels), 0.0)
        share = len(labels.unique()) / 4  # smp's mean counts a class without pixels as 0
        theirs = smp.losses.DiceLoss("multiclass", smooth=0.0)(logits, labels)
        torch.testing.assert_close(value * share, theirs)


# Lovasz


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_the_steps_are_differences_of_the_jaccard_loss(marked: list[bool]) -> None:
    steps = pure_call(jaccard_steps, torch.tensor(marked))
    total = sum(marked)

    def jaccard_loss(wrong: int) -> float:
        """Of the set of the first so many pixels being wrong."""
        hit = total - sum(marked[:wrong])
        union = total + sum(not one for one in marked[:wrong])
        return 1 - hit / union if union else 0.0

    expected = [jaccard_loss(n + 1) - jaccard_loss(n) for n in range(len(marked))]
    torch.testing.assert_close(steps, torch.tensor(expected), rtol=1e-5, atol=1e-6)
    assert (steps >= 0).all()
    torch.testing.assert_close(steps.sum(), ONE)


@given(st.integers(1, 5), seeds)
def test_at_certain_predictions_it_is_one_minus_the_mean_iou(pixels: int, seed: int) -> None:
    labels = torch.randint(3, (1, 1, pixels), generator=rng_of(seed))
    guess = torch.randint(3, (1, 1, pixels), generator=rng_of(seed + 1))
    logits = 1e4 * F.one_hot(guess, 3).movedim(-1, 1).float()
    ious = [
        float(((labels == c) & (guess == c)).sum() / ((labels == c) | (guess == c)).sum())
        for c in labels.unique().tolist()
    ]
    torch.testing.assert_close(lovasz_softmax(logits, labels), torch.tensor(1 - sum(ious) / len(ious)))


@given(seeds)
def test_it_is_the_largest_over_all_orders_as_a_convex_extension_is(seed: int) -> None:
    """The Lovasz extension of a submodular function is the maximum over orders (Edmonds); the loss of one class."""
    rng = rng_of(seed)
    labels, logits = torch.randint(2, (1, 1, 4), generator=rng), torch.randn(1, 2, 1, 4, generator=rng)
    probability, own = logits.softmax(1)[0, :, 0], labels.flatten()
    best = []
    for index in own.unique().tolist():
        marked = own == index
        errors = torch.where(marked, 1 - probability[index], probability[index])
        orders = [list(order) for order in itertools.permutations(range(4))]
        best.append(max(float((errors[order] * jaccard_steps(marked[order])).sum()) for order in orders))
    torch.testing.assert_close(lovasz_softmax(logits, labels), torch.tensor(sum(best) / len(best)))


def test_lovasz_is_that_of_another_library() -> None:
    smp = library_or_skip("segmentation_models_pytorch")
    for seed in range(5):
        logits, labels = scene(seed, ignored=False)
        theirs = smp.losses.LovaszLoss("multiclass", from_logits=True)(logits, labels)
        torch.testing.assert_close(lovasz_softmax(logits, labels), theirs)


def test_wrong_settings_are_refused_by_their_names() -> None:
    logits, labels = scene(0)
    with pytest.raises(ValueError, match="gamma: expected"):
        focal(logits, labels, ONE, -1.0)
    with pytest.raises(ValueError, match="smooth: expected"):
        dice(DiceSums(ONE, ONE, ONE), -1.0)
    with pytest.raises(ValueError, match="threshold, least: expected"):
        hard_pixels(logits, labels, 2.0)
