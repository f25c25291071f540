"""The images of a split that a network does best, middling and worst on, of which a run keeps pictures at its end.

While the split is scored only each image's own mIoU is noted; the chosen few are predicted once more.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from mdp.core.labels import LabelSpace
from mdp.core.metrics import confusion_matrix, mean_iou
from mdp.core.protocols import Counted
from mdp.io.pictures.gallery import look, page
from mdp.io.processes.world import World

EACH = 2  # images of each kind
Guess = Callable[[int], tuple[Tensor, Tensor, Tensor]]  # index -> image (K, H, W), prediction and labels (H, W)


class Scored(NamedTuple):
    """An image of the split, and the mIoU of its own pixels."""

    miou: float
    sample: int  # its index in the split


class ImageScores:
    """The images that this process has scored; those without a labelled pixel have no score."""

    def __init__(self) -> None:
        self.scored: list[Scored] = []

    def observe_(self, counted: Counted) -> None:
        """Notes the image's mIoU."""
        self.note_(counted.index, counted.counts.sums["confusion"])

    def note_(self, index: int, confusion: Tensor) -> None:
        """Notes the mIoU of an image with that confusion matrix (C, C)."""
        miou = mean_iou(confusion)
        if math.isfinite(miou):
            self.scored.append(Scored(miou, index))

    def of_all(self, world: World) -> list[Scored]:
        """The images of all processes, worst first."""
        return sorted(item for own in world.gather_objects(self.scored) for item in own)


def best_median_worst(scored: Sequence[Scored], each: int = EACH) -> list[tuple[str, Scored]]:
    """So many of each, in that order and none twice, from images that are sorted worst first.

    >>> [(word, item.sample) for word, item in best_median_worst([Scored(i / 9, i) for i in range(9)], each=1)]
    [('best', 8), ('median', 4), ('worst', 0)]
    """
    count = len(scored)
    middle = max(0, (count - each) // 2)
    ranks = {
        "best": range(count - 1, count - 1 - each, -1),
        "worst": range(each),
        "median": range(middle, middle + each),
    }
    words: dict[int, str] = {}
    for word, wanted in ranks.items():
        for rank in wanted:
            if 0 <= rank < count:
                words.setdefault(rank, word)  # of few images the best and worst come before the median
    order = ["best", "median", "worst"]
    return [(word, scored[rank]) for kind in order for rank, word in words.items() if word == kind]


def prediction_sheet(
    chosen: Sequence[tuple[str, Scored]], guess: Guess, names: Sequence[str], space: LabelSpace, title: str
) -> Image.Image:
    """A page with a row for each chosen image: photo, ground truth, prediction, errors, and the mIoU it was scored."""
    shown = []
    for _, item in chosen:
        image, prediction, labels = guess(item.sample)
        counts = confusion_matrix(prediction, labels, len(space.classes))
        row = look(item.sample, names[item.sample], counts, image, prediction, labels, space)
        shown.append(row._replace(miou=item.miou))
    return page(shown, [word for word, _ in chosen], space, title)
