"""Combinations of values in maps, against NumPy's sorted rows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mdp.core import value_counts
from mdp.core.value_counts import combinations, ranked
from tests.laws import pure_call
from tests.tensors import rng_of, seeds


@pytest.mark.parametrize("table", [2**20, 4], ids=["counted", "sorted"])
@given(seeds, st.integers(0, 4), st.integers(0, 4), st.sampled_from([2, 9, 2**33]))
@settings(max_examples=10)
def test_combinations_are_the_different_rows_of_values_and_how_often_they_are(
    table: int, seed: int, height: int, width: int, most: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(value_counts, "_TABLE", table)
        maps = [torch.randint(-1, most, (height, width), generator=rng_of(seed + own)) for own in range(3)]
        maps[0] = maps[0].clamp(max=100).to(torch.int8)
        found = pure_call(combinations, *(pure_call(ranked, each) for each in maps))
    rows, counts = np.unique(torch.stack(maps, -1).view(-1, 3).numpy(), axis=0, return_counts=True)
    np.testing.assert_array_equal(found, np.column_stack([rows, counts]))
