"""The class of the highest upsampled logit, against upsampling all of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mdp.core import upsampling
from mdp.core.upsampling import upsampled_argmax
from mdp.core.windows import class_parts
from tests.laws import pure_call
from tests.tensors import rng_of, seeds


def plain(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)[0].argmax(0)


def regions(classes: int, height: int, width: int, margin: float, noise: float, seed: int = 0) -> Tensor:
    """Logits (1, C, h, w) of a picture of a few regions, each with its class ahead by a margin."""
    rng = rng_of(seed)
    centres = torch.rand(8, 2, 1, 1, generator=rng) * torch.tensor([height, width])[:, None, None]
    grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    nearest = (grid - centres).square().sum(1).argmin(0)  # (h, w)
    labels = torch.randint(classes, (8,), generator=rng)[nearest]
    logits = noise * torch.randn(classes, height, width, generator=rng)
    return logits.scatter_add(0, labels[None], torch.full((1, height, width), margin))[None]


@settings(max_examples=60)
@given(
    seeds,
    st.sampled_from([1, 2, 5, 40, 300]),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
    st.sampled_from([0.0, 2.0, 8.0]),
    st.sampled_from([torch.contiguous_format, torch.channels_last]),
)
def test_the_answer_is_that_of_upsampling_everything(
    seed: int,
    classes: int,
    grid: tuple[int, int],
    size: tuple[int, int],
    margin: float,
    layout: torch.memory_format,
) -> None:
    logits = regions(classes, *grid, margin, noise=1.0, seed=seed).contiguous(memory_format=layout)
    assert torch.equal(pure_call(upsampled_argmax, logits, size), plain(logits, size))


@settings(max_examples=40)
@given(seeds, st.tuples(st.integers(2, 12), st.integers(2, 12)), st.sampled_from([2, 3, 8, 13]), st.integers(1, 3))
def test_of_equal_scores_the_first_wins_as_everywhere(
    seed: int, grid: tuple[int, int], ratio: int, levels: int
) -> None:
    whole = torch.randint(levels + 1, (1, 9, *grid), generator=rng_of(seed)).float()  # ties along every border
    size = (grid[0] * ratio, grid[1] * ratio)
    assert torch.equal(upsampled_argmax(whole, size), plain(whole, size))


def test_a_class_may_win_only_between_the_points_by_hand() -> None:
    rows = torch.tensor([[[4.0, 0.0]], [[0.0, 4.0]], [[2.75, 2.75]]])  # the third lies above the mean of the others
    logits = rows.expand(3, 2, 2)[None]  # both rows of the grid alike
    assert upsampled_argmax(logits, (2, 4)).tolist() == [[0, 0, 1, 1]] * 2
    assert upsampled_argmax(logits, (2, 8)).tolist() == [[0, 0, 0, 2, 2, 1, 1, 1]] * 2


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_numbers_that_are_not_finite_are_treated_as_torch_does(bad: float) -> None:
    logits = regions(30, 6, 9, 8.0, 1.0)
    logits[0, 3, 2, 4] = bad
    assert torch.equal(upsampled_argmax(logits, (150, 200)), plain(logits, (150, 200)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pixels_that_rounding_might_decide_are_asked_again(
    layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.randn(1, 150, 16, 24, generator=rng_of(0)).contiguous(memory_format=layout)
    size, asked = (160, 230), []
    whole = upsampling.upsample
    monkeypatch.setattr(upsampling, "upsample", lambda part, size: asked.append(part.shape[1]) or whole(part, size))
    monkeypatch.setattr(upsampling, "_ROUNDING", 2.0**-15)  # there are more of them
    assert torch.equal(upsampled_argmax(logits, size, class_parts(150, 20)), plain(logits, size))
    assert asked
    assert 150 not in asked


def test_a_confident_image_never_has_its_logits_upsampled(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = regions(150, 32, 43, 8.0, 0.5)
    expected = plain(logits, (256, 341))
    monkeypatch.setattr(upsampling, "upsample", None)
    assert torch.equal(upsampled_argmax(logits, (256, 341)), expected)


def test_a_class_that_no_tile_can_hold_is_not_computed_there() -> None:
    kept = upsampling._contenders(regions(150, 32, 43, 8.0, 0.5)[0], 0.0, [8, 8])
    assert kept.any(0).all()
    assert kept.float().sum(0).mean() < 6


def test_products_of_lower_precision_are_not_relied_on() -> None:
    logits = regions(20, 16, 16, 0.0, 1.0)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert not upsampling._tileable(logits, (128, 128))
    finally:
        torch.set_float32_matmul_precision(before)
    assert upsampling._tileable(logits, (128, 128))
