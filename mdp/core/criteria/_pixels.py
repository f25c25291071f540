"""What criteria have in common that are a sum over pixels: class weights, and the choice of hard pixels."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from torch import Tensor

from mdp.core.bounds import Bounds, Weight, check_bounds
from mdp.core.class_weights import check_class_weights
from mdp.core.criteria import Part
from mdp.core.ohem import OhemSettings, trained_labels

ClassWeight = Annotated[float, Bounds(0, 1e6)]


@dataclass(frozen=True, kw_only=True)
class PixelSettings:
    """Settings of a criterion that is a sum over pixels."""

    weight: Weight = 1.0  # what it counts in a sum of criteria
    class_weights: str | tuple[ClassWeight, ...] | dict[str, ClassWeight] | None = None  # balanced or numbers
    ohem: OhemSettings = field(default_factory=OhemSettings)

    def __post_init__(self) -> None:
        check_bounds(self)
        check_class_weights(self.class_weights)


def labels_and_weights(part: Part, settings: Any) -> tuple[Tensor, Tensor | None]:
    """The labels (B, H, W) that are trained on, and the weight of each class (C,), once these are numbers."""
    weights = settings.class_weights
    assert weights is None or isinstance(weights, tuple), "names and rules become numbers where the classes are known"
    labels = trained_labels(part.logits, part.labels, settings.ohem)
    return labels, None if weights is None else torch.tensor(weights)
