"""The scores of ImageNet-S from sparse counts: dense definitions pixel by pixel, hand values, laws."""

import math
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdp.core import threshold_sweep
from mdp.core.luss import (
    SIZES,
    ImageMarks,
    LussScores,
    area_scores,
    at_threshold,
    image_marks,
    join_marks,
    luss_interval,
    luss_scores,
    match,
    matching_counts,
    same_names,
)  # fmt: skip
from mdp.core.threshold_sweep import threshold_scores
from tests.laws import pure_call
from tests.tensors import rng_of, seeds


class Maps(NamedTuple):
    """Predictions, labels and attention of some images."""

    pairs: list[tuple[Tensor, Tensor, Tensor]]
    categories: int
    generated: int

    def marks(self) -> list[ImageMarks]:
        return [image_marks(prediction, labels, level) for prediction, labels, level in self.pairs]


@st.composite
def some_maps(draw: st.DrawFn, same: bool = False) -> Maps:
    rng, categories = rng_of(draw(seeds)), draw(st.integers(1, 4))
    generated = categories if same else draw(st.integers(1, 6))
    block = draw(st.integers(1, 4))
    pairs = []
    for _ in range(draw(st.integers(1, 4))):
        height, width = (int(torch.randint(1, 5, (), generator=rng)) for _ in range(2))
        maps = [
            torch.randint(low, high + 1, (height, width), generator=rng)
            .repeat_interleave(block, 0)
            .repeat_interleave(block, 1)
            for low, high in ((0, generated), (-1, categories))
        ]
        pairs.append((maps[0], maps[1], torch.rand(maps[0].shape, generator=rng)))
    return Maps(pairs, categories, generated)


def inner(mask: np.ndarray, distance: int) -> np.ndarray:
    """The pixels of a mask that are near one that is not in it, or the outside, one by one."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask), strict=True):
        window = [(j, i) for j in range(y - distance, y + distance + 1) for i in range(x - distance, x + distance + 1)]
        found[y, x] = any(not (0 <= j < height and 0 <= i < width) or not mask[j, i] for j, i in window)
    return found


def mean_iou(pairs: list[tuple[np.ndarray, np.ndarray]], categories: int, first: int = 0) -> float:
    """By the definition, over pixels of all images together; absent classes have 0."""
    found = []
    for c in range(first, categories + 1):
        hits = sum(int(((p == c) & (t == c)).sum()) for p, t in pairs)
        union = sum(int(((p == c) | (t == c)).sum()) for p, t in pairs)
        found.append(hits / union if union else 0.0)
    return float(np.mean(found))


def dense(maps: Maps, names: Tensor, ratio: float = 0.03) -> LussScores:
    """All scores from the maps themselves."""
    plain, edges, correct, f_scores = [], [], [], []
    sized: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in SIZES]
    sized_edges: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in SIZES]
    for prediction, labels, _ in maps.pairs:
        p, t, raw = names[prediction].numpy(), labels.numpy(), prediction.numpy()
        valid = t >= 0
        distance = max(1, round(ratio * math.hypot(*t.shape)))
        true_edge, edge = np.full_like(t, -9), np.full_like(t, -8)  # never equal where there is none
        for value in np.unique(t):
            true_edge[inner(t == value, distance)] = value
        for value in np.unique(raw):
            edge[inner(raw == value, distance)] = names[value]
        plain.append((p[valid], t[valid]))
        edges.append((edge[valid], true_edge[valid]))
        areas = {c: int(((p == c) & valid).sum()) for c in range(1, maps.categories + 2)}
        best = max(areas, key=lambda c: (areas[c], -c))
        correct.append(areas[best] > 0 and bool((t == best).any()))
        front, back = (p > 0) & valid, t > 0
        hits = int((front & back).sum())
        precision, recall = hits / max(1, front.sum()), hits / max(1, back.sum())
        f_scores.append(1.3 * precision * recall / (0.3 * precision + recall) if hits else 0.0)
        for c in np.unique(t[valid]):
            percent = -(-100 * int((t == c).sum()) // int(valid.sum()))
            size = 0 if percent <= 5 else 1 if percent <= 25 else 2 if percent <= 50 else 3
            for number in range(len(SIZES)) if c == 0 else [size]:
                sized[number].append((p[t == c], t[t == c]))
                sized_edges[number].append((edge[t == c], true_edge[t == c]))
    by_size = [[mean_of_labelled(group, maps.categories) for group in groups] for groups in (sized, sized_edges)]
    return LussScores(
        mean_iou(plain, maps.categories), mean_iou(plain, maps.categories, 1),
        mean_iou(edges, maps.categories), mean_iou(edges, maps.categories, 1),
        float(np.mean(correct)), float(np.mean(f_scores)), tuple(by_size[0]), tuple(by_size[1]),
    )  # fmt: skip


def mean_of_labelled(pairs: list[tuple[np.ndarray, np.ndarray]], categories: int) -> float:
    found = []
    for c in range(categories + 1):
        if any((t == c).any() for _, t in pairs):
            hits = sum(int(((p == c) & (t == c)).sum()) for p, t in pairs)
            found.append(hits / sum(int(((p == c) | (t == c)).sum()) for p, t in pairs))
    return float(np.mean(found)) if found else math.nan


def flat(scores: LussScores) -> list[float]:
    return [*scores[:6], *scores.miou_by_size, *scores.boundary_miou_by_size]


@given(some_maps())
def test_every_score_is_that_of_the_maps_themselves(maps: Maps) -> None:
    valid = any(bool((labels >= 0).any()) for _, labels, _ in maps.pairs)
    marks = join_marks(maps.marks())
    names = match(pure_call(matching_counts, marks, maps.categories, maps.generated))
    found = pure_call(luss_scores, marks, names, maps.categories)
    if valid:
        np.testing.assert_allclose(flat(found), flat(dense(maps, names)), rtol=1e-12)


@given(some_maps())
def test_counts_of_images_are_those_of_sets_and_their_matching_is_the_best(maps: Maps) -> None:
    counts = matching_counts(join_marks(maps.marks()), maps.categories, maps.generated)
    for made in range(1, maps.generated + 1):
        for true in range(1, maps.categories + 1):
            together = sum(bool(((p == made) & (t >= 0)).any()) and bool((t == true).any()) for p, t, _ in maps.pairs)
            assert int(counts[made - 1, true - 1]) == together
    names = match(counts)
    assert int(names[0]) == 0
    taken = [name for name in names[1:].tolist() if name <= maps.categories]
    assert len({*taken}) == len(taken) == min(maps.categories, maps.generated)


@given(some_maps(same=True), seeds)
def test_other_numbers_for_the_generated_categories_change_no_score(maps: Maps, seed: int) -> None:
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(maps.generated, generator=rng_of(seed))])
    renamed = maps._replace(pairs=[(order[p], t, level) for p, t, level in maps.pairs])
    both = [join_marks(each.marks()) for each in (maps, renamed)]
    plain, back = same_names(maps.categories), torch.argsort(order)
    np.testing.assert_array_equal(
        flat(luss_scores(both[1], back, maps.categories)), flat(luss_scores(both[0], plain, maps.categories))
    )


@given(some_maps(), st.integers(0, 100))
def test_a_threshold_is_what_a_map_cut_there_would_give(maps: Maps, threshold: int) -> None:
    cut = maps._replace(
        pairs=[(torch.where((100 * level).floor() >= threshold, p, 0), t, level) for p, t, level in maps.pairs]
    )
    names = torch.arange(maps.generated + 1).clamp(max=maps.categories + 1)
    found = luss_scores(at_threshold(join_marks(maps.marks()), threshold), names, maps.categories)
    expected = luss_scores(join_marks(cut.marks()), names, maps.categories)
    np.testing.assert_array_equal(found.miou_by_size, expected.miou_by_size)
    for name in ("miou", "miou_of_categories", "image_accuracy", "f_beta"):
        np.testing.assert_equal(getattr(found, name), getattr(expected, name))
    assert math.isnan(found.boundary_miou)
    (swept,) = threshold_scores(join_marks(maps.marks()), maps.categories, maps.generated, [threshold], names)
    assert swept == tuple(getattr(found, name) for name in swept._fields)


@given(some_maps(), st.integers(1, 3), st.lists(st.integers(0, 100), max_size=6), st.booleans())
def test_a_sweep_has_at_each_threshold_the_bits_of_that_threshold_by_itself(
    maps: Maps, together: int, thresholds: list[int], matched: bool
) -> None:
    marks, names = join_marks(maps.marks()), torch.arange(maps.generated + 1).clamp(max=maps.categories + 1)
    with patch.object(threshold_sweep, "_IMAGES", together):
        swept = pure_call(
            threshold_scores, marks, maps.categories, maps.generated, thresholds, names if matched else None
        )
    for threshold, found in zip(thresholds, swept, strict=True):
        cut = at_threshold(marks, threshold)
        anew = match(matching_counts(cut, maps.categories, maps.generated))
        assert found == area_scores(cut, names if matched else anew, maps.categories)


def test_a_sweep_of_many_categories_has_the_bits_of_each_threshold_too() -> None:
    rng, marks = rng_of(0), []
    for _ in range(12):
        made, labels = (torch.randint(low, 701, (20, 20), generator=rng) for low in (0, -1))
        marks.append(image_marks(made, labels, torch.rand(20, 20, generator=rng)))
    joined, names = join_marks(marks), torch.cat([torch.tensor([0]), 1 + torch.randperm(700, generator=rng)])
    for threshold, found in zip((0, 40, 90), threshold_scores(joined, 700, 700, (0, 40, 90), names), strict=True):
        assert found == area_scores(at_threshold(joined, threshold), names, 700)


def test_a_sweep_wants_other_to_stay_other() -> None:
    marks = join_marks([image_marks(torch.tensor([[0, 1]]), torch.tensor([[0, 1]]))])
    with pytest.raises(ValueError, match=r'names: expected 0 \("other"\) to stay 0, got 1'):
        threshold_scores(marks, 1, 1, [0], torch.tensor([1, 0]))


def test_what_is_right_everywhere_scores_one() -> None:
    labels = torch.zeros(40, 40, dtype=torch.long)
    labels[:20, :20], labels[20:, 20:], labels[:3, 30:33] = 1, 2, 3
    marks = join_marks([image_marks(labels, labels)] * 2)
    found = luss_scores(marks, same_names(3), 3)
    assert found[:6] == (1, 1, 1, 1, 1, 1)
    assert found.miou_by_size == (1, 1, 1, 1)
    shuffled = torch.tensor([0, 3, 1, 2])
    renamed = join_marks([image_marks(shuffled[labels], labels)] * 2)
    # in every image everything occurs together, so that a matching by images cannot tell the three apart
    assert match(matching_counts(renamed, 3, 3)).sort().values.tolist() == [0, 1, 2, 3]


def test_a_random_renaming_of_a_right_prediction_is_undone() -> None:
    rng = rng_of(0)
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(50, generator=rng)])
    marks = []
    for category in range(1, 51):
        labels = torch.zeros(20, 20, dtype=torch.long)
        labels[5:15, 5:15] = category
        marks.append(image_marks(order[labels], labels))
    names = match(matching_counts(join_marks(marks), 50, 50))
    assert names[order].tolist() == list(range(51))
    assert luss_scores(join_marks(marks), names, 50).miou == 1


def test_an_object_of_five_percent_is_small_and_of_one_pixel_more_it_is_not() -> None:
    for pixels, place in ((80, 0), (81, 1), (400, 1), (401, 2), (800, 2), (801, 3)):
        labels = torch.zeros(1600, dtype=torch.long)
        labels[:pixels] = 1
        labels = labels.view(40, 40)
        found = luss_scores(join_marks([image_marks(torch.zeros_like(labels), labels)]), same_names(1), 1).miou_by_size
        # "other" is labelled in all; only the object's own size has its pixels missing
        assert [score < 1 for score in found] == [number == place for number in range(4)]


def test_what_is_generated_beyond_the_categories_is_wrong_and_not_other() -> None:
    labels = torch.tensor([[0, 0, 1, 1]])
    marks = join_marks([image_marks(torch.tensor([[2, 0, 1, 1]]), labels)])
    found = luss_scores(marks, torch.tensor([0, 1, 2]), 1)  # 2 is C + 1: not matched
    assert found.miou == pytest.approx((1 / 2 + 1) / 2)
    assert found.f_beta == pytest.approx(1.3 * (2 / 3) / (0.3 * 2 / 3 + 1))


def test_an_interval_lies_around_the_score_and_is_a_point_where_all_images_are_alike() -> None:
    labels = torch.tensor([[0, 0, 1, 1]])
    right, wrong = image_marks(labels, labels), image_marks(torch.zeros_like(labels), labels)
    alike = luss_interval(join_marks([right] * 3), same_names(1), 1, rng_of(0), 50)
    assert alike == (1, 1)
    mixed = join_marks([right, wrong] * 10)
    low, high = pure_call(luss_interval, mixed, same_names(1), 1, rng_of(0), 200)
    assert low < luss_scores(mixed, same_names(1), 1).miou < high
    with pytest.raises(ValueError, match="two images or more, got 1"):
        luss_interval(join_marks([right]), same_names(1), 1, rng_of(0))


@pytest.mark.parametrize(
    ("prediction", "labels", "level", "words"),
    [
        ([[0, 1]], [[0]], None, r"maps of \(1, 2\), \(1, 1\): expected the same height and width"),
        ([[-1]], [[0]], None, r"prediction: expected 0 \(other\) and up, got -1"),
        ([[0]], [[0]], [[1.5]], "level: expected 0 to 1, got 1.5 to 1.5"),
    ],
)
def test_maps_that_do_not_fit_are_refused(
    prediction: list[list[int]], labels: list[list[int]], level: list[list[float]] | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        image_marks(torch.tensor(prediction), torch.tensor(labels), None if level is None else torch.tensor(level))


def test_categories_beyond_those_of_the_benchmark_are_refused() -> None:
    marks = join_marks([image_marks(torch.tensor([[0, 7]]), torch.tensor([[0, 1]]))])
    with pytest.raises(ValueError, match="predictions: expected categories 0 to 3, found 7"):
        matching_counts(marks, 1, 3)
    with pytest.raises(ValueError, match="labels: expected categories 0 to 0, found 1"):
        luss_scores(marks, same_names(7), 0)
