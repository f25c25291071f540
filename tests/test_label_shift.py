"""Maps that lie beside their photos: the move is recovered, and the fit is scipy's correlation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdp.core.label_shift import Shift, best_shift, edge_fit, gains, label_edges, photo_edges
from tests.laws import pure_call
from tests.tensors import rng_of, seeds

SIDE, REACH = 48, 6


def scene(seed: int, down: int = 0, right: int = 0) -> tuple[Tensor, Tensor]:
    """A noisy photo of four boxes, and their label map moved by so many pixels."""
    rng = rng_of(seed)
    labels = torch.zeros(SIDE, SIDE, dtype=torch.int64)
    for number in range(1, 5):
        top, left = torch.randint(8, 26, (2,), generator=rng).tolist()
        height, width = torch.randint(8, 14, (2,), generator=rng).tolist()
        labels[top : top + height, left : left + width] = number
    colors = torch.rand(5, 3, generator=rng)
    photo = colors[labels].permute(2, 0, 1) + 0.01 * torch.randn(3, SIDE, SIDE, generator=rng)
    return photo.clamp(0, 1), labels.roll((down, right), (0, 1))


@given(seeds, st.integers(-4, 4), st.integers(-4, 4))
def test_a_moved_map_is_moved_back(seed: int, down: int, right: int) -> None:
    if abs(down) + abs(right) < 3:
        down = 4
    image, labels = scene(seed, down, right)
    found = best_shift(pure_call(gains, edge_fit(image, labels, REACH)), torch.zeros(2 * REACH + 1, 2 * REACH + 1))
    assert abs(found.down + down) <= 1 >= abs(found.right + right)
    assert found.gain > 0


@given(seeds)
def test_a_map_that_lies_right_gains_nothing(seed: int) -> None:
    image, labels = scene(seed)
    assert best_shift(gains(edge_fit(image, labels, REACH)), torch.zeros(13, 13)).gain < 0


@given(seeds)
def test_the_fit_is_scipys_correlation_of_the_edges(seed: int) -> None:
    signal = pytest.importorskip("scipy.signal")
    image, labels = scene(seed)
    fit, count = 0, 0.0
    for drawn, seen in zip(label_edges(labels), photo_edges(image), strict=True):
        inner = drawn[REACH:-REACH, REACH:-REACH].numpy()
        fit = fit + signal.correlate(seen.double().numpy(), inner, mode="valid", method="direct")
        count += inner.sum()
    assert torch.allclose(pure_call(edge_fit, image, labels, REACH), torch.from_numpy(fit / count), atol=1e-4)


def test_edges_lie_between_pixels_of_other_labels_and_there_is_no_fit_without_any() -> None:
    right, down = label_edges(torch.tensor([[1, 1, 2], [1, 3, 2]]))
    assert right.tolist() == [[0, 1, 0], [1, 1, 0]]
    assert down.tolist() == [[0, 1, 0], [0, 0, 0]]
    assert edge_fit(torch.rand(3, 30, 30), torch.zeros(30, 30, dtype=torch.int64), REACH) is None
    assert edge_fit(torch.rand(3, 9, 30), torch.arange(270).view(9, 30), REACH) is None


def test_what_every_map_gains_is_no_news() -> None:
    image, labels = scene(3, 3, -2)
    gained = gains(edge_fit(image, labels, REACH))
    assert best_shift(gained, gained) == Shift(-6, -6, 0.0)
