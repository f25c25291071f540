"""Confusion matrix and the scores made of it, against plain Python."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdp.core.labels import IGNORE
from mdp.core.metrics import class_accuracy, class_iou, confusion_matrix, mean_accuracy, mean_iou, pixel_accuracy
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


@given(seeds, st.integers(0, 20))
def test_confusion_matrices_add_across_images(seed: int, cut: int) -> None:
    rng = rng_of(seed)
    truth, guess = torch.randint(-1, 4, (20,), generator=rng), torch.randint(0, 4, (20,), generator=rng)
    whole = confusion_matrix(guess, truth, 4)
    parts = confusion_matrix(guess[:cut], truth[:cut], 4) + confusion_matrix(guess[cut:], truth[cut:], 4)
    assert torch.equal(whole, parts)


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
