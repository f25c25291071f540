"""The job behind `mdp luss nearest`: frozen features scored by distance matching, whatever weights they come from."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mdp.core.geometry import Box, View, cut_image, fitted_size
from mdp.core.protocols import distance_matching as protocol
from mdp.io.data.selection import named, no_validation, pool_of
from mdp.io.datasets._dataset import Dataset, open_split, open_training, refuse_unlabelled
from mdp.io.errors import DatasetError, Preempted, RecipeError
from mdp.io.evaluation.counts import Reading, fit, tally
from mdp.io.files.writing import make, write_text
from mdp.io.journal.counter import Counter
from mdp.io.processes.device import memory_in_one_line, set_up
from mdp.io.processes.signals import Stop, stop_on_signals
from mdp.io.processes.world import World
from mdp.io.recipe.layers import resolve
from mdp.io.recipe.request import Request
from mdp.io.unsupervised.features import Features, open_features
from mdp.io.unsupervised.score import OTHER

SHORT_SIDE = 256  # stated: photos are brought to it, whole
_RGB = 3
_STOPPED = "stopped while photos were looked at; nothing was written, run the same command again"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is scored, on what, and how."""

    source: str  # what `open_features` takes
    target: str  # a dataset, NAME or NAME:SPLIT, whose split is scored
    labelled: str = ""  # the split whose labels are matched with; "": the one that is trained on
    request: Request = field(default_factory=Request)  # layers of settings (model, run, data), out, quiet
    neighbours: int = protocol.Settings.neighbours
    temperature: float = protocol.Settings.temperature
    ratios: tuple[float, ...] = protocol.Settings.ratios
    short_side: int = SHORT_SIDE

    def settings(self) -> protocol.Settings:
        """Those of the protocol.  Raises RecipeError for what is out of bounds."""
        try:
            return protocol.Settings(neighbours=self.neighbours, temperature=self.temperature, ratios=self.ratios)
        except ValueError as error:
            raise RecipeError(f"--{str(error).replace('ratios', 'boundary', 1)}") from error


def run_nearest(asked: Asked) -> dict[str, Any]:
    """All scores of ImageNet-S as JSON; with `asked.request.out` they are in its scores.json too.

    Raises an MdpError with one line of what is wrong.
    """
    progress, recipe, settings = Counter(asked.request.quiet), resolve(*asked.request.layers), asked.settings()
    dataset, split = named(asked.target)
    split = split or dataset.val
    if split is None:
        raise RecipeError(f"{no_validation(dataset)}; name one: {asked.target}:SPLIT")
    for wanted in filter(None, (split, asked.labelled)):
        refuse_unlabelled(dataset, wanted, "match with" if wanted == asked.labelled else "score with")
    root = Path(recipe.data.root)
    train, train_line = open_training(dataset, root, asked.labelled or None)
    samples, line = open_split(dataset, root, split)
    device = set_up(recipe, World())
    features = open_features(asked.source, asked.request.asked, start=recipe.run.init_from, device=device)
    _expect_channels(features, dataset, asked.source)
    for text in (features.words, *features.lines, f"matched with: {train_line}", f"scored: {line}"):
        progress.say(text)
    if dataset.labels.classes[0].lower() not in OTHER:
        progress.say(f"class 0, {dataset.labels.classes[0]}, is taken for what belongs to no category")
    advice = "try a smaller --short-side"

    def map_of(image: Tensor) -> Tensor:
        photo = _shortened(image, asked.short_side)
        try:
            return features.maps(photo[None])[0]
        except AssertionError as error:  # timm's, of a network that takes photos of some sizes only
            height, width = photo.shape[1:]
            words = f"{features.words}: it takes no photo of {width} x {height} ({error})"
            raise RecipeError(f"{asked.source}: {words}") from error

    with stop_on_signals() as stop, memory_in_one_line(advice=advice):
        stop.patient = True
        reading = Reading(workers=recipe.run.workers, stop=stop, tell=progress.tell)
        try:
            memory = fit(protocol, map_of, pool_of([(dataset, train)]), settings, reading)
        except ValueError as error:
            _expect_all(stop)
            raise DatasetError(f"{dataset.name}: {error}") from error
        _expect_all(stop)
        counts = tally(protocol, map_of, pool_of([(dataset, samples)]), settings, reading, fitted=memory)
        _expect_all(stop)
    found = {
        "features": asked.source,
        "network": features.words,
        "dataset": dataset.name,
        "split": split,
        "matched_with": len(train),
        "short_side": asked.short_side,
        **protocol.scores(counts, memory, dataset.labels, settings),
    }
    if asked.request.out:
        write_text(make(asked.request.out) / "scores.json", json.dumps(found, indent=1) + "\n")
        progress.say(f"written to {asked.request.out}")
    return found


def _shortened(image: Tensor, side: int) -> Tensor:
    """The whole image (K, H, W) with the shorter side at `side` pixels."""
    height, width = image.shape[1:]
    return cut_image(image, View(Box(0, 0, height, width), flip=False), fitted_size(height, width, (10**9, side)))


def _expect_channels(features: Features, dataset: Dataset, source: str) -> None:
    channels = dataset.photos.channels or _RGB
    if features.image_channels != channels:
        raise RecipeError(
            f"{source}: it takes photos of {features.image_channels} channels, those of {dataset.name} have {channels}"
        )


def _expect_all(stop: Stop) -> None:
    """Raises Preempted where images were left out."""
    if stop:
        raise Preempted(_STOPPED)
