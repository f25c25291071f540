"""Boundary IoU: how well the edges of the regions agree, whatever the regions' size (ImageNet-S, arXiv 2106.03149).

The boundary of a value in a label map are its pixels within a distance d of a pixel of another value, or of the outside
of the image; distances are Chebyshev's.  Boundaries are found on complete maps, where ignore is a value like any other;
pixels that the ground truth ignores are left out afterwards.

Shape legend: C classes, H x W label map.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mdp.core.label_checks import ADVICE
from mdp.core.labels import IGNORE

RATIO = 0.03  # of the image's diagonal, as ImageNet-S has it; Boundary AP takes 0.02


def boundary_width(height: int, width: int, ratio: float = RATIO) -> int:
    """d in pixels: a share of the diagonal, rounded, at least 1.

    >>> boundary_width(40, 40), boundary_width(1, 1), boundary_width(1024, 2048)
    (2, 1, 69)
    """
    return max(1, round(ratio * math.hypot(height, width)))


def boundary(labels: Tensor, distance: int) -> Tensor:
    """Which pixels (H, W) bool lie within `distance` of another value or of the outside of the image.

    A window holds another value when its lowest or its highest one differs from the pixel, so the time depends neither
    on the number of classes nor, but for a logarithm, on the distance.

    >>> boundary(torch.tensor([[1, 1, 1, 1, 2]] * 5), 1)[2].tolist()
    [True, False, False, True, True]
    """
    inside = torch.ones(labels.shape, dtype=torch.bool, device=labels.device)
    window = 2 * distance + 1
    if min(labels.shape) < window:
        return inside  # every window leaves the image
    lowest, highest = (
        _sliding(_sliding(labels, window, 0, extreme), window, 1, extreme) for extreme in (torch.minimum, torch.maximum)
    )
    inside[distance:-distance, distance:-distance] = lowest != highest
    return inside


def _sliding(values: Tensor, window: int, axis: int, extreme: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The extreme of every whole window along an axis, by doubling: two windows of a make one of 2 a."""
    size = 1
    while size < window:
        step = min(size, window - size)
        count = values.shape[axis] - step
        values = extreme(values.narrow(axis, 0, count), values.narrow(axis, step, count))
        size += step
    return values


def boundary_counts(prediction: Tensor, labels: Tensor, classes: int, ratio: float = RATIO) -> Tensor:
    """(C, 3) int64 counts of boundary pixels by class: in both, in the labels', in the prediction's.

    Of label maps (H, W), `IGNORE` where ignored; counts add across images, and `count_iou` makes scores of them.

    Raises ValueError for shapes that differ and for values outside 0 .. classes - 1.
    """
    if prediction.shape != labels.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and labels {tuple(labels.shape)} differ in shape")
    valid = labels != IGNORE
    for name, values, least in (("labels", labels, min(IGNORE, 0)), ("prediction", prediction, 0)):
        if values.numel() and not (int(values.min()) >= least and int(values.max()) < classes):
            found = f"{name}: values {int(values.min())}..{int(values.max())} outside 0..{classes - 1}"
            raise ValueError(f"{found}; {ADVICE}" if name == "labels" else found)
    if classes < 2**15:  # a quarter of the memory traffic of int64
        prediction, labels = prediction.to(torch.int16), labels.to(torch.int16)
    distance = boundary_width(labels.shape[0], labels.shape[1], ratio)
    true_edge, guessed_edge = boundary(labels, distance) & valid, boundary(prediction, distance) & valid
    both = true_edge & guessed_edge & (labels == prediction)
    chosen = ((both, labels), (true_edge, labels), (guessed_edge, prediction))
    return torch.stack([_counts(edge, values, classes) for edge, values in chosen], -1)


def _counts(chosen: Tensor, values: Tensor, classes: int) -> Tensor:
    """How often each class is among the chosen pixels; picking them out first would take three times as long."""
    spare = torch.where(chosen, values, classes).flatten()  # what is not chosen is counted as class C
    return torch.bincount(spare.long(), minlength=classes + 1)[:classes]
