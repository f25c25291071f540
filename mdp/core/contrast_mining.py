"""Which rows of a memory an anchor is contrasted with: all, or some drawn for it (Wang et al., arXiv 2101.11939).

The paper's text describes the choice, its released code has none of it.  Scores are what an anchor is chosen by: the
higher, the harder.  Shape legend: N anchors, R rows, K rows to choose.
"""

from typing import NamedTuple

import torch
from torch import Tensor

MINING = ("all", "random", "hardest", "semi_hard")  # all: there is no choice


class Choice(NamedTuple):
    """How rows are chosen for some anchors."""

    mining: str  # random | hardest | semi_hard
    positives: int  # for each anchor; fewer where there are not so many
    negatives: int
    draws: Tensor  # (N, 2) int64, random: what an anchor's choice depends on, and nothing else


def chosen_rows(scores: Tensor, candidates: Tensor, count: int, mining: str, draws: Tensor) -> Tensor:
    """The rows (N, min(count, M)) int64 that each anchor is contrasted with, by its `scores` (N, R).

    Rows but for the `candidates` (M,) have the score -inf.  `hardest` takes the highest, `semi_hard` draws from the
    highest tenth (from the highest `count` where a tenth is less), `random` from all; without replacement.

    >>> scores, rows = torch.tensor([[0.1, 0.3, 0.2]]), torch.arange(3)
    >>> chosen_rows(scores, rows, 2, "hardest", torch.tensor([[5, 7]])).sort().values
    tensor([[1, 2]])
    """
    available = len(candidates)
    count = min(count, available)
    if mining == "random":
        return candidates[drawn(count, available, draws)]
    pool = count if mining == "hardest" else max(count, -(-available // 10))
    rows = scores.topk(pool, sorted=False).indices  # (N, pool)
    return rows if pool == count else rows.gather(1, drawn(count, pool, draws))


def drawn(count: int, available: int, draws: Tensor) -> Tensor:
    """For each of `draws` (N, 2) so many different numbers below `available`, (N, count) int64, by two random numbers.

    They are steps of a random length from a random start around a circle of a prime number of places, which meet no
    place twice; places beyond `available` are left out.

    >>> drawn(4, 6, torch.tensor([[3, 5]]))  # on 7 places, in steps of 1 + 3 from 5
    tensor([[5, 2, 3, 0]])
    """
    circle = _prime(available)
    steps = torch.arange(min(circle, count + circle - available), device=draws.device)
    places = ((1 + draws[:, :1] % max(1, circle - 1)) * steps + draws[:, 1:] % circle) % circle  # (N, steps)
    there = places < available
    return places[there & (there.cumsum(1) <= count)].view(len(draws), count)


def _prime(least: int) -> int:
    """The least prime of `least` or more.

    >>> [_prime(number) for number in (0, 2, 8, 180_000)]
    [2, 2, 11, 180001]
    """
    number = max(2, least)
    while any(number % divisor == 0 for divisor in range(2, int(number**0.5) + 1)):
        number += 1
    return number
