"""Connected regions: scipy's, laws, hand values."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdp.core.components import connected_regions, region_box
from mdp.core.geometry import Box
from tests.laws import pure_call
from tests.tensors import rng_of, seeds

SNAKE = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 1], [1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]])


@given(seeds, st.integers(1, 12), st.integers(1, 12), st.integers(1, 4))
def test_regions_are_scipys(seed: int, height: int, width: int, values: int) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    labels = torch.randint(values, (height, width), generator=rng_of(seed))
    regions = pure_call(connected_regions, labels)
    pairs, count = set(), 0
    for value in range(values):
        theirs, several = ndimage.label(labels.numpy() == value)
        own = regions.numbers[labels == value].tolist()
        pairs |= set(zip(own, (theirs[theirs > 0] + count).tolist(), strict=True))
        count += several
    assert len(pairs) == len(regions.pixels) == count  # each of ours is one of theirs


@given(seeds, st.integers(1, 9), st.integers(1, 9))
def test_regions_have_their_pixels_and_first_pixels_in_order(seed: int, height: int, width: int) -> None:
    labels = torch.randint(3, (height, width), generator=rng_of(seed))
    numbers, pixels, first = connected_regions(labels)
    assert int(pixels.sum()) == labels.numel()
    assert torch.equal(numbers.flatten()[first], torch.arange(len(first)))
    assert torch.equal(first, first.sort().values)


def test_a_snake_is_one_region_and_its_box_is_all_that_it_winds_through() -> None:
    regions = connected_regions(SNAKE)
    assert regions.pixels.tolist() == [14, 6]
    assert region_box(regions, 0) == Box(0, 0, 5, 4)
    assert region_box(regions, 1) == Box(1, 0, 3, 3)
