"""Mistakes of three kinds put into the labels of a dataset, for methods that are to find them (suspects.py).

swapped: two classes of the image have each other's name; shifted: the whole map lies 8 pixels aside; painted over: a
connected region has the class that surrounds it most.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mdp.core.chance import generator
from mdp.core.components import connected_regions
from mdp.core.labels import IGNORE, LabelSpace
from mdp.io.datasets._dataset import Dataset, Pair, Sample

KINDS = ("swapped", "shifted", "painted over")
SHARE = 0.05  # of the images, for each kind
PIXELS = 8  # that a shifted map is moved by
_LEAST = 0.02  # share of the image that each swapped class has
_OBJECT = (0.005, 0.15)  # share of the image that a region has which is painted over


def swapped(labels: Tensor, rng: torch.Generator) -> Tensor | None:
    """Two classes of a label map (H, W) with each other's name; None where it has no two large enough."""
    classes, counts = labels[labels != IGNORE].unique(return_counts=True)
    large = classes[counts >= _LEAST * labels.numel()]
    if len(large) < 2:
        return None
    first, second = large[torch.randperm(len(large), generator=rng)[:2]]
    return torch.where(labels == first, second, torch.where(labels == second, first, labels))


def shifted(labels: Tensor, rng: torch.Generator) -> Tensor | None:
    """A label map (H, W) moved in one of eight directions, its border repeated; None where it has one class only."""
    if len(labels[labels != IGNORE].unique()) < 2:
        return None
    directions = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    down, across = directions[int(torch.randint(8, (), generator=rng))]
    rows, columns = (
        (torch.arange(size) - PIXELS * step).clamp(0, size - 1)
        for size, step in zip(labels.shape, (down, across), strict=True)
    )
    return labels[rows][:, columns]


def painted_over(labels: Tensor, rng: torch.Generator) -> Tensor | None:
    """A label map (H, W), one connected region of which has the class around it; None where no region is suitable."""
    regions = connected_regions(labels)
    share = regions.pixels / labels.numel()
    suitable = ((share >= _OBJECT[0]) & (share <= _OBJECT[1]) & (labels.flatten()[regions.first] != IGNORE)).nonzero()
    for number in suitable[torch.randperm(len(suitable), generator=rng), 0].tolist():
        inside = regions.numbers == number
        grown = torch.nn.functional.max_pool2d(inside[None].float(), 7, 1, 3)[0] > 0  # a rim of 3 pixels
        around = labels[grown & ~inside]
        around = around[around != IGNORE]
        if len(around):
            return torch.where(inside, around.mode().values, labels)
    return None


_PLANT = {"swapped": swapped, "shifted": shifted, "painted over": painted_over}


class Planted:
    """A dataset whose label maps have mistakes, drawn by a seed; no image has two."""

    def __init__(self, dataset: Dataset, samples: list[Sample], seed: int) -> None:
        self.base, self.samples, self.seed = dataset, samples, seed
        self.kinds = self._draw()
        space = LabelSpace(name=dataset.name, classes=dataset.labels.classes, colors=dataset.labels.colors)
        self.dataset = replace(
            dataset, labels=space, read=self.read, photo=lambda sample: dataset.read(sample)[0], splits={"train": None},
            train=("train",), val=None, samples=lambda root, split: samples, drawn={}, left_out=None, detail=None,
        )  # fmt: skip

    def _draw(self) -> Mapping[str, str]:
        """The kind of mistake of each image that has one."""
        order = torch.randperm(len(self.samples), generator=generator(self.seed, "mistaken")).tolist()
        found: dict[str, str] = {}
        for kind in KINDS:
            wanted = round(SHARE * len(self.samples))
            for index in list(order):
                if not wanted:
                    break
                sample = self.samples[index]
                if self._planted(sample, kind) is not None:
                    found[sample.image] = kind
                    order.remove(index)
                    wanted -= 1
        return found

    def _planted(self, sample: Sample, kind: str) -> Tensor | None:
        labels = self._true(sample)[1]
        return _PLANT[kind](labels, generator(self.seed, kind, Path(sample.image).name))

    def _true(self, sample: Sample) -> tuple[np.ndarray, Tensor]:
        photo, raw = self.base.read(sample)
        return photo, torch.from_numpy(self.base.labels.to_classes(raw))

    def read(self, sample: Sample) -> Pair:
        """Photo and class numbers (255: ignored), with the image's mistake where it has one."""
        photo, labels = self._true(sample)
        if kind := self.kinds.get(sample.image):
            planted = _PLANT[kind](labels, generator(self.seed, kind, Path(sample.image).name))
            assert planted is not None, "it was drawn because it can be made"
            labels = planted
        return photo, np.where(labels.numpy() == IGNORE, 255, labels.numpy()).astype(np.uint8)
