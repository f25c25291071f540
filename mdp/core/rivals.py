"""Which classes of the union push each other away.

The paper lets all classes of all datasets compete, so a wall of one dataset is pushed from the wall of another.  A
table says otherwise: row t has the classes that a pixel of class t is compared with, t itself among them.
Shape legend: C classes of the union.
"""

import torch
from torch import Tensor

from mdp.core.labels import LabelUnion


def same_dataset(union: LabelUnion) -> Tensor:
    """(C, C) bool: whether two classes are of one dataset.

    >>> from mdp.label_space import LabelSpace
    >>> spaces = [LabelSpace(name="a", classes=("wall",)), LabelSpace(name="b", classes=("wall", "car"))]
    >>> same_dataset(LabelUnion(spaces)).int().tolist()
    [[1, 0, 0], [0, 1, 1], [0, 1, 1]]
    """
    sizes = torch.tensor([len(space.classes) for space in union.spaces])
    owner = torch.arange(len(sizes)).repeat_interleave(sizes)  # (C,)
    return owner[:, None] == owner
