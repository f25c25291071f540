"""Generated categories matched with true ones: the assignment problem on counts of images."""

from collections.abc import Callable
from functools import partial
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import Case, Entry, Run
from benchmarks.peers import peer
from mdp.core.assignment import assign

IMAGES = 12_419  # of ImageNet-S919's validation
SPREAD = 30  # generated categories that the images of a true one are spread over


def cases() -> dict[str, Callable[[], Case]]:
    """By the number of categories: clusters that spread, and counts that are noise alone."""
    return {
        "50 categories": partial(_case, "50 categories, spread over 30", partial(_spread, 50)),
        "919 categories": partial(_case, "919 categories, spread over 30", partial(_spread, 919)),
        "919 categories, noise": partial(_case, "919 categories, noise", _noise),
    }


def _case(label: str, counts: Callable[[], NDArray[np.int64]]) -> Case:
    cost = -counts()
    entries = (
        Entry("assign", "ours", lambda: _total(cost, assign(cost))),
        peer("linear_sum_assignment", "scipy.optimize", partial(_scipy, cost)),
    )
    return Case("assignment", label, entries, (), lambda: (_total(cost, assign(cost)),))


def _spread(categories: int) -> NDArray[np.int64]:
    """(C, C): each image's true category is met by four generated ones out of its thirty, few of them often."""
    rng, counts = np.random.default_rng(0), np.zeros((categories, categories), dtype=np.int64)
    own = [rng.permutation(categories)[:SPREAD] for _ in range(categories)]
    shares = rng.dirichlet(np.full(SPREAD, 0.5), size=categories)
    for true in rng.integers(categories, size=IMAGES).tolist():
        counts[true, np.unique(own[true][rng.choice(SPREAD, size=4, p=shares[true])])] += 1
    return counts


def _noise() -> NDArray[np.int64]:
    return np.random.default_rng(0).poisson(1.0, (919, 919))


def _total(cost: NDArray[np.int64], columns: NDArray[np.int64]) -> torch.Tensor:
    return torch.tensor(cost[np.arange(len(cost)), columns].sum())


def _scipy(cost: NDArray[np.int64], scipy: ModuleType) -> Run:
    return lambda: _total(cost, scipy.linear_sum_assignment(cost)[1])
