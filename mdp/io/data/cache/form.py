"""The form in which labels are kept: classes of their own dataset, a byte a pixel where that is enough."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdp.core.labels import IGNORE, LabelUnion

_IGNORED = 255  # in bytes


def ignored_of(labels: Tensor) -> int:
    """What stands for ignored in labels of that form."""
    return _IGNORED if labels.dtype == torch.uint8 else IGNORE


def form_of(union: LabelUnion) -> torch.dtype:
    """Bytes, or int16 where a dataset has more than 255 classes."""
    most = max((len(space.classes) for space in union.spaces), default=0)
    return torch.uint8 if most <= _IGNORED else torch.int16


def first_classes(union: LabelUnion, datasets: Sequence[str]) -> NDArray[np.int16]:
    """Where the classes of each sample's dataset begin in the union."""
    return np.array([union.classes_of(name).start for name in datasets], dtype=np.int16)


def own(labels: Tensor, first: int, form: torch.dtype) -> Tensor:
    """Union classes (H, W) int16 of one dataset in the form that is kept.

    >>> own(torch.tensor([[-1, 7]], dtype=torch.int16), 5, torch.uint8).tolist()
    [[255, 2]]
    """
    ignored = _IGNORED if form == torch.uint8 else IGNORE
    return torch.where(labels == IGNORE, ignored, labels - first).to(form)


def of_union(kept: Tensor, first: Tensor | int) -> Tensor:
    """`own` backwards, int16; `first` broadcasts.

    >>> of_union(torch.tensor([[255, 2]], dtype=torch.uint8), 5).tolist()
    [[-1, 7]]
    """
    return (kept.to(torch.int16) + first).masked_fill_(kept == ignored_of(kept), IGNORE)
