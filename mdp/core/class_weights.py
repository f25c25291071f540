"""Class weights: given by hand, or balanced by the classes' shares of the data.

Shape legend: B images, C classes, H x W image.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from mdp.core.float64 import in_float64
from mdp.core.labels import IGNORE

# "balanced"; a number for each class; or numbers by a class's name or number, 1 for those that are not named
ClassWeights: TypeAlias = str | tuple[float, ...] | dict[str, float] | None
BALANCED = "balanced"


def check_class_weights(weights: ClassWeights) -> None:
    """Raises ValueError, naming the setting, for a word that is no rule, and where no class counts."""
    if isinstance(weights, str) and weights != BALANCED:
        raise ValueError(
            f"class_weights: expected {BALANCED}, a list with a number for each class, or numbers by class, such as "
            f"{{rider: 3}}, got {weights!r}"
        )
    if isinstance(weights, tuple) and not any(weights):
        raise ValueError(f"class_weights: expected a number above 0 among them, got {list(weights)}")


def weights_of(weights: ClassWeights, classes: Sequence[str], pixels: Tensor | None) -> tuple[float, ...] | None:
    """The weight of each of the classes; None where all weigh 1.  `pixels` (C,) of the data are for balanced ones.

    Raises ValueError, naming the setting, for a class that there is not, or another number of weights than of classes.

    >>> weights_of({"rider": 3.0, "0": 0.5}, ["road", "car", "rider"], None)
    (0.5, 1.0, 3.0)
    """
    if weights is None:
        return None
    if isinstance(weights, str):
        assert pixels is not None, "balanced weights are those of some data"
        return tuple(balanced_weights(pixels).tolist())
    if isinstance(weights, Mapping):
        found = [1.0] * len(classes)
        for name, weight in weights.items():
            found[_class_of(name, classes)] = weight
        weights = tuple(found)
    if len(weights) != len(classes):
        raise ValueError(
            f"class_weights: expected {len(classes)} numbers, one for each class, got {len(weights)}; by name, as in "
            f"{{{classes[-1]}: 3}}, those that are not named weigh 1"
        )
    check_class_weights(weights)
    return weights


def _class_of(name: str, classes: Sequence[str]) -> int:
    """The number of a class by its name, or by that number."""
    if name in classes:
        return classes.index(name)
    if name.isdecimal() and int(name) < len(classes):
        return int(name)
    close = difflib.get_close_matches(name, classes, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"expected a name or a number of 0 to {len(classes) - 1}"
    raise ValueError(f"class_weights: no class {name!r} among the {len(classes)}; {hint}")


def balanced_weights(pixels: Tensor) -> Tensor:
    """Weights (C,) float32 by which every class weighs the same: inverse to its share of the pixels (C,).

    Pixels weigh 1 on average; a class without pixels gets weight 0, and the others are those of a training without it.
    Raises ValueError for counts below 0, or where there is no pixel at all.

    >>> balanced_weights(torch.tensor([6, 2, 0]))
    tensor([0.6667, 2.0000, 0.0000])
    """
    counts = pixels.double()
    if (counts < 0).any() or not (counts > 0).any():
        raise ValueError(f"balanced weights: expected numbers of pixels, some above 0, got {pixels.tolist()[:10]}")
    present = counts > 0
    weights = torch.where(present, counts.sum() / (present.sum() * counts.clamp(min=1)), 0)
    return weights.float()


def total_weight(labels: Tensor, weights: Tensor) -> Tensor:
    """The weights (C,) of the classes of all valid pixels of labels (B, H, W), summed: a mean's divisor.

    Sums of parts and of processes add up to that of the batch.

    >>> total_weight(torch.tensor([[[0, 1, -1]]]), torch.tensor([0.5, 2.0]))
    tensor(2.5000)
    """
    flat = labels.flatten()
    counts = flat.new_zeros(len(weights), dtype=torch.int64)
    counts.scatter_add_(0, flat.clamp(min=0).long(), (flat != IGNORE).long())  # where `bincount` waits for a GPU
    return (in_float64(counts) * in_float64(weights)).sum().float().to(labels.device)
