"""Other means of the IoU than the one that is reported first, each with its rule in words.

What a paper calls mIoU depends on its evaluation code; a number can be compared only with one made by the same rule.
"""

import math
from typing import Any

import torch
from torch import Tensor

from mdp.core.labels import LabelSpace
from mdp.core.metrics import mean_iou, mean_iou_of, mean_iou_of_all, mean_iou_of_labelled, merge_classes, pixel_accuracy
from mdp.io.datasets import ade20k, cityscapes, coco_stuff

_BACKGROUNDS = ("background", "other")  # names of a class 0 that stands for all that has no class
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
    rows = [
        ("labelled", "mean IoU over classes with labelled pixels", mean_iou_of_labelled(confusion)),
        ("all", "mean IoU over all classes, absent ones as 0", mean_iou_of_all(confusion)),
    ]
    if space.classes[0].lower() in _BACKGROUNDS and len(space.classes) > 1:
        rule = f"mean IoU without class 0, {space.classes[0]}, whose pixels still count as errors of the others"
        rows.append(("foreground", rule, mean_iou_of(confusion, slice(1, None))))
    rows += _of_dataset(confusion, space)
    return [
        {"name": name, "rule": rule, "value": value if math.isfinite(value) else None} for name, rule, value in rows
    ]


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
