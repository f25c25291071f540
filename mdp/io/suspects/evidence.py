"""What speaks against the labels of a split, image by image: numbers only, about two kilobytes an image.

Shape legend: C classes, H x W image, h x w the size that is looked at, S = 2 R + 1 moves each way.
"""

import heapq
import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from mdp.core.geometry import Box, View, cut_image, cut_labels
from mdp.core.label_quality import (
    Disagreement,
    Usual,
    above_usual,
    disagreements,
    no_values,
    self_confidence,
    soft_minimum,
    standardised,
    with_values,
)
from mdp.core.label_shift import REACH, Shift, best_shift, edge_fit, gains
from mdp.core.labels import IGNORE
from mdp.core.metrics import confusion_matrix
from mdp.core.photometry import as_float
from mdp.io.data.pool import Pool
from mdp.io.errors import Preempted
from mdp.io.evaluation.counts import Reading, images_in
from mdp.io.suspects.classifiers import STOPPED, Classifier, Size, within

REGIONS, EDGES = 160, 320  # pixels of the longer side at which regions, and edges, are looked at; chosen
LEAST = 0.002  # share of the image that a region has; chosen
_KEPT = 6  # regions of an image with a label, and as many without one


class Looked(NamedTuple):
    """An image of the split."""

    quality: float  # the soft minimum of its pixels' self-confidence; NaN without a labelled pixel
    regions: list[Disagreement]  # those that speak most against a label, and those without one; boxes in its pixels
    gains: Tensor | None  # (S, S) float16: of moving its label map; None without edges
    edge_pixel: tuple[float, float]  # pixels of the image, down and across, to one that edges were looked at with


@dataclass
class Evidence:
    """What is known of all images."""

    classes: int
    images: dict[int, Looked] = field(default_factory=dict)  # by their number in the split
    regions: list[Tensor] = field(default_factory=list)  # (3, N) float64 of each image: label, margin and share
    confusion: Tensor = None  # type: ignore[assignment]  # (C, C) int64: pixels by label and guess
    mostly: Tensor = None  # type: ignore[assignment]  # (C, C) int64: images in which most of a class has a guess

    def __post_init__(self) -> None:
        self.confusion = torch.zeros(self.classes, self.classes, dtype=torch.int64)
        self.mostly = self.confusion.clone()

    def add_(self, index: int, image: Tensor, labels: Tensor, probabilities: Tensor) -> None:
        """Takes in an image (K, H, W) with labels (H, W) and class probabilities (C, h, w)."""
        small = at_size(labels, (probabilities.shape[1], probabilities.shape[2]))
        counts = confusion_matrix(probabilities.argmax(0), small, self.classes)
        self.confusion += counts
        most = counts.max(1)
        named = (2 * most.values > counts.sum(1)).nonzero()[:, 0]
        self.mostly[named, most.indices[named]] += 1
        regions = disagreements(probabilities, small, LEAST)
        self.regions.append(self.columns(regions))
        kept = [some for labelled in (True, False) for some in _strongest(regions, labelled)]
        scales = labels.shape[0] / small.shape[0], labels.shape[1] / small.shape[1]
        quality = soft_minimum(self_confidence(probabilities, small))
        edge_size = within(labels.shape, EDGES)
        fit = edge_fit(cut_image(as_float(image[None])[0], _whole(labels), edge_size), at_size(labels, edge_size))
        self.images[index] = Looked(
            quality,
            [region._replace(box=_scaled(region.box, scales, labels)) for region in kept],
            None if fit is None else gains(fit).half(),
            (labels.shape[0] / edge_size[0], labels.shape[1] / edge_size[1]),
        )

    def columns(self, regions: list[Disagreement]) -> Tensor:
        """Label, margin and share of regions, (3, N) float64; those without a label are a group of their own."""
        rows = [(self.classes if r.label == IGNORE else r.label, r.margin, r.share) for r in regions]
        return torch.tensor(rows, dtype=torch.float64).view(-1, 3).T

    def usual(self) -> tuple[Usual, Usual]:
        """The margins of all regions by label, and what they have more than that, by size."""
        groups, margins, shares = torch.cat([*self.regions, torch.zeros(3, 0, dtype=torch.float64)], 1)
        own, none = groups.long(), no_values(self.classes + 1)
        of_margins = with_values(none, margins, own)
        return of_margins, with_values(none, above_usual(margins, shares, own, of_margins), own)

    def doubts(self, regions: list[Disagreement], usual: tuple[Usual, Usual]) -> Tensor:
        """How unusual it is what speaks against each region, float64."""
        groups, margins, shares = self.columns(regions)
        return standardised(above_usual(margins, shares, groups.long(), usual[0]), groups.long(), usual[1])

    def usual_gains(self) -> Tensor:
        """What moving a label map gains in the median image (S, S); zeros where no image has edges."""
        known = [looked.gains for looked in self.images.values() if looked.gains is not None]
        side = 2 * REACH + 1
        return torch.stack(known).float().median(0).values if known else torch.zeros(side, side)

    def shift_of(self, index: int, usual: Tensor) -> Shift | None:
        """The move that an image gains most by beyond the usual, in its own pixels."""
        looked = self.images[index]
        if looked.gains is None:
            return None
        down, right, gain = best_shift(looked.gains.float(), usual)
        return Shift(round(down * looked.edge_pixel[0]), round(right * looked.edge_pixel[1]), gain)


def gather(
    pool: Pool, classifier: Classifier, reading: Reading, also: Callable[[int, Tensor, Tensor], None]
) -> Evidence:
    """The evidence of all images of a pool; `also` sees number, labels (H, W) and probabilities (C, h, w) of each.

    Raises Preempted when asked to stop.
    """
    evidence = Evidence(pool.union.size)
    with closing(images_in(pool, len(pool.samples), reading)) as items:
        for item in items:
            size = within(item.labels.shape, REGIONS)
            probabilities = classifier.probabilities(item.sample, item.image, size)
            evidence.add_(item.sample, item.image, item.labels, probabilities)
            also(item.sample, item.labels, probabilities)
    if reading.stop:
        raise Preempted(STOPPED)
    return evidence


def at_size(labels: Tensor, size: Size) -> Tensor:
    """Labels (H, W) at another size."""
    return cut_labels(labels, _whole(labels), size).long()


def _whole(labels: Tensor) -> View:
    return View(Box(0, 0, int(labels.shape[0]), int(labels.shape[1])), False)


def _strongest(regions: list[Disagreement], labelled: bool) -> list[Disagreement]:
    """Those that may be doubted most, before it is known what is usual."""
    some = [region for region in regions if (region.label != IGNORE) == labelled]
    return heapq.nlargest(_KEPT, some, key=lambda region: region.margin * math.sqrt(region.share))


def _scaled(box: Box, scales: tuple[float, float], labels: Tensor) -> Box:
    """The box in the pixels of labels (H, W)."""
    top, left = int(box.top * scales[0]), int(box.left * scales[1])
    bottom = min(labels.shape[0], math.ceil((box.top + box.height) * scales[0]))
    right = min(labels.shape[1], math.ceil((box.left + box.width) * scales[1]))
    return Box(top, left, bottom - top, right - left)
