"""Class activation maps: their mean is the classifier's score, a value by hand, a 1x1 convolution as the oracle."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from mdp.core.activation_maps import activation_shares, class_activation_maps, unit_range
from tests.laws import pure_call
from tests.tensors import rng_of, seeds


@given(st.integers(1, 3), st.integers(1, 4), seeds)
def test_the_mean_of_a_map_is_the_score_of_the_pooled_features(batch: int, classes: int, seed: int) -> None:
    rng = rng_of(seed)
    features, weight = torch.randn(batch, 5, 3, 4, generator=rng), torch.randn(classes, 5, generator=rng)
    maps = pure_call(class_activation_maps, features, weight)
    assert torch.allclose(maps.mean((2, 3)), features.mean((2, 3)) @ weight.T, atol=1e-5)
    assert torch.allclose(maps, F.conv2d(features, weight[:, :, None, None]), atol=1e-5)
    shares = pure_call(activation_shares, maps)
    assert 0 <= float(shares.min()) <= float(shares.max()) <= 1
    assert torch.allclose(activation_shares(7 * maps), shares)


def test_two_features_speak_for_and_against_a_class() -> None:
    features = torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]]])
    maps = class_activation_maps(features, torch.tensor([[3.0, -1.0], [0.0, 1.0]]))
    assert maps.tolist() == [[[[3, -2]], [[0, 2]]]]
    assert activation_shares(maps).tolist() == [[[[1, 0]], [[0, 1]]]]


def test_a_map_without_anything_for_its_class_stays_empty() -> None:
    assert activation_shares(torch.tensor([[-1.0, -2.0]])).tolist() == [[0, 0]]


@given(seeds, st.floats(0.01, 100), st.floats(-50, 50))
def test_neither_scale_nor_shift_of_a_map_changes_where_its_values_lie_between_its_ends(
    seed: int, scale: float, shift: float
) -> None:
    maps = torch.randn(3, 4, 5, generator=rng_of(seed), dtype=torch.float64)
    found = pure_call(unit_range, maps)
    assert torch.equal(found.amin((1, 2)), torch.zeros(3).double())
    assert torch.equal(found.amax((1, 2)), torch.ones(3).double())
    torch.testing.assert_close(pure_call(unit_range, scale * maps + shift), found)
    assert torch.equal(found.flatten(1).argsort(1), maps.flatten(1).argsort(1))
    assert torch.equal(unit_range(torch.full((2, 3, 3), 4.0)), torch.ones(2, 3, 3))
