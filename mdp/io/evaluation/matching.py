"""Distance matching over a dataset's splits: frozen features scored as they are, whatever they come from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mdp.core.geometry import Box, View, cut_image, fitted_size
from mdp.core.protocols import distance_matching as protocol
from mdp.io.data.selection import named, no_validation, pool_of
from mdp.io.datasets._dataset import Dataset, Sample, open_split, open_training, refuse_unlabelled
from mdp.io.errors import DatasetError, RecipeError
from mdp.io.evaluation.counts import Reading, fit, tally

Maps = Callable[[Tensor], Tensor]  # photos (1, K, H, W) uint8, or in [0, 1] -> their features (1, D, h, w)


@dataclass(frozen=True, kw_only=True)
class Matching:
    """What is matched with what."""

    dataset: Dataset
    split: str  # that is scored
    labelled: list[Sample]
    samples: list[Sample]
    lines: tuple[str, ...]


def open_matching(target: str, root: Path, labelled: str = "") -> Matching:
    """Of a dataset, NAME or NAME:SPLIT, the split to score, and the one whose labels are matched with.

    Raises RecipeError or DatasetError where there is none, or one without label maps.
    """
    dataset, split = named(target)
    split = split or dataset.val
    if split is None:
        raise RecipeError(f"{no_validation(dataset)}; name one: {target}:SPLIT")
    for wanted in filter(None, (split, labelled)):
        refuse_unlabelled(dataset, wanted, "match with" if wanted == labelled else "score with")
    train, train_line = open_training(dataset, root, labelled or None)
    samples, line = open_split(dataset, root, split)
    lines = (f"matched with: {train_line}", f"scored: {line}")
    return Matching(dataset=dataset, split=split, labelled=train, samples=samples, lines=lines)


def matched_scores(
    matching: Matching, maps: Maps, settings: protocol.Settings, reading: Reading, side: int
) -> dict[str, Any] | None:
    """All scores of ImageNet-S, with `side` the short side of photos; None where a signal stopped it on the way.

    Raises DatasetError where no image has a label, or one cannot be read.
    """
    dataset = matching.dataset

    def map_of(image: Tensor) -> Tensor:
        return maps(_shortened(image, side)[None])[0]

    try:
        memory = fit(protocol, map_of, pool_of([(dataset, matching.labelled)]), settings, reading)
    except ValueError as error:
        if not reading.stop:
            raise DatasetError(f"{dataset.name}: {error}") from error
        memory = None  # of the images that were looked at
    if _stopped(reading):
        return None
    counts = tally(protocol, map_of, pool_of([(dataset, matching.samples)]), settings, reading, fitted=memory)
    return None if _stopped(reading) else protocol.scores(counts, memory, dataset.labels, settings)


def _stopped(reading: Reading) -> bool:
    """Whether a signal came to any process; the same answer on each."""
    return reading.stop is not None and reading.stop.agree(reading.world)


def _shortened(image: Tensor, side: int) -> Tensor:
    """The whole image (K, H, W) with the shorter side at `side` pixels."""
    height, width = image.shape[1:]
    return cut_image(image, View(Box(0, 0, height, width), flip=False), fitted_size(height, width, (10**9, side)))
