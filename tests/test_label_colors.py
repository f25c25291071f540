"""Colours of label maps: lookups, smooth edges, and what is no edge."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mdp.core.label_colors import REACH, between, color_codes, flat, nearest_of_neighbours, table_index
from tests.laws import pure_call

PALETTE = np.array([(0, 0, 0), (255, 255, 255), (127, 127, 127), (255, 0, 0)], dtype=np.uint8)


@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 12), st.floats(0, 1))
def test_filling_changes_only_what_had_no_index_and_takes_what_a_loop_over_pixels_takes(
    seed: int, height: int, width: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    index = rng.integers(0, len(PALETTE), (height, width))
    index[rng.random((height, width)) < share] = -1
    filled = pure_call(nearest_of_neighbours, rgb, index, PALETTE)
    for y, x in np.ndindex(height, width):
        assert filled[y, x] == (index[y, x] if index[y, x] >= 0 else looped(rgb, index, y, x))


def looped(rgb: NDArray[np.uint8], index: NDArray[np.intp], y: int, x: int) -> int:
    for radius in range(1, REACH + 1):
        part = index[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        around = sorted(set(part[part >= 0].tolist()))
        if around:
            distance = [((PALETTE[i].astype(int) - rgb[y, x].astype(int)) ** 2).sum() for i in around]
            return int(around[int(np.argmin(distance))])
    return -1


def test_halfway_between_two_classes_lies_the_colour_of_a_third_that_is_not_taken() -> None:
    rgb = np.full((5, 9, 3), 255, dtype=np.uint8)
    rgb[:, :4] = 0
    rgb[:, 4] = 125  # nearly the grey of the third class
    index = table_index(color_codes(rgb), np.sort(color_codes(PALETTE)))
    colors = PALETTE[np.argsort(color_codes(PALETTE))]
    filled = nearest_of_neighbours(rgb, index, colors)
    assert colors[filled[:, 4]].tolist() == [[0, 0, 0]] * 5


@given(st.integers(0, 2**31), st.integers(1, 300))
def test_an_index_points_at_the_code_itself_or_at_nothing(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 50, count, dtype=np.int32)
    keys = np.unique(rng.integers(0, 50, 20, dtype=np.int32))
    found = pure_call(table_index, codes, keys)
    assert np.array_equal(found >= 0, np.isin(codes, keys))
    assert np.array_equal(keys[found[found >= 0]], codes[found >= 0])


@given(st.integers(0, 2**31), st.integers(2, 6))
def test_mixtures_of_two_colours_lie_between_them_and_of_no_two_others(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    keys = np.unique(color_codes(rng.integers(0, 256, (count, 3), dtype=np.uint8)))
    ends = np.stack([keys >> 16, keys >> 8 & 255, keys & 255], axis=1)
    pairs = rng.integers(0, len(keys), (30, 2))
    part = rng.random((30, 1))
    mixed = np.rint(ends[pairs[:, 0]] * part + ends[pairs[:, 1]] * (1 - part)).astype(np.uint8)
    if len(keys) > 1:
        assert pure_call(between, color_codes(mixed), np.ones(30, dtype=np.int64), keys).all()


def test_hand_computed_lines() -> None:
    keys = color_codes(np.array([(0, 0, 0), (0, 0, 200)], dtype=np.uint8))
    colors = np.array([(0, 0, 100), (3, 0, 50), (4, 0, 50), (0, 0, 203), (0, 0, 204)], dtype=np.uint8)
    found = between(color_codes(colors), np.ones(5, dtype=np.int64), keys)
    assert found.tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (3, 3), (7, 5)])
def test_flat_is_where_a_square_of_nine_has_one_colour(shape: tuple[int, int]) -> None:
    codes = np.random.default_rng(0).integers(0, 2, shape, dtype=np.int32)
    codes[: shape[0] // 2 + 2] = 1
    found = pure_call(flat, codes)
    for y, x in np.ndindex(shape):
        inside = 0 < y < shape[0] - 1 and 0 < x < shape[1] - 1
        assert found[y, x] == (inside and np.unique(codes[y - 1 : y + 2, x - 1 : x + 2]).size == 1)
