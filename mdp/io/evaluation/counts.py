"""Counting a segmentor's right and wrong pixels over a split, at the labels' resolution; scores come after.

Shape legend: K blocks of consecutive images, N groups of fewer, C classes.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mdp.core.boundaries import boundary_counts
from mdp.core.comparison import block_counts
from mdp.core.metrics import confusion_matrix
from mdp.io.data.crops import WholeItems
from mdp.io.data.loader import load
from mdp.io.data.pool import Pool
from mdp.io.data.workers import Watch
from mdp.io.errors import MdpError, Preempted
from mdp.io.processes.signals import Stop
from mdp.io.processes.world import ALONE, World
from mdp.io.recipe.settings import EvalSettings

BLOCKS = 20  # of consecutive images, which `mdp compare` resamples as a whole
_GROUPS = 5000  # of consecutive images, which the interval resamples: single images, of any validation set in use
_GROUP_BYTES = 2**27  # that their counts take at most


class Tally(NamedTuple):
    """Pixel counts; all of them add across images and processes."""

    confusions: Tensor  # (K, C, C) int64
    groups: Tensor  # (N, C, 3) int64: hits, labelled and predicted pixels of each class
    boundary: Tensor | None  # (C, 3) int64: the same of boundary pixels

    @property
    def confusion(self) -> Tensor:
        """Of all images, (C, C)."""
        return self.confusions.sum(0)


@dataclass(frozen=True, slots=True)
class Prediction:
    """An image of a split and the classes that were predicted in it."""

    index: int  # in the split
    image: Tensor  # (3, H, W) uint8
    guess: Tensor  # (H, W) int64: classes
    labels: Tensor  # (H, W) int16


class Observer(Protocol):
    """Looks at every image while a split is scored."""

    def observe_(self, index: int, name: str, counts: Tensor, image: Tensor, guess: Tensor, labels: Tensor) -> None:
        """Takes an image (3, H, W) of the split in, with its confusion matrix; prediction and labels are (H, W)."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a split is gone through: by whom, and what is done about files that cannot be read."""

    workers: int
    world: World = ALONE  # images are dealt out to all processes
    stop: Stop | None = None  # set: the rest is left
    skipped: Callable[[MdpError], None] | None = None  # hears of what is left out; None: the first of them is raised
    tell: Callable[[int, int], None] | None = None  # hears (images done, images in all)


def group_count(images: int, classes: int) -> int:
    """How many groups images are counted in: one each, unless there are too many to remember.

    >>> group_count(500, 19), group_count(100_000, 171), group_count(12_419, 920)
    (500, 5000, 5000)
    """
    return max(1, min(images, _GROUPS, _GROUP_BYTES // (24 * classes)))  # three int64 for each class


def images_of(pool: Pool, settings: EvalSettings) -> int:
    """How many images of the pool are scored."""
    return min(len(pool.samples), settings.images or len(pool.samples))


def predictions(
    segment: Callable[[Tensor], Tensor], pool: Pool, count: int, reading: Reading
) -> Generator[Prediction, None, None]:
    """The first `count` images of the pool that are this process's, segmented one after the other."""
    world = reading.world
    keys = iter([[(0, index)] for index in range(world.rank, count, world.size)])
    watch = Watch(name=lambda key: pool.name(key[1]), stop=lambda: reading.stop)
    try:
        with closing(load(WholeItems(pool), keys, reading.workers, reading.skipped, watch=watch)) as loaded:
            for done, items in enumerate(loaded, 1):
                for item in items:
                    yield Prediction(item.sample, item.image, segment(item.image), item.labels)
                if reading.tell:
                    reading.tell(min(done * world.size, count), count)
                if reading.stop:
                    return
    except Preempted:
        if not reading.stop:  # what leaves the rest is this stop only
            raise


def tally(
    segment: Callable[[Tensor], Tensor],
    pool: Pool,
    settings: EvalSettings,
    reading: Reading,
    observers: Sequence[Observer] = (),
) -> Tally:
    """The counts of `segment`'s predictions on the pool, over all processes; `observers` look at every image.

    Blocks and groups tell how much a score depends on the choice of images.
    """
    classes, count = pool.union.size, images_of(pool, settings)
    blocks, groups = min(BLOCKS, count), group_count(count, classes)
    confusions = torch.zeros(blocks, classes, classes, dtype=torch.int64)
    grouped = torch.zeros(groups, classes, 3, dtype=torch.int64)
    edges = torch.zeros(classes, 3, dtype=torch.int64)
    with closing(predictions(segment, pool, count, reading)) as scored:
        for prediction in scored:
            matrix = confusion_matrix(prediction.guess, prediction.labels, classes)
            confusions[prediction.index * blocks // count] += matrix
            grouped[prediction.index * groups // count] += block_counts(matrix)
            if settings.boundary:
                edges += boundary_counts(prediction.guess, prediction.labels, classes)
            for observer in observers:
                name = pool.samples[prediction.index].image
                observer.observe_(prediction.index, name, matrix, prediction.image, prediction.guess, prediction.labels)
    totals = [reading.world.all_sum(counts) for counts in (confusions, grouped, edges)]
    return Tally(totals[0], totals[1], totals[2] if settings.boundary else None)
