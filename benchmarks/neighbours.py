"""Nearest neighbours in a queue, and both losses of kNN-MoCo with their gradient (arXiv 2106.05967).

Shape legend: R queries, K = 65,536 rows of both queues, F = 2,048 channels of the features, D = 128 of the embeddings.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate, Run
from mdp.core.contrast import neighbour_nce
from mdp.core.neighbours import nearest

EMBEDDING = 128
NEIGHBOURS, WEIGHT, TEMPERATURE = 20, 0.4, 0.2  # the paper's
PART = 256  # queries of the floor at a time


class Step(NamedTuple):
    """What a step hands to the search and to the losses."""

    features: Tensor  # (R, F) of the queries
    queries: Tensor  # (R, D)
    keys: Tensor  # (R, D)
    bank: Tensor  # (K, F)
    queue: Tensor  # (K, D)


def cases() -> dict[str, Callable[[], Case]]:
    """A small queue, a sixteenth of the paper's step, and all of it: five queries of each of 256 images."""
    gates = (Gate("plain", 1.0), Gate("plain", 6.0, what="memory"))
    sizes: dict[str, tuple[int, int, int, tuple[Gate, ...]]] = {
        "R=320 K=8192 F=512": (320, 8192, 512, ()),  # of as many queries as a part has the plain form is one part
        "R=1280 K=16384 F=512": (1280, 16384, 512, gates),
        "R=1280 K=65536 F=2048": (1280, 65536, 2048, gates),
    }
    return {label: partial(_case, label, *size) for label, size in sizes.items()}


def _case(label: str, count: int, size: int, channels: int, gates: tuple[Gate, ...]) -> Case:
    rng = inputs.rng_of(4)
    shapes = (count, channels), (count, EMBEDDING), (count, EMBEDDING), (size, channels), (size, EMBEDDING)
    step = Step._make(inputs.unit(rng, *shape) for shape in shapes)
    halved = step._replace(bank=step.bank.bfloat16())
    entries = (
        Entry("nearest, neighbour_nce", "ours", _graded(_ours, step)),
        Entry("features in bf16", "ours", _graded(_ours, halved), exact=False),
        Entry("all products, two softmaxes", "plain", _graded(_plain, step)),
        Entry("the products, in parts", "floor", _products(step)),
    )
    # the largest is compared in its parts: in float64 it takes longer than all rounds
    expected = None if size > 2**14 else _graded(_plain, Step._make(each.double() for each in step))
    return Case("neighbours and both losses", label, entries, gates, expected)


def _graded(loss: Callable[[Step, Tensor], Tensor], step: Step) -> Callable[[], tuple[Tensor, Tensor]]:
    return inputs.graded(step.queries, lambda queries: loss(step, queries))


def _ours(step: Step, queries: Tensor) -> Tensor:
    _, near = nearest(step.features, step.bank, NEIGHBOURS)
    found = neighbour_nce(queries, step.keys, step.queue, near, TEMPERATURE)
    return (found.instances + WEIGHT * found.neighbours) / len(queries)


def _plain(step: Step, queries: Tensor) -> Tensor:
    """As the two equations read."""
    near = (step.features @ step.bank.T).topk(NEIGHBOURS, dim=1).indices  # (R, k)
    logits = queries @ step.queue.T / TEMPERATURE  # (R, K)
    positive = (queries * step.keys).sum(1, keepdim=True) / TEMPERATURE
    instances = F.cross_entropy(torch.cat([positive, logits], 1), near.new_zeros(len(near)))
    neighbours = -logits.log_softmax(1).gather(1, near).mean()
    return instances + WEIGHT * neighbours


def _products(step: Step) -> Run:
    """What no form does without: similarities, logits, and the product that the gradient needs."""

    def run() -> None:
        for start in range(0, len(step.queries), PART):
            step.features[start : start + PART] @ step.bank.T
            (step.queries[start : start + PART] @ step.queue.T) @ step.queue

    return run
