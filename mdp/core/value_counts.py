"""How often which values meet: the combinations of values that the pixels of several maps have.

A map has few values, so that they are counted in a table of those that occur, and nothing is sorted.
Shape legend: H x W maps, k values of a map, n combinations.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

_TABLE = 2**20  # entries at the most; more are sorted


class Ranked(NamedTuple):
    """A map by the values that occur in it."""

    ranks: Tensor  # (H, W) 0 .. k - 1, of any type
    kinds: Tensor  # (k,) int64: the values in order


def ranked(values: Tensor) -> Ranked:
    """A map (H, W) of -1 and up by the values that occur in it.

    >>> [part.tolist() for part in ranked(torch.tensor([[7, -1, 7]]))]
    [[[1, 0, 1]], [-1, 7]]
    """
    if not values.numel() or int(values.max()) >= _TABLE:
        kinds, places = torch.unique(values.long(), return_inverse=True)
        return Ranked(places, kinds)
    places = values.flatten().long() + 1
    counts = torch.bincount(places)
    ranks = (counts > 0).cumsum(0) - 1
    ranks = ranks.to(torch.int16 if len(ranks) < 2**15 else torch.int32)  # a quarter of the memory traffic of int64
    return Ranked(ranks.index_select(0, places).view(values.shape), counts.nonzero()[:, 0] - 1)


def combinations(*maps: Ranked) -> Tensor:
    """Each combination of values that pixels have, and how many have it: (n, maps + 1) int64, in the values' order.

    >>> combinations(ranked(torch.tensor([[5, 5, 2]])), ranked(torch.tensor([[0, 0, 1]]))).tolist()
    [[2, 1, 1], [5, 0, 2]]
    """
    keys = math.prod(len(each.kinds) for each in maps)
    key = torch.zeros(maps[0].ranks.shape, dtype=torch.int32 if keys < 2**31 else torch.int64)
    for each in maps:
        key = torch.add(each.ranks, key, alpha=len(each.kinds))
    if keys <= _TABLE:
        pixels = torch.bincount(key.flatten(), minlength=keys)
        chosen = pixels.nonzero()[:, 0]
        pixels = pixels[chosen]
    else:
        chosen, pixels = torch.unique(key, return_counts=True)
    columns = [pixels]
    for each in reversed(maps):
        columns.append(each.kinds[chosen % len(each.kinds)])
        chosen = chosen // len(each.kinds)
    return torch.stack(columns[::-1], 1)
