"""Pixels against the pixels of the image's other view (eq. 2): length, loss and the gradient of the raw queries.

Shape legend: B pairs of images, D = 256 channels, h x w grid, P = h w pixels.
"""

from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate, Run
from benchmarks.peers import load, peer
from mdp.core.contrast import pixel_anchors, pixel_nce
from mdp.core.labels import IGNORE

TAU = 0.07
CHANNELS = 256
BLOCK = 1024  # pixels

Graded = Callable[[], tuple[Tensor, Tensor]]  # a loss and its gradient


class Views(NamedTuple):
    """Raw queries of one view, unit keys of the other, and their labels."""

    raw: Tensor  # (B, D, h, w)
    keys: Tensor  # (B, D, h, w)
    query_labels: Tensor  # (B, h, w)
    key_labels: Tensor  # (B, h, w)


class Image(NamedTuple):
    """Two views of one image in rows, ignored pixels gone."""

    queries: Tensor  # (P, D), with gradient
    keys: Tensor  # (P, D)
    query_labels: Tensor  # (P,)
    key_labels: Tensor  # (P,)


def cases() -> dict[str, Callable[[], Case]]:
    """The same number of pixels in many small grids and in few large ones."""
    return {"8 pairs of 784": _small, "2 pairs of 3136": _large}


def _small() -> Case:
    views = _views(8, 28)
    gates = (Gate("best peer", 1.5), Gate("plain", 2.3), Gate("plain", 5.0, what="memory"))
    return Case("pixel loss", "8 pairs of 784", tuple(_entries(views)), gates, partial(_exact, views))


def _large() -> Case:
    views = _views(2, 56)
    entries = (*_entries(views), Entry("8 pairs of 784", "ours", _ours(_views(8, 28)), exact=False))
    gates = (
        Gate("best peer", 1.7), Gate("plain", 1.7), Gate("plain", 12.0, what="memory"),
        Gate("8 pairs of 784", at_most=2.0, what="memory"),  # linear in P: as many pixels, four times the pairs
    )  # fmt: skip
    return Case("pixel loss", "2 pairs of 3136", entries, gates, partial(_exact, views))


def _views(count: int, side: int) -> Views:
    rng = inputs.rng_of(1)
    raw, keys = (inputs.embeddings(rng, count, CHANNELS, side, side) for _ in range(2))
    labels = inputs.label_maps(rng, count, side, side, 342)
    moved = labels.roll((side // 8, side // 8), (1, 2))  # as another crop would have it
    return Views(raw, F.normalize(keys, dim=1), labels, moved)


def _entries(views: Views) -> Iterator[Entry]:
    yield Entry("pixel_nce, unit=False", "ours", _ours(views))
    yield peer("SupConLoss, ref_emb", "pytorch_metric_learning.losses", partial(_metric_learning, views))
    # Wang et al., arXiv 2101.11939, eq. 4: another value, of the same two products a pair
    yield Entry("each positive against the negatives only", "peer", _by_image(views, _against_negatives), exact=False)
    yield Entry("P x P masks", "plain", _by_image(views, _masked))
    yield Entry(f"two matmuls a pair, blocks of {BLOCK}", "floor", _floor(views))


def _ours(views: Views) -> Run:
    return inputs.graded(views.raw, lambda leaf: pixel_nce(leaf, *views[1:], TAU, unit=False).mean())


def _by_image(views: Views, form: Callable[[Image], Tensor]) -> Graded:
    """The mean over anchors of a form that gives an image's sum."""
    count = pixel_anchors(views.query_labels, views.key_labels).sum()
    return inputs.graded(
        views.raw, lambda leaf: torch.stack([form(image) for image in _images(leaf, views)]).sum() / count
    )


def _images(leaf: Tensor, views: Views) -> Iterator[Image]:
    for query, keys, own, other in zip(leaf, *views[1:], strict=True):
        here, there = own.flatten() != IGNORE, other.flatten() != IGNORE
        rows = F.normalize(query.flatten(1).T[here], dim=1)
        yield Image(rows, keys.to(leaf.dtype).flatten(1).T[there], own.flatten()[here], other.flatten()[there])


def _masked(image: Image) -> Tensor:
    log_p = F.log_softmax(image.queries @ image.keys.T / TAU, 1)  # (P, P)
    positive = image.query_labels[:, None] == image.key_labels  # (P, P)
    return -((log_p * positive).sum(1) / positive.sum(1).clamp(min=1)).sum()


def _against_negatives(image: Image) -> Tensor:
    logits = image.queries @ image.keys.T / TAU  # (P, P)
    logits = logits - logits.amax(1, keepdim=True).detach()
    positive = (image.query_labels[:, None] == image.key_labels).float()  # (P, P)
    shares = logits.exp()
    others = (shares * (1 - positive)).sum(1, keepdim=True)  # (P, 1)
    log_p = logits - torch.log(shares + others)
    return -((log_p * positive).sum(1) / positive.sum(1).clamp(min=1)).sum()


def _metric_learning(views: Views, losses: ModuleType) -> Run:
    reducers = load("pytorch_metric_learning.reducers")
    assert reducers is not None  # part of the same library
    loss = losses.SupConLoss(temperature=TAU, reducer=reducers.SumReducer())

    def total(image: Image) -> Tensor:
        value: Tensor = loss(image.queries, image.query_labels, ref_emb=image.keys, ref_labels=image.key_labels)
        return value

    return _by_image(views, total)


def _floor(views: Views) -> Run:
    """Logits and the product that the gradient needs, without anything between them."""
    rows, keys = (tensor.flatten(2).mT.contiguous() for tensor in views[:2])  # (B, P, D)

    def run() -> Tensor:
        gradient, logits = torch.empty_like(rows), rows.new_empty(BLOCK, rows.shape[1])
        for queries, slopes, others in zip(rows, gradient, keys, strict=True):
            for start in range(0, len(queries), BLOCK):
                block = queries[start : start + BLOCK]
                some = logits[: len(block)]
                torch.mm(block, others.T, out=some)
                torch.mm(some, others, out=slopes[start : start + BLOCK])
        return gradient

    return run


def _exact(views: Views) -> tuple[Tensor, Tensor]:
    return _by_image(views._replace(raw=views.raw.double()), _masked)()
