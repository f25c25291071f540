"""The pixels of outlines, run lengths and shapes: hand-computed, by their laws, and beside the tools' own programs."""

import itertools
import math
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from mdp.io.annotations import patches
from mdp.io.annotations.coco_masks import counts_of, polygon_patch, runs_patch
from mdp.io.annotations.labelme_shapes import mask_patch, shape_patch
from mdp.io.annotations.patches import REST, UNDECIDED, Patch, cropped, union, whole
from tests.peers import library_or_skip, quiet

POLYGONS, SHAPES = 1500, 1400  # drawn for each comparison

Size = tuple[int, int]


def corners(rng: np.random.Generator, size: Size) -> list[float]:
    """A polygon: inside, out of bounds, crossing itself, on whole and half pixels, tiny, degenerate or round."""
    height, width = size
    count, extent = int(rng.integers(3, 16)), np.array([width, height])
    points = [
        lambda: rng.random((count, 2)) * extent,
        lambda: rng.uniform(-1, 2, (count, 2)) * extent,
        lambda: rng.integers(-3, 3 + max(size), (count, 2)).astype(float),
        lambda: rng.integers(0, 1 + 2 * max(size), (count, 2)) / 2,
        lambda: rng.random(2) * extent + rng.uniform(-1.5, 1.5, (count, 2)),
        lambda: np.repeat(rng.uniform(-0.2, 1.2, (count, 2)) * extent, rng.integers(1, 4, count), axis=0),
        lambda: circle(rng, count, extent).round(2),
    ]
    return list(points[int(rng.integers(len(points)))]().ravel().tolist())


def circle(rng: np.random.Generator, count: int, extent: NDArray[np.int64]) -> NDArray[np.float64]:
    angles = np.sort(rng.uniform(0, 2 * math.pi, count))
    return extent / 2 + rng.uniform(0.1, 0.6) * max(extent) * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def size_of(rng: np.random.Generator) -> Size:
    height, width = rng.integers(1, 90, 2).tolist()
    return height, width


# Beside pycocotools and labelme


def decoded(peer: ModuleType, runs: object) -> NDArray[np.bool_]:
    with quiet():
        return np.array(peer.decode(runs), dtype=bool)


def test_polygons_and_run_lengths_are_those_of_pycocotools() -> None:
    peer = library_or_skip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for _ in range(POLYGONS):
        size = size_of(rng)
        parts = [corners(rng, size) for _ in range(int(rng.integers(1, 4)))]
        runs = peer.merge(peer.frPyObjects(parts, *size))
        expected = decoded(peer, runs)
        ours = whole(union([polygon_patch(part, size) for part in parts], size), size)
        assert np.array_equal(ours, expected), (size, parts)
        assert np.array_equal(whole(runs_patch(counts_of(runs["counts"].decode()), size), size), expected)
        noise = rng.random(size) < rng.random()
        coded = peer.encode(np.asfortranarray(noise.astype(np.uint8)))["counts"].decode()
        assert np.array_equal(whole(runs_patch(counts_of(coded), size), size), noise), (size, coded)


def test_uncompressed_run_lengths_are_those_of_pycocotools() -> None:
    peer = library_or_skip("pycocotools.mask")
    rng = np.random.default_rng(1)
    for _ in range(200):
        size = size_of(rng)
        ends = np.sort(rng.integers(0, size[0] * size[1] + 1, int(rng.integers(1, 20))))  # runs of no pixels among them
        counts = np.diff([0, *ends, size[0] * size[1]]).tolist()
        expected = decoded(peer, peer.frPyObjects({"size": list(size), "counts": counts}, *size))
        assert np.array_equal(whole(runs_patch(counts, size), size), expected), (size, counts)


def test_shapes_are_those_of_labelme() -> None:
    peer = library_or_skip("labelme.utils.shape")
    rng = np.random.default_rng(2)
    kinds = {"polygon": 0, "rectangle": 2, "circle": 2, "line": 2, "linestrip": 0, "point": 1, "oriented_rectangle": 4}
    for kind, count in itertools.islice(itertools.cycle(kinds.items()), SHAPES):
        size = size_of(rng)
        points = np.reshape(corners(rng, size), (-1, 2))
        points = points[:count] if count and len(points) >= count else rng.random((count or 3, 2)) * size[::-1]
        ours = whole(shape_patch(kind, points.tolist(), size), size)
        assert np.array_equal(ours, peer.shape_to_mask(size, points.tolist(), kind)), (kind, size, points.tolist())


def test_label_maps_are_those_of_labelme_where_the_later_shape_holds() -> None:
    peer = library_or_skip("labelme.utils.shape")
    rng = np.random.default_rng(3)
    for _ in range(100):
        size, shapes, marks = size_of(rng), [], []
        for value in range(1, 6):
            points = np.reshape(corners(rng, size), (-1, 2)).tolist()
            shapes.append({"label": str(value), "points": points, "shape_type": "polygon"})
            marks.append((value, shape_patch("polygon", points, size)))
        box = rng.random((size[0], size[1])) < 0.5
        ends = [[0, 0], [size[1] - 1, size[0] - 1]]
        shapes.insert(2, {"label": "9", "points": ends, "shape_type": "mask", "mask": box})
        marks.insert(2, (9, mask_patch(box, ends, size)))
        expected, _ = peer.shapes_to_label(size, shapes, {str(value): value for value in range(10)})
        ours = patches.later(marks, size)
        assert np.array_equal(np.where(ours == REST, 0, ours), expected)


# By hand, and by laws


def test_a_polygon_of_whole_pixels_is_these_pixels() -> None:
    mask = whole(polygon_patch([1, 1, 4, 1, 4, 3, 1, 3], (5, 6)), (5, 6))
    assert np.argwhere(mask).tolist() == [[1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3]]


def test_an_outline_that_crosses_itself_leaves_out_what_is_crossed_into_twice() -> None:
    ring = [0, 0, 9, 0, 9, 9, 0, 9, 0, 0, 3, 3, 6, 3, 6, 6, 3, 6, 3, 3]
    mask = whole(polygon_patch(ring, (9, 9)), (9, 9))
    assert mask.sum() == 81 - 9
    assert not mask[3:6, 3:6].any()


@pytest.mark.parametrize("seed", range(40))
def test_what_is_cut_off_at_the_border_changes_nothing_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = (rng.random((7, 2)) * 40).tolist()
    large = whole(polygon_patch([part for point in points for part in point], (40, 40)), (40, 40))
    small = whole(polygon_patch([part for point in points for part in point], (23, 17)), (23, 17))
    assert np.array_equal(small, large[:23, :17])


@pytest.mark.parametrize("seed", range(20))
def test_two_polygons_that_share_an_edge_neither_overlap_nor_leave_a_gap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(2, 28, 2)).tolist()
    left = polygon_patch([0, 0, x[0], 0, x[1], 30, 0, 30], (30, 30))
    right = polygon_patch([x[0], 0, 30, 0, 30, 30, x[1], 30], (30, 30))
    assert np.array_equal(whole(left, (30, 30)), ~whole(right, (30, 30)))


def test_a_circle_reaches_as_far_as_its_second_point() -> None:
    mask = whole(shape_patch("circle", [[10, 10], [10, 14]], (21, 21)), (21, 21))
    assert np.flatnonzero(mask[10]).tolist() == list(range(6, 15))
    assert np.array_equal(mask, mask.T)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: polygon_patch([0, 0, 1, 1], (4, 4)), "3 corners or more"),
        (lambda: polygon_patch([0, 0, 1, 1, 2], (4, 4)), "got 5 numbers"),
        (lambda: polygon_patch([0, 0, 1, 1, 2, math.nan], (4, 4)), "expected numbers"),
        (lambda: polygon_patch([0, 0, 10**400, 1, 2, 3], (4, 4)), "expected numbers"),
        (lambda: polygon_patch(["0", 0, 1, 1, 2, 2], (4, 4)), "expected numbers"),  # type: ignore[list-item]
        (lambda: polygon_patch([0, 0, 10**6, 10**6] * 3, (4, 4)), "longer than any"),
        (lambda: runs_patch([3, 4], (4, 4)), "add up to 7 pixels; 4 x 4 are 16"),
        (lambda: runs_patch([20, -4], (4, 4)), "whole numbers"),
        (lambda: counts_of("5220\x7f"), "damaged"),
        (lambda: counts_of("52P"), "middle of a number"),
        (lambda: shape_patch("star", [[0, 0]], (4, 4)), "'star' are not drawn"),
        (lambda: shape_patch("circle", [[0, 0]], (4, 4)), "a circle has 2 points, got 1"),
        (lambda: shape_patch("circle", [[0, 0], [1e9, 0]], (4, 4)), "at most 1000000"),
        (lambda: mask_patch(np.ones((2, 2), dtype=bool), [[3, 3], [4, 4]], (4, 4)), "leads out of 4 x 4 pixels"),
        (lambda: mask_patch(np.ones((2, 3), dtype=bool), [[0, 0], [1, 1]], (4, 4)), "3 x 2 pixels"),
    ],
)
def test_what_is_no_outline_is_refused_in_a_line(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


# Where annotations overlap


def square(value: int, top: int, left: int, side: int) -> tuple[int, Patch]:
    return value, Patch(top, left, np.ones((side, side), dtype=bool))


def test_the_three_rules_for_pixels_of_two_annotations() -> None:
    marks = [square(1, 1, 1, 2), square(2, 0, 0, 3)]  # the smaller one first
    assert patches.later(marks, (4, 4)).tolist() == [[2, 2, 2, REST]] * 3 + [[REST] * 4]
    assert patches.smaller(marks, (4, 4))[:3, :3].tolist() == [[2, 2, 2], [2, 1, 1], [2, 1, 1]]
    assert patches.ignore(marks, (4, 4))[:3, :3].tolist() == [
        [2, 2, 2],
        [2, UNDECIDED, UNDECIDED],
        [2, UNDECIDED, UNDECIDED],
    ]


def test_pixels_of_three_annotations_stay_undecided_and_two_of_one_class_do_not_disagree() -> None:
    three = [square(1, 0, 0, 2), square(2, 0, 0, 2), square(1, 0, 0, 2)]
    assert (patches.ignore(three, (2, 2)) == UNDECIDED).all()
    assert (patches.ignore([square(1, 0, 0, 2), square(1, 0, 0, 2)], (2, 2)) == 1).all()


def test_a_rule_does_not_depend_on_order_but_for_later() -> None:
    rng = np.random.default_rng(5)
    masks = [rng.random((8, 8)) < share for share in (0.2, 0.4, 0.7)]
    marks = [(value, cropped(mask)) for value, mask in enumerate(masks)]
    for rule in (patches.smaller, patches.ignore):
        found = {rule(list(order), (8, 8)).tobytes() for order in itertools.permutations(marks)}
        assert len(found) == 1
    assert len({patches.later(list(order), (8, 8)).tobytes() for order in itertools.permutations(marks)}) == 6


def test_no_function_writes_to_the_patches_it_is_given() -> None:
    marks = [square(1, 1, 1, 2), square(2, 0, 0, 3)]
    before = [patch.mask.copy() for _, patch in marks]
    for rule in patches.OVERLAPS.values():
        rule(marks, (4, 4))
    union([patch for _, patch in marks], (4, 4))
    assert all(np.array_equal(patch.mask, mask) for (_, patch), mask in zip(marks, before, strict=True))
