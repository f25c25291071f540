"""The job behind `mdp luss nearest`: frozen features scored by distance matching, whatever weights they come from."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from mdp.core.protocols import distance_matching as protocol
from mdp.io.datasets._dataset import Dataset
from mdp.io.errors import Preempted, RecipeError
from mdp.io.evaluation.counts import Reading
from mdp.io.evaluation.matching import matched_scores, open_matching
from mdp.io.files.writing import make, write_text
from mdp.io.journal.counter import Counter
from mdp.io.processes.device import memory_in_one_line, set_up
from mdp.io.processes.signals import Stop, stop_on_signals
from mdp.io.processes.world import World, joined
from mdp.io.recipe.layers import resolve
from mdp.io.recipe.request import Request
from mdp.io.recipe.settings import LussSettings
from mdp.io.unsupervised.asked import Nearest
from mdp.io.unsupervised.features import Features, open_features
from mdp.io.unsupervised.score import OTHER

_RGB = 3
_STOPPED = "stopped while photos were looked at; nothing was written, run the same command again"


def run_nearest(asked: Nearest, request: Request) -> dict[str, Any]:
    """All scores of ImageNet-S as JSON; with `request.out` they are in its scores.json too.

    Of the request the layers count (model, run, data, luss), `out` and `quiet`.  Raises an MdpError with one line of
    what is wrong.
    """
    with stop_on_signals() as stop, joined(request.timeout) as world:
        return _nearest(asked, request, stop, world)


def _settings(asked: Nearest, luss: LussSettings) -> protocol.Settings:
    """Those of the protocol.  Raises RecipeError for what is out of bounds."""
    ratios = protocol.Settings.ratios if asked.ratios is None else asked.ratios
    try:
        return protocol.Settings(neighbours=luss.neighbours, temperature=luss.temperature, ratios=ratios)
    except ValueError as error:
        raise RecipeError(f"--{str(error).replace('ratios', 'boundary', 1)}") from error


def _nearest(asked: Nearest, request: Request, stop: Stop, world: World) -> dict[str, Any]:
    progress, recipe = Counter(request.quiet or not world.main), resolve(*request.layers)
    settings = _settings(asked, recipe.luss)
    matching = open_matching(asked.target, Path(recipe.data.root), asked.labelled)
    dataset = matching.dataset
    device = set_up(recipe, world)
    features = open_features(asked.source, request.asked, start=recipe.run.init_from, device=device)
    _expect_channels(features, dataset, asked.source)
    for text in (features.words, *features.lines, *matching.lines):
        progress.say(text)
    if dataset.labels.classes[0].lower() not in OTHER:
        progress.say(f"class 0, {dataset.labels.classes[0]}, is taken for what belongs to no category")

    def maps(photos: Tensor) -> Tensor:
        try:
            return features.maps(photos)
        except AssertionError as error:  # timm's, of a network that takes photos of some sizes only
            height, width = photos.shape[2:]
            words = f"{features.words}: it takes no photo of {width} x {height} ({error})"
            raise RecipeError(f"{asked.source}: {words}") from error

    with memory_in_one_line(advice="try a smaller --short-side"):
        stop.patient = True
        reading = Reading(workers=recipe.run.loaders, world=world, stop=stop, tell=progress.tell)
        scores = matched_scores(matching, maps, settings, reading, recipe.luss.short_side)
        if scores is None:
            raise Preempted(_STOPPED)
    found = {
        "features": asked.source,
        "network": features.words,
        "dataset": dataset.name,
        "split": matching.split,
        "matched_with": len(matching.labelled),
        "short_side": recipe.luss.short_side,
        **scores,
    }
    if request.out and world.main:
        write_text(make(request.out) / "scores.json", json.dumps(found, indent=1) + "\n")
        progress.say(f"written to {request.out}")
    return found


def _expect_channels(features: Features, dataset: Dataset, source: str) -> None:
    channels = dataset.photos.channels or _RGB
    if features.image_channels != channels:
        raise RecipeError(
            f"{source}: it takes photos of {features.image_channels} channels, those of {dataset.name} have {channels}"
        )
