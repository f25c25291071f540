"""Crops, flips and resizes."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mdp.core.geometry import (
    Box,
    View,
    cut_image,
    cut_labels,
    downsample_labels,
    draw_crop,
    draw_view,
    draw_window,
    fitted_size,
    pad_to,
)
from mdp.core.labels import IGNORE
from tests.laws import pure_call
from tests.tensors import rng_of, seeds

sides = st.integers(1, 60)


@given(seeds, sides, sides)
def test_a_drawn_crop_lies_inside_the_image(seed: int, height: int, width: int) -> None:
    box = pure_call(draw_crop, rng_of(seed), height, width)
    assert box.top >= 0
    assert box.left >= 0
    assert box.height >= 1
    assert box.width >= 1
    assert box.top + box.height <= height
    assert box.left + box.width <= width


@given(seeds)
def test_drawn_crops_keep_the_range_of_area_and_aspect(seed: int) -> None:
    box = draw_crop(rng_of(seed), 400, 500)
    assert 0.19 < box.height * box.width / 200_000 < 1.01
    assert 0.74 < box.width / box.height < 1.35


def test_an_image_too_narrow_for_any_crop_gives_its_centre() -> None:
    assert draw_crop(rng_of(0), 10, 1000, area=(0.9, 1.0)) == Box(0, 493, 10, 13)


@given(seeds, st.integers(2, 30), st.integers(2, 30), st.integers(1, 20), st.integers(1, 20))
def test_image_and_labels_undergo_the_same_geometry(
    seed: int, height: int, width: int, out_height: int, out_width: int
) -> None:
    """A label map drawn as an image of constant patches stays the label map of the cut image."""
    rng = rng_of(seed)
    labels = (torch.arange(height)[:, None] * 2 >= height).long().expand(height, width)  # upper and lower half
    image = (labels * 200).to(torch.uint8).expand(3, height, width)
    view = pure_call(draw_view, rng, height, width)
    cut = pure_call(cut_image, image, view, (out_height, out_width))
    cut_map = pure_call(cut_labels, labels, view, (out_height, out_width))
    assert cut.shape == (3, out_height, out_width)
    assert cut_map.shape == (out_height, out_width)
    means = cut[0].float().mean(1)  # rows are constant in both
    assert torch.equal(means.argsort(stable=True).sort().values, torch.arange(out_height))
    rows = cut_map[:, 0]
    sure = (means < 60) | (means > 140)  # away from the antialiased edge the label is that of the image
    assert torch.equal(rows[sure], (means[sure] > 100).long())


@given(seeds, sides, sides, st.integers(1, 70), st.integers(1, 70), st.booleans())
def test_each_pixel_of_a_cut_label_map_is_the_one_under_its_centre(
    seed: int, height: int, width: int, out_height: int, out_width: int, flip: bool
) -> None:
    rng = rng_of(seed)
    labels = torch.randint(-1, 300, (height + 3, width + 5), generator=rng).short()
    cut = pure_call(cut_labels, labels, View(Box(2, 4, height, width), flip), (out_height, out_width))
    rows = [2 + int(Fraction(2 * i + 1, 2) * height / out_height) for i in range(out_height)]
    columns = [4 + int(Fraction(2 * j + 1, 2) * width / out_width) for j in range(out_width)]
    expected = labels[torch.tensor(rows)[:, None], torch.tensor(columns)]
    assert torch.equal(cut, expected.flip(-1) if flip else expected)
    assert cut.dtype == torch.int16


@given(seeds, st.integers(1, 20), st.integers(1, 20))
def test_cutting_the_whole_label_map_at_its_own_size_changes_nothing(seed: int, height: int, width: int) -> None:
    labels = torch.randint(-1, 5, (height, width), generator=rng_of(seed))
    whole = Box(0, 0, height, width)
    assert torch.equal(cut_labels(labels, View(whole, False), (height, width)), labels)
    flipped = cut_labels(labels, View(whole, True), (height, width))
    assert torch.equal(cut_labels(flipped, View(whole, True), (height, width)), labels)


@given(seeds, st.integers(1, 40), st.integers(1, 40))
def test_nearest_labels_are_pillows(seed: int, height: int, out: int) -> None:
    labels = torch.randint(0, 9, (height, height), generator=rng_of(seed))
    ours = cut_labels(labels, View(Box(0, 0, height, height), False), (out, out))
    theirs = Image.fromarray(labels.numpy().astype(np.uint8)).resize((out, out), Image.Resampling.NEAREST)
    # where a centre falls exactly between two pixels Pillow's rounding takes either
    sure = (2 * np.arange(out) + 1) * height % (2 * out) != 0
    assert np.array_equal(ours.numpy()[sure][:, sure], np.array(theirs)[sure][:, sure])


def test_antialiased_resizing_is_pillows_to_one_level() -> None:
    image = torch.randint(0, 256, (3, 90, 120), generator=rng_of(3), dtype=torch.uint8)
    box = Box(7, 11, 71, 93)
    ours = cut_image(image, View(box, False), (32, 40))
    theirs = Image.fromarray(image[:, 7:78, 11:104].permute(1, 2, 0).numpy()).resize(
        (40, 32), Image.Resampling.BILINEAR
    )
    assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - np.array(theirs).astype(int)).max() <= 1


@given(st.integers(1, 50), st.integers(1, 50), st.sampled_from([4, 8, 16]))
def test_labels_on_the_feature_grid_are_those_under_the_cells_centres(height: int, width: int, stride: int) -> None:
    labels = torch.arange(height * width).view(1, height, width)
    grid = pure_call(downsample_labels, labels, stride)
    assert grid.shape == (1, -(-height // stride), -(-width // stride))
    assert grid[0, -1, -1] == (grid.shape[1] - 1) * stride * width + (grid.shape[2] - 1) * stride


@pytest.mark.parametrize(
    ("size", "scale", "fitted"),
    [
        ((375, 500), (2048, 512), (512, 683)),
        ((1024, 2048), (2048, 1024), (1024, 2048)),
        ((100, 900), (450, 90), (50, 450)),
    ],
)
def test_fitted_sizes_keep_the_aspect_and_exceed_neither_side(
    size: tuple[int, int], scale: tuple[int, int], fitted: tuple[int, int]
) -> None:
    assert fitted_size(*size, scale) == fitted


@given(seeds, st.integers(1, 30), st.integers(1, 30), st.integers(1, 20))
def test_a_drawn_window_lies_inside_and_has_the_size_asked_for(seed: int, height: int, width: int, size: int) -> None:
    labels = torch.randint(-1, 3, (height, width), generator=rng_of(seed))
    box = pure_call(draw_window, rng_of(seed), labels, (size, size))
    assert box[2:] == (min(size, height), min(size, width))
    assert box.top + box.height <= height
    assert box.left + box.width <= width


def test_windows_filled_by_one_class_are_drawn_again() -> None:
    labels = torch.zeros(64, 64, dtype=torch.long)
    labels[:, 56:] = 1  # only windows at the right edge see two classes
    mixed = 0
    for seed in range(50):
        box = draw_window(rng_of(seed), labels, (16, 16), largest_share=0.9)
        mixed += box.left + box.width > 58
    assert mixed > 25  # a single draw would succeed in about 6 of 50
    everywhere = torch.full((64, 64), IGNORE)
    assert draw_window(rng_of(0), everywhere, (16, 16)).height == 16


def test_padding_goes_right_and_below() -> None:
    padded = pad_to(torch.ones(1, 2, 3), (4, 3), 7)
    assert padded.shape == (1, 4, 3)
    assert padded[0, :2].eq(1).all()
    assert padded[0, 2:].eq(7).all()
