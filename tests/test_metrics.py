"""Confusion matrix and the scores made of it, against plain Python."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdp.core.comparison import count_miou, miou_interval
from mdp.core.labels import IGNORE
from mdp.core.metrics import (
    class_accuracy,
    class_dice,
    class_iou,
    class_precision,
    confusion_matrix,
    mean_accuracy,
    mean_iou,
    mean_iou_of,
    mean_iou_of_all,
    mean_iou_of_labelled,
    merge_classes,
    pixel_accuracy,
)
from tests.laws import pure_call
from tests.tensors import rng_of, seeds


@given(seeds, st.integers(1, 6), st.integers(0, 40))
def test_scores_equal_those_counted_pixel_by_pixel(seed: int, classes: int, pixels: int) -> None:
    rng = rng_of(seed)
    truth = torch.randint(-1, classes, (pixels,), generator=rng)
    guess = torch.randint(0, classes, (pixels,), generator=rng)
    confusion = pure_call(confusion_matrix, guess, truth, classes)
    pairs = [(t, g) for t, g in zip(truth.tolist(), guess.tolist(), strict=True) if t != IGNORE]
    for i in range(classes):
        for j in range(classes):
            assert confusion[i, j] == pairs.count((i, j))
    ious, accuracies = [], []
    for c in range(classes):
        union = sum(c in pair for pair in pairs)
        labelled = sum(t == c for t, _ in pairs)
        ious.append(pairs.count((c, c)) / union if union else math.nan)
        accuracies.append(pairs.count((c, c)) / labelled if labelled else math.nan)
    assert pure_call(class_iou, confusion).tolist() == pytest.approx(ious, nan_ok=True)
    assert class_accuracy(confusion).tolist() == pytest.approx(accuracies, nan_ok=True)
    counted = [value for value in ious if not math.isnan(value)]
    assert mean_iou(confusion) == pytest.approx(sum(counted) / len(counted) if counted else math.nan, nan_ok=True)
    counted = [value for value in accuracies if not math.isnan(value)]
    assert mean_accuracy(confusion) == pytest.approx(sum(counted) / len(counted) if counted else math.nan, nan_ok=True)
    right = sum(t == g for t, g in pairs) / len(pairs) if pairs else math.nan
    assert pixel_accuracy(confusion) == pytest.approx(right, nan_ok=True)


def test_what_is_predicted_for_ignored_pixels_does_not_matter() -> None:
    truth, guess = torch.tensor([0, -1, 1, -1], dtype=torch.int16), torch.tensor([0, -1, 0, 999])
    assert confusion_matrix(guess, truth, 2).tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize(("truth", "guess"), [(2, 0), (-2, 0), (0, 2), (0, -1)])
def test_values_that_are_no_class_are_refused(truth: int, guess: int) -> None:
    with pytest.raises(ValueError, match=r"values -?\d+\.\.-?\d+ outside 0\.\.1"):
        confusion_matrix(torch.tensor([1, guess]), torch.tensor([1, truth]), 2)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_a_narrow_type_counts_as_a_wide_one(kind: torch.dtype) -> None:
    values = torch.arange(250)
    assert torch.equal(confusion_matrix(values.to(kind), values.to(kind), 250), torch.eye(250, dtype=torch.int64))


@given(seeds, st.integers(0, 20))
def test_confusion_matrices_add_across_images(seed: int, cut: int) -> None:
    rng = rng_of(seed)
    truth, guess = torch.randint(-1, 4, (20,), generator=rng), torch.randint(0, 4, (20,), generator=rng)
    whole = confusion_matrix(guess, truth, 4)
    parts = confusion_matrix(guess[:cut], truth[:cut], 4) + confusion_matrix(guess[cut:], truth[cut:], 4)
    assert torch.equal(whole, parts)


@given(st.integers(0, 2**31), st.sampled_from([1, 7, 150, 255]))
def test_bytes_with_255_for_ignored_are_counted_as_they_are(seed: int, classes: int) -> None:
    rng = rng_of(seed)
    labels, guess = (torch.randint(classes, (6, 7), generator=rng) for _ in range(2))
    hidden = torch.rand(6, 7, generator=rng) < 0.3
    expected = confusion_matrix(guess, labels.masked_fill(hidden, -1), classes)
    labels, guess = labels.masked_fill(hidden, 255), guess.masked_fill(hidden, 255)  # whatever is predicted there
    for kind in (torch.uint8, torch.int16):
        found = pure_call(confusion_matrix, guess.to(kind), labels.to(kind), classes, 255)
        assert torch.equal(found, expected)


def test_bytes_that_are_no_class_are_refused() -> None:
    byte = partial(torch.tensor, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"labels: values 4\.\.255 outside 0\.\.2"):
        confusion_matrix(byte([0, 0]), byte([4, 255]), 3)
    with pytest.raises(ValueError, match=r"prediction: values 7\.\.9 outside 0\.\.2"):
        confusion_matrix(byte([7, 9, 8]), byte([0, 1, 255]), 3, 255)
    with pytest.raises(ValueError, match="ignored: 2 is one of 3 classes"):
        confusion_matrix(byte([0]), byte([0]), 3, 2)


def test_a_class_that_is_predicted_but_never_labelled_counts_as_zero() -> None:
    confusion = torch.tensor([[2, 0, 1], [0, 3, 0], [0, 0, 0]])
    assert mean_iou(confusion) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_values_outside_the_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels: values 0\.\.5"):
        confusion_matrix(torch.tensor([0, 0]), torch.tensor([0, 5]), 3)
    with pytest.raises(ValueError, match=r"prediction: values 7\.\.7"):
        confusion_matrix(torch.tensor([7]), torch.tensor([0]), 3)
    with pytest.raises(ValueError, match="differ in shape"):
        confusion_matrix(torch.tensor([7]), torch.tensor([0, 1]), 3)


def test_counts_beyond_float32_stay_exact() -> None:
    big = torch.tensor([[2**40 + 1, 0], [0, 1]])
    assert pixel_accuracy(big + torch.tensor([[0, 1], [0, 0]])) < 1


@given(seeds, st.integers(1, 6), st.integers(0, 40))
def test_dice_and_precision_equal_those_counted_pixel_by_pixel(seed: int, classes: int, pixels: int) -> None:
    rng = rng_of(seed)
    truth, guess = (torch.randint(0, classes, (pixels,), generator=rng) for _ in range(2))
    confusion = confusion_matrix(guess, truth, classes)
    dice, precision = pure_call(class_dice, confusion), pure_call(class_precision, confusion)
    for c in range(classes):
        hits = sum(t == g == c for t, g in zip(truth.tolist(), guess.tolist(), strict=True))
        labelled, predicted = int((truth == c).sum()), int((guess == c).sum())
        expected = 2 * hits / (labelled + predicted) if labelled + predicted else math.nan
        assert float(dice[c]) == pytest.approx(expected, nan_ok=True)
        assert float(precision[c]) == pytest.approx(hits / predicted if predicted else math.nan, nan_ok=True)
    iou = class_iou(confusion)
    assert torch.allclose(dice, 2 * iou / (1 + iou), equal_nan=True)


def test_the_rules_of_the_mean_differ_where_classes_are_absent() -> None:
    # class 2 is predicted but not labelled, class 3 neither
    confusion = torch.tensor([[3, 0, 1, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert mean_iou(confusion) == pytest.approx((0.75 + 1 + 0) / 3)
    assert mean_iou_of_labelled(confusion) == pytest.approx((0.75 + 1) / 2)
    assert mean_iou_of_all(confusion) == pytest.approx((0.75 + 1 + 0 + 0) / 4)
    assert mean_iou_of(confusion, slice(1, None)) == pytest.approx((1 + 0) / 2)
    empty = torch.zeros(2, 2, dtype=torch.int64)
    assert all(math.isnan(rule(empty)) for rule in (mean_iou, mean_iou_of_labelled, mean_iou_of_all))


@given(seeds, st.integers(1, 6), st.integers(1, 4))
def test_merged_classes_are_counted_as_if_they_had_been_one(seed: int, classes: int, groups: int) -> None:
    rng = rng_of(seed)
    truth, guess = (torch.randint(0, classes, (30,), generator=rng) for _ in range(2))
    group = torch.randint(0, groups, (classes,), generator=rng)
    group[0] = groups - 1
    merged = pure_call(merge_classes, confusion_matrix(guess, truth, classes), group)
    assert torch.equal(merged, confusion_matrix(group[guess], group[truth], groups))


# The interval


@given(seeds, st.integers(2, 6), st.integers(1, 4))
def test_an_interval_lies_among_the_scores_of_single_images_of_one_class(seed: int, images: int, scale: int) -> None:
    hits = torch.randint(0, 5, (images,), generator=rng_of(seed))
    counts = torch.stack([hits, torch.full((images,), 4), torch.full((images,), 4)], -1)[:, None] * scale  # (N, 1, 3)
    low, high = pure_call(miou_interval, counts, rng_of(seed), 200)
    scores = count_miou(counts).tolist()
    assert min(scores) - 1e-12 <= low <= high <= max(scores) + 1e-12


def test_an_interval_is_that_of_a_plain_bootstrap() -> None:
    counts = scattered_counts(40)
    found = miou_interval(counts, rng_of(0))
    rng = np.random.default_rng(1)
    scores = sorted(float(count_miou(counts[rng.integers(0, 40, 40)].sum(0))) for _ in range(2000))
    # quantiles of 2000 replicates scatter by about a fiftieth of the interval
    assert found.low == pytest.approx(scores[50], abs=0.06 * (found.high - found.low))
    assert found.high == pytest.approx(scores[1949], abs=0.06 * (found.high - found.low))


def test_an_interval_narrows_with_the_root_of_the_number_of_images() -> None:
    few, many = (miou_interval(scattered_counts(images), rng_of(0)) for images in (50, 5000))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(10, rel=0.4)


def test_one_image_has_no_interval() -> None:
    with pytest.raises(ValueError, match="two images or more, got 1"):
        miou_interval(torch.ones(1, 2, 3), rng_of(0))


def scattered_counts(images: int) -> torch.Tensor:
    """Counts (N, 3, 3) of images of which some are much better than others."""
    rng = rng_of(3)
    hits = torch.randint(1, 50, (images, 3), generator=rng)
    missed, wrong = (torch.randint(0, 40, (images, 3), generator=rng) for _ in range(2))
    return torch.stack([hits, hits + missed, hits + wrong], -1)
