"""The jobs behind `mdp pretrain` and `mdp finetune`: from layers of settings to a finished run.

A job resolves the recipe, opens and checks the data, makes or reopens the run folder, trains, and says in status.json
how it ended.  With several processes all do the same; what only one may do, the main process does.
"""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from mdp.io.check.job import check_before_training
from mdp.io.check.leaks import Print
from mdp.io.check.seen import FILE as SEEN
from mdp.io.check.seen import Seen, as_file, learnt_from, photos_of, read_seen, told, twins
from mdp.io.data.cache.opening import with_cache
from mdp.io.data.class_shares import write_class_shares
from mdp.io.data.loader import own_parts
from mdp.io.data.manifest import FILE as MANIFEST
from mdp.io.data.manifest import packed
from mdp.io.data.pool import name_of
from mdp.io.data.selection import Plan, without_labels
from mdp.io.errors import DatasetError, MdpError, Preempted, RecipeError, ResourceError, Stopped
from mdp.io.files.reading import shown
from mdp.io.files.strict_yaml import load_yaml
from mdp.io.files.writing import write_atomically
from mdp.io.journal.counter import Counter, number_of
from mdp.io.journal.journal import Journal
from mdp.io.journal.tensorboard import expect_tensorboard
from mdp.io.journal.trackers import NAMES as TRACKERS
from mdp.io.journal.trackers import expect_tracker
from mdp.io.pictures.samples import unusable_sheet
from mdp.io.processes.agreement import agree
from mdp.io.processes.device import for_device, memory_in_one_line, quick_convolutions, set_up
from mdp.io.processes.signals import Stop, stop_on_signals
from mdp.io.processes.world import World, joined
from mdp.io.recipe.layers import Recipe, resolve
from mdp.io.recipe.request import Request, with_paths
from mdp.io.recipe.settings import RunSettings
from mdp.io.report.job import report_at_end
from mdp.io.run import folder as run_folder
from mdp.io.run.checkpoints import checkpoints_in
from mdp.io.run.opened import OpenedRun, same_labels
from mdp.io.run.record import Position
from mdp.io.run.same_data import data_of_run, since_it_began
from mdp.io.training.context import RunContext
from mdp.io.training.finetuning import FINETUNING
from mdp.io.training.loop import Schedule, loop
from mdp.io.training.phase import Beginning, Phase
from mdp.io.training.pretraining import PRETRAINING
from mdp.io.training.resume import Start, begin, differences, fresh, resumed_recipe, to_resume
from mdp.io.training.run import TrainingRun
from mdp.io.weights.reading import read_record

PHASES = {phase.kind: phase for phase in (PRETRAINING, FINETUNING)}  # by the name of their command


@contextmanager
def _recorded(journal: Journal, again: str) -> Iterator[list[str]]:
    """Writes status.json whatever happens, and turns a shortage of memory into one line.

    What is put into the list is said of a run that is done; `again` says how one goes on that was stopped.
    """
    journal.status("running")
    remarks: list[str] = []

    def ended(state: str, message: str, exit_code: int) -> None:
        with suppress(ResourceError):  # where it cannot be written, the error that ends the run is still what is told
            journal.status(state, message, exit_code)

    try:
        with memory_in_one_line():
            yield remarks
    except Stopped as error:
        ended("preempted", str(error), Preempted.exit_code)
        raise
    except Preempted as error:
        ended("preempted", str(error), error.exit_code)
        if not checkpoints_in(journal.folder):
            raise
        raise Preempted(f"{error}; go on with: {again}") from error
    except MdpError as error:
        ended("failed", str(error), error.exit_code)
        raise
    except KeyboardInterrupt:
        ended("interrupted", "second Ctrl-C", 130)
        raise
    except BaseException as error:
        ended("failed", repr(error), 1)
        raise
    journal.status("done", "; ".join(remarks), 0)


def _again(kind: str, folder: Path, request: Request, world: World) -> str:
    """The command, or the call, by which the run in a folder goes on."""
    if request.program:
        return f"mdp.io.{kind}(..., resume={str(folder)!r})"
    command = f"mdp {kind} --resume {shlex.quote(str(folder))}"
    return command + (f" --processes {world.size}" if world.size > 1 else "")


def _expect_transform(recipe: Recipe, request: Request) -> None:
    """Raises RecipeError unless the transform that the recipe names, if any, is the one that a program gives."""
    given = name_of(request.transform)
    if recipe.data.transform != given:
        raise RecipeError(
            f"data.transform: {shown(recipe.data.transform)} is a function of a Python program; start and resume such "
            f"runs there, by mdp.io.pretrain or finetune with transform={recipe.data.transform or None}"
            + (f", not {given}" if given else "")
        )


@contextmanager
def _reported(context: RunContext, wanted: bool) -> Iterator[None]:
    """Writes the run's report however it ends, but for a second Ctrl-C and faults of ours."""
    try:
        yield
    except MdpError as error:
        _report(context, wanted, error)
        raise
    _report(context, wanted)


def _report(context: RunContext, wanted: bool, error: MdpError | None = None) -> None:
    """The report, with a picture of a sample that cannot be used; what goes wrong with it never hides the error."""
    with suppress(ResourceError):
        if isinstance(error, DatasetError) and error.sample is not None:
            title = f"after step {context.journal.step}: the sample that cannot be used"
            context.picture("samples/unusable.png", partial(unusable_sheet, error.sample, title))
        if wanted and context.world.main:
            report_at_end(context.folder, context.journal.say)


def _enough(images: int, processes: int, recipe: Recipe, least: int) -> None:
    """Raises RecipeError when a part of a batch would hold too few images for BatchNorm."""
    parts = processes * recipe.run.accumulate
    if images < parts * least:
        raise RecipeError(
            f"a batch of {images} images in {parts} parts (--processes {processes}, "
            f"--accumulate {recipe.run.accumulate}) leaves fewer than {least} image(s) a part; raise --batch-size or "
            "lower the others"
        )


def _check(plan: Plan, world: World, stop: Stop, quiet: bool) -> tuple[list[str], list[Print]]:
    """The lines of the data check, which the main process does while the others wait, and what it alone knows then."""
    settings = plan.recipe.run
    prints: list[Print] = []

    def check() -> str:
        lines: list[str] = []
        parts = [
            (dataset, [sample for sample in pool.samples if sample.dataset == name], role)
            for role, pool in (("train", plan.pool), ("val", plan.validation))
            if pool
            for name, dataset in pool.datasets.items()
        ]
        workers, tell = max(1, settings.loaders), Counter(quiet).tell
        try:
            prints.extend(check_before_training(parts, workers, lines.append, tell=tell, stop=lambda: stop))
        except DatasetError as error:
            if settings.on_bad_sample == "stop":
                raise
            lines.extend(f"warning: {line}" for line in str(error).splitlines())
        return "\n".join(lines)

    return world.broadcast_main(check).splitlines() if settings.check else [], prints


def _seen_before(plan: Plan, kind: str, prints: Sequence[Print], weights: Path | None) -> tuple[Seen, list[str]]:
    """The photos that the run will have seen, and lines about those to score that it has seen then or before.

    Those to score that are trained on, too, the check tells, where it is made.
    """
    file = run_folder.checkpoint_of(weights) if weights else None
    before = read_seen(run_folder.home_of(file)) if file else None
    seen = learnt_from(kind, plan.data, prints, before)
    lines = []
    if file and before is None and read_record(file):
        lines.append(f"note: nothing tells which photos {file} has seen; whether those to score are among them is open")
    others = before if plan.recipe.run.check else seen
    known = {photo.image: photo for photo in prints}
    scored = [photo for part in plan.data if part.role == "val" for photo in photos_of(part, known)]
    text = told(twins(others, scored), len(scored)) if others else ""
    return seen, [*lines, *([f"warning: {text}"] if text else [])]


def refuse_early(phase: Phase, request: Request, processes: int) -> None:
    """Raises what each of so many processes would raise at its start: for wrong settings, and data that are not there.

    It reads no checkpoint and holds no lock.
    """
    folder = to_resume(phase.kind, request)
    if folder is None:
        recipe, _ = phase.recipe(request)
    else:
        described = folder / "config.yaml"
        recipe = with_paths(resolve(load_yaml(described) if described.is_file() else {}, *request.layers))
    _expect_transform(recipe, request)
    plan = phase.plan(recipe)
    _enough(phase.schedule(plan).batch, processes, plan.recipe, phase.least)


def run_pretraining(request: Request) -> Path:
    """Runs, or resumes, pretraining; see `run_phase`."""
    return run_phase(PRETRAINING, request)


def run_finetuning(request: Request) -> Path:
    """Runs, or resumes, fine-tuning; see `run_phase`."""
    return run_phase(FINETUNING, request)


def run_phase(phase: Phase, request: Request) -> Path:
    """Runs, or resumes, a run of that kind and returns the run folder.

    Raises an MdpError, with the exit code, for anything the user has to mend.
    """
    with ExitStack() as held:
        stop, world = held.enter_context(stop_on_signals("the first step")), held.enter_context(joined(request.timeout))
        start = begin(phase.kind, request, world, held)
        recipe, weights = (resumed_recipe(request, start), None) if start.opened else phase.recipe(request)
        _expect_transform(recipe, request)
        device = set_up(recipe, world)
        recipe = for_device(recipe, device, world)
        quick_convolutions(device, recipe.run)
        if recipe.run.tensorboard:
            expect_tensorboard()
        for tracker in trackers_of(recipe.run):
            expect_tracker(tracker)
        plan = data_of_run(phase.plan, recipe, start.folder)
        plan = replace(plan, pool=plan.pool._replace(transform=request.transform))
        plan = with_cache(plan, device, world)
        schedule = phase.schedule(plan)
        _enough(schedule.batch, world.size, plan.recipe, phase.least)
        samples = [pool.samples for pool in (plan.pool, plan.validation) if pool]
        agree(world, plan.recipe, samples, plan.data, _weights(start, weights))
        if start.opened and start.folder:
            same_labels(start.opened.record, plan.pool.union, start.folder)
            plan.lines.extend(since_it_began(plan, start.opened.record, start.folder, schedule.steps))
        beginning = Beginning(plan=plan, weights=weights, resumed=start.opened, device=device, world=world)
        with memory_in_one_line():
            prepared = phase.prepare(beginning)
        checked, prints = _check(plan, world, stop, request.quiet)
        # made last: a run that is refused leaves no folder
        folder = start.folder or Path(world.broadcast_main(lambda: str(fresh(phase.kind, plan, request, held))))
        seen, lines = _seen_before(plan, phase.kind, prints, weights) if world.main else (None, [])
        lines = [*checked, *_batch_norm(world, device), *([] if start.opened else lines)]
        journal = _journal(phase, folder, schedule.steps, plan, request, world)
        context = RunContext(folder=folder, journal=journal, device=device, world=world, hints=request.hints)
        # the report is made after status.json has the ending that it shows
        again = _again(phase.kind, folder, request, world)
        with _reported(context, request.report), _recorded(journal, again) as remarks:
            _announce(journal, [*plan.lines, *lines], start, world)
            if seen:  # the main process
                _write_lists(folder, plan, seen)
                hidden = without_labels(plan.pool, plan.recipe) if phase is PRETRAINING else ()
                write_class_shares(folder, plan.pool, hidden)
            for line in prepared.lines:
                journal.say(line)
            remarks.extend(_early(_train(prepared.build(context), context, stop, start.opened), schedule))
            for line in remarks:
                journal.say(line)
            _ended(context)
    return folder


def _batch_norm(world: World, device: torch.device) -> list[str]:
    """A line where the loss of several processes is not that of one: BatchNorm is over all of them on CUDA only."""
    if world.size == 1 or device.type == "cuda":
        return []
    return [
        f"note: {world.size} processes on a CPU: BatchNorm normalises with each process's own images, so losses are "
        "not those of one process (on CUDA they are)"
    ]


def _write_lists(folder: Path, plan: Plan, seen: Seen) -> None:
    """The files of the run's data, and the photos that it sees; of these the list that is there has its past, too."""
    write_atomically(folder / MANIFEST, [packed(plan.data)])
    if not (folder / SEEN).exists():
        write_atomically(folder / SEEN, [as_file(seen)])


def _weights(start: Start, weights: Path | None) -> dict[str, Path]:
    """The file that a run starts from, by what it is called."""
    if start.opened:
        return {"the checkpoint": start.opened.path}
    return {"the --init file": run_folder.checkpoint_of(weights)} if weights else {}


def _train(run: TrainingRun, context: RunContext, stop: Stop, resumed: OpenedRun | None) -> Position:
    """Goes through the steps that are left, and returns where it ended.

    Raises Diverged before a step that is not finite, Preempted after the checkpoint that a signal asked for.
    """
    start = resumed.record.position if resumed else Position()
    saved = resumed is not None and resumed.path.stem == "last"
    keys = own_parts(run.keys(start.step, run.schedule.steps), run.processes.own)
    loaded = context.load(run.items, run.pool, keys, run.recipe.run, run.stack, run.finished, lambda: stop)
    with closing(loaded) as items:
        return loop(run, items, start, context, stop, saved)


def _early(end: Position, schedule: Schedule) -> list[str]:
    """What is said of a run that ended before its last step."""
    if end.step >= schedule.steps:
        return []
    return [
        f"stopped early after step {end.step} of {schedule.steps}: {number_of(end.stale, 'validation')} without a "
        "better score; to go on, --resume it with a larger finetune.patience, or null"
    ]


def _ended(context: RunContext) -> None:
    """Says how many samples were left out, by all processes."""
    skipped = int(context.world.all_sum(torch.tensor(context.skipped)))
    if skipped:
        context.journal.say(
            f"{skipped} samples could not be read and were left out (--on-bad-sample skip); the lines above name them"
        )


def _journal(phase: Phase, folder: Path, steps: int, plan: Plan, request: Request, world: World) -> Journal:
    """The journal of a run, with the columns that its validations fill."""
    run, scored = plan.recipe.run, list(plan.validation.datasets) if plan.validation else []
    names = phase.columns(scored)
    return Journal(folder, steps, run.log_seconds, request.quiet, world.main, names, run.tensorboard, trackers_of(run))


def trackers_of(run: RunSettings) -> tuple[str, ...]:
    """The trackers that are on."""
    return tuple(name for name in TRACKERS if getattr(run, name))


def _announce(journal: Journal, lines: list[str], start: Start, world: World) -> None:
    for line in lines:
        journal.say(line)
    if start.opened:
        journal.begin(start.opened.record.position.step, start.opened.record.position.validated)
        for line in (*start.lines, *differences(start.opened.record, world)):
            journal.say(line)
        journal.say(f"resuming {journal.folder} after step {journal.step}")
    else:
        journal.begin()
        journal.say(f"run folder: {journal.folder}")
