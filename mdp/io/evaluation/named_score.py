"""A score of an evaluation by its name: what `best` is chosen by."""

import difflib
from collections.abc import Callable

from torch import Tensor

from mdp.core.comparison import count_iou, count_miou
from mdp.core.labels import LabelSpace
from mdp.core.metrics import class_dice, class_iou, mean_accuracy, mean_iou, pixel_accuracy
from mdp.core.protocols import Counts
from mdp.core.protocols.segmentation import confusion_of

_MEANS: dict[str, Callable[[Tensor], float]] = {  # of a confusion matrix
    "miou": mean_iou,
    "macc": mean_accuracy,
    "aacc": pixel_accuracy,
    "mdice": lambda confusion: float(class_dice(confusion).nanmean()),
}


def needs_boundaries(name: str) -> bool:
    """Whether the score is of pixels at boundaries, which are counted only where they are asked for."""
    return name.startswith("boundary_")


def named_score(name: str, counts: Counts, space: LabelSpace) -> float:
    """The score of that name, in 0..1, NaN where it is undefined: `miou`, `iou:car`, ...

    Its class, if it is of one, is there: see `expect_class`.
    """
    score, _, label = name.partition(":")
    if not label:
        return float(count_miou(_boundary(counts))) if needs_boundaries(name) else _MEANS[score](confusion_of(counts))
    scores = count_iou(_boundary(counts)) if needs_boundaries(name) else class_iou(confusion_of(counts))
    return float(scores[space.classes.index(label)])


def expect_class(name: str, space: LabelSpace) -> None:
    """Raises ValueError where the label space does not have the class that the score's name has behind its colon."""
    _, _, label = name.partition(":")
    if not label or label in space.classes:
        return
    near = difflib.get_close_matches(label, space.classes, n=3)
    hint = f"; near it: {', '.join(near)}" if near else f"; they begin with {', '.join(space.classes[:3])}"
    raise ValueError(f"best: {name!r}: {space.name} has no class {label!r} among its {len(space.classes)}{hint}")


def _boundary(counts: Counts) -> Tensor:
    return counts.sums["boundary"].sum(0)
