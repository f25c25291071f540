"""Images with the classes that are in them: folders of photos, one a class, or a segmentation set's label maps.

Shape legend: B images, K channels of an image, C classes.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mdp.core.chance import generator
from mdp.core.geometry import Box, View, cut_image, draw_view
from mdp.core.labels import IGNORE, LabelSpace
from mdp.io.data.pool import Key, Pool
from mdp.io.data.selection import named, no_validation, pool_of
from mdp.io.datasets._dataset import Dataset, Pair, Photo, Sample, open_split, open_training, refuse_unlabelled
from mdp.io.datasets.own.sources.unlabelled import photos_below
from mdp.io.errors import DatasetError, MdpError, RecipeError
from mdp.io.files.photos import read_rgb
from mdp.io.files.reading import is_dir, printable

_TRAIN, _TEST = ("train", "training"), ("val", "valid", "validation", "test")
_SHARE = 5  # one photo in so many of a class is scored where folders say no splits


class Probed(NamedTuple):
    """Images to fit a classifier to, and images to score it on."""

    train: Pool
    test: Pool
    split: str  # that is scored
    several: bool  # whether an image may have several classes
    lines: list[str]
    dataset: Dataset

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""
        return self.train.union.spaces[0].classes


def probed(target: str, folders: Path | None, root: Path, seed: int) -> Probed:
    """The images of a dataset, NAME or NAME:SPLIT, or of folders.  Raises RecipeError or DatasetError without any."""
    if bool(target) == bool(folders):
        raise RecipeError("give --target NAME, or --folders DIR with a folder of photos for each class: one of both")
    return _of_folders(folders, seed) if folders else _of_dataset(target, root)


def _of_dataset(target: str, root: Path) -> Probed:
    dataset, split = named(target)
    if len(dataset.labels.classes) < 2:
        raise RecipeError(f"{dataset.name}: expected a target with two classes or more")
    split = split or dataset.val
    if split is None:
        raise RecipeError(f"{no_validation(dataset)}; name one: {target}:SPLIT")
    if split in dataset.train[:1]:
        raise RecipeError(f"{dataset.name}: {split} is what the classifier is fitted to; score on another split")
    refuse_unlabelled(dataset, split, "score with")
    train, first = open_training(dataset, root)
    test, second = open_split(dataset, root, split)
    return Probed(pool_of([(dataset, train)]), pool_of([(dataset, test)]), split, True, [first, second], dataset)


def _of_folders(folder: Path, seed: int) -> Probed:
    if not is_dir(folder):
        raise DatasetError(f"--folders {printable(folder)}: expected a folder, found none")
    inside = _subfolders(folder)
    train, test = (next((name for name in names if name in inside), "") for names in (_TRAIN, _TEST))
    if bool(train) != bool(test):
        there, other = (train, _TEST[0]) if train else (test, _TRAIN[0])
        raise DatasetError(f"--folders {printable(folder)}: it has {there} and no {other}")
    classes = tuple(_subfolders(folder / train if train else folder))
    if len(classes) < 2:
        raise DatasetError(f"--folders {printable(folder)}: expected a folder for each of two classes or more")
    dataset = _dataset(folder.resolve().name, classes)
    if train:
        unknown = [name for name in _subfolders(folder / test) if name not in classes]
        if unknown:
            raise DatasetError(f"--folders {printable(folder)}: {test} has {unknown[0]!r}, and {train} does not")
        samples = [_photos(folder / part, classes, dataset) for part in (train, test)]
    else:
        test, together = "drawn", _photos(folder, classes, dataset)
        samples = [[], []]
        for name in classes:
            own = [sample for sample in together if sample.labels == name]
            order = torch.randperm(len(own), generator=generator(seed, "probe", name)).tolist()
            held = set(order[: len(own) // _SHARE])
            for index, sample in enumerate(own):
                samples[index in held].append(sample)
    lines = [f"{printable(folder)}: {len(classes)} classes, {len(samples[0]):,} photos to fit, {len(samples[1]):,} to "
             f"score{'' if train else f', drawn by seed {seed}'}"]  # fmt: skip
    if not samples[0] or not samples[1]:
        raise DatasetError(f"{lines[0]}; more are needed")
    fitted, scored = (pool_of([(dataset, own)]) for own in samples)
    return Probed(fitted, scored, test, False, lines, dataset)


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _photos(folder: Path, classes: Sequence[str], dataset: Dataset) -> list[Sample]:
    """The photos of each class's folder, at any depth; the name of the class stands for a label map."""
    there = [name for name in classes if is_dir(folder / name)]
    return [
        sample._replace(labels=name)
        for name in there
        for sample in photos_below(dataset.name, folder / name, os.path.realpath(folder))
    ]


def _dataset(name: str, classes: tuple[str, ...]) -> Dataset:
    return Dataset(
        name=name, labels=LabelSpace(name=name, classes=classes), splits={}, train=(), val=None,
        samples=_nothing, read=_no_pair, photo=_photo,
    )  # fmt: skip


def _nothing(root: Path, split: str) -> list[Sample]:
    return []


def _no_pair(sample: Sample) -> Pair:
    raise DatasetError(f"{sample.image}: a photo of a class has no label map")


def _photo(sample: Sample) -> Photo:
    return read_rgb(sample.image)


# From images to what the backbone sees


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How an image is cut for the backbone."""

    size: int
    short: int | None = None  # the short side before a centre crop; None: both sides are resized
    random: bool = False  # a random resized crop, mirrored or not, in place of it


class ProbeItem(NamedTuple):
    """An image as the backbone sees it, and what is in it."""

    sample: int
    image: Tensor  # (K, size, size) uint8, or float32 in [0, 1]
    positives: Tensor  # (C,) bool


class ProbeItems:
    """Sample -> image and classes."""

    def __init__(self, images: Probed, pool: Pool, cut: Cut, seed: int = 0) -> None:
        self.pool, self.cut, self.seed, self.several = pool, cut, seed, images.several
        self.classes = images.classes

    def __getitem__(self, key: Key) -> ProbeItem | MdpError:
        try:
            image, positives = self._read(key[1])
        except MdpError as error:
            return error
        return ProbeItem(key[1], self._cut(image, key), positives)

    def _read(self, index: int) -> tuple[Tensor, Tensor]:
        positives = torch.zeros(len(self.classes), dtype=torch.bool)
        if not self.several:
            positives[self.classes.index(self.pool.samples[index].labels)] = True
            return self.pool.photo(index), positives
        image, labels = self.pool.read(index)
        present = torch.unique(labels).long()
        positives[present[present != IGNORE]] = True
        return image, positives

    def _cut(self, image: Tensor, key: Key) -> Tensor:
        height, width = int(image.shape[1]), int(image.shape[2])
        size = (self.cut.size, self.cut.size)
        if self.cut.random:
            return cut_image(image, draw_view(generator(self.seed, "probe", *key), height, width, (0.08, 1.0)), size)
        return cut_image(image, View(centre(height, width, self.cut), False), size)


def centre(height: int, width: int, cut: Cut) -> Box:
    """The box of an image that is resized to the cut's size: all of it, or the centre of it.

    >>> centre(512, 1024, Cut(size=224, short=256))
    Box(top=32, left=288, height=448, width=448)
    """
    if cut.short is None:
        return Box(0, 0, height, width)
    side = max(1, round(min(height, width) * cut.size / cut.short))
    return Box((height - side) // 2, (width - side) // 2, side, side)
