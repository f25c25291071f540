"""Segment retrieval: an image's features in regions, each named by the nearest region of labelled images.

Nothing is trained, so what is scored are the features alone (arXiv 2106.05967, section 4.1 and appendix A.7).
Shape legend: H x W label map, h x w feature grid, D channels, P cells or pixels, R regions of an image, N regions of
labelled images, C classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.geometry import Grid
from mdp.core.kmeans import kmeans, nearest_centres, spread_starts
from mdp.core.labels import IGNORE


def cells_under(count: int, length: int, grid: Grid) -> Tensor:
    """The cell (count,) int64 that looks nearest to the middle of each of `count` equal parts of `length` pixels.

    So a label map of another size than the image that the network saw finds its cells.  Between two cells it is the
    later one.

    >>> cells_under(8, 8, Grid(4, 1)).tolist(), cells_under(4, 8, Grid(4, 1)).tolist()
    ([0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 1, 1])
    """
    middles = (2 * torch.arange(count) + 1) * length - count  # in halves of pixels of which `length` has `count`
    cells = (middles + count * (grid.stride - 2 * grid.offset)).div(2 * count * grid.stride, rounding_mode="floor")
    return cells.clamp(0, -(-length // grid.stride) - 1)


def unit_cells(features: Tensor) -> Tensor:
    """Features (D, h, w) as rows (h w, D) of length 1."""
    return F.normalize(features.flatten(1).T, dim=1)


def regions_of(rows: Tensor, count: int, rng: torch.Generator, iterations: int) -> Tensor:
    """The region (P,) int64 of each of the rows (P, D) of an image: k-means from far-apart starts.

    Raises ValueError when there are fewer rows than regions.
    """
    starts = rows[spread_starts(rng, rows, count)]  # (R, D)
    centres = kmeans(lambda: [rows], starts[None], iterations).best
    return nearest_centres(rows, centres[None])[0][0]


def region_vectors(rows: Tensor, regions: Tensor, count: int) -> Tensor:
    """The mean of each region's rows, divided by its length, (R, D); zeros for a region without any.

    >>> region_vectors(torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 9.0]]), torch.tensor([0, 0, 2]), 3).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0], [0.0, 1.0]]
    """
    sums = rows.new_zeros(count, rows.shape[1]).index_add_(0, regions, rows)
    return F.normalize(sums, dim=1)  # of the mean and of the sum it is the same


def region_pixels(regions: Tensor, labels: Tensor, count: int, classes: int) -> Tensor:
    """Pixels (R, C) int64 of each class in each region, of maps (H, W) of the same size; `IGNORE` is left out.

    Raises ValueError for shapes that differ and for labels that are no class.

    >>> region_pixels(torch.tensor([[0, 0, 1]]), torch.tensor([[2, 0, IGNORE]]), 2, 3).tolist()
    [[1, 0, 1], [0, 0, 0]]
    """
    if regions.shape != labels.shape:
        raise ValueError(f"regions {tuple(regions.shape)} and labels {tuple(labels.shape)} differ in shape")
    valid = labels != IGNORE
    known = labels[valid].long()
    if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < classes:
        raise ValueError(f"labels: values {int(known.min())}..{int(known.max())} outside 0..{classes - 1}")
    cells = regions[valid] * classes + known
    return torch.bincount(cells, minlength=count * classes).view(count, classes)


def majority_labels(pixels: Tensor) -> Tensor:
    """The class (R,) with the most of the pixels (R, C) of each region, the first of equals; `IGNORE` without any.

    >>> majority_labels(torch.tensor([[2, 5, 5], [0, 0, 0]])).tolist()
    [1, -1]
    """
    return torch.where(pixels.sum(1) > 0, pixels.argmax(1), IGNORE)


def region_confusion(pixels: Tensor, predicted: Tensor) -> Tensor:
    """The confusion matrix (C, C) int64 of an image whose regions have pixels (R, C) and predicted classes (R,).

    >>> region_confusion(torch.tensor([[3, 1], [0, 2]]), torch.tensor([0, 1])).tolist()
    [[3, 0], [1, 2]]
    """
    classes = pixels.shape[1]
    return pixels.new_zeros(classes, classes).index_add_(0, predicted, pixels).T
