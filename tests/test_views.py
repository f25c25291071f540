"""Plans of views: what is drawn, and where two views show the same."""

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mdp.core.geometry import Box, View, cut_image, draw_view
from mdp.core.photometry import PhotometrySettings
from mdp.core.views import (
    ViewGroup,
    ViewPlan,
    draw_views,
    frame_ious,
    frames_of,
    iou,
    matched_grids,
    missed,
    overlap,
    two_views,
    views_of,
)
from tests.laws import pure_call
from tests.tensors import rng_of, seeds

PHOTOMETRY = PhotometrySettings()
sides = st.integers(1, 60)
boxes = st.builds(Box, st.integers(0, 30), st.integers(0, 30), st.integers(1, 30), st.integers(1, 30))
views = st.builds(View, boxes, st.booleans())


def plan(**others: object) -> ViewPlan:
    """Two large views and three small ones, which are to overlap the second by a fifth unless told otherwise."""
    groups = (ViewGroup(count=2, size=48, area=(0.2, 1.0)), ViewGroup(count=3, size=32, area=(0.05, 0.14)))
    return ViewPlan(**{"groups": groups, "photometry": PHOTOMETRY, "anchor": 1, "min_overlap": 0.2, **others})  # type: ignore[arg-type]


# Drawing


@given(seeds, sides, sides)
def test_two_views_are_drawn_as_one_after_the_other(seed: int, height: int, width: int) -> None:
    rng = rng_of(seed)
    expected = tuple(draw_view(rng, height, width, (0.3, 0.9)) for _ in range(2))
    drawn = rng_of(seed)
    assert pure_call(draw_views, rng_of(seed), height, width, two_views(32, (0.3, 0.9), PHOTOMETRY)) == expected
    draw_views(drawn, height, width, two_views(32, (0.3, 0.9), PHOTOMETRY))
    assert torch.equal(drawn.get_state(), rng.get_state())  # what is drawn next is the same, too


@given(seeds, sides, sides)
def test_all_boxes_lie_inside_the_image(seed: int, height: int, width: int) -> None:
    drawn = pure_call(draw_views, rng_of(seed), height, width, plan(max_iou=0.5))
    assert len(drawn) == len(plan().sizes) == 5
    for (top, left, tall, wide), _ in drawn:
        assert 0 <= top <= top + tall <= height
        assert 0 <= left <= left + wide <= width
        assert tall > 0 < wide


@given(seeds)
def test_areas_are_within_the_range_of_their_group(seed: int) -> None:
    drawn = draw_views(rng_of(seed), 400, 500, plan())
    shares = [view.box.height * view.box.width / 200_000 for view in drawn]
    assert all(0.19 < share < 1.01 for share in shares[:2])
    assert all(0.049 < share < 0.142 for share in shares[2:])


@given(seeds, st.integers(20, 60), st.integers(20, 60))
def test_every_constrained_view_is_as_wanted_or_counted(seed: int, height: int, width: int) -> None:
    wanted = plan(min_overlap=0.6, max_iou=0.3)
    drawn = draw_views(rng_of(seed), height, width, wanted)
    far = [overlap(view.box, drawn[1].box) < 0.6 * view.box.height * view.box.width for view in drawn[2:]]
    assert missed(drawn, wanted) == sum(far) + (iou(drawn[0].box, drawn[1].box) > 0.3)


def test_a_constraint_is_seldom_missed_and_one_that_cannot_be_met_always() -> None:
    few = sum(missed(draw_views(rng_of(seed), 100, 100, plan()), plan()) for seed in range(200))
    assert few < 0.05 * 3 * 200
    none = sum(missed(draw_views(rng_of(seed), 100, 100, plan(min_overlap=0)), plan()) for seed in range(200))
    assert none > 4 * few
    whole = ViewPlan(groups=(ViewGroup(count=2, size=8, area=(1, 1)),), photometry=PHOTOMETRY, max_iou=0.5)
    assert missed(draw_views(rng_of(0), 40, 40, whole), whole) == 1


@given(seeds, st.integers(2, 4))
def test_ious_of_frames_are_those_of_their_boxes(seed: int, count: int) -> None:
    wanted = ViewPlan(groups=(ViewGroup(count=count, size=8, area=(0.05, 0.6)),), photometry=PHOTOMETRY)
    images = [draw_views(rng_of(seed + number), 40, 60, wanted) for number in range(3)]
    found = pure_call(frame_ious, torch.stack([frames_of(views) for views in images], 1))
    pairs = [[iou(a.box, b.box) for a, b in combinations(views, 2)] for views in images]
    torch.testing.assert_close(found, torch.tensor(pairs))


@given(boxes, boxes)
def test_overlap_and_iou_are_those_of_sets_of_pixels(first: Box, second: Box) -> None:
    pixels = [
        {(y, x) for y in range(b.top, b.top + b.height) for x in range(b.left, b.left + b.width)}
        for b in (first, second)
    ]
    assert overlap(first, second) == len(pixels[0] & pixels[1])
    assert iou(first, second) == len(pixels[0] & pixels[1]) / len(pixels[0] | pixels[1])


@given(st.lists(views, min_size=1, max_size=6))
def test_frames_hold_all_there_is_to_know_of_views(drawn: list[View]) -> None:
    assert pure_call(frames_of, drawn).shape == (len(drawn), 5)
    assert views_of(frames_of(drawn)) == tuple(drawn)


@pytest.mark.parametrize(
    "wrong",
    [
        {"groups": ()},
        {"anchor": 4},
        {"anchor": -1},
        {"anchor": None},
        {"min_overlap": 1.5},
        {"max_iou": -0.1},
    ],
    ids=str,
)
def test_plans_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    key = "min_overlap" if wrong == {"anchor": None} else next(iter(wrong))
    with pytest.raises(ValueError, match=f"^{key}: "):
        plan(**wrong)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"size": 0}, {"area": (0.0, 1.0)}, {"area": (0.5, 0.2)}], ids=str)
def test_groups_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
        ViewGroup(**{"count": 2, "size": 32, "area": (0.2, 1.0), **wrong})  # type: ignore[arg-type]


# Matched grids


def grids(first: View, second: View, points: int = 4) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = pure_call(matched_grids, frames_of([first]), frames_of([second]), points)
    return found


@given(views, st.integers(2, 6))
def test_the_grid_of_a_view_in_itself_is_the_identity(view: View, points: int) -> None:
    for grid in grids(view._replace(flip=False), view._replace(flip=False), points):
        line = torch.linspace(-1, 1, points)
        assert grid.shape == (1, points, points, 2)
        torch.testing.assert_close(grid[0, :, :, 0], line.expand(points, points))
        torch.testing.assert_close(grid[0, :, :, 1], line[:, None].expand(points, points))


@given(views, views)
def test_a_flip_mirrors_the_columns_of_its_own_grid_alone(first: View, second: View) -> None:
    there, other = grids(first, second)
    mirrored, same = grids(first._replace(flip=not first.flip), second)
    assert torch.equal(other, same)
    outside = overlap(first.box, second.box) == 0
    torch.testing.assert_close(mirrored, there if outside else there * torch.tensor([-1.0, 1.0]))


@given(views, views)
def test_points_lie_in_both_views_or_outside_of_both(first: View, second: View) -> None:
    for grid in grids(first, second):
        if overlap(first.box, second.box):
            assert grid.abs().max() <= 1 + 1e-5
        else:
            assert F.grid_sample(torch.ones(1, 1, 5, 7), grid, align_corners=False).eq(0).all()


def test_both_views_show_the_same_colour_at_matched_points() -> None:
    """An image whose colour says where a pixel is, cut twice, one view mirrored and of another size."""
    rows, columns = torch.meshgrid(torch.arange(60.0), torch.arange(80.0), indexing="ij")
    image = torch.stack([rows, columns, rows + columns])
    first, second = View(Box(4, 8, 40, 48), False), View(Box(20, 24, 36, 40), True)
    pair = zip((first, second), (48, 40), grids(first, second, 5), strict=True)
    samples = [
        F.grid_sample(cut_image(image, view, (size, size))[None], grid, align_corners=False, padding_mode="border")
        for view, size, grid in pair
    ]
    inner = [sample[..., 1:-1, 1:-1] for sample in samples]  # the rim of a resized view is its edge pixels' colour
    torch.testing.assert_close(*inner, rtol=0, atol=0.2)
    # by hand: the shared rectangle is rows 20 to 44, columns 24 to 56; its middle is 32, 40, half a pixel less in
    # coordinates of pixel centres
    torch.testing.assert_close(samples[0][0, :2, 2, 2], torch.tensor([31.5, 39.5]), rtol=0, atol=0.1)


def test_a_grid_of_one_point_is_refused() -> None:
    with pytest.raises(ValueError, match="points: expected 2 or more"):
        grids(*(View(Box(0, 0, 4, 4), False),) * 2, points=1)


def test_pairs_of_the_first_group_alone_are_kept_apart() -> None:
    wanted = plan(max_iou=0.5, min_overlap=0, anchor=None)
    drawn = [draw_views(rng_of(seed), 100, 120, wanted) for seed in range(50)]
    near = [iou(a.box, b.box) > 0.5 for five in drawn for a, b in combinations(five[:2], 2)]
    assert sum(near) == sum(missed(five, wanted) for five in drawn) < 5
