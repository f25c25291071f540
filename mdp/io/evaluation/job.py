"""The job behind `mdp eval`: from layers of settings to the scores of a fine-tuned segmentor."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mdp.core.protocols import Counts
from mdp.io.check.seen import Looked, Seen, read_seen, seen_before
from mdp.io.data.channels import refuse_other_channels
from mdp.io.data.manifest import look_at_pool, read_manifest
from mdp.io.data.pool import Pool
from mdp.io.data.selection import named, no_validation, pool_of
from mdp.io.datasets._dataset import Dataset, Sample, open_split, refuse_unlabelled
from mdp.io.errors import RecipeError
from mdp.io.evaluation.counts import Observer, Reading, images_of, tally_pixels
from mdp.io.evaluation.saved import kinds_of, saved
from mdp.io.evaluation.scores import summary, write_report
from mdp.io.files.writing import make
from mdp.io.inference.predict import inference_settings, segmenter
from mdp.io.journal.counter import Counter, number_of
from mdp.io.pictures.gallery import Worst, write_gallery
from mdp.io.processes.agreement import agree
from mdp.io.processes.device import memory_in_one_line, set_up
from mdp.io.processes.signals import stop_on_signals
from mdp.io.processes.world import World, joined
from mdp.io.recipe.layers import Recipe
from mdp.io.recipe.request import Request
from mdp.io.recipe.settings import EvalSettings
from mdp.io.report.job import report_at_end
from mdp.io.run.folder import home_of
from mdp.io.run.header import read_about, read_header
from mdp.io.run.opened import (
    OpenedRun,
    at_step,
    evaluation_recipe,
    open_segmentor,
    same_labels,
    segmentor_file,
    trained_segmentor,
    weights_of,
)
from mdp.io.run.record import record_of
from mdp.io.run.same_data import since_training

_OTHERWISE = ", or name one that is elsewhere: mdp eval RUN"


def run_evaluation(
    request: Request,
    which: str,
    keep: bool,
    save_as: Sequence[str] = (),
    gallery: int | None = None,
    weights: str | None = None,
) -> tuple[dict[str, Any], Path]:
    """Scores a fine-tuning run (`request.init`, or the newest) and returns the scores and the folder that has them.

    `keep` keeps predictions as pictures, `save_as` names formats of benchmarks' servers to keep them in;
    `gallery` is the number of images, the worst ones, that are put into pictures; `weights` is what `weights_of` asks.
    Raises an MdpError, with the exit code, for anything the user has to mend.
    """
    with stop_on_signals(), joined(request.timeout) as world:
        return _evaluate(request, which, keep, save_as, gallery, weights, world)


def refuse_early(request: Request, which: str, weights: str | None = None) -> None:
    """Raises what each of several processes would raise at its start; of the checkpoint it reads the header only."""
    path = segmentor_file(request.init, which, _OTHERWISE)
    weights_of(path, read_header(path).tensors, weights)
    _scored(evaluation_recipe(request, record_of(path, read_about(path))))


def _scored(recipe: Recipe) -> tuple[Dataset, str, list[Sample], str]:
    """Dataset, split and samples to score, and a line about them.  Raises RecipeError or DatasetError without any."""
    dataset, _ = named(recipe.finetune.target)
    split = recipe.eval.split or dataset.val
    if split is None:
        raise RecipeError(f"{no_validation(dataset)}; give --split, one of {', '.join(dataset.splits)}")
    refuse_unlabelled(dataset, split, "score with")
    refuse_other_channels(recipe.model.image_channels, dataset)
    return dataset, split, *open_split(dataset, Path(recipe.data.root), split)


class _Split(NamedTuple):
    """The images that are scored, how they are looked at, and where their scores go."""

    dataset: Dataset
    name: str
    pool: Pool
    settings: EvalSettings
    images: int  # how many: the first ones of the split
    home: Path  # the run's folder
    folder: Path


def _evaluate(
    request: Request,
    which: str,
    keep: bool,
    save_as: Sequence[str],
    gallery: int | None,
    asked: str | None,
    world: World,
) -> tuple[dict[str, Any], Path]:
    opened = open_segmentor(request.init, which, _OTHERWISE)
    weights = opened.weights(asked)
    recipe = evaluation_recipe(request, opened.record)
    device = set_up(recipe, world)
    dataset, name, samples, line = _scored(recipe)
    pool = pool_of([(dataset, samples)])
    same_labels(opened.record, pool.union, opened.path)
    kinds = kinds_of(keep, save_as, dataset.labels)
    split = _split(request, recipe, dataset, name, pool, home_of(opened.path))
    seen = read_seen(split.home)
    looked = _agree(split, recipe, opened.path, seen, world)
    progress = Counter(request.quiet or not world.main)
    progress.say(f"scoring {opened.path} {at_step(opened, weights)}")
    progress.say(line)
    changed = since_training(recipe, opened.record, split.home) if world.main and not request.target else []
    for change in changed:
        progress.say(f"warning: {change}")
    network = trained_segmentor(opened, recipe, device, weights)
    worst = Worst(gallery, dataset.labels) if gallery else None
    reading = Reading(workers=recipe.run.loaders, world=world, tell=progress.tell)
    with memory_in_one_line(), saved(split.folder, pool, kinds, world) as files:
        segment = segmenter(network, split.settings, device, progress.say)
        observers: list[Observer] = [observer for observer in (worst, files, looked) if observer]
        counts = tally_pixels(segment, pool, split.settings, reading, observers)
    before = seen_before(looked, seen, split.images, world) if looked and seen else {}
    if before.get("text"):
        progress.say(f"warning: {before['text']}")
    about = {"weights": weights, "changed": changed, "seen": before}
    scores = _scores(split, opened, {key: value for key, value in about.items() if value}, counts)
    _publish(request, split, scores, worst, world, progress)
    return scores, split.folder


def _split(request: Request, recipe: Recipe, dataset: Dataset, name: str, pool: Pool, home: Path) -> _Split:
    """Makes the folder for the scores; those of a part of the split do not take the place of the whole."""
    settings = inference_settings(recipe)
    count = images_of(pool, settings)
    part = f"-first-{count}" if count < len(pool.samples) else ""
    folder = make(request.out or home / "eval" / f"{dataset.name}-{name}{part}")
    if part and request.out:
        _expect_no_more(folder, count)
    return _Split(dataset, name, pool, settings, count, home, folder)


def _agree(split: _Split, recipe: Recipe, path: Path, seen: Seen | None, world: World) -> Looked | None:
    """All processes score the same files by the same checkpoint; who looks for photos that the run has seen."""
    look = world.size > 1 or seen
    data = look_at_pool(split.pool, "val", recipe.data.root, read_manifest(split.home)) if look else []
    agree(world, recipe, [split.pool.samples], data, {"the checkpoint": path})
    return Looked(data[0]) if seen and len(seen.names) else None


def _scores(split: _Split, opened: OpenedRun, about: Mapping[str, Any], counts: Counts) -> dict[str, Any]:
    """Everything as JSON."""
    return {
        "dataset": split.dataset.name,
        "split": split.name,
        "images": split.images,
        "checkpoint": str(opened.path),
        "step": opened.record.position.step,
        **about,
        **_manner(split.settings),
        **summary(counts, split.dataset.labels),
    }


def _publish(
    request: Request, split: _Split, scores: dict[str, Any], worst: Worst | None, world: World, progress: Counter
) -> None:
    """Writes scores, gallery and, where the folder is the run's own, its report again."""
    if world.main:
        write_report(split.folder, scores, json.dumps(scores) + "\n")
    if worst:
        title = f"{split.dataset.name} {split.name}"
        _draw_gallery(worst, split.folder / "gallery", title, split.images, world, progress)
    if world.main and request.report and split.folder.parent == split.home / "eval":  # of which the page has the scores
        report_at_end(split.home, progress.say)


def _expect_no_more(folder: Path, images: int) -> None:
    """Raises RecipeError where the folder has the scores of more images."""
    try:
        there = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["images"]
    except (OSError, ValueError, LookupError, TypeError):
        return
    if isinstance(there, int) and there > images:
        raise RecipeError(
            f"--out {folder}: it has the scores of {there} images, which those of {images} would replace; choose "
            "another folder"
        )


def _manner(settings: EvalSettings) -> dict[str, Any]:
    """How images were looked at, as JSON."""
    slides = settings.mode == "slide"
    return {
        "mode": settings.mode,
        "scale": settings.scale,
        "scales": settings.scales,
        "flip": settings.flip,
        "window": settings.window if slides else None,
        "stride": settings.stride if slides else None,
    }


def _draw_gallery(worst: Worst, folder: Path, title: str, count: int, world: World, progress: Counter) -> None:
    """The worst images of all processes, out of `count`."""
    shown = worst.of_all(world)
    if not world.main:
        return
    title = f"{title}: the worst {len(shown)} of {number_of(count, 'image')}"
    pages = write_gallery(folder, shown, worst.space, title)
    progress.say(f"gallery: {number_of(len(shown), 'image')} on {number_of(len(pages), 'page')} in {folder}")
