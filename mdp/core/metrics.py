"""Scores of a segmentation as functions of counts.

A confusion matrix is a (C, C) int64 tensor, rows the ground truth, columns the prediction; it adds across images and
processes, and every score is computed from the sum.
"""

import torch
from torch import Tensor

from mdp.core.labels import IGNORE


def confusion_matrix(prediction: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Pixel counts (C, C) int64 by true class (row) and predicted class (column); `IGNORE` labels are left out.

    Raises ValueError for shapes that differ and for values outside 0 .. classes - 1.

    >>> confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 0, -1]), classes=2).tolist()
    [[1, 1], [0, 0]]
    """
    if prediction.shape != labels.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and labels {tuple(labels.shape)} differ in shape")
    valid = labels != IGNORE
    truth, guess = labels[valid].long(), prediction[valid].long()
    for name, values in (("labels", truth), ("prediction", guess)):
        if len(values) and not (int(values.min()) >= 0 and int(values.max()) < classes):
            raise ValueError(f"{name}: values {int(values.min())}..{int(values.max())} outside 0..{classes - 1}")
    return torch.bincount(truth * classes + guess, minlength=classes * classes).view(classes, classes)


def class_iou(confusion: Tensor) -> Tensor:
    """Intersection over union of each class, (C,) float64; NaN where the class is neither labelled nor predicted."""
    counts = confusion.double()
    hits = counts.diagonal()
    return hits / (counts.sum(0) + counts.sum(1) - hits)


def class_accuracy(confusion: Tensor) -> Tensor:
    """Share of each class's pixels that is predicted right, (C,) float64; NaN where the class is not labelled."""
    counts = confusion.double()
    return counts.diagonal() / counts.sum(1)


def mean_iou(confusion: Tensor) -> float:
    """Mean IoU over the classes whose union is not empty (MMSegmentation's rule, the paper's), in 0..1.

    A class that is absent from the labels but predicted somewhere counts as 0.  NaN when nothing was counted.

    >>> mean_iou(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    0.775
    """
    return float(class_iou(confusion).nanmean())


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
