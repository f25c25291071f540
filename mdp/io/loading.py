"""From samples to batches: which image comes when, and what happens to it on the way.

The step number is the only position: the order of images is a function of (seed, epoch), the draws for an image of
(seed, epoch, index).  So neither the number of workers nor a resumed run changes what the network sees.
Images stay uint8 until the batch is on the training device; photometry and normalisation run there on whole batches.
"""

import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from mdp.core.batches import Batch
from mdp.core.chance import coin, generator, uniform
from mdp.core.geometry import Box, View, cut_image, cut_labels, draw_view, draw_window, fitted_size, pad_to
from mdp.core.labels import IGNORE, LabelUnion
from mdp.core.photometry import (
    DistortionDraw,
    PhotometryDraw,
    apply_distortion,
    apply_photometry,
    draw_distortion,
    draw_photometry,
    normalise,
    stack_draws,
)
from mdp.io.datasets import Dataset, Sample, labels_of
from mdp.io.errors import DatasetError, MdpError, ResourceError
from mdp.io.recipe import FinetuneSettings, PretrainSettings

Key = tuple[int, int]  # (epoch, or another number that tells repeats apart; index of a sample)


class Pool(NamedTuple):
    """Samples of one or more datasets, side by side, and the union of their label spaces."""

    samples: list[Sample]
    datasets: dict[str, Dataset]
    union: LabelUnion

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image (3, H, W) uint8 and union labels (H, W) int16 of a sample.  Raises DatasetError naming the file."""
        sample = self.samples[index]
        dataset = self.datasets[sample.dataset]
        rgb, raw = dataset.read(sample)
        return torch.from_numpy(rgb).permute(2, 0, 1), labels_of(self.union, sample, raw, dataset.source)

    def name(self, index: int) -> str:
        """What people know a sample by."""
        return f"{self.samples[index].dataset}: {self.samples[index].image}"

    def sizes(self) -> dict[str, int]:
        """Number of samples of each dataset, in order."""
        return {name: sum(sample.dataset == name for sample in self.samples) for name in self.datasets}


# Order


def epoch_order(seed: int, epoch: int, sizes: Sequence[int], balance: bool = False) -> NDArray[np.int64]:
    """The sample indices of one epoch, as many as there are samples.

    A permutation of the union (the paper's uniform sampling); with `balance` every dataset fills an equal share,
    small ones repeating, large ones taking turns over the epochs.

    >>> epoch_order(0, 0, [1, 3], balance=True).tolist().count(0)
    2
    """
    rng = np.random.default_rng([seed, epoch])
    total, starts = sum(sizes), np.cumsum([0, *sizes[:-1]])
    if not balance:
        return rng.permutation(total)
    shares = [total // len(sizes) + (i < total % len(sizes)) for i in range(len(sizes))]
    parts = []
    for i, (size, start, share) in enumerate(zip(sizes, starts, shares, strict=True)):
        places = np.arange(epoch * share, (epoch + 1) * share)  # places in this dataset's own endless stream
        rounds = {r: np.random.default_rng([seed, i, int(r)]).permutation(size) for r in np.unique(places // size)}
        parts.append(np.array([start + rounds[place // size][place % size] for place in places]))
    return rng.permutation(np.concatenate(parts))


def epoch_batches(
    seed: int, sizes: Sequence[int], batch: int, balance: bool, start: int, steps: int
) -> Iterator[list[Key]]:
    """The keys of steps start .. steps - 1 in epochs of whole batches; an epoch's last incomplete batch is dropped.

    With `balance` a small dataset repeats within an epoch: its images are keyed by their place in the run instead, so
    that each repeat has draws of its own.
    """
    length = sum(sizes) // batch
    order, current = np.empty(0, dtype=np.int64), -1
    for step in range(start, steps):
        epoch, place = divmod(step, length)
        if epoch != current:
            order, current = epoch_order(seed, epoch, sizes, balance), epoch
        chosen = order[place * batch : (place + 1) * batch].tolist()
        yield [(step * batch + i if balance else epoch, index) for i, index in enumerate(chosen)]


def stream_batches(seed: int, size: int, batch: int, start: int, steps: int) -> Iterator[list[Key]]:
    """The keys of steps start .. steps - 1 cut from an endless stream of epochs, none of it dropped.

    With fewer samples than a batch holds, a batch repeats samples, each with draws of its own.
    """
    orders: dict[int, NDArray[np.int64]] = {}
    for step in range(start, steps):
        keys = []
        for place in range(step * batch, (step + 1) * batch):
            epoch = place // size
            if epoch not in orders:
                orders = {e: o for e, o in orders.items() if e >= epoch - 1}
                orders[epoch] = epoch_order(seed, epoch, [size])
            keys.append((epoch, int(orders[epoch][place % size])))
        yield keys


# Pretraining: two views of each image


class ViewsItem(NamedTuple):
    """The views of one image before photometry."""

    images: Tensor  # (V, 3, s, s) uint8
    labels: Tensor  # (V, s, s) int16
    draws: tuple[PhotometryDraw, ...]  # V draws


class PretrainItems:
    """Sample -> views; what the loader's workers run."""

    def __init__(self, pool: Pool, settings: PretrainSettings, seed: int, views: int = 2) -> None:
        self.pool, self.settings, self.seed, self.views = pool, settings, seed, views

    def __getitem__(self, key: Key) -> ViewsItem | MdpError:
        rng = generator(self.seed, "views", *key)
        size = (self.settings.crop, self.settings.crop)
        try:
            image, labels = self.pool.read(key[1])
        except MdpError as error:
            return error  # raised in the main process: a worker would wrap it in a traceback
        height, width = labels.shape
        views = [draw_view(rng, height, width, self.settings.crop_area) for _ in range(self.views)]
        return ViewsItem(
            torch.stack([cut_image(image, view, size) for view in views]),
            torch.stack([cut_labels(labels, view, size) for view in views]),
            tuple(draw_photometry(rng, self.settings.photometry) for _ in views),
        )


def view_batches(items: list[ViewsItem], device: torch.device) -> list[Batch]:
    """One batch a view, augmented and normalised on `device`."""
    batches = []
    for view in range(len(items[0].draws)):
        images = torch.stack([item.images[view] for item in items]).to(device, non_blocking=True)  # (B, 3, s, s)
        labels = torch.stack([item.labels[view] for item in items]).to(device, non_blocking=True)  # (B, s, s)
        draws = stack_draws([item.draws[view] for item in items])
        batches.append(Batch(normalise(apply_photometry(images, draws)), labels.long()))
    return batches


# Fine-tuning: one crop of each image


class CropItem(NamedTuple):
    """A crop before distortion, padded to the full crop size."""

    image: Tensor  # (3, *crop) uint8
    labels: Tensor  # (*crop) int16; IGNORE where padded
    inside: tuple[int, int]  # height and width of what is not padding
    draw: DistortionDraw


class FinetuneItems:
    """Sample -> random scale, crop and flip, in MMSegmentation's order."""

    def __init__(self, pool: Pool, settings: FinetuneSettings, seed: int) -> None:
        self.pool, self.settings, self.seed = pool, settings, seed

    def __getitem__(self, key: Key) -> CropItem | MdpError:
        settings, rng = self.settings, generator(self.seed, "crops", *key)
        try:
            image, labels = self.pool.read(key[1])
        except MdpError as error:
            return error
        height, width = labels.shape
        ratio = uniform(rng, *settings.ratio)
        long, short = settings.scale or (max(height, width), min(height, width))
        size = fitted_size(height, width, (int(long * ratio), int(short * ratio)))
        whole = Box(0, 0, height, width)
        resized = cut_labels(labels, View(whole, False), size)
        box = draw_window(rng, resized, settings.crop, settings.largest_share)
        window = View(box, coin(rng, settings.flip))
        inside = (box.height, box.width)
        image = cut_image(cut_image(image, View(whole, False), size), window, inside)
        labels = cut_labels(resized, window, inside)
        return CropItem(
            pad_to(image, settings.crop, 0),
            pad_to(labels, settings.crop, IGNORE),
            inside,
            draw_distortion(rng, settings.distortion),
        )


def crop_batch(items: list[CropItem], device: torch.device) -> Batch:
    """The crops as one batch, distorted and normalised on `device`; padding is 0 after normalisation."""
    images = torch.stack([item.image for item in items]).to(device, non_blocking=True)  # (B, 3, H, W)
    labels = torch.stack([item.labels for item in items]).to(device, non_blocking=True)  # (B, H, W)
    images = normalise(apply_distortion(images, stack_draws([item.draw for item in items])))
    for image, item in zip(images, items, strict=True):
        image[:, item.inside[0] :] = 0
        image[:, :, item.inside[1] :] = 0
    return Batch(images, labels.long())


# Evaluation: whole images


class WholeItem(NamedTuple):
    """An image as it is, and its labels."""

    place: int  # index of the sample
    image: Tensor  # (3, H, W) uint8
    labels: Tensor  # (H, W) int16


class WholeItems:
    """Sample -> image and labels at their own resolution."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def __getitem__(self, key: Key) -> WholeItem | MdpError:
        try:
            return WholeItem(key[1], *self.pool.read(key[1]))
        except MdpError as error:
            return error


# What cannot be read


class Replaced(NamedTuple):
    """A sample that stands in for one that cannot be read."""

    item: Any
    error: MdpError


class TooMany(DatasetError):
    """So many samples in a row cannot be read that the trouble is not with them."""


class Forgiving:
    """Items of which one that cannot be read is replaced by the next that can, the same on every try."""

    def __init__(self, items: Any, count: int, tries: int = 10) -> None:
        self.items, self.count, self.tries = items, count, tries

    def __getitem__(self, key: Key) -> Any:
        first = self.items[key]
        if not isinstance(first, MdpError):
            return first
        for offset in range(1, self.tries):
            item = self.items[key[0], (key[1] + offset) % self.count]
            if not isinstance(item, MdpError):
                return Replaced(item, first)
        return TooMany(f"{self.tries} samples in a row cannot be read, the first: {first}")


# The loader


def own_parts(batches: Iterator[list[Key]], own: slice) -> Iterator[list[Key]]:
    """Of each batch of keys, this process's."""
    return (keys[own] for keys in batches)


def load(
    dataset: Any,
    batches: Iterator[list[Key]],
    workers: int,
    skipped: Callable[[MdpError], None] | None = None,
) -> Generator[list[Any], None, None]:
    """Lists of items, one list for each list of keys, made ahead by `workers` processes.

    `skipped` hears of samples that could not be read, which were replaced or are left out of their list; without it
    the first of them is raised.  Raises ResourceError when a worker died.  Close the iterator when leaving early:
    workers that ignore signals would otherwise hold up the exit.
    """
    loader: DataLoader[list[Any]] = DataLoader(
        dataset,
        batch_sampler=_Batches(batches),
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=_quiet_worker if workers else None,
        generator=torch.Generator(),  # an iterator without one would draw from the global generator
    )
    iterator = iter(loader)
    try:
        while True:
            try:
                items = next(iterator)
            except StopIteration:
                return
            except RuntimeError as error:
                if "worker" not in str(error):
                    raise
                raise ResourceError(
                    f"a loader process died ({str(error).splitlines()[0]}); the machine may be out of memory or "
                    "shared memory: try --workers 0 or a smaller --batch-size"
                ) from error
            yield [item.item if isinstance(item, Replaced) else item for item in _readable(items, skipped)]
    finally:
        del iterator


def _readable(items: list[Any], skipped: Callable[[MdpError], None] | None) -> Iterator[Any]:
    for item in items:
        error = item.error if isinstance(item, Replaced) else item
        if isinstance(error, MdpError):
            if skipped is None or isinstance(error, TooMany):
                raise error
            skipped(error)
        if not isinstance(item, MdpError):
            yield item


class _Batches:
    """An iterable over batches of keys, which is all that the loader asks of a batch sampler."""

    def __init__(self, batches: Iterator[list[Key]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[Key]]:
        return self.batches


def _quiet_worker(_: int) -> None:
    """Workers leave signals to the main process, which closes them after its checkpoint, and use one thread."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)
    torch.set_num_threads(1)
