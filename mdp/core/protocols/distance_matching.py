"""Distance matching: what features know of categories, without training anything on them (2106.03149, section 3.2.1).

Labelled images are looked at first and kept as one vector for each class in each of them; every pixel gets the class
that its nearest vectors vote for.  Scores are those of ImageNet-S; nothing is matched afterwards, since vectors have
names.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor
from torch.nn import functional as F

from mdp.core.boundaries import RATIO
from mdp.core.bounds import Bounds, Share, check_bounds
from mdp.core.distance_matching import UPSAMPLING, Memory, class_vectors, joined_memory, nearest_classes
from mdp.core.protocols import Counts, Features, Pair, Prediction, luss
from mdp.label_space import LabelSpace

FIT_SPLIT = "train"
_RULE = "; predicted by distance matching"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How pixels find their class, and what is counted."""

    neighbours: Annotated[int, Bounds(1, 10**6)] = 10  # k; stated by the released code
    temperature: Annotated[float, Bounds(1e-6, 1e3)] = 0.07  # of the vote; stated by the released code
    ratios: tuple[Share, ...] = (RATIO,)  # of the diagonal, that boundaries reach inwards

    def __post_init__(self) -> None:
        check_bounds(self)
        _ = self.counted

    @property
    def counted(self) -> luss.Settings:
        """The settings of the scores.  Raises ValueError for ratios that are none."""
        return luss.Settings(ratios=self.ratios, matching="none")


def fit(features: Features, pairs: Iterable[Pair], settings: Settings) -> Memory:
    """A vector for each class in each image.  Raises ValueError where no image has a label."""
    return joined_memory(class_vectors(features(image), labels.long()) for image, labels in pairs)


def predict(features: Features, fitted: Memory, image: Tensor, settings: Settings) -> Prediction:
    """The classes at four times the features' resolution, brought to the image's size by the nearest."""
    found = nearest_classes(features(image), fitted, settings.neighbours, settings.temperature, UPSAMPLING)
    return Prediction(F.interpolate(found[None, None].double(), image.shape[1:], mode="nearest")[0, 0].long().cpu())


def empty(space: LabelSpace, images: int, settings: Settings) -> Counts:
    """The number of images, and no rows."""
    return luss.empty(space, images, settings.counted)


def count(prediction: Prediction, labels: Tensor, space: LabelSpace, settings: Settings) -> Counts:
    """The marks of an image: what is where, and what is on boundaries."""
    return luss.count(prediction, labels, space, settings.counted)


def scores(counts: Counts, fitted: Memory | None, space: LabelSpace, settings: Settings) -> dict[str, Any]:
    """All scores of ImageNet-S, and how large the memory was where `fitted` is it."""
    found = luss.scores(counts, None, space, settings.counted)
    return {
        **found,
        "rule": found["rule"] + _RULE,
        "neighbours": settings.neighbours,
        "temperature": settings.temperature,
        "vectors": len(fitted.labels) if fitted else None,
    }
