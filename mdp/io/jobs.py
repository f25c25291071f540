"""The three jobs behind `mdp pretrain`, `mdp finetune` and `mdp eval`: from layers of settings to a finished run.

A job resolves the recipe, opens the data, makes or reopens the run folder, trains or scores, and says in status.json
how it ended.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mdp.core.comparison import block_counts
from mdp.core.networks import EncoderPair
from mdp.io import runs
from mdp.io.checkpoint import Checkpoint, load
from mdp.io.datasets import names as dataset_names
from mdp.io.datasets import open_split
from mdp.io.engine import pick_device, restore_, section
from mdp.io.errors import CheckpointError, MdpError, Preempted, RecipeError, ResourceError
from mdp.io.evaluation import prepare_keep, score, summary
from mdp.io.finetuning import finetune, new_segmentor
from mdp.io.head_init import start_classifier_
from mdp.io.inference import inference_settings
from mdp.io.journal import Counter, Journal, rewind
from mdp.io.loading import Pool
from mdp.io.opening import expect_pretraining, named, plan_finetuning, plan_pretraining, pool_of
from mdp.io.recipe import Layer, Recipe, as_layer, find_method, merge, resolve, schedule_layer
from mdp.io.training import data_of, pretrain, schedule_of
from mdp.io.weights import fit, read_weights

# What may differ between a run and its resumption; everything else decides what is learnt
MAY_CHANGE = ("run.device", "run.workers", "run.log_seconds", "run.checkpoint_minutes", "data.root")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a command line asks for, besides the recipe's settings."""

    layers: tuple[Layer, ...] = ()  # config, flags, --set; later ones win
    out: Path | None = None
    overwrite: bool = False
    init: str | None = None  # weights to start from (finetune: also "scratch"), or the run to score
    target: str = ""  # eval: another dataset of the same classes
    resume: str | None = None  # a run folder, or "" for the newest
    quiet: bool = False

    @property
    def asked(self) -> Layer:
        """The layers as one."""
        return merge(*self.layers)


# Resuming


def _reopen(kind: str, request: Request) -> tuple[Path, Checkpoint, Recipe]:
    """The run to go on with, its last checkpoint, and its recipe with what may change changed.

    Raises RecipeError when a setting that decides what is learnt was asked to change, CheckpointError without a run.
    """
    folder = Path(request.resume) if request.resume else runs.newest(kind)
    if folder is None:
        raise CheckpointError(f"--resume: no run with a checkpoint under {runs.BASE / kind}")
    start = load(runs.checkpoint_of(folder))
    if start.about["kind"] != kind:
        raise CheckpointError(f"{folder}: a {start.about['kind']} run; resume it with `mdp {start.about['kind']}`")
    own = start.about["recipe"]
    recipe = _with_paths(resolve(own, request.asked))
    changed = [key for key in changed_keys(own, as_layer(recipe)) if key not in MAY_CHANGE]
    if changed:
        raise RecipeError(
            f"--resume {folder}: {', '.join(changed)} differ from the run's; only {', '.join(MAY_CHANGE)} may change. "
            "To start a new run from its weights use --init"
        )
    return folder, start, recipe


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The full keys of `after` whose values differ in `before`."""
    for key in after:
        old, new = before.get(key), after[key]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from changed_keys(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}"


def _same_labels(about: Mapping[str, Any], pool: Pool, where: Path) -> None:
    """Raises CheckpointError when the checkpoint's classes are not those of the data."""
    theirs = {space["name"]: space["classes"] for space in about["labels"]}
    ours = {space.name: list(space.classes) for space in pool.union.spaces}
    if theirs != ours:
        differ = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
        counts = ", ".join(f"{n}: {len(theirs.get(n, []))} there, {len(ours.get(n, []))} here" for n in differ)
        raise CheckpointError(f"{where}: trained on other classes than the data has ({counts})")


# Running


@contextmanager
def _recorded(journal: Journal, kind: str) -> Iterator[None]:
    """Writes status.json whatever happens, and turns a shortage of memory into one line."""
    journal.status("running")
    try:
        with _memory_in_one_line():
            yield
    except Preempted as error:
        journal.status("preempted", str(error), error.exit_code)
        raise Preempted(f"{error}; go on with: mdp {kind} --resume {journal.folder}") from error
    except MdpError as error:
        journal.status("failed", str(error), error.exit_code)
        raise
    except KeyboardInterrupt:
        journal.status("interrupted", "second Ctrl-C", 130)
        raise
    except BaseException as error:
        journal.status("failed", repr(error), 1)
        raise
    journal.status("done", "", 0)


@contextmanager
def _memory_in_one_line() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error) or "MemoryError"
        if not isinstance(error, MemoryError) and "out of memory" not in text and "can't allocate memory" not in text:
            raise
        raise ResourceError(
            f"out of memory ({text.splitlines()[0]}); try a smaller --batch-size or crop, or model.output_stride=16"
        ) from error


def _start(recipe: Recipe) -> torch.device:
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    return pick_device(recipe.run.device)


def pretrain_recipe(request: Request) -> Recipe:
    """The recipe that a `pretrain` command line resolves to."""
    return _with_paths(resolve(request.asked))


def run_pretraining(request: Request) -> Path:
    """Runs, or resumes, pretraining and returns the run folder.

    Raises an MdpError, with the exit code, for anything the user has to mend.
    """
    resume, folder = None, None
    if request.resume is not None:
        folder, resume, recipe = _reopen("pretrain", request)
    else:
        recipe = pretrain_recipe(request)
    device = _start(recipe)
    plan = plan_pretraining(recipe)
    recipe = plan.recipe
    assert plan.validation is not None
    data_of(recipe, plan.pool.union, len(plan.pool.samples))  # a misfit is told before there is a run folder
    weights, report = {}, ""
    if resume and folder:
        _same_labels(resume.about, plan.pool, folder)
    elif request.init:
        path = runs.checkpoint_of(Path(request.init))
        data = data_of(recipe, plan.pool.union, len(plan.pool.samples))
        pair = find_method(recipe.method.name).build(recipe.method.settings, recipe.model, data, torch.Generator())
        found, report = fit(read_weights(path)[0], pair.query, ("backbone", "decode_head", "projection_head"), path)
        weights = found.tensors
    if folder is None:
        folder = runs.create("pretrain", "+".join(plan.pool.datasets), request.out, request.overwrite)
        runs.describe(folder, recipe, plan.pool.union.spaces, plan.pool.sizes())
    schedule, length = schedule_of(recipe, len(plan.pool.samples))
    journal = Journal(folder, schedule.steps, recipe.run.log_seconds, request.quiet)
    with _recorded(journal, "pretrain"):
        _announce(journal, plan.lines, folder, resume)
        union = plan.pool.union
        journal.say(
            f"{len(plan.pool.samples):,} images, {union.size} classes; {schedule.steps:,} steps of {schedule.batch} "
            f"images ({length:,} an epoch) on {device}"
        )
        if report:
            journal.say(report)
        pretrain(recipe, plan.pool, plan.validation, folder, journal, device, resume, weights)
    return folder


def describe_pretraining(request: Request) -> dict[str, Any]:
    """What a pretraining run would need, without running it (`--dry-run`)."""
    expected = expect_pretraining(pretrain_recipe(request))
    recipe, images = expected.recipe, sum(expected.images.values())
    schedule, length = schedule_of(recipe, images)
    data = data_of(recipe, expected.union, images)
    method, settings = find_method(recipe.method.name), recipe.method.settings
    pair: EncoderPair[Any] = method.build(settings, recipe.model, data, torch.Generator())
    return {
        "method": recipe.method.name,
        "found": expected.lines,
        "images": expected.images,
        "classes": expected.union.size,
        "epochs": recipe.pretrain.epochs if recipe.pretrain.steps is None else None,
        "steps": schedule.steps,
        "steps_an_epoch": length,
        "batch_size": schedule.batch,
        "images_seen": schedule.steps * schedule.batch,
        "parameters": sum(parameter.numel() for parameter in pair.query.parameters()),
        "state_bytes": method.state_bytes(settings, data),
    }


def finetune_recipe(request: Request) -> tuple[Recipe, Path | None]:
    """The recipe that a `finetune` command line resolves to, and the weights it starts from (None: scratch).

    The model's settings are those of the run that the weights come from.  Raises CheckpointError without any weights.
    """
    asked = request.asked
    target = str((asked.get("finetune") or {}).get("target", ""))
    weights = None
    if request.init != "scratch":
        source = Path(request.init) if request.init else runs.newest("pretrain")
        if source is None:
            raise CheckpointError(
                f"no pretraining run under {runs.BASE / 'pretrain'}; run `mdp pretrain` first, or give --init FILE, "
                "or --init scratch for random weights"
            )
        weights = runs.checkpoint_of(source)
    model: Layer = {}
    if weights:
        about = read_weights(weights)[1]
        model = {"model": about["recipe"]["model"]} if about else {}
    return _with_paths(resolve(schedule_layer(target.partition(":")[0]), model, asked)), weights


def run_finetuning(request: Request) -> Path:
    """Runs, or resumes, fine-tuning and returns the run folder.

    Raises an MdpError, with the exit code, for anything the user has to mend.
    """
    resume, folder, weights = None, None, None
    if request.resume is not None:
        folder, resume, recipe = _reopen("finetune", request)
    else:
        recipe, weights = finetune_recipe(request)
    device = _start(recipe)
    plan = plan_finetuning(recipe)
    network = new_segmentor(recipe, plan.pool.union.size)
    report = "starting from random weights"
    if resume and folder:
        _same_labels(resume.about, plan.pool, folder)
    elif weights:
        found, report = fit(read_weights(weights)[0], network, recipe.finetune.load, weights)
        network.load_state_dict(found.tensors, strict=False)
    if recipe.finetune.head_init == "prototypes" and not resume:
        if weights is None:
            raise RecipeError("--head-init prototypes: scratch has no prototypes; give --init RUN")
        report += "\n" + start_classifier_(network, weights, recipe, plan.pool, device)
    if folder is None:
        folder = runs.create("finetune", next(iter(plan.pool.datasets)), request.out, request.overwrite)
        runs.describe(folder, recipe, plan.pool.union.spaces, plan.pool.sizes())
    journal = Journal(folder, recipe.finetune.steps, recipe.run.log_seconds, request.quiet)
    with _recorded(journal, "finetune"):
        _announce(journal, plan.lines, folder, resume)
        for line in [] if resume else report.splitlines():
            journal.say(line)
        journal.say(f"{recipe.finetune.steps:,} steps of {recipe.finetune.batch_size} crops on {device}")
        finetune(recipe, network, plan.pool, plan.validation, folder, journal, device, resume)
    return folder


def _announce(journal: Journal, lines: list[str], folder: Path, resume: Checkpoint | None) -> None:
    for line in lines:
        journal.say(line)
    if resume:
        rewind(folder, resume.about["step"])
        journal.step = resume.about["step"]
        journal.say(f"resuming {folder} after step {journal.step}")
    else:
        journal.say(f"run folder: {folder}")


def evaluation_recipe(request: Request, about: Mapping[str, Any]) -> Recipe:
    """The recipe that an `eval` command line resolves to, on top of the run's own.

    The network is the run's: of what is asked for, only the sections run, data and eval, and a target, count.
    """
    resolve(request.asked)  # a mistake in a section that is not read here is still a mistake
    asked = {key: value for key, value in request.asked.items() if key in ("run", "data", "eval")}
    target = {"finetune": {"target": request.target}} if request.target else {}
    return _with_paths(resolve(about["recipe"], asked, target))


def run_evaluation(request: Request, which: str, keep: bool) -> tuple[dict[str, Any], Path]:
    """Scores a fine-tuning run (`request.init`, or the newest) and returns the scores and the folder that has them.

    Raises an MdpError, with the exit code, for anything the user has to mend.
    """
    source = Path(request.init) if request.init else runs.newest("finetune")
    if source is None:
        raise CheckpointError(f"no fine-tuning run under {runs.BASE / 'finetune'}; run `mdp finetune` first")
    path = runs.checkpoint_of(source, which)
    start = load(path)
    if start.about["kind"] != "finetune":
        raise CheckpointError(f"{path}: a {start.about['kind']} checkpoint has no classifier; fine-tune it first")
    recipe = evaluation_recipe(request, start.about)
    device = _start(recipe)
    dataset, _ = named(recipe.finetune.target)
    split = recipe.eval.split or dataset.val
    if split is None:
        raise RecipeError(f"{dataset.name} has no split `val`; give --split, one of {', '.join(dataset.splits)}")
    samples, line = open_split(dataset, Path(recipe.data.root), split)
    pool = pool_of([(dataset, samples)])
    _same_labels(start.about, pool, path)
    home = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    folder = runs.make(request.out or home / "eval" / f"{dataset.name}-{split}")
    settings = inference_settings(recipe)
    count = min(len(samples), settings.images or len(samples))
    progress = Counter(request.quiet)
    progress.say(f"scoring {path} (step {start.about['step']})")
    progress.say(line)
    network = new_segmentor(recipe, pool.union.size)
    restore_(network, section(start.tensors, "network"), str(path))
    place = prepare_keep(folder, pool) if keep else None
    with _memory_in_one_line():
        blocks = score(network.to(device), pool, settings, device, recipe.run.workers, tell=progress.tell, keep=place)
    scores = {
        "dataset": dataset.name,
        "split": split,
        "images": count,
        "checkpoint": str(path),
        "step": start.about["step"],
        "mode": settings.mode,
        "scale": settings.scale,
        **summary(blocks.sum(0), dataset.labels),
        "confusion": blocks.sum(0).tolist(),
        "blocks": block_counts(blocks).tolist(),  # of images in a row: hits, labelled and predicted pixels by class
    }
    runs.write_text(folder / "scores.json", json.dumps(scores) + "\n")
    return scores, folder


def _with_paths(recipe: Recipe) -> Recipe:
    """The recipe with dataset files as absolute paths, so that a run can be resumed and scored from anywhere."""
    return replace(
        recipe,
        pretrain=replace(recipe.pretrain, datasets=tuple(_absolute(text) for text in recipe.pretrain.datasets)),
        finetune=replace(recipe.finetune, target=_absolute(recipe.finetune.target)),
    )


def _absolute(text: str) -> str:
    file = text.partition(":")[0]
    own = file.endswith((".yaml", ".yml")) or (file not in dataset_names() and Path(file).is_dir())
    return str(Path(text).resolve()) if file and own else text
