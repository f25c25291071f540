"""Sharing out a batch and a queue among prototypes, three turns of Sinkhorn's algorithm (arXiv 2006.09882).

Shape legend: B rows, of which 256 are a batch's, K prototypes.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate
from mdp.core.sinkhorn import sinkhorn

EPSILON, TURNS = 0.05, 3


def cases() -> dict[str, Callable[[], Case]]:
    """PASS's queue and prototypes of ImageNet-S50, and of the larger sets."""
    gates = (Gate("plain", 1.5), Gate("plain", 2.0, what="memory"))
    sizes: dict[str, tuple[int, int, tuple[Gate, ...]]] = {
        "B=2304 K=500": (2304, 500, ()),
        "B=4096 K=3000": (4096, 3000, gates),
    }
    return {label: partial(_case, label, *size) for label, size in sizes.items()}


def _case(label: str, rows: int, prototypes: int, gates: tuple[Gate, ...]) -> Case:
    rng = inputs.rng_of(1)
    embeddings, centres = (F.normalize(torch.randn(count, 128, generator=rng), dim=1) for count in (rows, prototypes))
    scores = embeddings @ centres.T  # (B, K)
    entries = (
        Entry("sinkhorn", "ours", lambda: sinkhorn(scores, EPSILON, TURNS)),
        Entry("SwAV's arithmetic", "plain", lambda: _shares(scores)),
        Entry("exp, written once", "floor", partial(torch.exp, scores)),
    )
    return Case("Sinkhorn", label, entries, gates, lambda: [_shares(scores.double())])


def _shares(scores: Tensor) -> Tensor:
    """All shares are of one whole; columns and rows are divided in turn."""
    shares = torch.exp(scores / EPSILON).t()  # (K, B)
    shares /= shares.sum()
    for _ in range(TURNS):
        shares /= shares.sum(1, keepdim=True)
        shares /= shares.shape[0]
        shares /= shares.sum(0, keepdim=True)
        shares /= shares.shape[1]
    shares *= shares.shape[1]
    return shares.t()
