"""How well clusters agree with categories that were not looked at to make them, from how often they occur together.

Shape legend: K clusters, C categories.
"""

import torch
from torch import Tensor

from mdp.core.assignment import assign


def joint_counts(clusters: Tensor, categories: Tensor, sizes: tuple[int, int]) -> Tensor:
    """How many of N have each cluster and each category, (K, C) int64, from their numbers (N,).

    >>> joint_counts(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), (2, 2)).tolist()
    [[1, 0], [1, 1]]
    """
    return torch.bincount(clusters * sizes[1] + categories, minlength=sizes[0] * sizes[1]).view(sizes)


def normalised_information(counts: Tensor) -> float:
    """The mutual information of counts (K, C) over the mean of both entropies: 1 where each tells the other, else less.

    Where both are a single one there is nothing to tell, and it is 1.

    >>> normalised_information(torch.tensor([[0, 3], [2, 0]])), normalised_information(torch.tensor([[1, 1], [1, 1]]))
    (1.0, 0.0)
    """
    joint = counts.double() / counts.sum()
    rows, columns = joint.sum(1), joint.sum(0)
    mean = (_entropy(rows) + _entropy(columns)) / 2
    shared = _entropy(rows) + _entropy(columns) - _entropy(joint.flatten())
    return float((shared / mean).clamp(0, 1)) if mean > 0 else 1.0


def _entropy(shares: Tensor) -> Tensor:
    return -torch.xlogy(shares, shares).sum()


def matched_share(counts: Tensor) -> float:
    """The share of what is counted (K, C) that is right when each cluster stands for one category at the most.

    >>> matched_share(torch.tensor([[1, 3], [4, 2]]))
    0.7
    """
    table = counts if counts.shape[0] <= counts.shape[1] else counts.T
    pairs = torch.from_numpy(assign(-table.numpy()))
    return int(table.gather(1, pairs[:, None]).sum()) / int(counts.sum())
