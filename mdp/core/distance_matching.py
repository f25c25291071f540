"""Distance matching: the class of a pixel by a vote of the labelled regions that are most like it (2106.03149, 3.2.1).

A memory has the mean feature of each class in each labelled image.  Features are upsampled four times, and each pixel
is compared with all of the memory by cosine.  Upsampling is linear, so <up(f), m> = up(<f, m>): products are made on
the grid, and only the length of up(f) needs the large map.  Between four grid points a region can be among the nearest
only where it comes near the k best of them at a corner, so of many thousand scores a few hundred are made at a pixel.

Shape legend: D channels, h x w feature grid, P x Q pixels of the upsampled map, M regions in memory, k neighbours.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.labels import IGNORE
from mdp.core.neighbours import vote
from mdp.core.upsampling import axis_weights

UPSAMPLING = 4  # stated: the feature map is enlarged so many times before it is compared
_TINY = 1e-12  # a length below it divides as it
_SLACK = 2.0**-18  # of the largest score: sums of a few thousand products in another order differ by less


class Memory(NamedTuple):
    """Labelled regions: of each image one for each class that it shows."""

    vectors: Tensor  # (M, D) float32, length 1
    labels: Tensor  # (M,) int64


def class_vectors(features: Tensor, labels: Tensor, times: int = UPSAMPLING) -> Memory:
    """The mean of upsampled features (D, h, w) over each class of labels (H, W), -1 where ignored, as unit vectors.

    Labels are taken at the nearest pixel for each of the upsampled map.  Regions come in the order of their classes.

    >>> class_vectors(torch.tensor([[[3.0, 0.0]], [[0.0, 4.0]]]), torch.tensor([[0, 0, 2, 2]]), 1)
    Memory(vectors=tensor([[1., 0.],
            [0., 1.]]), labels=tensor([0, 2]))
    """
    down, across = (axis_weights(points, times * points).to(features.device) for points in features.shape[1:])
    at = F.interpolate(labels[None, None].float(), (len(down), len(across)), mode="nearest")[0, 0]  # (P, Q)
    classes = torch.unique(at[at != IGNORE])
    masks = (at == classes[:, None, None]).float()  # (L, P, Q)
    shares = (down.T @ masks @ across).flatten(1)  # (L, h w): how often each grid point counts in a region
    with torch.autocast(features.device.type, enabled=False):
        sums = shares @ features.float().flatten(1).T  # (L, D)
    return Memory(F.normalize(sums, dim=1, eps=_TINY), classes.long())


def joined_memory(regions: Iterable[Memory]) -> Memory:
    """The regions of several images as one memory.  Raises ValueError when there is none."""
    parts = list(regions)
    if not any(len(part.labels) for part in parts):
        raise ValueError("no labelled pixel in any image: a memory needs one region or more")
    return Memory(torch.cat([part.vectors for part in parts]), torch.cat([part.labels for part in parts]))


def nearest_classes(
    features: Tensor, memory: Memory, k: int, temperature: float, times: int = UPSAMPLING, pruned: bool | None = None
) -> Tensor:
    """The class (P, Q) int64 that the k regions nearest to each pixel of upsampled features (D, h, w) vote for.

    A region's vote is exp(cosine / temperature), and the lowest of equal classes wins; where the memory has fewer than
    k regions all vote.  `pruned` chooses between few scores and all of them, by default few where they pay, on a CPU.
    Raises ValueError for features of other channels.

    >>> memory = Memory(torch.eye(2), torch.tensor([3, 5]))
    >>> nearest_classes(torch.tensor([[[3.0, 0.0]], [[0.0, 4.0]]]), memory, 1, 0.07, times=2).tolist()
    [[3, 3, 5, 5], [3, 3, 5, 5]]
    """
    if features.shape[0] != memory.vectors.shape[1]:
        raise ValueError(f"features of {features.shape[0]} channels, a memory of {memory.vectors.shape[1]}")
    k, size = min(k, len(memory.labels)), [times * points for points in features.shape[1:]]
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        features = features.float()
        length = F.interpolate(features[None], size, mode="bilinear", align_corners=False)[0].norm(dim=0)  # (P, Q)
        grid = (features.flatten(1).T @ memory.vectors.T).view(*features.shape[1:], -1)  # (h, w, M)
        few = features.device.type == "cpu" if pruned is None else pruned
        scores, rows = (_few if few else _all)(grid, size, k)  # (P, Q, k)
        cosine = (scores / length.clamp(min=_TINY)[..., None]).flatten(0, 1)
        classes = int(memory.labels.max()) + 1
        return vote(cosine, memory.labels[rows.flatten(0, 1)], temperature, classes).view(size)


def _all(grid: Tensor, size: list[int], k: int) -> tuple[Tensor, Tensor]:
    """The k highest of the upsampled scores (h, w, M) at each pixel and their rows, both (P, Q, k)."""
    scores = F.interpolate(grid.movedim(2, 0)[None], size, mode="bilinear", align_corners=False)[0]  # (M, P, Q)
    top = scores.movedim(0, 2).topk(k, dim=2)
    return top.values, top.indices


class _Cells(NamedTuple):
    """The pixels between two neighbouring grid points of an axis."""

    points: slice
    pixels: slice
    weights: Tensor  # (pixels, points)


def _few(grid: Tensor, size: list[int], k: int) -> tuple[Tensor, Tensor]:
    """As `_all`, of those rows alone that may be among the k highest between four grid points."""
    values, rows = torch.empty(*size, k), torch.empty(*size, k, dtype=torch.int64)
    down, across = (list(_cells(points, length)) for points, length in zip(grid.shape[:2], size, strict=True))
    slack = _SLACK * float(grid.abs().max())
    for y in down:
        for x in across:
            corners = grid[y.points, x.points].flatten(0, 1)  # (4, M)
            best = corners.sum(0).topk(k).indices
            # at each pixel these k have at least the mean, in the pixel's weights, of their lowest at the corners
            least = corners[:, best].amin(1, keepdim=True) - slack
            near = (corners >= least).any(0).nonzero().flatten()  # (n,)
            block = corners[:, near].T.reshape(-1, y.weights.shape[1], x.weights.shape[1])  # (n, 2, 2)
            top = (y.weights @ block @ x.weights.T).movedim(0, 2).topk(k, dim=2)  # (pixels down, pixels across, k)
            values[y.pixels, x.pixels], rows[y.pixels, x.pixels] = top.values, near[top.indices]
    return values, rows


def _cells(grid: int, length: int) -> Iterator[_Cells]:
    """The cells of an axis of `grid` points; pixels beyond the outer points belong to the outer cells."""
    weights = axis_weights(grid, length)  # (length, grid)
    cell = (weights != 0).to(torch.uint8).argmax(1).clamp(max=max(0, grid - 2))  # (length,)
    for start in range(max(1, grid - 1)):
        first, last = torch.searchsorted(cell, torch.tensor([start, start + 1])).tolist()
        points = slice(start, start + 2)
        yield _Cells(points, slice(first, last), weights[first:last, points])
