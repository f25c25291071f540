"""The scores of the ImageNet-S benchmark, all of them from one pass over predictions (2106.03149, section 3.2, 7.1).

Of each image only sparse counts are kept: how many pixels have which true and which predicted category, and how many of
them lie on boundaries.  Renaming the predicted categories moves no boundary, so every score, under any matching, at any
threshold of attention and for any choice of images, is a function of these counts.

Categories are 1 .. C and what was generated without labels 1 .. K; 0 is "other", -1 what is ignored.
Shape legend: N images, H x W label map, C categories, K generated ones.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mdp.core.assignment import assign
from mdp.core.boundaries import RATIO, boundary, boundary_width
from mdp.core.comparison import Interval, count_iou
from mdp.core.labels import IGNORE
from mdp.core.value_counts import Ranked, combinations, ranked

SIZES = ("small", "medium_small", "medium_large", "large")
SIZE_BOUNDS = (5, 25, 50)  # percent of an image's valid pixels that a category has at most, but for the last size
BETA_SQUARE = 0.3
_LEVELS = 101  # of attention, in hundredths


class ImageMarks(NamedTuple):
    """Counts of one image, or, with the number of the image before each row, of many."""

    areas: Tensor  # (n, 4) int64: true, predicted, level in hundredths, pixels
    edges: Tensor  # (m, 4) int64: true, 1 on the true boundary, predicted on its boundary or -1 off it, pixels


def image_marks(prediction: Tensor, labels: Tensor, level: Tensor | None = None, ratio: float = RATIO) -> ImageMarks:
    """The counts of an image from label maps (H, W); `level` (H, W) is the attention in 0 .. 1, if there is any.

    Boundaries reach `ratio` of the diagonal inwards, and are found where the ignored pixels still count as a value of
    their own.  Raises ValueError for shapes that differ, a negative prediction and a level outside 0 .. 1.

    >>> marks = image_marks(torch.tensor([[2, 2, 0]]), torch.tensor([[1, 1, -1]]))
    >>> marks.areas.tolist(), marks.edges.tolist()
    ([[1, 2, 100, 2]], [[1, 1, 2, 2]])
    """
    shapes = [tuple(each.shape) for each in (prediction, labels, level) if each is not None]
    if len({*shapes}) > 1 or prediction.dim() != 2:
        raise ValueError(f"maps of {', '.join(map(str, shapes))}: expected the same height and width for all")
    if prediction.numel() and int(prediction.min()) < 0:
        raise ValueError(f"prediction: expected 0 (other) and up, got {int(prediction.min())}")
    if level is None:
        hundredths, kinds = torch.zeros_like(prediction), torch.tensor([_LEVELS - 1])
    else:
        low, high = (float(bound) for bound in torch.aminmax(level)) if level.numel() else (0.0, 1.0)
        if not (low >= 0 and high <= 1):
            raise ValueError(f"level: expected 0 to 1, got {low} to {high}")
        hundredths, kinds = (100 * level).floor().int(), torch.arange(_LEVELS)
    true, made = ranked(labels), ranked(prediction)
    distance = boundary_width(labels.shape[0], labels.shape[1], ratio)
    on_true, on_predicted = boundary(true.ranks, distance), boundary(made.ranks, distance)  # renaming moves none
    edge = Ranked((made.ranks + 1) * on_predicted, torch.cat([torch.tensor([IGNORE]), made.kinds]))
    areas = combinations(true, made, Ranked(hundredths, kinds))
    edges = combinations(true, Ranked(on_true, torch.arange(2)), edge)
    return ImageMarks(*(rows[rows[:, 0] != IGNORE] for rows in (areas, edges)))


class Marks(NamedTuple):
    """The counts of a set of images."""

    images: int
    areas: Tensor  # (n, 5) int64: image, true, predicted, level, pixels
    edges: Tensor  # (m, 5) int64: image, true, on the true boundary, predicted on its boundary, pixels


def join_marks(images: Sequence[ImageMarks]) -> Marks:
    """The counts of images, which are numbered in their order."""
    return Marks(len(images), _numbered([one.areas for one in images]), _numbered([one.edges for one in images]))


def _numbered(rows: Sequence[Tensor]) -> Tensor:
    joined = torch.cat([torch.zeros(0, 4, dtype=torch.int64), *rows])
    number = torch.repeat_interleave(
        torch.arange(len(rows)), torch.tensor([len(own) for own in rows], dtype=torch.int64)
    )
    return torch.cat([number[:, None], joined], 1)


def at_threshold(marks: Marks, threshold: int) -> Marks:
    """The areas as if only pixels of a level of so many hundredths kept their category; of edges there are none.

    Where those are needed, the map has to be made: other pixels lie on its boundaries.
    """
    areas = marks.areas.clone()
    areas[:, 2] *= areas[:, 3] >= threshold
    return Marks(marks.images, areas, marks.edges[:0])


# Matching


def matching_counts(marks: Marks, categories: int, generated: int) -> Tensor:
    """In how many images each generated category occurs together with each true one: (K, C) int64.

    Raises ValueError for numbers beyond these.
    """
    expect_categories(marks, categories, generated)
    true, made = (_occurrences(marks.areas, column, size) for column, size in ((1, categories), (2, generated)))
    return (made.T.double() @ true.double()).long()  # exact: counts of images


def _occurrences(areas: Tensor, column: int, size: int) -> Tensor:
    """Whether each of the images that have rows has a pixel of each category 1 .. size, (N', size)."""
    _, image = torch.unique(areas[:, 0], return_inverse=True)
    found = torch.zeros(int(image.max()) + 1 if len(image) else 0, size + 1)
    found[image, areas[:, column]] = 1
    return found[:, 1:]


def match(counts: Tensor) -> Tensor:
    """The category of each generated one, (K + 1,) int64, so that the counts (K, C) of the pairs are most in all.

    0 stays 0.  Where more are generated than there are categories, those that are left over get C + 1: a wrong answer,
    and not "other".  Where fewer are generated, categories are left over.

    >>> match(torch.tensor([[0, 3], [2, 0], [1, 1]])).tolist()
    [0, 2, 1, 3]
    """
    generated, categories = counts.shape
    pairs = torch.full((generated + 1,), categories + 1, dtype=torch.int64)
    pairs[0] = 0
    if generated >= categories:
        pairs[1 + torch.from_numpy(assign(-counts.T.numpy()))] = torch.arange(1, categories + 1)
    else:
        pairs[1:] = 1 + torch.from_numpy(assign(-counts.numpy()))
    return pairs


def same_names(categories: int) -> Tensor:
    """The matching of predictions that have the categories' own numbers."""
    return torch.arange(categories + 1)


# Scores


class AreaScores(NamedTuple):
    """The scores in 0 .. 1 that follow from areas alone; means over classes count absent ones as 0."""

    miou: float  # over "other" and all categories
    miou_of_categories: float  # without "other"
    image_accuracy: float  # images whose largest predicted category is there
    f_beta: float  # of foreground against "other", mean over images


def area_scores(marks: Marks, names: Tensor, categories: int) -> AreaScores:
    """The scores of areas, the predicted categories renamed by `names` (K + 1,); raises what `luss_scores` raises."""
    expect_categories(marks, categories, len(names) - 1)
    image, true, predicted, _, pixels = marks.areas.unbind(1)
    predicted, counts = names[predicted], _area_counts(marks.areas, names, categories)
    return AreaScores(
        miou=_mean(counts),
        miou_of_categories=_mean(counts[1:]),
        image_accuracy=_image_accuracy(marks.images, image, true, predicted, pixels, categories),
        f_beta=_f_beta(marks.images, image, true > 0, predicted > 0, pixels),
    )


class LussScores(NamedTuple):
    """Scores in 0 .. 1; means over classes count absent ones as 0, those by size leave them out."""

    miou: float
    miou_of_categories: float
    boundary_miou: float
    boundary_miou_of_categories: float
    image_accuracy: float
    f_beta: float
    miou_by_size: tuple[float, ...]  # SIZES: of objects that cover up to 5, 25, 50 and 100 % of their image
    boundary_miou_by_size: tuple[float, ...]


def luss_scores(marks: Marks, names: Tensor, categories: int) -> LussScores:
    """All scores of the benchmark, the predicted categories renamed by `names` (K + 1,) as `match` gives them.

    Scores of boundaries are NaN where the marks have none.  Raises ValueError for numbers beyond `categories` or names.
    """
    expect_categories(marks, categories, len(names) - 1)
    image, true = marks.areas[:, 0], marks.areas[:, 1]
    edges, shares = _edge_counts(marks.edges, names, categories), _Shares(marks.areas, categories)
    return LussScores(
        **area_scores(marks, names, categories)._asdict(),
        boundary_miou=_mean(edges) if len(marks.edges) else math.nan,
        boundary_miou_of_categories=_mean(edges[1:]) if len(marks.edges) else math.nan,
        miou_by_size=tuple(
            _mean_of_labelled(_area_counts(marks.areas[own], names, categories)) for own in shares.groups(image, true)
        ),
        boundary_miou_by_size=tuple(
            _mean_of_labelled(_edge_counts(marks.edges[own], names, categories))
            for own in shares.groups(marks.edges[:, 0], marks.edges[:, 1])
        ),
    )


def luss_interval(
    marks: Marks, names: Tensor, categories: int, rng: torch.Generator, replicates: int = 1000
) -> Interval:
    """The 95 % percentile bootstrap interval of the mIoU over images, drawn again with replacement.

    A class that is in none of the images that were drawn is left out of their mean, unless no image has it at all.
    Raises ValueError for fewer than two images, and as `luss_scores` does.
    """
    if marks.images < 2:
        raise ValueError(f"an interval needs two images or more, got {marks.images}")
    expect_categories(marks, categories, len(names) - 1)
    image, found = marks.areas[:, 0], []
    never = _area_counts(marks.areas, names, categories).sum(1) == 0  # (C + 1,)
    for _ in range(replicates):
        drawn = torch.randint(marks.images, (marks.images,), generator=rng)
        rows = marks.areas.clone()
        rows[:, 4] *= torch.bincount(drawn, minlength=marks.images)[image]
        values = count_iou(_area_counts(rows, names, categories))  # (C + 1,)
        found.append(float(torch.where(never, 0.0, values).nanmean()))
    low, high = torch.quantile(torch.tensor(found, dtype=torch.float64), torch.tensor([0.025, 0.975]).double()).tolist()
    return Interval(low, high)


def expect_categories(marks: Marks, categories: int, generated: int) -> None:
    """Raises ValueError for true or predicted categories beyond these numbers."""
    columns = ((marks.areas[:, 1], categories, "labels"), (marks.areas[:, 2], generated, "predictions"))
    for values, most, what in columns:
        if values.numel() and int(values.max()) > most:
            raise ValueError(f"{what}: expected categories 0 to {most}, found {int(values.max())}")


def _area_counts(rows: Tensor, names: Tensor, categories: int) -> Tensor:
    """(C + 1, 3) int64: hits, labelled and predicted pixels of "other" and each category."""
    _, true, predicted, _, pixels = rows.unbind(1)
    return _counts(true, names[predicted], pixels, categories)


def _edge_counts(rows: Tensor, names: Tensor, categories: int) -> Tensor:
    """The same of boundaries."""
    _, plain, on_edge, edge, pixels = rows.unbind(1)
    predicted = torch.where(edge >= 0, names[edge.clamp(min=0)], -1)
    return _counts(torch.where(on_edge > 0, plain, -1), predicted, pixels, categories)


def _counts(true: Tensor, predicted: Tensor, pixels: Tensor, categories: int) -> Tensor:
    """Pixels of each class by what is true and what is predicted; -1 and C + 1 are no class."""
    labelled, made = true >= 0, (predicted >= 0) & (predicted <= categories)
    zeros = torch.zeros(categories + 1, dtype=torch.int64)
    columns = ((true, labelled & (true == predicted)), (true, labelled), (predicted, made))
    return torch.stack([zeros.index_add(0, place[chosen], pixels[chosen]) for place, chosen in columns], 1)


def _mean(counts: Tensor) -> float:
    """Mean IoU of (c, 3) counts, absent classes counting 0."""
    return float(count_iou(counts).nan_to_num(0).mean())


def _mean_of_labelled(counts: Tensor) -> float:
    """Mean IoU of the classes that are labelled; NaN without one."""
    return float(count_iou(counts)[counts[:, 1] > 0].mean())


def _image_accuracy(
    images: int, image: Tensor, true: Tensor, predicted: Tensor, pixels: Tensor, categories: int
) -> float:
    """Images whose largest predicted category, the first of equals, has a true pixel; without one they are wrong."""
    size, own = categories + 2, predicted > 0
    kinds, place = torch.unique(image[own] * size + predicted[own], return_inverse=True)  # in order
    areas = torch.zeros_like(kinds).index_add_(0, place, pixels[own])
    largest = torch.zeros(images, dtype=torch.int64).scatter_reduce_(0, kinds // size, areas, "amax")
    winners = kinds[areas == largest[kinds // size]]
    first = torch.full((images,), images * size).scatter_reduce_(0, winners // size, winners, "amin")
    return int(torch.isin(first, image * size + true).sum()) / images if images else math.nan


def _f_beta(images: int, image: Tensor, true: Tensor, predicted: Tensor, pixels: Tensor) -> float:
    """The mean over images of F."""
    zeros = torch.zeros(images, dtype=torch.int64)
    counts = (zeros.index_add(0, image[own], pixels[own]) for own in (true & predicted, predicted, true))
    return float(f_beta(*counts).mean())


def f_beta(hits: Tensor, made: Tensor, there: Tensor) -> Tensor:
    """F with beta^2 = 0.3 of counts of pixels of any shape, float64; 0 without a hit.

    >>> float(f_beta(*torch.tensor([5, 10, 8])))
    0.5241935483870968
    """
    precision, recall = hits.double() / made.double().clamp(min=1), hits.double() / there.double().clamp(min=1)
    below = (BETA_SQUARE * precision + recall).clamp(min=1e-20)
    return (1 + BETA_SQUARE) * precision * recall / below


class _Shares:
    """The share of each image's valid pixels that each of its true categories has, as one of the four sizes."""

    def __init__(self, areas: Tensor, categories: int) -> None:
        image, true, pixels = areas[:, 0], areas[:, 1], areas[:, 4]
        self.width = categories + 1
        self.kinds, place = torch.unique(image * self.width + true, return_inverse=True)
        own = torch.zeros_like(self.kinds).index_add_(0, place, pixels)
        images = self.kinds // self.width
        whole = torch.zeros(int(images.max()) + 1 if len(images) else 0, dtype=torch.int64).index_add_(0, images, own)
        percent = -(-100 * own // whole[images])  # rounded up
        self.size = torch.bucketize(percent, torch.tensor(SIZE_BOUNDS))

    def groups(self, image: Tensor, true: Tensor) -> list[Tensor]:
        """For each size the rows whose true category has it in that image, and those of "other"."""
        size = self.size[torch.searchsorted(self.kinds, image * self.width + true)]
        return [(true == 0) | (size == number) for number in range(len(SIZES))]
