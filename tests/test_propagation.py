"""Labels carried through frames, J and F: laws, hand values, and SciPy's morphology as the oracle."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from mdp.core.geometry import Grid
from mdp.core.propagation import contour, contour_accuracy, near_cells, propagated, region_similarity, shares_at
from tests.laws import pure_call
from tests.tensors import rng_of, seeds


@given(st.integers(1, 3), st.integers(1, 3), seeds)
def test_shares_add_up_to_one_and_frames_may_come_in_any_order(frames: int, k: int, seed: int) -> None:
    rng = rng_of(seed)
    cells = F.normalize(torch.randn(6, 4, generator=rng), dim=1)
    earlier = F.normalize(torch.randn(frames, 6, 4, generator=rng), dim=2)
    labels = torch.rand(frames, 6, 3, generator=rng).softmax(2)
    near = near_cells(2, 3, 1.5)
    found = pure_call(propagated, cells, list(earlier), list(labels), near, k, 0.1)
    assert torch.allclose(found.sum(1), torch.ones(6), atol=1e-5)
    assert torch.allclose(
        propagated(cells, list(earlier.flip(0)), list(labels.flip(0)), near, k, 0.1), found, atol=1e-5
    )


def test_a_frame_that_stays_as_it_is_keeps_its_labels_and_one_that_moves_takes_them_along() -> None:
    cells, labels = torch.eye(4), F.one_hot(torch.tensor([0, 1, 1, 0])).float()
    everywhere = near_cells(1, 4, 9)
    assert torch.equal(propagated(cells, [cells], [labels], everywhere, 1, 0.05), labels)
    assert torch.equal(propagated(cells.roll(1, 0), [cells], [labels], everywhere, 1, 0.05), labels.roll(1, 0))


def test_cells_that_are_far_away_are_not_asked() -> None:
    cells, labels = torch.eye(4), F.one_hot(torch.arange(4)).float()
    found = propagated(cells.roll(3, 0), [cells], [labels], near_cells(1, 4, 1), 1, 0.05)
    assert found[:3].argmax(1).tolist() == [1, 2, 3]
    assert found[3, 0] == 0  # where cell 0 has come to is three cells away


def test_neighbours_speak_by_their_likeness() -> None:
    earlier, labels = [torch.tensor([[1.0, 0.0], [0.6, 0.8]])], [torch.eye(2)]
    found = propagated(torch.tensor([[1.0, 0.0]] * 2), earlier, labels, near_cells(1, 2, 9), 2, 0.2)
    assert found[0, 0].item() == pytest.approx(1 / (1 + math.exp(-0.4 / 0.2)))
    with pytest.raises(ValueError, match="k: expected 1 to 2, the cells that are asked, got 3"):
        propagated(torch.eye(2), earlier, labels, near_cells(1, 2, 9), 3, 0.2)


def test_shares_are_linear_between_the_pixels_that_cells_look_at() -> None:
    found = pure_call(shares_at, torch.tensor([[[0.0, 1.0]]]), (1, 8), (1, 8), Grid(4, 1))
    assert found[0, 0].tolist() == pytest.approx([0, 0, 0.25, 0.5, 0.75, 1, 1, 1])
    halved = shares_at(torch.tensor([[[0.0, 1.0]]]), (1, 4), (1, 8), Grid(4, 1))
    assert halved[0, 0].tolist() == pytest.approx([0, 0.375, 0.875, 1])


@given(seeds)
def test_two_masks_agree_as_much_either_way_round_and_wholly_with_themselves(seed: int) -> None:
    first, second = torch.rand(2, 9, 7, generator=rng_of(seed)) < 0.4
    for score in (region_similarity, contour_accuracy):
        assert pure_call(score, first, second) == pytest.approx(score(second, first))
        assert score(first, first) == 1
        assert 0 <= score(first, second) <= 1


def test_an_empty_mask_agrees_with_an_empty_one_only() -> None:
    empty, full = torch.zeros(4, 4, dtype=torch.bool), torch.zeros(4, 4, dtype=torch.bool)
    full[1:3, 1:3] = True
    for score in (region_similarity, contour_accuracy):
        assert (score(empty, empty), score(empty, full), score(full, empty)) == (1, 0, 0)


def test_a_square_that_moved_by_two_pixels_has_the_scores_worked_out_by_hand() -> None:
    first, second = torch.zeros(2, 100, 100, dtype=torch.bool)
    first[20:40, 20:40], second[20:40, 22:42] = True, True
    assert region_similarity(first, second) == pytest.approx(18 / 22)
    assert contour_accuracy(first, second) == 1  # two pixels are within 0.008 of the diagonal, which is 1.13
    assert contour_accuracy(first, second, 0.007) < 1  # and not within one


def test_contours_grow_as_scipy_s_do() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    rng = rng_of(4)
    first, second = (F.avg_pool2d(torch.rand(1, 1, 44, 54, generator=rng), 5, 1)[0, 0] > 0.5 for _ in range(2))
    reach = math.ceil(0.03 * math.hypot(40, 50))
    side = np.arange(-reach, reach + 1)
    disk = side[:, None] ** 2 + side**2 <= reach**2
    ours, theirs = contour(first).numpy(), contour(second).numpy()
    precision = (ours & ndimage.binary_dilation(theirs, disk)).sum() / ours.sum()
    recall = (theirs & ndimage.binary_dilation(ours, disk)).sum() / theirs.sum()
    assert contour_accuracy(first, second, 0.03) == pytest.approx(2 * precision * recall / (precision + recall))
