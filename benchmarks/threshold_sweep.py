"""The threshold of attention with the best mIoU, of 81: matching and scores of labelled photos at each of them.

Shape legend: N photos, C categories, K generated ones, H x W label map.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate
from mdp.core.luss import image_marks, join_marks, match
from mdp.core.threshold_sweep import threshold_scores

THRESHOLDS = range(81)  # hundredths
HEIGHT, WIDTH = 375, 500


class Photo(NamedTuple):
    """Label maps (H, W) of a photo and its attention in 0 .. 1."""

    made: Tensor
    labels: Tensor
    level: Tensor


def cases() -> dict[str, Callable[[], Case]]:
    """By the number of photos and categories."""
    return {
        "2 photos, 20 categories": partial(_case, "2 photos, 20 categories", 2, 20),
        "6 photos, 50 categories": partial(_case, "6 photos, 50 categories", 6, 50),
    }


def _case(label: str, photos: int, categories: int) -> Case:
    some = _photos(photos, categories)
    entries = (
        Entry("levels in the counts", "ours", lambda: _ours(some, categories)),
        Entry("all maps again at each threshold", "plain", lambda: _plain(some, categories)),
        Entry("counts at one threshold", "floor", lambda: _counted(some)),
    )
    gates = (Gate("plain", 40.0), Gate("floor", at_most=1.5))
    return Case("threshold sweep", label, entries, gates, lambda: (_plain(some, categories),))


def _photos(count: int, categories: int) -> list[Photo]:
    """One object of two quarters or less in each photo, which attention and a category of its own almost cover."""
    rng, found = inputs.rng_of(1), []
    names = torch.randperm(categories, generator=rng) + 1
    for number in range(count):
        top, left = (int(torch.randint(20, 150, (), generator=rng)) for _ in range(2))
        labels = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)
        labels[top : top + 180, left : left + 240] = 1 + number % categories
        made = torch.full_like(labels, int(names[number % categories]))
        made[:, : left + 40] = int(names[(number + 1) % categories])
        noise = F.interpolate(torch.rand(1, 1, 12, 16, generator=rng), (HEIGHT, WIDTH), mode="bilinear")[0, 0]
        found.append(Photo(made, labels, (0.5 * noise + 0.4 * (labels > 0)).clamp(0, 1)))
    return found


def _ours(photos: Sequence[Photo], categories: int) -> Tensor:
    marks = join_marks([image_marks(*photo) for photo in photos])
    return torch.tensor([scores.miou for scores in threshold_scores(marks, categories, categories, THRESHOLDS)])


def _counted(photos: Sequence[Photo]) -> Tensor:
    """What one threshold costs: the counts of photos that are cut already."""
    return join_marks([image_marks(photo.made, photo.labels) for photo in photos]).areas


def _plain(photos: Sequence[Photo], categories: int) -> Tensor:
    """The released order: at each threshold all maps for the matching, and all again for the scores."""
    bins, scores = categories + 1, []
    for threshold in THRESHOLDS:
        maps = [torch.where(100 * photo.level >= threshold, photo.made, 0) for photo in photos]
        together = torch.zeros(categories, categories, dtype=torch.int64)
        for made, photo in zip(maps, photos, strict=True):
            true, found = (values[values > 0] - 1 for values in (torch.unique(photo.labels), torch.unique(made)))
            together[found[:, None], true] += 1
        names, counts = match(together), torch.zeros(3, bins)
        for made, photo in zip(maps, photos, strict=True):
            guess = names[made]
            hits = guess[guess == photo.labels]
            for row, values in enumerate((hits, guess, photo.labels)):
                counts[row] += torch.histc(values.float(), bins, 0, bins - 1)
        scores.append(float((counts[0] / (counts[1] + counts[2] - counts[0] + 1e-10)).mean()))
    return torch.tensor(scores)
