"""Nearest rows of a memory by their dot products, and what a vote of theirs says.

Shape legend: R queries, D channels, K rows of the memory, k neighbours, C classes.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

_PART = 256  # queries at a time: with 64 a fifth of a product's speed is lost


def nearest(rows: Tensor, bank: Tensor, k: int, part: int = _PART) -> tuple[Tensor, Tensor]:
    """The k rows of a bank (K, D) that are most like each of rows (R, D): products and places, both (R, k).

    The best comes first.  `part` rows are looked up at a time, so that no (R, K) tensor is kept.  Raises ValueError
    when the bank has fewer rows than k, or others than `rows` could be compared with.

    >>> nearest(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]]), 2)[1].tolist()
    [[1, 2]]
    """
    if not 1 <= k <= len(bank) or rows.shape[1] != bank.shape[1]:
        raise ValueError(
            f"rows {tuple(rows.shape)} and bank {tuple(bank.shape)} for {k} neighbours: expected as many channels, and "
            "a row of the bank for each neighbour"
        )
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
        room = torch.empty(min(part, len(rows)), len(bank), dtype=bank.dtype, device=rows.device)
        found = [
            torch.mm(some.to(bank.dtype), bank.T, out=room[: len(some)]).topk(k, dim=1)
            for some in torch.split(rows, part)
        ]
    return torch.cat([top.values for top in found]), torch.cat([top.indices for top in found])


def nearest_of_parts(rows: Tensor, parts: Iterable[tuple[Tensor, Tensor]], k: int) -> tuple[Tensor, Tensor]:
    """The same of a bank that comes in parts, each the numbers (n,) of some of its rows and these rows (n, D).

    Places are numbers; where the parts have fewer than k rows in all, there are so many columns.

    >>> parts = [(torch.tensor([7]), torch.tensor([[0.0, 1.0]])), (torch.tensor([9]), torch.tensor([[1.0, 0.0]]))]
    >>> nearest_of_parts(torch.tensor([[1.0, 0.0]]), parts, 1)[1].tolist()
    [[9]]
    """
    best = rows.new_empty(len(rows), 0), torch.empty(len(rows), 0, dtype=torch.int64, device=rows.device)
    for numbers, bank in parts:
        if not len(bank):
            continue
        products, places = nearest(rows, bank, min(k, len(bank)))
        both = torch.cat([best[0], products], 1), torch.cat([best[1], numbers[places]], 1)
        top = both[0].topk(min(k, both[0].shape[1]), dim=1)
        best = top.values, both[1].gather(1, top.indices)
    return best


def vote(similarity: Tensor, labels: Tensor, temperature: float, classes: int) -> Tensor:
    """The class (R,) that neighbours (R, k) of those labels vote for, each with weight exp(similarity / temperature).

    Of classes with equal votes the first is taken.  The weighted vote of arXiv 1805.01978, section 3.4.

    >>> vote(torch.tensor([[0.9, 0.5, 0.5]]), torch.tensor([[2, 1, 1]]), 0.07, 3).tolist()
    [2]
    """
    weights = torch.exp((similarity - similarity.amax(1, keepdim=True)) / temperature)  # (R, k)
    return weights.new_zeros(len(labels), classes).scatter_add_(1, labels, weights).argmax(1)
