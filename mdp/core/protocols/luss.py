"""The scores of ImageNet-S, for predictions whose categories have no names yet (2106.03149, section 3.2).

Class 0 of the label space is "other", the rest are the categories.  What was generated without labels is matched with
them first, by the images in which both occur; what has the categories' own numbers already is taken as it is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mdp.core.boundaries import RATIO
from mdp.core.bounds import Share, check_bounds
from mdp.core.chance import generator
from mdp.core.luss import SIZES, Marks, image_marks, luss_interval, luss_scores, match, matching_counts, same_names
from mdp.core.protocols import Counts, Features, Pair, Prediction
from mdp.core.protocols.segmentation import number_or_none
from mdp.label_space import LabelSpace

FIT_SPLIT = None
RULE = (
    "means over all classes, absent ones as 0, from sums over all images at the label maps' own resolution, ignored "
    "pixels left out (ImageNet-S); means by size are over classes that are labelled there"
)
MATCHINGS = ("images", "none")
_REPLICATES = 1000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is counted, and how predicted categories get their names."""

    ratios: tuple[Share, ...] = (RATIO,)  # of the diagonal, that boundaries reach inwards
    matching: str = "images"  # by the images in which both occur | none: predictions have the categories' numbers

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.matching not in MATCHINGS:
            raise ValueError(f"matching: expected {' or '.join(MATCHINGS)}, got {self.matching!r}")
        if not self.ratios or len({*self.ratios}) < len(self.ratios):
            raise ValueError(f"ratios: expected one share or more, all different, got {list(self.ratios)}")


def fit(features: Features, pairs: Iterable[Pair], settings: Settings) -> None:
    """Nothing: categories are matched afterwards, from the counts."""


def predict(features: Features, fitted: None, image: Tensor, settings: Settings) -> Prediction:
    """What the segmentor says: its label map is all the features that there are."""
    return Prediction(features(image))


def empty(space: LabelSpace, images: int, settings: Settings) -> Counts:
    """The number of images, and no rows."""
    marks = {name: torch.zeros(0, 5, dtype=torch.int64) for name in ("areas", *map(_edges, settings.ratios))}
    return Counts({"images": torch.zeros(1, dtype=torch.int64)}, marks)


def _edges(ratio: float) -> str:
    return f"edges {ratio}"


def count(prediction: Prediction, labels: Tensor, space: LabelSpace, settings: Settings) -> Counts:
    """The marks of an image: what is where, and what is on boundaries."""
    found = [image_marks(prediction.labels, labels, prediction.levels, ratio) for ratio in settings.ratios]
    edges = {_edges(ratio): marks.edges for ratio, marks in zip(settings.ratios, found, strict=True)}
    return Counts({"images": torch.tensor(1)}, {"areas": found[0].areas, **edges})


def scores(counts: Counts, fitted: Tensor | None, space: LabelSpace, settings: Settings) -> dict[str, Any]:
    """All scores in 0 .. 1, null where undefined; `fitted` is a matching (K + 1,) that was found elsewhere.

    Raises ValueError for predicted numbers that the matching does not have.
    """
    categories, images, areas = len(space.classes) - 1, int(counts.sums["images"]), counts.marks["areas"]
    generated = int(areas[:, 2].max()) if len(areas) else 0
    marks = {ratio: Marks(images, areas, counts.marks[_edges(ratio)]) for ratio in settings.ratios}
    first = marks[settings.ratios[0]]
    if fitted is not None:
        names = fitted
    elif settings.matching == "none":
        names = same_names(categories)
    else:
        names = match(matching_counts(first, categories, max(generated, 1)))
    found = {ratio: luss_scores(own, names, categories) for ratio, own in marks.items()}
    plain = found[settings.ratios[0]]
    return {
        "rule": RULE,
        "images": images,
        "categories": categories,
        "generated": generated,
        "matching": "given" if fitted is not None else settings.matching,
        "miou": number_or_none(plain.miou),
        "miou_interval": _interval(first, names, categories),
        "miou_of_categories": number_or_none(plain.miou_of_categories),
        "image_accuracy": number_or_none(plain.image_accuracy),
        "f_beta": number_or_none(plain.f_beta),
        "miou_by_size": _by_size(plain.miou_by_size),
        "boundary": [
            {
                "ratio": ratio,
                "miou": number_or_none(own.boundary_miou),
                "miou_of_categories": number_or_none(own.boundary_miou_of_categories),
                "miou_by_size": _by_size(own.boundary_miou_by_size),
            }
            for ratio, own in found.items()
        ],
        "names": names.tolist(),
    }


def _interval(marks: Marks, names: Tensor, categories: int) -> dict[str, Any] | None:
    if marks.images < 2:
        return None
    low, high = luss_interval(marks, names, categories, generator(0, "interval"), _REPLICATES)
    rule = f"95 % percentile bootstrap over {marks.images} images, {_REPLICATES} replicates, the matching kept"
    return {"low": number_or_none(low), "high": number_or_none(high), "rule": rule}


def _by_size(scores: tuple[float, ...]) -> dict[str, float | None]:
    return dict(zip(SIZES, map(number_or_none, scores), strict=True))
