"""Ways to score predictions, one file each: what is counted in an image, and which scores are made of the counts.

A protocol owns nothing.  It may look at labelled images first (`fit`: a memory of neighbours, a mean for each class),
says what is predicted from an image's features, what is counted in it, and what the counts of all images say.  Counts
are data, and scores functions of counts: so counts add up over images and processes, and a prediction that was read
from a file enters at `count` like any other.
Shape legend: C classes, D channels, H x W image, h x w feature grid, K parts of a split, R rows of marks.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.label_space import LabelSpace

Features = Callable[[Tensor], Tensor]  # of an image (3, H, W) uint8: a label map (H, W), or a map (D, h, w)
Pair = tuple[Tensor, Tensor]  # image (3, H, W) uint8, labels (H, W) of the union


class Prediction(NamedTuple):
    """The answer for one image."""

    labels: Tensor  # (H, W) int64: classes, or categories that the protocol matches with classes
    levels: Tensor | None = None  # (H, W) int64: how sure each pixel is, where a threshold is chosen afterwards


class Counts(NamedTuple):
    """The counts of one image, or of many.

    Of an image, `sums` are as they are and `marks` (R, columns).  Of many, `sums` have the parts of the split in front,
    (K, ...), and each row of `marks` its image's number, (R, 1 + columns).
    """

    sums: Mapping[str, Tensor]  # dense, int64: add up over images and processes
    marks: Mapping[str, Tensor]  # sparse, int64 rows that tell an image's own counts: are joined


@dataclass(frozen=True, slots=True)
class Counted:
    """An image of a split, what was predicted in it, and what was counted: what there is to look at while scoring."""

    index: int  # in the split
    name: str  # the photo's
    image: Tensor  # (3, H, W) uint8
    labels: Tensor  # (H, W) integer
    prediction: Prediction
    counts: Counts  # of this image


class EvaluationProtocol(Protocol):
    """The names that a module in this folder offers."""

    @property
    def Settings(self) -> type:
        """Frozen dataclass of the protocol's settings."""

    @property
    def FIT_SPLIT(self) -> str | None:
        """The split whose labels it may look at first, "train" the dataset's own choice; None: it looks at none."""

    def fit(self, features: Features, pairs: Iterable[Pair], settings: Any) -> Any:
        """What is learnt from the labelled images of that split, the same on every process; they come one by one."""

    def predict(self, features: Features, fitted: Any, image: Tensor, settings: Any) -> Prediction:
        """The answer for an image (3, H, W) uint8, at its own size."""

    def empty(self, space: LabelSpace, images: int, settings: Any) -> Counts:
        """The counts of no image of a split of so many: zeros (K, ...) that say in how many parts each is kept.

        Images in a row are in one part, so that a score can tell how much it depends on the choice of images.
        """

    def count(self, prediction: Prediction, labels: Tensor, space: LabelSpace, settings: Any) -> Counts:
        """The counts of one image with labels (H, W).  Raises ValueError for numbers that are no class."""

    def scores(self, counts: Counts, fitted: Any, space: LabelSpace, settings: Any) -> dict[str, Any]:
        """All scores as JSON; a matching of categories with classes is found here, from the counts."""


def collect(counted: Iterable[tuple[int, Counts]], empty: Counts, images: int) -> Counts:
    """The counts of images of a split of so many together, each given with its number: dense ones by sum, marks joined.

    Image i is in part i K // images of a count that is kept in K parts.

    >>> empty = Counts({"pixels": torch.zeros(2, 1, dtype=torch.int64)}, {})
    >>> counted = [(i, Counts({"pixels": torch.tensor([i])}, {})) for i in range(4)]
    >>> collect(counted, empty, images=4).sums["pixels"].tolist()
    [[1], [5]]
    """
    sums = {name: parts.clone() for name, parts in empty.sums.items()}
    marks = {name: [rows] for name, rows in empty.marks.items()}
    for index, counts in counted:
        for name, parts in sums.items():
            parts[index * len(parts) // images] += counts.sums[name]
        for name, rows in marks.items():
            rows.append(F.pad(counts.marks[name], (1, 0), value=index))  # (R, 1 + columns)
    return Counts(sums, {name: torch.cat(rows) for name, rows in marks.items()})


def joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The marks of several processes as one, in the order of the images, whoever had them.

    >>> joined([{"a": torch.tensor([[0, 7], [2, 8]])}, {"a": torch.tensor([[1, 9]])}])["a"].tolist()
    [[0, 7], [1, 9], [2, 8]]
    """
    together = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return {name: rows[rows[:, 0].argsort(stable=True)] for name, rows in together.items()}


if TYPE_CHECKING:  # here mypy holds every protocol to the Protocol
    from mdp.core.protocols import distance_matching, luss, segmentation

    CHECKED: tuple[EvaluationProtocol, ...] = (distance_matching, luss, segmentation)
