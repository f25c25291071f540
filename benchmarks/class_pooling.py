"""Sums over images of each class's mean embedding (the two halves of eq. 3).

Shape legend: B images, D = 256 channels, h x w grid, P = h w pixels, C = 342 classes.
"""

from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate, Run
from benchmarks.peers import peer
from mdp.core.contrast import pixel_rows
from mdp.core.labels import IGNORE
from mdp.core.prototype_bank import class_sums

CLASSES = 342
CHANNELS = 256
ONE_HOT, BY_INDEX, LOOP, LIGHTLY = "one-hot einsum", "index_add_", "loop over images and labels", "pool_masked"

Sums = tuple[Tensor, Tensor]  # (C, D), (C,)


def cases() -> dict[str, Callable[[], Case]]:
    """By batch, grid and layout; the gates stand with the sizes that they were set for."""
    several = ((ONE_HOT, 10.0), (LIGHTLY, 9.0), (LOOP, 5.0))
    many = ((BY_INDEX, 4.5), (LIGHTLY, 40.0), (LOOP, 15.0))
    sizes: dict[str, tuple[int, int, str, tuple[tuple[str, float], ...]]] = {
        "B=8 28x28 NCHW": (8, 28, "NCHW", ()),
        "B=32 28x28 NCHW": (32, 28, "NCHW", several),
        "B=32 28x28 channels_last": (32, 28, "channels_last", several),
        "B=4 64x64 NCHW": (4, 64, "NCHW", ()),
        "B=128 28x28 channels_last": (128, 28, "channels_last", many),
    }
    return {label: partial(_case, label, *size) for label, size in sizes.items()}


def _case(label: str, count: int, side: int, layout: str, ratios: tuple[tuple[str, float], ...]) -> Case:
    rng = inputs.rng_of(1)
    embeddings = inputs.embeddings(rng, count, CHANNELS, side, side, layout)
    labels = inputs.label_maps(rng, count, side, side, CLASSES)
    entries = tuple(_entries(embeddings, labels))
    names = {entry.name.partition(" (")[0]: entry.name for entry in entries}
    gates = tuple(Gate(names[name], at_least) for name, at_least in ratios)
    return Case("class pooling", label, entries, gates, lambda: _by_loop(embeddings.double(), labels))


def _entries(embeddings: Tensor, labels: Tensor) -> Iterator[Entry]:
    yield Entry("class_sums", "ours", lambda: tuple(class_sums(embeddings, labels, CLASSES, unit=True)))
    yield peer(LIGHTLY, "lightly.models.utils", partial(_lightly, embeddings, labels))
    yield Entry(BY_INDEX, "plain", lambda: _by_index(embeddings, labels))
    yield Entry(LOOP, "plain", lambda: _by_loop(embeddings, labels))
    if len(embeddings) <= 32:
        yield Entry(ONE_HOT, "plain", lambda: _one_hot(embeddings, labels))
    yield Entry("reading once", "floor", embeddings.sum)


def _one_hot(embeddings: Tensor, labels: Tensor) -> Sums:
    masks = F.one_hot(torch.where(labels == IGNORE, CLASSES, labels).flatten(1), CLASSES + 1)[..., :CLASSES].float()
    pixels = masks.sum(1)  # (B, C)
    means = torch.einsum("bpc,bdp->bcd", masks, embeddings.flatten(2)) / pixels.clamp(min=1)[..., None]
    return means.sum(0), (pixels > 0).sum(0)


def _by_index(embeddings: Tensor, labels: Tensor) -> Sums:
    count = len(embeddings)
    own = torch.where(labels == IGNORE, CLASSES, labels) + (CLASSES + 1) * torch.arange(count)[:, None, None]
    sums = embeddings.new_zeros(count * (CLASSES + 1), CHANNELS).index_add_(0, own.flatten(), pixel_rows(embeddings))
    pixels = torch.bincount(own.flatten(), minlength=len(sums))
    means = (sums / pixels.clamp(min=1)[:, None]).view(count, CLASSES + 1, CHANNELS)[:, :CLASSES]
    return means.sum(0), (pixels.view(count, -1)[:, :CLASSES] > 0).sum(0)


def _by_loop(embeddings: Tensor, labels: Tensor) -> Sums:
    sums = embeddings.new_zeros(CLASSES, CHANNELS)
    counts = torch.zeros(CLASSES, dtype=torch.int64)
    for image, own in zip(embeddings, labels, strict=True):
        for label in own.unique().tolist():
            if label != IGNORE:
                sums[label] += image[:, own == label].mean(1)
                counts[label] += 1
    return sums, counts


def _lightly(embeddings: Tensor, labels: Tensor, utils: ModuleType) -> Run:
    def run() -> Sums:
        masks = torch.where(labels == IGNORE, CLASSES, labels)
        means = utils.pool_masked(embeddings, masks, CLASSES + 1)  # (B, D, C+1), zeros where a class is not
        present = torch.zeros(len(masks), CLASSES + 1, dtype=torch.bool).scatter_(1, masks.flatten(1), True)
        return means.sum(0).T[:CLASSES], present.sum(0)[:CLASSES]

    return run
