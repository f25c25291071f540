"""The means that the benchmarks of some datasets report, each with its rule in words."""

from typing import Any

import torch
from torch import Tensor

from mdp.core.labels import LabelSpace
from mdp.core.metrics import mean_iou, mean_iou_of, mean_iou_of_all, merge_classes, pixel_accuracy
from mdp.core.protocols.segmentation import number_or_none, other_means
from mdp.io.datasets import ade20k, cityscapes, coco_stuff

_THINGS = 80  # of COCO-Stuff's classes come first, then 91 of stuff
_CATEGORIES = {  # of Cityscapes
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}


def conventions(confusion: Tensor, space: LabelSpace) -> list[dict[str, Any]]:
    """The means by other rules, of a confusion matrix (C, C), as JSON: name, rule, value in 0..1 or null."""
    rows = _of_dataset(confusion, space)
    own = [{"name": name, "rule": rule, "value": number_or_none(value)} for name, rule, value in rows]
    return other_means(confusion, space) + own


def _of_dataset(confusion: Tensor, space: LabelSpace) -> list[tuple[str, str, float]]:
    """The means that the benchmark of a dataset reports besides."""
    if space.classes == ade20k.LABELS.classes:
        rule = "ADE20K scene parsing: mean of pixel accuracy and mean IoU over all 150 classes, absent ones as 0"
        return [("ade20k score", rule, (pixel_accuracy(confusion) + mean_iou_of_all(confusion)) / 2)]
    if space.classes == coco_stuff.LABELS.classes:
        return [
            ("things", "mean IoU over COCO-Stuff's 80 thing classes", mean_iou_of(confusion, slice(0, _THINGS))),
            ("stuff", "mean IoU over COCO-Stuff's 91 stuff classes", mean_iou_of(confusion, slice(_THINGS, None))),
        ]
    if space.classes == cityscapes.LABELS.classes:
        rule = "mean IoU over Cityscapes' 7 categories, classes of one category taken as one"
        return [("categories", rule, mean_iou(merge_classes(confusion, category_groups())))]
    return []


def category_groups() -> Tensor:
    """The category (C,) int64 of each of Cityscapes' classes."""
    group_of = {name: group for group, names in enumerate(_CATEGORIES.values()) for name in names}
    return torch.tensor([group_of[name] for name in cityscapes.CLASSES])
