"""Segment retrieval: laws, values worked out by hand, and the same answers from label maps drawn pixel by pixel."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from mdp.core.geometry import Grid
from mdp.core.labels import IGNORE
from mdp.core.metrics import confusion_matrix
from mdp.core.regions import (
    cells_under,
    majority_labels,
    region_confusion,
    region_pixels,
    region_vectors,
    regions_of,
    unit_cells,
)
from tests.laws import pure_call
from tests.tensors import rng_of, seeds


@given(st.integers(1, 12), st.integers(1, 30), st.integers(1, 60), st.data())
def test_a_pixel_belongs_to_the_cell_that_looks_nearest_to_its_middle(
    stride: int, length: int, count: int, data: st.DataObject
) -> None:
    grid = Grid(stride, data.draw(st.integers(0, stride - 1)))
    cells = pure_call(cells_under, count, length, grid)
    centres = torch.arange(0, length, stride, dtype=torch.float64) + grid.offset
    middles = (torch.arange(count, dtype=torch.float64) + 0.5) * length / count - 0.5
    away = (middles[:, None] - centres).abs()  # (count, cells)
    assert torch.allclose(away.gather(1, cells[:, None])[:, 0], away.amin(1), atol=1e-9, rtol=0)


def test_the_pixel_under_a_cell_is_that_cell_s() -> None:
    grid = Grid(16, 7)
    assert cells_under(100, 100, grid)[grid.pixels(100)].tolist() == list(range(7))


@given(st.integers(1, 4), st.integers(2, 5), seeds)
def test_the_regions_of_well_separated_features_are_what_separates_them(count: int, channels: int, seed: int) -> None:
    rng = rng_of(seed)
    kinds = torch.cat([torch.arange(count), torch.randint(count, (12,), generator=rng)])
    rows = F.normalize(torch.eye(max(channels, count))[kinds] + 0.01 * torch.rand(len(kinds), 1, generator=rng), dim=1)
    found = pure_call(regions_of, rows, count, rng, 20)
    assert torch.equal(found[:, None] == found, kinds[:, None] == kinds)


def test_an_image_with_fewer_cells_than_regions_is_refused() -> None:
    with pytest.raises(ValueError, match="clusters: expected 1 to 4"):
        regions_of(torch.eye(4), 5, rng_of(0), 3)


def test_cells_become_rows_of_length_one_from_left_to_right() -> None:
    features = torch.tensor([[[3.0, 0.0], [1.0, 0.0]], [[4.0, 2.0], [0.0, 0.0]]])
    assert torch.allclose(unit_cells(features), torch.tensor([[0.6, 0.8], [0, 1], [1, 0], [0, 0]]))


@given(seeds)
def test_a_region_s_vector_is_its_mean_over_its_length_whatever_the_order_of_cells(seed: int) -> None:
    rng = rng_of(seed)
    rows, regions = torch.randn(9, 4, generator=rng), torch.randint(3, (9,), generator=rng)
    vectors = pure_call(region_vectors, rows, regions, 4)
    for region in range(4):
        mean = rows[regions == region].mean(0) if (regions == region).any() else torch.zeros(4)
        assert torch.allclose(vectors[region], F.normalize(mean, dim=0), atol=1e-6)
    order = torch.randperm(9, generator=rng)
    assert torch.allclose(region_vectors(rows[order], regions[order], 4), vectors, atol=1e-6)


@given(seeds)
def test_counting_regions_gives_the_confusion_matrix_of_the_label_map_that_they_draw(seed: int) -> None:
    rng = rng_of(seed)
    regions, labels = torch.randint(5, (6, 7), generator=rng), torch.randint(-1, 3, (6, 7), generator=rng)
    predicted = torch.randint(3, (5,), generator=rng)
    pixels = pure_call(region_pixels, regions, labels, 5, 3)
    drawn = predicted[regions]
    assert torch.equal(pure_call(region_confusion, pixels, predicted), confusion_matrix(drawn, labels, 3))
    modes = [labels[(regions == region) & (labels != IGNORE)] for region in range(5)]
    expected = [int(torch.bincount(mode, minlength=3).argmax()) if len(mode) else IGNORE for mode in modes]
    assert pure_call(majority_labels, pixels).tolist() == expected


def test_maps_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        region_pixels(torch.zeros(2, 2).long(), torch.zeros(2, 3).long(), 1, 1)
    with pytest.raises(ValueError, match=r"labels: values 0\.\.7 outside 0\.\.3"):
        region_pixels(torch.zeros(1, 2).long(), torch.tensor([[0, 7]]), 1, 4)
