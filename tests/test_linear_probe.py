"""Linear classifiers on features: laws, hand values, SciPy's minimiser and scikit-learn's classifiers as oracles."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mdp.core.linear_probe import (
    Linear,
    average_precision,
    binary_logistic_regressions,
    logistic_regression,
    penalties,
    support_vector_machines,
)
from tests.laws import pure_call
from tests.peers import library_or_skip
from tests.tensors import rng_of, seeds

ROWS = torch.randn(40, 5, generator=rng_of(1))
LABELS = torch.randint(3, (40,), generator=rng_of(2))
POSITIVES = F.one_hot(LABELS, 3).bool()


def gradient(objective: Tensor, found: Linear) -> float:
    return max(float(part.abs().max()) for part in torch.autograd.grad(objective, list(found)))


def leaves(found: Linear) -> Linear:
    return Linear(*(part.clone().requires_grad_() for part in found))


@given(st.sampled_from([1e3, 1.0, 1e-3]))
@settings(max_examples=3)
def test_at_the_answer_no_objective_has_a_slope(penalty: float) -> None:
    rows, count = ROWS.double(), len(ROWS)
    found = leaves(pure_call(logistic_regression, ROWS, LABELS, 3, penalty))
    value = F.cross_entropy(found.scores(rows), LABELS, reduction="sum") + penalty / 2 * found.weight.square().sum()
    assert gradient(value / count, found) < 2e-7
    found = leaves(pure_call(binary_logistic_regressions, ROWS, POSITIVES, penalty))
    value = F.binary_cross_entropy_with_logits(found.scores(rows), POSITIVES.double(), reduction="sum")
    assert gradient((value + penalty / 2 * found.weight.square().sum()) / count, found) < 2e-7
    found = leaves(pure_call(support_vector_machines, ROWS, POSITIVES, penalty, 2.0))
    short = (1 - torch.where(POSITIVES, 1.0, -1.0) * found.scores(rows)).clamp(min=0).square()
    value = penalty * (torch.where(POSITIVES, 2.0, 1.0) * short).sum() + sum(p.square().sum() for p in found) / 2
    assert gradient(value / count / max(1, penalty), found) < 2e-7


def test_features_that_say_nothing_leave_the_shares_of_the_classes() -> None:
    found = logistic_regression(torch.zeros(10, 2), torch.tensor([0] * 7 + [1] * 3), 2, 1.0)
    assert found.weight.tolist() == [[0, 0], [0, 0]]
    assert torch.allclose(found.bias.softmax(0), torch.tensor([0.7, 0.3]).double())


def test_two_points_have_the_machine_worked_out_by_hand() -> None:
    """4 w + b = 3 and w + 4 b = 1."""
    found = support_vector_machines(torch.tensor([[1.0], [-1.0]]), torch.tensor([[True], [False]]))
    assert [float(found.weight), float(found.bias)] == pytest.approx([11 / 15, 1 / 15], abs=1e-6)


def test_a_guess_changes_the_way_and_not_the_answer() -> None:
    guess = logistic_regression(ROWS, LABELS, 3, 10.0)
    first, second = (logistic_regression(ROWS, LABELS, 3, 0.1, start) for start in (None, guess))
    assert torch.allclose(first.weight, second.weight, atol=1e-4)


def test_classes_are_fitted_each_against_the_rest_whatever_others_there_are() -> None:
    for fit in (support_vector_machines, lambda rows, positives: binary_logistic_regressions(rows, positives, 0.5)):
        together, alone = fit(ROWS, POSITIVES), fit(ROWS, POSITIVES[:, 1:2])
        assert torch.allclose(together.weight[1:2], alone.weight, atol=1e-4)


def test_a_minimiser_of_scipy_s_ends_at_the_same_place() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    rows, onto = ROWS.double().numpy(), np.eye(3)[LABELS.numpy()]

    def objective(flat: np.ndarray) -> float:
        scores = rows @ flat[:15].reshape(3, 5).T + flat[15:]
        logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        return float(-(logs * onto).sum() + 0.25 * np.square(flat[:15]).sum())

    expected = optimize.minimize(objective, np.zeros(18), options={"gtol": 1e-6}).x[:15].reshape(3, 5)
    assert np.allclose(logistic_regression(ROWS, LABELS, 3, 0.5).weight.numpy(), expected, atol=1e-4)


def test_scikit_learn_fits_the_same_classifiers() -> None:
    models, svm = library_or_skip("sklearn.linear_model"), library_or_skip("sklearn.svm")
    theirs = models.LogisticRegression(C=1 / 0.3, tol=1e-8, max_iter=5000).fit(ROWS.double().numpy(), LABELS.numpy())
    assert np.allclose(logistic_regression(ROWS, LABELS, 3, 0.3).weight.numpy(), theirs.coef_, atol=1e-4)
    machine = svm.LinearSVC(C=0.5, class_weight={1: 2, 0: 1}, tol=1e-8, max_iter=100_000, dual=True, random_state=0)
    ours = support_vector_machines(ROWS, POSITIVES)
    for label in range(3):
        machine.fit(ROWS.double().numpy(), POSITIVES[:, label].numpy().astype(int))
        assert np.allclose(ours.weight[label].numpy(), machine.coef_[0], atol=1e-4)
        assert np.allclose(float(ours.bias[label]), machine.intercept_[0], atol=1e-4)


# Average precision


@given(st.integers(1, 30), seeds)
def test_average_precision_is_one_for_a_perfect_order_and_knows_only_the_order(count: int, seed: int) -> None:
    rng = rng_of(seed)
    positives = torch.rand(count, 2, generator=rng) < 0.5
    positives[0] = True
    scores = torch.randint(5, (count, 2), generator=rng).double()
    found = pure_call(average_precision, scores, positives)
    assert torch.allclose(found, average_precision(2 * scores**3 - 7, positives))
    order = torch.randperm(count, generator=rng)
    assert torch.allclose(found, average_precision(scores[order], positives[order]))
    assert average_precision(positives.double(), positives).tolist() == [1, 1]
    assert torch.allclose(average_precision(torch.zeros(count, 2), positives), positives.double().mean(0))


def test_a_class_without_a_positive_has_no_average_precision() -> None:
    found = average_precision(torch.rand(4, 2), torch.tensor([[True, False]] * 4)).tolist()
    assert found[0] == 1
    assert math.isnan(found[1])


def test_scikit_learn_has_the_same_average_precision() -> None:
    metrics = library_or_skip("sklearn.metrics")
    scores = torch.randint(9, (60, 3), generator=rng_of(5)).double()
    positives = torch.rand(60, 3, generator=rng_of(6)) < 0.3
    theirs = [metrics.average_precision_score(positives[:, i].numpy(), scores[:, i].numpy()) for i in range(3)]
    assert average_precision(scores, positives).tolist() == pytest.approx(theirs)


def test_penalties_are_evenly_spaced_in_their_logarithm() -> None:
    steps = np.diff(np.log10(penalties()))
    assert np.allclose(steps, -10 / 44)
