"""The scores of every threshold of attention from the counts of one pass (2106.03149, section 4.4).

A pixel keeps its category up to the level of its attention: what is kept at each threshold are sums over levels, from
the highest down, and categories are matched anew only where the last pixel of an object has gone.
Shape legend: n rows of counts, T thresholds, N images, K generated categories, C true ones; an object is what an image
has of one generated category, o of them; p pairs of a true and a generated category.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mdp.core.comparison import count_iou
from mdp.core.luss import AreaScores, Marks, expect_categories, f_beta, match

_IMAGES = 1024  # that are looked at together: memory for their objects at all thresholds


def threshold_scores(
    marks: Marks, categories: int, generated: int, thresholds: Sequence[int], names: Tensor | None = None
) -> list[AreaScores]:
    """The scores of areas at thresholds in hundredths: what `area_scores` gives of the marks `at_threshold`.

    Categories are matched anew at each, as the released code does, unless `names` (K + 1,) are given.  Raises
    ValueError for numbers beyond `categories` or `generated`, and for names that have another one for "other".
    """
    expect_categories(marks, categories, generated if names is None else len(names) - 1)
    if names is not None and int(names[0]) != 0:
        raise ValueError(f'names: expected 0 ("other") to stay 0, got {int(names[0])}')
    cuts = sorted({*thresholds})
    image, true, made, level, pixels = marks.areas.t().contiguous()
    rows = _Rows(image, true, made, torch.searchsorted(torch.tensor(cuts), level, right=True), pixels)
    if names is not None:
        matchings = [(names, slice(0, len(cuts)))]
    else:
        matchings = list(_matchings(rows, (generated, categories), len(cuts)))
    found = dict(zip(cuts, _scores(rows, marks.images, categories, matchings, len(cuts)), strict=True))
    return [found[threshold] for threshold in thresholds]


class _Rows(NamedTuple):
    """Counts of areas, (n,) each."""

    image: Tensor
    true: Tensor
    made: Tensor
    level: Tensor  # at how many thresholds the generated category is kept: at the lowest ones
    pixels: Tensor

    def where(self, chosen: Tensor) -> "_Rows":
        return _Rows(*(column[chosen] for column in self))


def _kept(group: Tensor, level: Tensor, pixels: Tensor, groups: int, thresholds: int) -> Tensor:
    """The pixels of each group that are kept at each threshold, (T, groups) int64; all arguments are (n,)."""
    table = torch.zeros((thresholds + 1) * groups, dtype=torch.int64).index_add_(0, level * groups + group, pixels)
    return table.view(thresholds + 1, groups)[1:].flip(0).cumsum(0).flip(0)


# Matchings


def _matchings(rows: _Rows, sizes: tuple[int, int], thresholds: int) -> Iterator[tuple[Tensor, slice]]:
    """The matching (K + 1,) of (K, C) categories, and the thresholds that have it."""
    level, made, true = _meetings(rows, sizes)
    counts = torch.zeros(sizes, dtype=torch.int64)
    pairs = (made - 1) * sizes[1] + true - 1  # in counts
    order = torch.argsort(level, stable=True)
    ends = torch.searchsorted(level[order], torch.arange(thresholds + 1), right=True).tolist()
    counts.view(-1).index_add_(0, pairs, (level > 0).long())
    names, first = match(counts), 0
    for threshold in range(1, thresholds):
        gone = pairs[order[ends[threshold - 1] : ends[threshold]]]
        if not len(gone):
            continue
        counts.view(-1).index_add_(0, gone, gone.new_full((len(gone),), -1))
        anew = match(counts)
        if not torch.equal(anew, names):
            yield names, slice(first, threshold)
            names, first = anew, threshold
    yield names, slice(first, thresholds)


def _meetings(rows: _Rows, sizes: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Each object with each true category of its image: the level up to which it lasts, and both numbers."""
    width, height = sizes[0] + 1, sizes[1] + 1
    own = rows.where(rows.made > 0)
    objects, place = torch.unique(own.image * width + own.made, return_inverse=True)  # (o,)
    lasts = torch.zeros_like(objects).scatter_reduce_(0, place, own.level, "amax")
    there = torch.unique((rows.image * height + rows.true)[rows.true > 0])  # an image's lie side by side
    images = objects // width
    begin, end = (torch.searchsorted(there, (images + one) * height) for one in (0, 1))
    each = torch.repeat_interleave(torch.arange(len(objects)), end - begin)  # each object as often as it meets one
    before = (end - begin).cumsum(0) - (end - begin)
    true = there[begin[each] + torch.arange(len(each)) - before[each]] % height
    return lasts[each], objects[each] % width, true


# Scores


class _Sums(NamedTuple):
    """What all images have together."""

    true: Tensor  # (p,)
    made: Tensor  # (p,) 1 .. K
    kept: Tensor  # (T, p) pixels
    labelled: Tensor  # (at least C + 1,) pixels of each true category

    @classmethod
    def of(cls, rows: _Rows, thresholds: int) -> "_Sums":
        own = rows.where(rows.made > 0)
        width = int(own.made.max()) + 1 if len(own.made) else 1
        pairs, place = torch.unique(own.true * width + own.made, return_inverse=True)
        labelled = torch.zeros(int(rows.true.max()) + 1 if len(rows.true) else 1, dtype=torch.int64)
        return cls(
            pairs // width,
            pairs % width,
            _kept(place, own.level, own.pixels, len(pairs), thresholds),
            labelled.index_add_(0, rows.true, rows.pixels),
        )


class _Objects(NamedTuple):
    """The objects of some images."""

    images: int
    image: Tensor  # (o,) 0 .. images - 1
    made: Tensor  # (o,) 1 .. K
    kept: Tensor  # (T, o) pixels
    hits: Tensor  # (T, o) those of them that belong to some category
    truths: Tensor  # image and true category, 1 and up
    true: Tensor
    there: Tensor  # (images,) pixels of categories

    @classmethod
    def of(cls, rows: _Rows, images: range, thresholds: int) -> "_Objects":
        some = rows.where((rows.image >= images.start) & (rows.image < images.stop))
        front, own = some.where(some.true > 0), some.where(some.made > 0)
        width = int(own.made.max()) + 1 if len(own.made) else 1
        objects, place = torch.unique((own.image - images.start) * width + own.made, return_inverse=True)
        hit, zeros = own.true > 0, torch.zeros(len(images), dtype=torch.int64)
        return cls(
            len(images),
            objects // width,
            objects % width,
            _kept(place, own.level, own.pixels, len(objects), thresholds),
            _kept(place[hit], own.level[hit], own.pixels[hit], len(objects), thresholds),
            front.image - images.start,
            front.true,
            zeros.index_add(0, front.image - images.start, front.pixels),
        )


def _scores(
    rows: _Rows, images: int, categories: int, matchings: Sequence[tuple[Tensor, slice]], thresholds: int
) -> Iterator[AreaScores]:
    """The scores of each threshold; those of a slice have the same names (K + 1,)."""
    sums = _Sums.of(rows, thresholds)
    counts = torch.cat([_class_counts(sums, names, categories, alike) for names, alike in matchings])  # (T, C + 1, 3)
    iou = count_iou(counts).nan_to_num(0)
    correct, f_of = torch.zeros(thresholds, dtype=torch.int64), torch.zeros(thresholds, images, dtype=torch.float64)
    for first in range(0, images, _IMAGES):
        some = _Objects.of(rows, range(first, min(first + _IMAGES, images)), thresholds)
        for names, alike in matchings:
            correct[alike] += _correct_images(some, names, categories, alike)
            f_of[alike, first : first + _IMAGES] = _f_of_images(some, names, alike)
    for threshold, classes in enumerate(iou):  # means of one at a time, which are added in the same order as ever
        yield AreaScores(
            miou=float(classes.mean()),
            miou_of_categories=float(classes[1:].mean()),
            image_accuracy=int(correct[threshold]) / images if images else math.nan,
            f_beta=float(f_of[threshold].mean()),
        )


def _class_counts(sums: _Sums, names: Tensor, categories: int, alike: slice) -> Tensor:
    """(t, C + 1, 3) int64: hits, labelled and predicted pixels of "other" and each category."""
    kept, named = sums.kept[alike], names[sums.made]  # (t, p), (p,)
    labelled = torch.zeros(categories + 1, dtype=torch.int64)
    labelled[: len(sums.labelled)] = sums.labelled
    counts = torch.stack([torch.zeros(len(kept), categories + 1, dtype=torch.int64)] * 3)
    counts[1] = labelled
    for column, own in ((0, named == sums.true), (2, named <= categories)):
        counts[column].index_add_(1, named[own], kept[:, own])
    counts[0, :, 0] += labelled[0] - kept[:, sums.true == 0].sum(1)
    counts[2, :, 0] += labelled.sum() - kept.sum(1)
    return counts.permute(1, 2, 0)


def _correct_images(some: _Objects, names: Tensor, categories: int, alike: slice) -> Tensor:
    """(t,) images whose largest predicted category, the first of equals, has a true pixel."""
    width, named = categories + 2, names[some.made]
    own = named > 0
    kinds, place = torch.unique(some.image[own] * width + named[own], return_inverse=True)  # in order
    kept = some.kept[alike, own]
    areas = torch.zeros(len(kept), len(kinds), dtype=torch.int64).index_add_(1, place, kept)
    image = (kinds // width).expand_as(areas)  # (t, kinds)
    largest = areas.new_ones(len(kept), some.images).scatter_reduce_(1, image, areas, "amax")  # at least a pixel
    numbers = torch.where(areas == largest.gather(1, image), torch.arange(len(kinds)), len(kinds))
    first = torch.full_like(largest, len(kinds)).scatter_reduce_(1, image, numbers, "amin")
    right = torch.cat([torch.isin(kinds, some.truths * width + some.true), torch.tensor([False])])
    return right[first].sum(1)


def _f_of_images(some: _Objects, names: Tensor, alike: slice) -> Tensor:
    """F of each image, (t, images) float64."""
    own = names[some.made] > 0
    zeros = torch.zeros(alike.stop - alike.start, some.images, dtype=torch.int64)
    hits, made = (zeros.index_add(1, some.image[own], each[alike, own]) for each in (some.hits, some.kept))
    return f_beta(hits, made, some.there)
