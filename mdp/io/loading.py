"""From samples to batches: which image comes when, and what happens to it on the way.

The step number is the only position: the order of images is a function of (seed, epoch), the draws for an image of
(seed, epoch, index).  So neither the number of workers nor a resumed run changes what the network sees.
Photometry and normalisation are done image by image in the workers when training runs on a CPU; for a GPU images stay
uint8 until the batch is there, and it does the same on whole batches.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
    normalise_,
    stack_draws,
)
from mdp.io.datasets import Dataset, Sample, labels_of
from mdp.io.errors import DatasetError, MdpError
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
        try:
            rgb, raw = dataset.read(sample)
            return torch.from_numpy(rgb).permute(2, 0, 1), labels_of(self.union, sample, raw, dataset.source)
        except DatasetError as error:
            error.sample = sample
            raise

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
    """The views of one image, before photometry, or after it and normalised."""

    images: Tensor  # (V, 3, s, s) uint8, or float32 without draws
    labels: Tensor  # (V, s, s) int16
    draws: tuple[PhotometryDraw, ...]  # V draws, or none where they have been applied


class Views(NamedTuple):
    """The views of some images, as the loader hands them over."""

    images: Tensor  # (V, B, 3, s, s)
    labels: Tensor  # (V, B, s, s)
    draws: tuple[PhotometryDraw, ...]  # V stacks of draws, or none


class PretrainItems:
    """Sample -> views; what the loader's workers run.

    With `finish` they do the photometry, one view after the other, which stays in a CPU's caches; a GPU does it
    quicker itself, on a quarter of the bytes.
    """

    def __init__(self, pool: Pool, settings: PretrainSettings, seed: int, views: int = 2, finish: bool = False) -> None:
        self.pool, self.settings, self.seed, self.views, self.finish = pool, settings, seed, views, finish

    def __getitem__(self, key: Key) -> ViewsItem | MdpError:
        rng = generator(self.seed, "views", *key)
        size = (self.settings.crop, self.settings.crop)
        try:
            image, labels = self.pool.read(key[1])
        except MdpError as error:
            return error  # raised in the main process: a worker would wrap it in a traceback
        height, width = labels.shape
        views = [draw_view(rng, height, width, self.settings.crop_area) for _ in range(self.views)]
        draws = tuple(draw_photometry(rng, self.settings.photometry) for _ in views)
        images = [cut_image(image, view, size) for view in views]  # each (3, s, s)
        if self.finish:
            images = [finished(i[None], stack_draws([draw]))[0] for i, draw in zip(images, draws, strict=True)]
        maps = [cut_labels(labels, view, size) for view in views]
        return ViewsItem(torch.stack(images), torch.stack(maps), () if self.finish else draws)


def finished(images: Tensor, draws: PhotometryDraw) -> Tensor:
    """Photometry and normalisation of images (B, 3, s, s) uint8: float32."""
    return normalise_(apply_photometry(images, draws))


def stack_views(items: list[ViewsItem]) -> Views:
    """What the workers hand over for a list of items: a few large tensors, since each has its price on the way."""
    return Views(
        torch.stack([item.images for item in items], 1),
        torch.stack([item.labels for item in items], 1),
        tuple(stack_draws(draws) for draws in zip(*(item.draws for item in items), strict=True)),
    )


def view_batches(views: Views, device: torch.device) -> list[Batch]:
    """One batch a view, augmented and normalised, on `device`."""
    images = views.images.to(device, non_blocking=True)
    labels = views.labels.to(device, non_blocking=True).long()
    if views.draws:
        changed = [finished(*view) for view in zip(images, views.draws, strict=True)]
        return [Batch(*view) for view in zip(changed, labels, strict=True)]
    return [Batch(*view) for view in zip(images, labels, strict=True)]


# Fine-tuning: one crop of each image


class CropItem(NamedTuple):
    """A crop padded to the full crop size, before distortion, or after it and normalised."""

    image: Tensor  # (3, *crop) uint8, or float32 without a draw
    labels: Tensor  # (*crop) int16; IGNORE where padded
    inside: tuple[int, int]  # height and width of what is not padding
    draw: DistortionDraw | None


class Crops(NamedTuple):
    """Some crops, as the loader hands them over."""

    images: Tensor  # (B, 3, *crop)
    labels: Tensor  # (B, *crop)
    inside: list[tuple[int, int]]
    draws: DistortionDraw | None


class FinetuneItems:
    """Sample -> random scale, crop and flip, in MMSegmentation's order; with `finish` distortion as well."""

    def __init__(self, pool: Pool, settings: FinetuneSettings, seed: int, finish: bool = False) -> None:
        self.pool, self.settings, self.seed, self.finish = pool, settings, seed, finish

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
        image = pad_to(image, settings.crop, 0)
        labels = pad_to(cut_labels(resized, window, inside), settings.crop, IGNORE)
        draw = draw_distortion(rng, settings.distortion)
        if not self.finish:
            return CropItem(image, labels, inside, draw)
        return CropItem(finished_crops(image[None], [inside], stack_draws([draw]))[0], labels, inside, None)


def finished_crops(images: Tensor, inside: list[tuple[int, int]], draws: DistortionDraw) -> Tensor:
    """Distortion and normalisation of crops (B, 3, *crop) uint8: float32; padding is 0 after normalisation."""
    images = normalise_(apply_distortion(images, draws))
    for image, (height, width) in zip(images, inside, strict=True):
        image[:, height:] = 0
        image[:, :, width:] = 0
    return images


def stack_crops(items: list[CropItem]) -> Crops:
    """What the workers hand over for a list of items."""
    draws = [item.draw for item in items if item.draw is not None]
    return Crops(
        torch.stack([item.image for item in items]),
        torch.stack([item.labels for item in items]),
        [item.inside for item in items],
        stack_draws(draws) if draws else None,
    )


def crop_batch(crops: Crops, device: torch.device) -> Batch:
    """The crops as one batch, distorted and normalised, on `device`."""
    images = crops.images.to(device, non_blocking=True)
    if crops.draws is not None:
        images = finished_crops(images, crops.inside, crops.draws)
    return Batch(images, crops.labels.to(device, non_blocking=True).long())


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
