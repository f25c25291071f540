"""A softmax for each dataset: the equation, and `multi_dataset` with such a classifier beside its contrastive term."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mdp.core.dataset_softmax import dataset_cross_entropy, log_softmax_by_dataset
from mdp.core.labels import IGNORE
from mdp.core.methods import multi_dataset
from mdp.core.mixing import MixSettings
from mdp.core.targets import hard_targets, mixed_targets
from tests.laws import pure_call
from tests.tensors import rng_of, seeds
from tests.test_methods import CLASSES, frozen, one_step, part_of, small, views_of
from tests.together import together

few = settings(max_examples=15)
sizes = st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any)


@few
@given(seeds, sizes, st.floats(-50, 50))
def test_shares_add_up_to_one_in_each_dataset_whatever_is_added_to_its_logits(
    seed: int, counts: list[int], shift: float
) -> None:
    logits = 5 * torch.randn(3, sum(counts), 2, generator=rng_of(seed))
    log_p = pure_call(log_softmax_by_dataset, logits, counts)
    sums = [part.exp().sum(1) for part in torch.split(log_p, counts, 1) if part.shape[1]]
    torch.testing.assert_close(torch.stack(sums), torch.ones(len(sums), 3, 2))
    moved = torch.cat([part + shift * i for i, part in enumerate(torch.split(logits, counts, 1))], 1)
    torch.testing.assert_close(log_softmax_by_dataset(moved, counts), log_p, rtol=1e-4, atol=1e-4)


@few
@given(seeds, sizes)
def test_the_loss_is_torchs_cross_entropy_on_each_datasets_own_logits(seed: int, counts: list[int]) -> None:
    rng = rng_of(seed)
    logits, share = torch.randn(6, sum(counts), generator=rng), torch.rand(1, generator=rng)
    first, second = (torch.randint(-1, sum(counts), (1, 2, 3), generator=rng) for _ in range(2))
    found = dataset_cross_entropy(log_softmax_by_dataset(logits, counts), mixed_targets(first, second, share))
    expected, starts = torch.zeros(()), torch.tensor([0, *counts]).cumsum(0).tolist()
    for labels, weight in ((first, share), (second, 1 - share)):
        for row, label in zip(logits, labels.flatten().tolist(), strict=True):
            for start, end in itertools.pairwise(starts):
                if start <= label < end:
                    expected = expected + weight[0] * F.cross_entropy(row[start:end], torch.tensor(label - start))
    torch.testing.assert_close(found, expected)


def test_by_hand_equal_logits_cost_the_logarithm_of_the_own_datasets_classes() -> None:
    log_p = log_softmax_by_dataset(torch.ones(3, 5), [2, 3])
    assert math.isclose(
        float(dataset_cross_entropy(log_p, hard_targets(torch.tensor([1, 4, -1])))), math.log(6), rel_tol=1e-6
    )
    wrong = hard_targets(torch.tensor([1, 5, -1]))
    with pytest.raises(ValueError, match=r"expected -1 or 0\.\.4"):
        dataset_cross_entropy(log_p, wrong)


FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "all": {"prototypes": "both", "rivals": "dataset", "mix": MixSettings(region=True, pixel=True)},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_classifier_comes_beside_the_same_contrastive_term_and_parts_of_a_batch_add_up(form: str) -> None:
    plain = small(multi_dataset, **FORMS[form])
    chosen = replace(plain, softmax_weight=0.5)
    pair, state = frozen(multi_dataset, chosen)
    alone, _ = frozen(multi_dataset, plain)
    weights = dict(pair.query.named_parameters())
    assert all(torch.equal(weights[name], parameter) for name, parameter in alone.query.named_parameters())
    whole = one_step(multi_dataset, pair, state, views_of(0), chosen, rng_of(0))
    without = one_step(multi_dataset, alone, state, views_of(0), plain, rng_of(0))
    torch.testing.assert_close(whole.metrics["contrast_loss"], without.loss.detach())
    softmax = whole.metrics["softmax_loss"]
    torch.testing.assert_close(whole.metrics["loss"], without.loss.detach() + 0.5 * softmax)
    assert abs(softmax.item() - (2 * math.log(2) + 3 * math.log(3)) / 5) < 0.2  # it starts as a guess among the own
    steps = together(
        (1, 3),
        lambda processes: one_step(
            multi_dataset, pair, state, part_of(views_of(0), processes.own), chosen, rng_of(0), processes, 2
        ),
    )
    torch.testing.assert_close(steps[0].loss + steps[1].loss, whole.loss)
    torch.testing.assert_close(steps[0].metrics["softmax_loss"] + steps[1].metrics["softmax_loss"], softmax)


def test_training_on_one_batch_teaches_the_classifier_and_ignored_pixels_do_not() -> None:
    chosen = small(multi_dataset, softmax_weight=1.0)
    pair, state = frozen(multi_dataset, chosen)
    pair.query.train()
    optimizer = torch.optim.SGD(pair.query.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for number in range(12):
        step = one_step(multi_dataset, pair, state, views_of(0), chosen, rng_of(number))
        optimizer.zero_grad()
        step.loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(step.metrics["softmax_loss"].item())
    assert losses[-1] < 0.8 * losses[0]
    blank = [view._replace(labels=torch.full_like(view.labels, IGNORE)) for view in views_of(0)]
    nothing = one_step(multi_dataset, pair, state, blank, chosen, rng_of(0))
    nothing.loss.backward()  # type: ignore[no-untyped-call]
    assert nothing.loss.item() == 0
    assert pair.query.classifier.conv.weight.shape[0] == CLASSES
