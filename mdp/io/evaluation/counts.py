"""Counting a segmentor's right and wrong pixels over a split, at the labels' resolution; scores come after.

Shape legend: K blocks of consecutive images, N groups of fewer, C classes.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mdp.core.boundaries import boundary_counts
from mdp.core.comparison import block_counts
from mdp.core.metrics import confusion_matrix
from mdp.core.networks import Segmentor
from mdp.io.data.crops import WholeItems
from mdp.io.data.loader import load
from mdp.io.data.pool import Pool
from mdp.io.errors import MdpError
from mdp.io.evaluation.saved import Saved, save
from mdp.io.inference.memory_budget import new_budget
from mdp.io.inference.predict import predict
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


class Observer(Protocol):
    """Looks at every image while a split is scored."""

    def observe_(self, index: int, name: str, counts: Tensor, image: Tensor, guess: Tensor, labels: Tensor) -> None:
        """Takes an image (3, H, W) of the split in, with its confusion matrix; prediction and labels are (H, W)."""


def group_count(images: int, classes: int) -> int:
    """How many groups images are counted in: one each, unless there are too many to remember.

    >>> group_count(500, 19), group_count(100_000, 171), group_count(12_419, 920)
    (500, 5000, 5000)
    """
    return max(1, min(images, _GROUPS, _GROUP_BYTES // (24 * classes)))


def score(
    network: Segmentor,
    pool: Pool,
    settings: EvalSettings,
    device: torch.device,
    workers: int,
    stop: Stop | None = None,
    world: World = ALONE,
    skipped: Callable[[MdpError], None] | None = None,
    observer: Observer | None = None,
) -> Tensor:
    """Confusion matrices (K, C, C) of the network over K blocks of consecutive images of the pool; see `tally`."""
    plain = replace(settings, boundary=False)
    return tally(
        network, pool, plain, device, workers, stop, world=world, skipped=skipped, observer=observer
    ).confusions


def tally(
    network: Segmentor,
    pool: Pool,
    settings: EvalSettings,
    device: torch.device,
    workers: int,
    stop: Stop | None = None,
    tell: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
    keep: Saved | None = None,
    world: World = ALONE,
    skipped: Callable[[MdpError], None] | None = None,
    observer: Observer | None = None,
) -> Tally:
    """The counts of the network over the pool; blocks and groups tell how much a score depends on the choice of images.

    The network is left in evaluation mode.  The images are dealt out to all processes.  `tell` hears (images done,
    images in all), `say` lines; `keep` says where predictions are saved.  A `stop` that is set ends it early.
    `skipped` hears of files that cannot be read and are left out; without it the first of them is raised.  `observer`
    looks at every image.
    """
    classes = pool.union.size
    count = min(len(pool.samples), settings.images or len(pool.samples))
    blocks, groups = min(BLOCKS, count), group_count(count, classes)
    confusions = torch.zeros(blocks, classes, classes, dtype=torch.int64)
    grouped = torch.zeros(groups, classes, 3, dtype=torch.int64)
    edges = torch.zeros(classes, 3, dtype=torch.int64)
    budget = new_budget(settings, say)
    network.eval()
    own = range(world.rank, count, world.size)
    with closing(load(WholeItems(pool), iter([[(0, index)] for index in own]), workers, skipped)) as items:
        for done, found in enumerate(items, 1):
            for item in found:
                guess = predict(network, item.image, settings, device, budget)
                matrix = confusion_matrix(guess, item.labels, classes)
                confusions[item.place * blocks // count] += matrix
                grouped[item.place * groups // count] += block_counts(matrix)
                if settings.boundary:
                    edges += boundary_counts(guess, item.labels, classes)
                if observer:
                    observer.observe_(
                        item.place, pool.samples[item.place].image, matrix, item.image, guess, item.labels
                    )
                if keep:
                    save(keep, item.place, item.image, guess, item.labels)
            if tell:
                tell(min(done * world.size, count), count)
            if stop:
                break
    totals = [world.all_sum(counts) for counts in (confusions, grouped, edges)]
    return Tally(totals[0], totals[1], totals[2] if settings.boundary else None)
