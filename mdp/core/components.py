"""Connected regions of a map: which pixels of one value hang together.

Shape legend: H x W map, R runs of equal pixels in a row, E pairs of runs that touch.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mdp.core.geometry import Box


class Regions(NamedTuple):
    """The connected regions of a map, in the order of their first pixels."""

    numbers: Tensor  # (H, W) int64: the region of each pixel
    pixels: Tensor  # (R,) int64: how many it has
    first: Tensor  # (R,) int64: its first pixel, row by row


def connected_regions(values: Tensor) -> Regions:
    """The largest sets of pixels of equal values (H, W) that are joined by sides.

    Rows are cut into runs of equal pixels; runs that touch take the lowest number among them until nothing changes,
    each time by way of what their numbers point to, so that long snakes need few rounds.

    >>> connected_regions(torch.tensor([[5, 5, 0], [0, 5, 0], [5, 0, 0]])).numbers.tolist()
    [[0, 0, 1], [2, 0, 1], [3, 1, 1]]
    """
    height, width = values.shape
    begins = torch.ones(height, width, dtype=torch.bool, device=values.device)
    begins[:, 1:] = values[:, 1:] != values[:, :-1]
    runs = begins.flatten().cumsum(0).sub_(1).view(height, width)  # the run of each pixel
    touching = values[1:] == values[:-1]
    upper, lower = runs[:-1][touching], runs[1:][touching]  # (E,)
    parents = torch.arange(int(begins.sum()), device=values.device)  # (R,)
    while True:
        above, below = parents[upper], parents[lower]
        if torch.equal(above, below):
            break
        least = torch.minimum(above, below)
        parents.scatter_reduce_(0, above, least, "amin").scatter_reduce_(0, below, least, "amin")
        while not torch.equal(further := parents[parents], parents):
            parents = further
    roots, numbers = torch.unique(parents, return_inverse=True)  # a root is the first run of its region
    numbers = numbers[runs]
    return Regions(numbers, torch.bincount(numbers.flatten()), begins.flatten().nonzero()[:, 0][roots])


def region_box(regions: Regions, number: int) -> Box:
    """The smallest box that a region lies in."""
    rows, columns = (regions.numbers == number).nonzero(as_tuple=True)
    top, left = int(rows.min()), int(columns.min())
    return Box(top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1)
