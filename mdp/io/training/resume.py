"""Starting a run: a fresh folder, or the newest whole checkpoint of one that goes on, locked either way."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch

from mdp.io.data.selection import Plan
from mdp.io.errors import CheckpointError, RecipeError
from mdp.io.files.writing import write_text
from mdp.io.journal.stderr import say
from mdp.io.processes.world import World, launch_id, restarted
from mdp.io.recipe.layers import Recipe, as_layer, changed_keys, resolve
from mdp.io.recipe.request import Request, with_paths
from mdp.io.run import folder as run_folder
from mdp.io.run.checkpoints import checkpoints_in, newest_whole, remove_leftovers
from mdp.io.run.description import describe
from mdp.io.run.lock import locked
from mdp.io.run.opened import OpenedRun, open_run
from mdp.io.run.record import RunRecord, record_of

# What may differ between a run and its resumption; everything else decides what is learnt
MAY_CHANGE = (
    *(f"run.{key}" for key in ("device", "workers", "timeout", "log_seconds", "checkpoint_minutes", "keep_steps")),
    *(f"run.{key}" for key in ("compile", "channels_last", "gradients", "deterministic", "on_bad_sample", "check")),
    "run.gradient_checkpointing",
    "run.cache",
    "run.tensorboard",
    "finetune.patience",
    "run.wandb",
    "run.mlflow",
    "data.root",
)


class Start(NamedTuple):
    """The starting point of a run: the checkpoint of one that goes on, or nothing."""

    folder: Path | None  # of a run that goes on
    opened: OpenedRun | None
    lines: tuple[str, ...] = ()  # what to say about it


def begin(kind: str, request: Request, world: World, held: ExitStack) -> Start:
    """The run to go on with and its newest whole checkpoint, locked; nothing for a fresh run.

    Raises CheckpointError when a run is asked for that is not there or has no whole checkpoint.
    """
    # one process holds the lock and puts damaged files aside; the others open what it has chosen
    answer = world.broadcast_main(lambda: _reopen(kind, request, held))
    if not answer:
        return Start(None, None)
    folder, path, notes = json.loads(answer)
    return Start(Path(folder), open_run(Path(path)), tuple(notes))


def _reopen(kind: str, request: Request, held: ExitStack) -> str:
    """Run folder, checkpoint and notes as JSON; empty for a fresh run."""
    folder = to_resume(kind, request)
    if folder is None:
        return ""
    _hold(folder, held)
    remove_leftovers(folder)
    path, start, damaged = newest_whole(folder)
    recorded = record_of(path, start.about).kind
    if recorded != kind:
        raise CheckpointError(f"{folder}: a {recorded} run; resume it with `mdp {recorded}`")
    notes = [f"warning: {reason}; put aside" for reason in damaged.values()]
    for bad in damaged:
        bad.replace(bad.with_name(f"damaged_{bad.name}"))  # or the next checkpoint would move it over a whole one
    if damaged:
        notes.append(f"going on from {path}, the newest that is whole")
    return json.dumps([str(folder), str(path), notes])


def to_resume(kind: str, request: Request) -> Path | None:
    """The run folder to go on with, if one is asked for; with --out and --resume a run may be there or not.

    Raises CheckpointError when it is not there.
    """
    if request.resume:
        return _expect_folder(Path(request.resume))
    if request.resume is None:
        return run_folder.of_launch(kind, request.out, launch_id()) if restarted() else None
    if request.out is not None:
        return request.out if checkpoints_in(request.out) else None
    folder = run_folder.newest(kind)
    if folder is None:
        raise CheckpointError(
            f"--resume: no run with a checkpoint in {run_folder.BASE / kind} or {run_folder.BASE}; "
            "--resume RUN names one of another place"
        )
    return folder


def _expect_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: expected a run folder, found {'a file' if folder.exists() else 'nothing'}")
    return folder


def _hold(folder: Path, held: ExitStack) -> None:
    """Locks the folder until the job ends."""
    warning = held.enter_context(locked(folder))
    if warning:
        say(f"warning: {warning}")


def fresh(kind: str, plan: Plan, request: Request, held: ExitStack) -> Path:
    """A new run folder, locked and described."""
    ours = restarted() and request.out is not None and run_folder.begun_by(request.out, launch_id())
    again = request.resume is not None or ours  # a run that was stopped before its first checkpoint
    folder = run_folder.create(kind, "+".join(plan.pool.datasets), request.out, request.overwrite or again)
    _hold(folder, held)
    remove_leftovers(folder)  # of a run that was killed before its first checkpoint
    write_text(folder / "status.json", json.dumps({"state": "starting"}) + "\n")  # from now on it is a run
    describe(folder, plan.recipe, plan.pool.union.spaces, plan.pool.sizes(), launch_id(), request.program)
    return folder


def resumed_recipe(request: Request, start: Start) -> Recipe:
    """The recipe of the run that goes on, with what may change changed.

    Raises RecipeError when a setting that decides what is learnt was asked to change.
    """
    assert start.opened
    own = start.opened.record.recipe
    recipe = with_paths(resolve(own, *request.layers))
    own = as_layer(resolve(own))  # settings that are newer than the run have their defaults
    changed = [key for key in changed_keys(own, as_layer(recipe)) if key not in MAY_CHANGE]
    if changed:
        raise RecipeError(
            f"--resume {start.folder}: {', '.join(changed)} differ from the run's; only {', '.join(MAY_CHANGE)} may "
            "change. To start a new run from its weights use --init"
        )
    return recipe


def differences(record: RunRecord, world: World) -> Iterator[str]:
    """Notes of what else the last digits depend on and has changed; asked once threads are set as the recipe wants."""
    present = {
        "processes": (record.processes, world.size),
        "threads": (record.threads, torch.get_num_threads()),
        "torch": (record.torch, torch.__version__),
    }
    for what, (before, now) in present.items():
        if before not in (None, now):
            yield f"note: {what}: {before} before, {now} now; the last digits of what is learnt may differ"
