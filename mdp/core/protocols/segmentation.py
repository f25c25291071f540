"""Scores of a segmentation: one confusion matrix over all images, and the scores that are functions of it.

mIoU by MMSegmentation's rule (the paper's) first, the means by other rules beside it, boundary IoU (ImageNet-S, arXiv
2106.03149), and how much the mIoU depends on the choice of images.
Shape legend: C classes, K blocks of consecutive images, N groups of fewer.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mdp.core.boundaries import boundary_counts
from mdp.core.chance import generator
from mdp.core.comparison import block_counts, count_iou, count_miou, miou_interval
from mdp.core.metrics import (
    class_accuracy,
    class_dice,
    class_iou,
    class_precision,
    confusion_matrix,
    majority,
    mean_accuracy,
    mean_iou,
    mean_iou_of,
    mean_iou_of_all,
    mean_iou_of_labelled,
    pixel_accuracy,
)
from mdp.core.protocols import Counts, Features, Pair, Prediction
from mdp.label_space import LabelSpace

FIT_SPLIT = None
RULE = (
    "mIoU: mean IoU over classes whose union of labelled and predicted pixels is not empty, from one confusion matrix "
    "over all images at the label maps' own resolution, ignored pixels left out (MMSegmentation's rule)"
)
BOUNDARY_RULE = (
    "boundary IoU: IoU of the pixels within d of another value or of the outside of the image, "
    "d = max(1, round(3 % of the diagonal)), on complete maps, ignored pixels left out after; mean as for mIoU"
)
REPLICATES = 2000
BLOCKS = 20  # of consecutive images, which `mdp compare` resamples as a whole
_GROUPS = 5000  # of consecutive images, which the interval resamples: single images, of any validation set in use
_GROUP_BYTES = 2**27  # that their counts take at most
_BACKGROUNDS = ("background", "other")  # names of a class 0 that stands for all that has no class


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is counted besides the confusion matrix."""

    boundary: bool = True


def fit(features: Features, pairs: Iterable[Pair], settings: Settings) -> None:
    """Nothing: a segmentor has learnt its classes."""


def predict(features: Features, fitted: None, image: Tensor, settings: Settings) -> Prediction:
    """What the segmentor says: its label map is all the features that there are."""
    return Prediction(features(image))


# Counts


def group_count(images: int, classes: int) -> int:
    """How many groups images are counted in: one each, unless there are too many to remember.

    >>> group_count(500, 19), group_count(100_000, 171), group_count(12_419, 920)
    (500, 5000, 5000)
    """
    return max(1, min(images, _GROUPS, _GROUP_BYTES // (24 * classes)))  # three int64 for each class


def empty(space: LabelSpace, images: int, settings: Settings) -> Counts:
    """Confusion matrices of blocks, class counts of groups (hits, labelled, predicted), boundary pixels, images."""
    classes = len(space.classes)
    shapes: dict[str, tuple[int, ...]] = {
        "confusion": (min(BLOCKS, images), classes, classes),
        "classes": (group_count(images, classes), classes, 3),
        "images": (1,),
    }
    if settings.boundary:
        shapes["boundary"] = (1, classes, 3)
    return Counts({name: torch.zeros(shape, dtype=torch.int64) for name, shape in shapes.items()}, {})


def count(prediction: Prediction, labels: Tensor, space: LabelSpace, settings: Settings) -> Counts:
    """The confusion matrix (C, C) of an image, its class counts (C, 3), and those of its boundaries."""
    classes = len(space.classes)
    matrix = confusion_matrix(prediction.labels, labels, classes)
    sums = {"confusion": matrix, "classes": block_counts(matrix), "images": torch.tensor(1)}
    if settings.boundary:
        sums["boundary"] = boundary_counts(prediction.labels, labels, classes)
    return Counts(sums, {})


def confusion_of(counts: Counts) -> Tensor:
    """The confusion matrix (C, C) of all images."""
    return counts.sums["confusion"].sum(0)


# Scores


def scores(counts: Counts, fitted: None, space: LabelSpace, settings: Settings) -> dict[str, Any]:
    """All scores, with the rules they follow, and a row for each class; means are in 0..1, null where undefined."""
    confusion, edges = confusion_of(counts), _boundary_of(counts)
    frequent = int(confusion.sum(1).argmax())
    return {
        "rule": RULE,
        "miou": number_or_none(mean_iou(confusion)),
        "miou_interval": interval(counts.sums["classes"], int(counts.sums["images"])),
        "macc": number_or_none(mean_accuracy(confusion)),
        "aacc": number_or_none(pixel_accuracy(confusion)),
        "mdice": number_or_none(float(class_dice(confusion).nanmean())),
        "boundary_rule": BOUNDARY_RULE,
        "boundary_miou": None if edges is None else number_or_none(float(count_miou(edges))),
        "conventions": other_means(confusion, space),
        "classes_counted": int((~class_iou(confusion).isnan()).sum()),
        "majority": {"class": space.classes[frequent], "miou": number_or_none(mean_iou(majority(confusion)))},
        "classes": _rows(confusion, edges, space),
        "confusion": confusion.tolist(),
        # of images in a row: hits, labelled, predicted by class
        "blocks": block_counts(counts.sums["confusion"]).tolist(),
    }


def _boundary_of(counts: Counts) -> Tensor | None:
    return counts.sums["boundary"].sum(0) if "boundary" in counts.sums else None


def _rows(confusion: Tensor, edges: Tensor | None, space: LabelSpace) -> list[dict[str, Any]]:
    undefined = torch.full((len(confusion),), math.nan)
    columns = {
        "iou": class_iou(confusion),
        "acc": class_accuracy(confusion),
        "dice": class_dice(confusion),
        "precision": class_precision(confusion),
        "boundary_iou": undefined if edges is None else count_iou(edges),
    }
    pixels = {"labelled_pixels": confusion.sum(1), "predicted_pixels": confusion.sum(0)}
    return [
        {
            "name": name,
            **{key: number_or_none(float(column[i])) for key, column in columns.items()},
            **{key: int(column[i]) for key, column in pixels.items()},
        }
        for i, name in enumerate(space.classes)
    ]


def interval(groups: Tensor, images: int) -> dict[str, Any] | None:
    """The interval of the mIoU over images, counted in groups (N, C, 3), and how it came about; None for one group."""
    if len(groups) < 2:
        return None
    low, high = miou_interval(groups, generator(0, "interval"), REPLICATES)
    drawn = "images" if len(groups) == images else f"{len(groups)} groups of {-(-images // len(groups))} images at most"
    return {
        "low": number_or_none(low),
        "high": number_or_none(high),
        "rule": (
            f"95 % percentile bootstrap over {drawn}, {REPLICATES} replicates, which takes them as independent; "
            "a replicate without a class leaves it out of its mean"
        ),
        "images": images,
        "groups": len(groups),
        "replicates": REPLICATES,
    }


def other_means(confusion: Tensor, space: LabelSpace) -> list[dict[str, Any]]:
    """Means of the IoU by other rules than the one that is reported first: name, rule, value in 0..1 or null.

    What a paper calls mIoU depends on its evaluation code; a number can be compared only with one made by the same
    rule.
    """
    rows = [
        ("labelled", "mean IoU over classes with labelled pixels", mean_iou_of_labelled(confusion)),
        ("all", "mean IoU over all classes, absent ones as 0", mean_iou_of_all(confusion)),
    ]
    if space.classes[0].lower() in _BACKGROUNDS and len(space.classes) > 1:
        rule = f"mean IoU without class 0, {space.classes[0]}, whose pixels still count as errors of the others"
        rows.append(("foreground", rule, mean_iou_of(confusion, slice(1, None))))
    return [{"name": name, "rule": rule, "value": number_or_none(value)} for name, rule, value in rows]


def number_or_none(value: float) -> float | None:
    """The value, as JSON has it: None where it is no finite number."""
    return value if math.isfinite(value) else None
