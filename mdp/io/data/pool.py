"""The samples of one or more datasets, side by side, and a program's own change of those that are trained on."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mdp.core.chance import generator
from mdp.core.labels import IGNORE, LabelUnion
from mdp.core.photometry import IMAGENET, Statistics
from mdp.io.data.cache.kept import Kept
from mdp.io.datasets._dataset import Dataset, Sample, labels_of
from mdp.io.errors import DatasetError

Key = tuple[int, int]  # (epoch, or another number that tells repeats apart; index of a sample)


# Image (3, H, W) uint8, labels (H, W) int16 of the union (-1 where ignored), and a generator: any chance is drawn from
# it, so that the same image of the same epoch is changed alike by any worker and in a run that goes on.
Transform = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


def name_of(transform: Callable[..., Any] | None) -> str:
    """The name by which a run remembers it: module and function, or the class of an object; "" for none."""
    if transform is None:
        return ""
    thing = transform if hasattr(transform, "__qualname__") else type(transform)
    return f"{thing.__module__}.{thing.__qualname__}"


def transformed(transform: Transform, image: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """The changed image and labels.  Raises DatasetError, naming the transform, where they are not what they were."""
    new_image, new_labels = transform(image, labels, rng)
    kinds = (new_image.dtype, new_labels.dtype) == (image.dtype, labels.dtype)
    sizes = new_labels.dim() == 2 and new_image.shape == (len(image), *new_labels.shape) and new_labels.numel() > 0
    if not (kinds and sizes):
        found = f"{tuple(new_image.shape)} {new_image.dtype} and {tuple(new_labels.shape)} {new_labels.dtype}"
        raise DatasetError(
            f"transform {name_of(transform)}: expected an image ({len(image)}, H, W) {image.dtype} and labels (H, W) "
            f"{labels.dtype} of the same size, got {found}"
        )
    return new_image, new_labels


class Pool(NamedTuple):
    """Samples of one or more datasets, side by side, and the union of their label spaces."""

    samples: list[Sample]
    datasets: dict[str, Dataset]
    union: LabelUnion
    statistics: Statistics = IMAGENET  # by which the network's images are normalised
    transform: Transform | None = None  # a program's own, of training images before they are cut
    kept: Kept | None = None  # photos and label maps that were read before; None: files are read every time

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image and union labels (H, W) int16 of a sample, not to be written to.  Raises DatasetError naming the file.

        The image is (3, H, W) uint8 RGB, or (K, H, W) float32 in [0, 1] where the dataset declares its channels.
        """
        return self._read(index) if self.kept is None else self.kept.pair(index, partial(self._read, index))

    def photo(self, index: int) -> Tensor:
        """The image of a sample alone; its label map is not looked at."""
        return self._photo(index) if self.kept is None else self.kept.photo(index, partial(self._photo, index))

    def _read(self, index: int) -> tuple[Tensor, Tensor]:
        sample = self.samples[index]
        dataset = self.datasets[sample.dataset]
        try:
            rgb, raw = dataset.read(sample)
            return torch.from_numpy(rgb).permute(2, 0, 1), labels_of(self.union, sample, raw, dataset.source)
        except DatasetError as error:
            error.sample = sample  # a run that stops for it keeps a picture of it
            raise

    def _photo(self, index: int) -> Tensor:
        sample = self.samples[index]
        try:
            return torch.from_numpy(self.datasets[sample.dataset].photo(sample)).permute(2, 0, 1)
        except DatasetError as error:
            error.sample = sample
            raise

    def read_changed(self, key: Key, seed: int) -> tuple[Tensor, Tensor]:
        """Image and labels as training takes them: changed by the pool's transform, with chance of the key's own.

        Raises DatasetError naming the file or the transform.
        """
        image, labels = self.read(key[1])
        if self.transform is None:
            return image, labels
        return transformed(self.transform, self._own(image), labels, generator(seed, "transform", *key))

    def photo_changed(self, key: Key, seed: int) -> Tensor:
        """The image alone; its transform gets labels that are ignored everywhere."""
        image = self.photo(key[1])
        if self.transform is None:
            return image
        none = torch.full(image.shape[1:], IGNORE, dtype=torch.int16)
        return transformed(self.transform, self._own(image), none, generator(seed, "transform", *key))[0]

    def _own(self, image: Tensor) -> Tensor:
        """An image that a program may write to."""
        return image if self.kept is None else image.clone()

    def name(self, index: int) -> str:
        """A sample's dataset and photo, for people."""
        return f"{self.samples[index].dataset}: {self.samples[index].image}"

    def evenly(self, name: str, count: int) -> list[int]:
        """So many samples of a dataset, or all where it has fewer, evenly spaced."""
        own = [index for index, sample in enumerate(self.samples) if sample.dataset == name]
        count = min(len(own), count)
        return [own[i * len(own) // count] for i in range(count)]

    def sizes(self) -> dict[str, int]:
        """Number of samples of each dataset, in order."""
        return {name: sum(sample.dataset == name for sample in self.samples) for name in self.datasets}
