"""Scores of a segmentation as functions of counts.

A confusion matrix is a (C, C) int64 tensor, rows the ground truth, columns the prediction; it adds across images and
processes, and every score is computed from the sum.
"""

import torch
from torch import Tensor

from mdp.core.label_checks import ADVICE
from mdp.core.labels import IGNORE

_BYTES = 256  # values of a byte


def confusion_matrix(prediction: Tensor, labels: Tensor, classes: int, ignored: int = IGNORE) -> Tensor:
    """Pixel counts (C, C) int64 by true class (row) and predicted class (column); labels `ignored` are left out.

    Two maps of bytes (uint8) with 255 for ignored, as files have them, are counted as they are.
    Raises ValueError for shapes that differ, for values outside 0 .. classes - 1, and where `ignored` is a class.

    >>> confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 0, -1]), classes=2).tolist()
    [[1, 1], [0, 0]]
    """
    if prediction.shape != labels.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and labels {tuple(labels.shape)} differ in shape")
    if 0 <= ignored < classes:
        raise ValueError(f"ignored: {ignored} is one of {classes} classes; expected {IGNORE} or a larger number")
    if prediction.dtype == labels.dtype == torch.uint8 and classes <= _BYTES:
        return _confusion_of_bytes(prediction, labels, classes, ignored)
    if ignored != IGNORE:
        labels = torch.where(labels == ignored, IGNORE, labels.long())
    if not (_within(labels, IGNORE, classes) and _within(prediction, 0, classes)):
        valid = labels != IGNORE
        for name, values in (("labels", labels[valid]), ("prediction", prediction[valid])):
            if not _within(values, 0, classes):
                found = f"{name}: values {int(values.min())}..{int(values.max())} outside 0..{classes - 1}"
                raise ValueError(f"{found}; {ADVICE}" if name == "labels" else found)
        prediction = torch.where(valid, prediction, 0)  # what is predicted for ignored pixels does not matter
    kind = torch.int32 if (classes + 1) * classes < 2**31 else torch.int64
    # ignored pixels are counted in a row of their own: leaving them out costs several passes over memory
    cell = prediction.to(kind, copy=True).add_(labels, alpha=classes).add_(-IGNORE * classes)
    return torch.bincount(cell.flatten(), minlength=(classes + 1) * classes)[classes:].view(classes, classes)


def _confusion_of_bytes(prediction: Tensor, labels: Tensor, classes: int, ignored: int) -> Tensor:
    """The same of bytes: all their 65,536 pairs are counted; what must not be there is looked for in the counts."""
    pair = labels.to(torch.int32).mul_(_BYTES).add_(prediction)
    counts = torch.bincount(pair.flatten(), minlength=_BYTES**2).view(_BYTES, _BYTES)
    if 0 <= ignored < _BYTES:
        counts[ignored] = 0
    for name, more in (("labels", counts[classes:].sum(1)), ("prediction", counts[:, classes:].sum(0))):
        if more.any():
            values = classes + more.nonzero().flatten()
            found = f"{name}: values {int(values.min())}..{int(values.max())} outside 0..{classes - 1}"
            raise ValueError(f"{found}; {ADVICE}" if name == "labels" else found)
    return counts[:classes, :classes].contiguous()


def _within(values: Tensor, least: int, end: int) -> bool:
    """Whether all values lie in least .. end - 1."""
    if values.numel() == 0:
        return True
    low, high = torch.aminmax(values)
    return int(low) >= least and int(high) < end


def class_iou(confusion: Tensor) -> Tensor:
    """Intersection over union of each class, (C,) float64; NaN where the class is neither labelled nor predicted."""
    counts = confusion.double()
    hits = counts.diagonal()
    return hits / (counts.sum(0) + counts.sum(1) - hits)


def class_accuracy(confusion: Tensor) -> Tensor:
    """Share of each class's pixels that is predicted right, (C,) float64; NaN where the class is not labelled."""
    counts = confusion.double()
    return counts.diagonal() / counts.sum(1)


def class_precision(confusion: Tensor) -> Tensor:
    """Share of each class's predicted pixels that is right, (C,) float64; NaN where the class is not predicted."""
    counts = confusion.double()
    return counts.diagonal() / counts.sum(0)


def class_dice(confusion: Tensor) -> Tensor:
    """Dice coefficient (F1) of each class, (C,) float64; NaN where the class is neither labelled nor predicted.

    >>> class_dice(torch.tensor([[3, 1], [0, 4]])).tolist() == [6 / 7, 8 / 9]
    True
    """
    counts = confusion.double()
    return 2 * counts.diagonal() / (counts.sum(0) + counts.sum(1))


def mean_iou(confusion: Tensor) -> float:
    """Mean IoU over the classes whose union is not empty (MMSegmentation's rule, the paper's), in 0..1.

    A class that is absent from the labels but predicted somewhere counts as 0.  NaN when nothing was counted.

    >>> mean_iou(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    0.775
    """
    return float(class_iou(confusion).nanmean())


def mean_iou_of_labelled(confusion: Tensor) -> float:
    """Mean IoU over the classes that the labels have; one that is only predicted does not count, in 0..1.

    >>> mean_iou_of_labelled(torch.tensor([[1, 1], [0, 0]]))
    0.5
    """
    return float(class_iou(confusion)[confusion.sum(1) > 0].mean())


def mean_iou_of_all(confusion: Tensor) -> float:
    """Mean IoU over all C classes, those whose union is empty counting as 0, in 0..1.

    >>> mean_iou_of_all(torch.tensor([[1, 0], [0, 0]]))
    0.5
    """
    return float(class_iou(confusion).nan_to_num(0).mean()) if int(confusion.sum()) else float("nan")


def mean_iou_of(confusion: Tensor, classes: slice) -> float:
    """Mean IoU over some of the classes, of these those whose union is not empty, in 0..1.

    All pixels count: one that is wrongly given to a class that is left out is still missing from its own.

    >>> mean_iou_of(torch.tensor([[3, 1], [0, 4]]), slice(1, None))
    0.8
    """
    return float(class_iou(confusion)[classes].nanmean())


def merge_classes(confusion: Tensor, groups: Tensor) -> Tensor:
    """The confusion matrix (G, G) of groups of classes; `groups` (C,) int64 says which group a class is in.

    >>> merge_classes(torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), torch.tensor([0, 0, 1])).tolist()
    [[12, 9], [15, 9]]
    """
    size = int(groups.max()) + 1
    rows = confusion.new_zeros(size, len(groups)).index_add(0, groups, confusion)  # (G, C)
    return confusion.new_zeros(size, size).index_add(1, groups, rows)


def mean_accuracy(confusion: Tensor) -> float:
    """Mean over labelled classes of the class accuracy (mAcc), in 0..1."""
    return float(class_accuracy(confusion).nanmean())


def majority(confusion: Tensor) -> Tensor:
    """The confusion matrix (C, C) of always naming the most frequent labelled class: the baseline of every score.

    >>> majority(torch.tensor([[3, 1], [2, 0]])).tolist()
    [[4, 0], [2, 0]]
    """
    labelled = confusion.sum(1)  # (C,)
    always = torch.zeros_like(confusion)
    always[:, labelled.argmax()] = labelled
    return always


def pixel_accuracy(confusion: Tensor) -> float:
    """Share of all labelled pixels that is predicted right (aAcc), in 0..1."""
    return float(confusion.diagonal().sum().double() / confusion.sum().double())
