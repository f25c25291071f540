"""Linear discriminants from moments: scikit-learn's, what adds up, a hand value."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdp.core.discriminants import discriminant, moments, no_rows, together
from tests.laws import pure_call
from tests.tensors import rng_of, seeds


@given(seeds, st.integers(2, 4), st.integers(1, 4), st.sampled_from([0.01, 0.5]))
def test_the_probabilities_are_scikit_learns(seed: int, classes: int, features: int, shrinkage: float) -> None:
    analysis = pytest.importorskip("sklearn.discriminant_analysis")
    rng = rng_of(seed)
    labels = torch.arange(12 * classes) % classes
    rows = torch.randn(classes, features, generator=rng)[labels] + torch.randn(len(labels), features, generator=rng)
    known = pure_call(moments, rows, labels, classes)
    found = pure_call(discriminant, known, shrinkage).scores(rows).softmax(1)
    theirs = analysis.LinearDiscriminantAnalysis(solver="lsqr", store_covariance=True).fit(rows.numpy(), labels.numpy())
    ridge = shrinkage * np.trace(theirs.covariance_) / features
    spread = (1 - shrinkage) * theirs.covariance_ + ridge * np.eye(features)
    weight = np.linalg.solve(spread, theirs.means_.T).T
    scores = rows.double().numpy() @ weight.T - (theirs.means_ * weight).sum(1) / 2 + np.log(theirs.priors_)
    np.testing.assert_allclose(found.numpy(), torch.from_numpy(scores).softmax(1).numpy(), atol=1e-6)


@given(seeds, st.integers(1, 9))
def test_what_is_left_out_was_never_there(seed: int, split: int) -> None:
    rng = rng_of(seed)
    rows, labels = torch.randn(10, 3, generator=rng), torch.randint(2, (10,), generator=rng)
    whole, part = moments(rows, labels, 2), moments(rows[:split], labels[:split], 2)
    rest = moments(rows[split:], labels[split:], 2)
    for left, own in zip(pure_call(together, whole, part, -1), together(no_rows(2, 3), rest), strict=True):
        assert torch.allclose(left, own)


def test_two_classes_on_a_line_meet_in_the_middle_and_a_class_without_rows_is_never_named() -> None:
    rows, labels = torch.tensor([[-2.0], [0.0], [2.0], [4.0]]), torch.tensor([0, 0, 1, 1])
    found = discriminant(moments(rows, labels, 3), shrinkage=0)
    scores = found.scores(torch.tensor([[1.0], [2.0]]))  # means -1 and 3, variance 1: log-odds 4 (x - 1)
    assert scores[0, 0].item() == pytest.approx(scores[0, 1].item())
    assert (scores[1, 1] - scores[1, 0]).item() == pytest.approx(4)
    assert scores[0, 2].item() == -math.inf


def test_no_rows_and_another_shrinkage_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a labelled row or more, got none"):
        discriminant(no_rows(2, 3))
    with pytest.raises(ValueError, match="shrinkage: expected 0 to 1, got 2"):
        discriminant(moments(torch.ones(1, 1), torch.tensor([0]), 1), shrinkage=2)
