"""The three jobs behind `mdp pretrain`, `mdp finetune` and `mdp eval`: from layers of settings to a finished run.

A job resolves the recipe, opens and checks the data, makes or reopens the run folder, trains or scores, and says in
status.json how it ended.  With several processes all do the same; what only one may do, the main process does.
"""

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

import mdp
from mdp.core.comparison import block_counts
from mdp.core.networks import EncoderPair
from mdp.io import runs
from mdp.io.checking import check_before_training
from mdp.io.checkpoint import Checkpoint, checkpoints_in, load, newest_whole, remove_leftovers
from mdp.io.datasets import names as dataset_names
from mdp.io.datasets import open_split
from mdp.io.distributed import World, joined, launch_id, local_device, restarted
from mdp.io.engine import pick_device, restore_, section
from mdp.io.errors import CheckpointError, DatasetError, MdpError, Preempted, RecipeError, ResourceError
from mdp.io.evaluation import prepare_keep, score, summary
from mdp.io.finetuning import finetune, new_segmentor
from mdp.io.head_init import start_classifier_
from mdp.io.inference import inference_settings
from mdp.io.journal import Counter, Journal, rewind
from mdp.io.loading import Pool
from mdp.io.locks import locked
from mdp.io.opening import Plan, expect_pretraining, named, plan_finetuning, plan_pretraining, pool_of
from mdp.io.place import Place
from mdp.io.recipe import Layer, Recipe, as_layer, find_method, merge, resolve, schedule_layer
from mdp.io.signals import Stop, stop_on_signals
from mdp.io.training import data_of, pretrain, schedule_of
from mdp.io.weights import about_weights, fit, read_weights

# What may differ between a run and its resumption; everything else decides what is learnt
MAY_CHANGE = (
    *(f"run.{key}" for key in ("device", "workers", "log_seconds", "checkpoint_minutes", "keep_steps", "compile")),
    *(f"run.{key}" for key in ("channels_last", "gradients", "deterministic", "on_bad_sample", "check")),
    "data.root",
)


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


class Start(NamedTuple):
    """What a run starts from."""

    folder: Path | None  # of a run that goes on
    checkpoint: Checkpoint | None
    lines: tuple[str, ...] = ()  # what to say about it


# Resuming


def _begin(kind: str, request: Request, world: World, held: ExitStack) -> Start:
    """The run to go on with and its newest whole checkpoint, locked; nothing for a fresh run.

    Raises CheckpointError when a run is asked for that is not there or has no whole checkpoint.
    """
    said = world.said(lambda: _reopen(kind, request, held))
    if not said:
        return Start(None, None)
    folder, path, notes = json.loads(said)
    return Start(Path(folder), load(Path(path)), tuple(notes))


def _reopen(kind: str, request: Request, held: ExitStack) -> str:
    """Run folder, checkpoint and notes as JSON; empty for a fresh run."""
    folder = _to_resume(kind, request)
    if folder is None:
        return ""
    _hold(folder, held)
    remove_leftovers(folder)
    path, start, damaged = newest_whole(folder)
    if start.about["kind"] != kind:
        raise CheckpointError(f"{folder}: a {start.about['kind']} run; resume it with `mdp {start.about['kind']}`")
    notes = [f"warning: {reason}; put aside" for reason in damaged.values()]
    for bad in damaged:
        bad.replace(bad.with_name(f"damaged_{bad.name}"))  # or the next checkpoint would move it over a whole one
    if damaged:
        notes.append(f"going on from {path}, the newest that is whole")
    return json.dumps([str(folder), str(path), notes])


def _to_resume(kind: str, request: Request) -> Path | None:
    """The run folder to go on with, if one is asked for; with --out and --resume a run may be there or not."""
    if request.resume:
        return Path(request.resume)
    if request.resume is None:
        return runs.of_launch(kind, request.out, launch_id()) if restarted() else None
    if request.out is not None:
        return request.out if checkpoints_in(request.out) else None
    found = runs.newest(kind)
    if found is None:
        raise CheckpointError(f"--resume: no run with a checkpoint under {runs.BASE / kind}")
    return found


def _hold(folder: Path, held: ExitStack) -> None:
    """Locks the folder until the job ends."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: expected a run folder, found {'a file' if folder.exists() else 'nothing'}")
    warning = held.enter_context(locked(folder))
    if warning:
        print(f"warning: {warning}", file=sys.stderr)


def _fresh(kind: str, plan: Plan, request: Request, held: ExitStack) -> Path:
    """A new run folder, locked and described."""
    ours = restarted() and request.out is not None and runs.begun_by(request.out, launch_id())
    again = request.resume is not None or ours  # a run that was stopped before its first checkpoint
    names = plan.pool.datasets if kind == "pretrain" else [next(iter(plan.pool.datasets))]
    folder = runs.create(kind, "+".join(names), request.out, request.overwrite or again)
    _hold(folder, held)
    runs.write_text(folder / "status.json", json.dumps({"state": "starting"}) + "\n")  # from now on it is a run
    runs.describe(folder, plan.recipe, plan.pool.union.spaces, plan.pool.sizes(), launch_id())
    return folder


def _resumed_recipe(request: Request, start: Start) -> Recipe:
    """The recipe of the run that goes on, with what may change changed.

    Raises RecipeError when a setting that decides what is learnt was asked to change.
    """
    assert start.checkpoint
    own = start.checkpoint.about["recipe"]
    recipe = _with_paths(resolve(own, request.asked))
    own = as_layer(resolve(own))  # settings that are newer than the run have their defaults
    changed = [key for key in changed_keys(own, as_layer(recipe)) if key not in MAY_CHANGE]
    if changed:
        raise RecipeError(
            f"--resume {start.folder}: {', '.join(changed)} differ from the run's; only {', '.join(MAY_CHANGE)} may "
            "change. To start a new run from its weights use --init"
        )
    return recipe


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
def _recorded(journal: Journal, kind: str, world: World) -> Iterator[None]:
    """Writes status.json whatever happens, and turns a shortage of memory into one line."""
    journal.status("running")
    try:
        with _memory_in_one_line():
            yield
    except Preempted as error:
        journal.status("preempted", str(error), error.exit_code)
        if not checkpoints_in(journal.folder):
            raise
        again = f"mdp {kind} --resume {shlex.quote(str(journal.folder))}"
        again += f" --processes {world.size}" if world.size > 1 else ""
        raise Preempted(f"{error}; go on with: {again}") from error
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
            f"out of memory ({text.splitlines()[0]}); try --accumulate, --precision bf16, a smaller --batch-size or "
            "crop, or model.output_stride=16"
        ) from error


def _device(recipe: Recipe, world: World) -> torch.device:
    """The device of this process, with torch set up as the recipe asks."""
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    if recipe.run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    return local_device(pick_device(recipe.run.device), world)


def _agree(world: World, recipe: Recipe, plan: Plan) -> None:
    """Raises ProcessError unless all processes run the same program on the same data with the same settings."""
    pools = [pool.samples for pool in (plan.pool, plan.validation) if pool]
    versions = f"mdp {mdp.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    world.same(settings=json.dumps(as_layer(recipe)), files=repr(pools), versions=versions)


def _enough(images: int, world: World, recipe: Recipe, least: int) -> None:
    """Raises RecipeError when a part of a batch would hold too few images for BatchNorm."""
    parts = world.size * recipe.run.accumulate
    if images < parts * least:
        raise RecipeError(
            f"a batch of {images} images in {parts} parts (--processes {world.size}, "
            f"--accumulate {recipe.run.accumulate}) leaves fewer than {least} image(s) a part; raise --batch-size or "
            "lower the others"
        )


def _check(recipe: Recipe, plan: Plan, world: World, stop: Stop, quiet: bool) -> list[str]:
    """The lines of the data check, which the main process does while the others wait."""

    def check() -> str:
        lines: list[str] = []
        parts = [
            (dataset, [sample for sample in pool.samples if sample.dataset == name], role)
            for role, pool in (("train", plan.pool), ("val", plan.validation))
            if pool
            for name, dataset in pool.datasets.items()
        ]
        workers, tell = max(1, recipe.run.workers), Counter(quiet).tell
        try:
            check_before_training(parts, workers, lines.append, tell=tell, stop=lambda: stop)
        except DatasetError as error:
            if recipe.run.on_bad_sample == "stop":
                raise
            lines.extend(f"warning: {line}" for line in str(error).splitlines())
        return "\n".join(lines)

    return world.said(check).splitlines() if recipe.run.check else []


def pretrain_recipe(request: Request) -> Recipe:
    """The recipe that a `pretrain` command line resolves to."""
    return _with_paths(resolve(request.asked))


def run_pretraining(request: Request) -> Path:
    """Runs, or resumes, pretraining and returns the run folder.

    Raises an MdpError, with the exit code, for anything the user has to mend.
    """
    with ExitStack() as held:
        stop, world = held.enter_context(stop_on_signals()), held.enter_context(joined())
        start = _begin("pretrain", request, world, held)
        recipe = _resumed_recipe(request, start) if start.checkpoint else pretrain_recipe(request)
        device = _device(recipe, world)
        plan = plan_pretraining(recipe)
        recipe = plan.recipe
        assert plan.validation is not None
        images = len(plan.pool.samples)
        data = data_of(recipe, plan.pool.union, images)  # a misfit is told before there is a run folder
        _enough(recipe.pretrain.batch_size, world, recipe, least=1)
        _agree(world, recipe, plan)
        weights, report = {}, ""
        if start.checkpoint and start.folder:
            _same_labels(start.checkpoint.about, plan.pool, start.folder)
        elif request.init:
            path = runs.checkpoint_of(Path(request.init))
            pair = find_method(recipe.method.name).build(recipe.method.settings, recipe.model, data, torch.Generator())
            found, report = fit(read_weights(path)[0], pair.query, ("backbone", "decode_head", "projection_head"), path)
            weights = found.tensors
        checked = _check(recipe, plan, world, stop, request.quiet)
        folder = start.folder or Path(world.said(lambda: str(_fresh("pretrain", plan, request, held))))
        schedule, length = schedule_of(recipe, images)
        journal = Journal(folder, schedule.steps, recipe.run.log_seconds, request.quiet, world.main)
        with _recorded(journal, "pretrain", world):
            _announce(journal, [*plan.lines, *checked], start, world)
            journal.say(
                f"{images:,} images, {plan.pool.union.size} classes; {schedule.steps:,} steps of {schedule.batch} "
                f"images ({length:,} an epoch) on {_where(device, world, schedule.batch, recipe)}"
            )
            if report:
                journal.say(report)
            place = Place(folder=folder, journal=journal, device=device, world=world)
            pretrain(recipe, plan.pool, plan.validation, place, stop, start.checkpoint, weights)
            _ended(place)
    return folder


def _where(device: torch.device, world: World, batch: int, recipe: Recipe) -> str:
    """The device, and how a batch is split."""
    parts = [str(device)]
    if world.size > 1:
        parts.append(f"{world.size} processes with {' + '.join(map(str, world.share(batch).images))} images each")
    if recipe.run.accumulate > 1:
        parts.append(f"in {recipe.run.accumulate} parts")
    if recipe.run.precision != "fp32":
        parts.append(recipe.run.precision)
    return ", ".join(parts)


def _ended(place: Place) -> None:
    """Says how many samples were left out, by all processes."""
    skipped = int(place.world.all_sum(torch.tensor(place.skipped)))
    if skipped:
        place.journal.say(
            f"{skipped} samples could not be read and were left out (--on-bad-sample skip); the lines above name them"
        )


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
        about = about_weights(weights)
        model = {"model": about["recipe"]["model"]} if about else {}
    return _with_paths(resolve(schedule_layer(target.partition(":")[0]), model, asked)), weights


def run_finetuning(request: Request) -> Path:
    """Runs, or resumes, fine-tuning and returns the run folder.

    Raises an MdpError, with the exit code, for anything the user has to mend.
    """
    with ExitStack() as held:
        stop, world = held.enter_context(stop_on_signals()), held.enter_context(joined())
        start, weights = _begin("finetune", request, world, held), None
        if start.checkpoint:
            recipe = _resumed_recipe(request, start)
        else:
            recipe, weights = finetune_recipe(request)
        device = _device(recipe, world)
        plan = plan_finetuning(recipe)
        _enough(recipe.finetune.batch_size, world, recipe, least=2)
        _agree(world, recipe, plan)
        network = new_segmentor(recipe, plan.pool.union.size)
        report = "starting from random weights"
        if start.checkpoint and start.folder:
            _same_labels(start.checkpoint.about, plan.pool, start.folder)
        elif weights:
            found, report = fit(read_weights(weights)[0], network, recipe.finetune.load, weights)
            network.load_state_dict(found.tensors, strict=False)
        if recipe.finetune.head_init == "prototypes" and not start.checkpoint:
            if weights is None:
                raise RecipeError("--head-init prototypes: scratch has no prototypes; give --init RUN")
            report += "\n" + start_classifier_(network, weights, recipe, plan.pool, device)
        checked = _check(recipe, plan, world, stop, request.quiet)
        folder = start.folder or Path(world.said(lambda: str(_fresh("finetune", plan, request, held))))
        journal = Journal(folder, recipe.finetune.steps, recipe.run.log_seconds, request.quiet, world.main)
        with _recorded(journal, "finetune", world):
            _announce(journal, [*plan.lines, *checked], start, world)
            for line in [] if start.checkpoint else report.splitlines():
                journal.say(line)
            batch = recipe.finetune.batch_size
            journal.say(f"{recipe.finetune.steps:,} steps of {batch} crops on {_where(device, world, batch, recipe)}")
            place = Place(folder=folder, journal=journal, device=device, world=world)
            finetune(recipe, network, plan.pool, plan.validation, place, stop, start.checkpoint)
            _ended(place)
    return folder


def _announce(journal: Journal, lines: list[str], start: Start, world: World) -> None:
    for line in lines:
        journal.say(line)
    if start.checkpoint:
        journal.step = start.checkpoint.about["step"]
        if journal.main:
            rewind(journal.folder, journal.step)
        for line in (*start.lines, *_differences(start.checkpoint.about, world)):
            journal.say(line)
        journal.say(f"resuming {journal.folder} after step {journal.step}")
    else:
        journal.say(f"run folder: {journal.folder}")


def _differences(about: Mapping[str, Any], world: World) -> Iterator[str]:
    """What else the last digits depend on and is not as it was; asked once threads are set as the recipe wants."""
    for what, now in (("processes", world.size), ("threads", torch.get_num_threads()), ("torch", torch.__version__)):
        before = about.get(what, now)
        if before != now:
            yield f"note: {what}: {before} before, {now} now; the last digits of what is learnt may differ"


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
    with stop_on_signals(), joined() as world:
        return _evaluate(request, which, keep, world)


def _evaluate(request: Request, which: str, keep: bool, world: World) -> tuple[dict[str, Any], Path]:
    source = Path(request.init) if request.init else runs.newest("finetune")
    if source is None:
        raise CheckpointError(f"no fine-tuning run under {runs.BASE / 'finetune'}; run `mdp finetune` first")
    path = runs.checkpoint_of(source, which)
    start = load(path)
    if start.about["kind"] != "finetune":
        raise CheckpointError(f"{path}: a {start.about['kind']} checkpoint has no classifier; fine-tune it first")
    recipe = evaluation_recipe(request, start.about)
    device = _device(recipe, world)
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
    _agree(world, recipe, Plan(recipe=recipe, pool=pool, validation=None))
    count = min(len(samples), settings.images or len(samples))
    progress = Counter(request.quiet or not world.main)
    progress.say(f"scoring {path} (step {start.about['step']})")
    progress.say(line)
    network = new_segmentor(recipe, pool.union.size)
    restore_(network, section(start.tensors, "network"), str(path))
    place = prepare_keep(folder, pool) if keep else None
    with _memory_in_one_line():
        blocks = score(
            network.to(device), pool, settings, device, recipe.run.workers, tell=progress.tell, keep=place, world=world
        )
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
    if world.main:
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
