"""How far labels agree with probabilities: cleanlab's score, hand values, what is unusual among its like."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdp.core.geometry import Box
from mdp.core.label_quality import (
    FLOOR,
    SHRINK,
    above_usual,
    disagreements,
    no_values,
    self_confidence,
    soft_minimum,
    standardised,
    with_values,
)
from mdp.core.labels import IGNORE
from tests.laws import pure_call
from tests.tensors import rng_of, seeds


@given(seeds, st.integers(2, 5), st.integers(1, 6), st.integers(1, 6))
def test_the_score_of_an_image_is_cleanlabs(seed: int, classes: int, height: int, width: int) -> None:
    rank = pytest.importorskip("cleanlab.segmentation.rank")
    rng = rng_of(seed)
    probabilities = torch.randn(classes, height, width, generator=rng).softmax(0)
    labels = torch.randint(classes, (height, width), generator=rng)
    labels.flatten()[0] = classes - 1  # cleanlab asks for labels of every class that there is
    images, pixels = rank.get_label_quality_scores(labels.numpy()[None], probabilities.numpy()[None], verbose=False)
    own = pure_call(self_confidence, probabilities, labels)
    np.testing.assert_allclose(own.numpy(), pixels[0], rtol=1e-6)
    assert pure_call(soft_minimum, own) == pytest.approx(images[0], rel=1e-6)


@given(seeds, st.integers(1, 9))
def test_the_soft_minimum_lies_between_the_least_and_the_mean_and_ignores_what_has_no_label(
    seed: int, count: int
) -> None:
    values = torch.rand(count, generator=rng_of(seed))
    score = soft_minimum(values)
    assert float(values.min()) - 1e-6 <= score <= float(values.mean()) + 1e-6
    assert soft_minimum(torch.cat([values, torch.tensor([math.nan])])) == score
    assert math.isnan(soft_minimum(values[:0]))


def test_a_region_is_what_has_one_label_and_one_other_guess() -> None:
    labels = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 1], [IGNORE, IGNORE, 0, 1]])
    first = torch.tensor([[0.9, 0.2, 0.2, 0.6], [0.9, 0.2, 0.2, 0.1], [0.7, 0.7, 0.9, 0.1]])
    probabilities = torch.stack([first, 1 - first])
    by_label = {(one.label, one.guess): one for one in pure_call(disagreements, probabilities, labels, 0.1)}
    assert by_label.keys() == {(0, 1), (IGNORE, 0)}  # one pixel of class 1 is too small
    wrong, unnamed = by_label[0, 1], by_label[IGNORE, 0]
    assert wrong.box == Box(0, 1, 2, 2)
    assert (wrong.share, wrong.confidence) == (4 / 12, pytest.approx(0.8))
    assert wrong.margin == pytest.approx(math.log(0.8 / 0.2), rel=1e-5)
    assert unnamed.box == Box(2, 0, 1, 2)
    assert unnamed.margin == pytest.approx(math.log(0.7 / 0.3), rel=1e-5)


@given(seeds, st.integers(2, 4))
def test_labels_that_are_the_guess_have_no_region_and_swapped_ones_have_all_of_it(seed: int, classes: int) -> None:
    probabilities = torch.randn(classes, 5, 7, generator=rng_of(seed)).softmax(0)
    guess = probabilities.argmax(0)
    assert disagreements(probabilities, guess, 0) == []
    regions = disagreements(probabilities, (guess + 1) % classes, 0)
    assert sum(region.share for region in regions) == pytest.approx(1)
    assert all(0 <= region.margin <= -math.log(FLOOR) for region in regions)


def test_one_class_has_nothing_to_disagree_about() -> None:
    with pytest.raises(ValueError, match="expected two classes or more, got 1"):
        disagreements(torch.ones(1, 2, 2), torch.zeros(2, 2, dtype=torch.int64), 0)


@given(seeds, st.integers(1, 20), st.integers(1, 3))
def test_deviations_are_those_of_the_group_with_a_few_values_of_all_besides(seed: int, count: int, groups: int) -> None:
    rng = rng_of(seed)
    values, of = torch.randn(count, generator=rng).double(), torch.randint(groups, (count,), generator=rng)
    usual = pure_call(with_values, no_values(groups), values, of)
    scores = pure_call(standardised, values, of, usual)
    numbers, mean, variance = values.numpy(), values.numpy().mean(), values.numpy().var()
    for i in range(count):
        own = numbers[of.numpy() == int(of[i])]
        middle = np.concatenate([own, np.full(SHRINK, mean)]).mean()
        spread = (((own - middle) ** 2).sum() + SHRINK * variance) / (len(own) + SHRINK)
        expected = (numbers[i] - middle) / math.sqrt(spread) if spread > 1e-12 else 0
        assert float(scores[i]) == pytest.approx(expected, abs=1e-6)
    assert torch.allclose(standardised(3 * values + 1, of, with_values(no_values(groups), 3 * values + 1, of)), scores)


def test_a_group_of_its_own_kind_is_judged_by_itself_once_it_is_large() -> None:
    values = torch.cat([torch.full((50,), 5.0), torch.zeros(50), torch.tensor([5.0])]).double()
    groups = torch.cat([torch.zeros(50), torch.ones(51)]).long()
    scores = standardised(values, groups, with_values(no_values(2), values, groups))
    assert float(scores[0]) < 1
    assert float(scores[-1]) > 3  # 5 is usual in one group, and not in the other


@given(seeds, st.integers(1, 20), st.integers(1, 3))
def test_what_is_more_than_usual_is_the_margin_above_the_shrunk_mean_by_the_root_of_the_size(
    seed: int, count: int, groups: int
) -> None:
    rng = rng_of(seed)
    margins, shares = torch.rand(count, generator=rng).double() * 7, torch.rand(count, generator=rng).double()
    of = torch.randint(groups, (count,), generator=rng)
    found = pure_call(above_usual, margins, shares, of, with_values(no_values(groups), margins, of))
    for i in range(count):
        own = np.concatenate([margins[of == of[i]].numpy(), np.full(SHRINK, margins.mean())])
        assert float(found[i]) == pytest.approx((float(margins[i]) - own.mean()) * math.sqrt(shares[i]), abs=1e-9)


def test_a_whole_region_is_doubted_before_a_thin_band_whose_label_is_seldom_missed() -> None:
    spread = torch.linspace(-1, 1, 50).double()
    margins = torch.cat([2.8 + 2.6 * spread, 4.7 + 3.3 * spread, torch.tensor([6.9, 6.9])])  # 6.9 is all there can be
    shares = torch.full((102,), 0.01).double()
    shares[-2:] = torch.tensor([0.023, 0.34])
    groups = torch.tensor([0] * 50 + [1] * 50 + [0, 1])
    usual = with_values(no_values(2), margins, groups)
    more = above_usual(margins, shares, groups, usual)
    band, whole = standardised(more, groups, with_values(no_values(2), more, groups))[-2:].tolist()
    assert whole > band > 2
    band, whole = standardised(margins, groups, usual)[-2:].tolist()
    assert whole * 0.34**0.25 < band * 0.023**0.25  # with the size beside what is measured
