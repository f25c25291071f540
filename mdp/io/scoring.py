"""The job behind `mdp eval`: from layers of settings to the scores of a fine-tuned segmentor."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdp.io import runs
from mdp.io.checkpoint import load
from mdp.io.datasets import open_split
from mdp.io.distributed import World, joined
from mdp.io.errors import CheckpointError, RecipeError
from mdp.io.eval_report import summary, write_report
from mdp.io.evaluation import tally
from mdp.io.finetuning import trained_segmentor
from mdp.io.gallery import Worst, write_gallery
from mdp.io.inference import inference_settings
from mdp.io.journal import Counter, number_of
from mdp.io.opening import Plan, named, pool_of
from mdp.io.recipe import Recipe, resolve
from mdp.io.report import report_at_end
from mdp.io.request import Request, with_paths
from mdp.io.resuming import same_labels
from mdp.io.saving import kinds_of, saved
from mdp.io.setting_up import agree, memory_in_one_line, set_up
from mdp.io.signals import stop_on_signals


def evaluation_recipe(request: Request, about: Mapping[str, Any]) -> Recipe:
    """The recipe that an `eval` command line resolves to, on top of the run's own.

    The network is the run's: of what is asked for, only the sections run, data and eval, and a target, count.
    """
    resolve(request.asked)  # a mistake in a section that is not read here is still a mistake
    asked = {key: value for key, value in request.asked.items() if key in ("run", "data", "eval")}
    target = {"finetune": {"target": request.target}} if request.target else {}
    return with_paths(resolve(about["recipe"], asked, target))


def run_evaluation(
    request: Request, which: str, keep: bool, save_as: Sequence[str] = (), gallery: int | None = None
) -> tuple[dict[str, Any], Path]:
    """Scores a fine-tuning run (`request.init`, or the newest) and returns the scores and the folder that has them.

    `keep` keeps predictions as pictures, `save_as` names formats of benchmarks' servers to keep them in;
    `gallery` is the number of images, the worst ones, that are put into pictures.
    Raises an MdpError, with the exit code, for anything the user has to mend.
    """
    with stop_on_signals(), joined() as world:
        return _evaluate(request, which, keep, save_as, gallery, world)


def _evaluate(
    request: Request, which: str, keep: bool, save_as: Sequence[str], gallery: int | None, world: World
) -> tuple[dict[str, Any], Path]:
    source = Path(request.init) if request.init else runs.newest("finetune")
    if source is None:
        raise CheckpointError(f"no fine-tuning run under {runs.BASE / 'finetune'}; run `mdp finetune` first")
    path = runs.checkpoint_of(source, which)
    start = load(path)
    if start.about["kind"] != "finetune":
        raise CheckpointError(f"{path}: a {start.about['kind']} checkpoint has no classifier; fine-tune it first")
    recipe = evaluation_recipe(request, start.about)
    device = set_up(recipe, world)
    dataset, _ = named(recipe.finetune.target)
    split = recipe.eval.split or dataset.val
    if split is None:
        raise RecipeError(f"{dataset.name} has no split `val`; give --split, one of {', '.join(dataset.splits)}")
    samples, line = open_split(dataset, Path(recipe.data.root), split)
    pool = pool_of([(dataset, samples)])
    same_labels(start.about, pool, path)
    kinds = kinds_of(keep, save_as, dataset.labels)
    home = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    folder = runs.make(request.out or home / "eval" / f"{dataset.name}-{split}")
    settings = inference_settings(recipe)
    agree(world, recipe, Plan(recipe=recipe, pool=pool, validation=None))
    count = min(len(samples), settings.images or len(samples))
    progress = Counter(request.quiet or not world.main)
    progress.say(f"scoring {path} (step {start.about['step']})")
    progress.say(line)
    network = trained_segmentor(recipe, pool.union.size, start, path, device)
    worst = Worst(gallery, dataset.labels) if gallery else None
    workers = recipe.run.workers
    with memory_in_one_line(), saved(folder, pool, kinds, world) as place:
        counts = tally(
            network, pool, settings, device, workers,
            tell=progress.tell, say=progress.say, keep=place, world=world, sees=worst,
        )  # fmt: skip
    scores = {
        "dataset": dataset.name,
        "split": split,
        "images": count,
        "checkpoint": str(path),
        "step": start.about["step"],
        "mode": settings.mode,
        "scale": settings.scale,
        "scales": settings.scales,
        "flip": settings.flip,
        "window": settings.window if settings.mode == "slide" else None,
        "stride": settings.stride if settings.mode == "slide" else None,
        **summary(counts, dataset.labels, count),
    }
    if world.main:
        write_report(folder, scores, json.dumps(scores) + "\n")
    if worst:
        _draw_gallery(worst, folder / "gallery", f"{dataset.name} {split}", count, world, progress)
    if world.main and request.report and folder.parent == home / "eval":
        report_at_end(home, progress.say)
    return scores, folder


def _draw_gallery(worst: Worst, folder: Path, title: str, count: int, world: World, progress: Counter) -> None:
    """The worst images of all processes, out of `count`."""
    shown = worst.of_all(world)
    if not world.main:
        return
    title = f"{title}: the worst {len(shown)} of {number_of(count, 'image')}"
    pages = write_gallery(folder, shown, worst.space, title)
    progress.say(f"gallery: {number_of(len(shown), 'image')} on {number_of(len(pages), 'page')} in {folder}")
