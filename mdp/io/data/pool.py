"""The samples of one or more datasets, side by side."""

from typing import NamedTuple

import torch
from torch import Tensor

from mdp.core.labels import LabelUnion
from mdp.core.photometry import IMAGENET, Statistics
from mdp.io.datasets._dataset import Dataset, Sample, labels_of
from mdp.io.errors import DatasetError

Key = tuple[int, int]  # (epoch, or another number that tells repeats apart; index of a sample)


class Pool(NamedTuple):
    """Samples of one or more datasets, side by side, and the union of their label spaces."""

    samples: list[Sample]
    datasets: dict[str, Dataset]
    union: LabelUnion
    statistics: Statistics = IMAGENET  # by which the network's images are normalised

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image and union labels (H, W) int16 of a sample.  Raises DatasetError naming the file.

        The image is (3, H, W) uint8 RGB, or (K, H, W) float32 in [0, 1] where the dataset declares its channels.
        """
        sample = self.samples[index]
        dataset = self.datasets[sample.dataset]
        try:
            rgb, raw = dataset.read(sample)
            return torch.from_numpy(rgb).permute(2, 0, 1), labels_of(self.union, sample, raw, dataset.source)
        except DatasetError as error:
            error.sample = sample  # a run that stops for it keeps a picture of it
            raise

    def photo(self, index: int) -> Tensor:
        """The image of a sample alone; its label map is not looked at."""
        sample = self.samples[index]
        try:
            return torch.from_numpy(self.datasets[sample.dataset].photo(sample)).permute(2, 0, 1)
        except DatasetError as error:
            error.sample = sample
            raise

    def name(self, index: int) -> str:
        """A sample's dataset and photo, for people."""
        return f"{self.samples[index].dataset}: {self.samples[index].image}"

    def sizes(self) -> dict[str, int]:
        """Number of samples of each dataset, in order."""
        return {name: sum(sample.dataset == name for sample in self.samples) for name in self.datasets}
