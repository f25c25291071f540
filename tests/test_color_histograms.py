"""Colours of cells: a law, a value worked out by hand, NumPy's histogram."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdp.core.color_histograms import cell_colors
from tests.laws import pure_call
from tests.tensors import rng_of, seeds


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), seeds)
def test_shares_of_a_cell_are_of_its_own_pixels_and_add_up_to_one(
    height: int, width: int, stride: int, seed: int
) -> None:
    images = torch.randint(0, 256, (2, 3, height, width), generator=rng_of(seed), dtype=torch.uint8)
    shares = pure_call(cell_colors, images, stride, levels=3)
    assert shares.shape == (2, 27, -(-height // stride), -(-width // stride))
    assert torch.allclose(shares.sum(1), torch.ones(()))
    cell = cell_colors(images[1:, :, :stride, :stride], stride, levels=3)
    assert torch.equal(cell[0, :, 0, 0], shares[1, :, 0, 0])


def test_colors_of_a_hand_made_image_are_counted_where_they_lie() -> None:
    image = torch.tensor([[0.0, 0.9, 1.0]]).expand(1, 3, 1, 3).clone()
    image[0, 0, 0, 2] = 0.0  # cyan: the lower half of red, the upper halves of green and blue
    first, second = cell_colors(image, 2, levels=2)[0, :, 0].T
    assert first.tolist() == [0.5, 0, 0, 0, 0, 0, 0, 0.5]
    assert second.tolist() == [0, 0, 0, 1, 0, 0, 0, 0]


def test_a_single_cell_is_what_numpy_counts() -> None:
    image = torch.randint(0, 256, (1, 3, 16, 16), generator=rng_of(3), dtype=torch.uint8)
    pixels = image[0].flatten(1).T.numpy()
    counts, _ = np.histogramdd(pixels, bins=[4, 4, 4], range=[(0, 256)] * 3)
    shares = cell_colors(image, 16)[0, :, 0, 0]
    assert shares.tolist() == (counts.flatten() / 256).tolist()
    assert torch.equal(shares, cell_colors(image / 255, 16)[0, :, 0, 0])


def test_images_of_other_channels_have_no_colors() -> None:
    with pytest.raises(ValueError, match="these have 5 channels"):
        cell_colors(torch.zeros(1, 5, 4, 4), 2)
