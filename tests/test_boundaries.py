"""Boundary IoU, against its definition pixel by pixel."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdp.core.boundaries import boundary, boundary_counts, boundary_width
from mdp.core.comparison import block_counts, count_iou
from mdp.core.labels import IGNORE
from mdp.core.metrics import confusion_matrix
from tests.laws import pure_call
from tests.tensors import rng_of, seeds

sides = st.integers(1, 9)


def blobs(seed: int, height: int, width: int, low: int, high: int) -> Tensor:
    """A label map of patches, as in segmentation, with single pixels of any value between."""
    rng = rng_of(seed)
    coarse = torch.randint(low, high, (-(-height // 3), -(-width // 3)), generator=rng)
    patches = coarse.repeat_interleave(3, 0).repeat_interleave(3, 1)[:height, :width]
    noise = torch.randint(low, high, (height, width), generator=rng)
    return torch.where(torch.rand(height, width, generator=rng) < 0.05, noise, patches)


def on_boundary(labels: Tensor, y: int, x: int, distance: int) -> bool:
    """The definition: within a Chebyshev distance of another value or of the outside of the image."""
    height, width = labels.shape
    for v in range(y - distance, y + distance + 1):
        for u in range(x - distance, x + distance + 1):
            if not (0 <= v < height and 0 <= u < width) or labels[v, u] != labels[y, x]:
                return True
    return False


@given(seeds, sides, sides, st.integers(1, 4))
def test_a_boundary_is_what_its_definition_says(seed: int, height: int, width: int, distance: int) -> None:
    labels = blobs(seed, height, width, -1, 3)
    found = pure_call(boundary, labels, distance)
    expected = [[on_boundary(labels, y, x, distance) for x in range(width)] for y in range(height)]
    assert found.tolist() == expected


@given(seeds, st.integers(1, 14), st.integers(1, 14), st.sampled_from([0.03, 0.1, 0.2]))
def test_boundary_counts_are_those_of_the_definition(seed: int, height: int, width: int, ratio: float) -> None:
    labels, guess = blobs(seed, height, width, IGNORE, 3), blobs(seed + 1, height, width, 0, 3)
    distance = max(1, round(ratio * math.sqrt(height**2 + width**2)))
    expected = [[0, 0, 0] for _ in range(3)]
    for y in range(height):
        for x in range(width):
            if labels[y, x] == IGNORE:
                continue
            truth = int(labels[y, x]) if on_boundary(labels, y, x, distance) else None
            seen = int(guess[y, x]) if on_boundary(guess, y, x, distance) else None
            if truth is not None:
                expected[truth][1] += 1
                expected[truth][0] += truth == seen
            if seen is not None:
                expected[seen][2] += 1
    counts = pure_call(boundary_counts, guess, labels, 3, ratio)
    assert counts.tolist() == expected
    assert torch.equal(boundary_counts(guess, labels.to(torch.int16), 3, ratio), counts)


def test_a_square_of_forty_pixels_has_a_boundary_of_two() -> None:
    assert boundary_width(40, 40) == 2
    edge = boundary(torch.zeros(40, 40, dtype=torch.int64), 2)
    assert int(edge.sum()) == 40 * 40 - 36 * 36
    assert not edge[2:-2, 2:-2].any()


def test_an_edge_one_pixel_off_by_hand() -> None:
    labels = torch.zeros(9, 12, dtype=torch.int64)
    guess = labels.clone()
    labels[:, 6:], guess[:, 7:] = 1, 1
    # d = 1.  Of the labels' 6 and 6 columns, and the prediction's 7 and 5, the two outer rows and columns are boundary;
    # in both maps are the outer rows where the classes agree, 12 and 10 pixels, and one outer column of 7
    hits, labelled, predicted = [12 + 7, 10 + 7], [12 + 14, 12 + 14], [14 + 14, 10 + 14]
    assert boundary_counts(guess, labels, 2).T.tolist() == [hits, labelled, predicted]


@given(seeds, st.integers(1, 20), st.integers(1, 20))
def test_a_perfect_prediction_has_a_boundary_iou_of_one(seed: int, height: int, width: int) -> None:
    labels = blobs(seed, height, width, 0, 4)
    iou = count_iou(boundary_counts(labels, labels, 4))
    assert (iou[~iou.isnan()] == 1).all()


@given(seeds, st.integers(1, 12), st.integers(1, 12))
def test_a_boundary_as_wide_as_the_image_counts_every_pixel(seed: int, height: int, width: int) -> None:
    labels, guess = blobs(seed, height, width, IGNORE, 3), blobs(seed + 1, height, width, 0, 3)
    counts = boundary_counts(guess, labels, 3, 1.0)
    assert torch.equal(counts, block_counts(confusion_matrix(guess, labels, 3)))


@given(seeds, st.integers(3, 15), st.integers(3, 15), st.integers(1, 5))
def test_a_wider_boundary_holds_the_narrower_one(seed: int, height: int, width: int, distance: int) -> None:
    labels = blobs(seed, height, width, -1, 3)
    assert (boundary(labels, distance) <= boundary(labels, distance + 1)).all()
    assert torch.equal(boundary(labels, distance).T, boundary(labels.T, distance))


def test_the_edge_of_ignored_pixels_is_an_edge_of_the_class_beside_them() -> None:
    labels = torch.ones(15, 15, dtype=torch.int64)
    labels[:, 8:] = IGNORE
    counts = boundary_counts(torch.ones(15, 15, dtype=torch.int64), labels, 2)
    # d = 1: of 15 x 8 valid pixels the labels' boundary leaves 13 x 6, the prediction's, which has no edge, 13 x 7
    assert counts[1].tolist() == [120 - 91, 120 - 78, 120 - 91]


def test_values_and_shapes_that_do_not_fit_are_refused() -> None:
    labels = torch.zeros(4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="differ in shape"):
        boundary_counts(labels[:3], labels, 2)
    with pytest.raises(ValueError, match=r"prediction: values 0\.\.2 outside 0\.\.1"):
        boundary_counts(labels + torch.eye(4).long() * 2, labels, 2)
    with pytest.raises(ValueError, match=r"labels: values 3\.\.3"):
        boundary_counts(labels, labels + 3, 2)
    with pytest.raises(ValueError, match=r"labels: values -2\.\.-2"):
        boundary_counts(labels, labels - 2, 2)
