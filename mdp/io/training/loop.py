"""The step loop that all kinds of runs share.

The loop decides when to step, validate, checkpoint and stop, on all processes alike; a `Run` says what these are.
"""

import json
import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from mdp.io.errors import DatasetError, Diverged, Preempted, ResourceError
from mdp.io.files.writing import write_text
from mdp.io.journal.journal import Journal, finite
from mdp.io.processes.device import sizes_vary
from mdp.io.processes.signals import Stop
from mdp.io.processes.world import World
from mdp.io.run.folder import keep_name
from mdp.io.run.record import Position
from mdp.io.training.context import RunContext


class Schedule(NamedTuple):
    """When things happen."""

    steps: int  # in all
    batch: int  # images a step
    validate_every: int  # steps; 0: only at the end
    checkpoint_seconds: float  # at most, between checkpoints
    keep_every: int = 0  # steps between checkpoints that are kept; 0: none
    patience: int = 0  # validations in a row without a better score, after which it ends; 0: never


class Run(Protocol):
    """A run, as the loop sees it."""

    schedule: Schedule
    advice: str  # what may help when it waits for data; "" where nothing may

    def advance(self, items: Any, step: int) -> dict[str, float]:
        """One step on these samples; metrics, "loss" and "lr" among them.  Raises Diverged before it does harm."""

    def validate(self, step: int, stop: Stop) -> float | None:
        """The score after so many steps, higher is better; None when the stop, set anywhere, cut it short."""

    def checkpoint(self, name: str, position: Position) -> None:
        """Writes all there is, if this is the main process."""

    def samples(self, step: int) -> list[str]:
        """The names of the samples of a step."""


class DataWait:
    """The share of time that goes into waiting for data; it is reported once, when it is above a fifth for a while.

    `advice` says what may help; where nothing may, nothing is reported.
    """

    def __init__(self, journal: Journal, advice: str, least: float = 0.2, seconds: float = 60.0) -> None:
        self.journal, self.advice, self.least, self.seconds = journal, advice, least, seconds
        self.waited = self.took = 0.0
        self.reported = not advice

    def note(self, waited: float, took: float) -> None:
        """A step took so many seconds, the first of which it waited."""
        self.waited, self.took = self.waited + waited, self.took + took
        if self.reported or self.took < self.seconds:
            return
        share = self.waited / self.took
        if share > self.least:
            self.reported = True
            self.journal.say(f"{share:.0%} of the last {self.took:.0f} s went into waiting for data: {self.advice}")
        self.waited = self.took = 0.0


class SaveTime:
    """When the next checkpoint is due: so many seconds after the last, or at once."""

    def __init__(self, seconds: float, at_once: bool) -> None:
        self.seconds = seconds
        self.saved_at = -math.inf if at_once else time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.saved_at > self.seconds

    def hasten(self) -> None:
        self.saved_at = -math.inf

    def restart(self) -> None:
        self.saved_at = time.monotonic()


class Labels:
    """Whether labels tell anything apart: where they do not the loss is 0 from the first step on."""

    enough = 20  # steps, after which it is no chance

    def __init__(self) -> None:
        self.zeros: int | None = 0  # steps with a loss of exactly 0 so far; None: there was another one

    def note(self, loss: float, last: bool) -> None:
        """Raises DatasetError once it is known that there are none."""
        if self.zeros is None or loss != 0:
            self.zeros = None
            return
        self.zeros += 1
        if last or self.zeros == self.enough:
            raise DatasetError(
                f"the loss was 0 in the first {self.zeros} steps: no pixel has a label that counts, or all have the "
                "same, so nothing is learnt; `mdp check` of the dataset says what is ignored and what is there"
            )


def loop(
    run: Run, items: Iterator[Any], start: Position, context: RunContext, stop: Stop, saved: bool = False
) -> Position:
    """Runs from `start` to the end of the schedule; `items` gives what was loaded for one step after the other.

    Returns where it ended: before the last step where the schedule's patience was at its end.

    Unless `last` is `saved` at `start` already, it is written before anything else: a full disk shows now, not after
    hours, and a run that goes on from `best` at its last step does not end while `last` is an older one.
    Raises Preempted, after the checkpoint, when a signal asked to stop, and Diverged, likewise, with a record;
    DatasetError when labels tell nothing.
    """
    position, schedule = start, run.schedule
    save_time = SaveTime(schedule.checkpoint_seconds, at_once=not saved)
    data_wait, labels = DataWait(context.journal, run.advice), Labels()
    stop.patient = True
    while True:
        if position.step > position.validated and _due(position.step, schedule.validate_every, schedule.steps):
            position = _validate(run, position, stop, save_time)
        stopping, late, agreed = _agree(stop, save_time, context.world)
        if stopping or late:
            run.checkpoint("last", position)
            save_time.restart()
        if stopping:
            stop.agree(context.world)
            raise Preempted(f"stopped by {stop.name} after step {position.step} of {schedule.steps}")
        if position.step == schedule.steps or 0 < schedule.patience <= position.stale:
            return position
        began = time.perf_counter()
        batch = _loaded(run, items, position, stop)
        waited = time.perf_counter() - began
        metrics = _advance(run, batch, position, context.journal)
        took = time.perf_counter() - began + agreed
        position = position._replace(step=position.step + 1)
        _record_step(context, position.step, metrics, schedule.batch, waited, took)
        data_wait.note(waited, took)
        labels.note(metrics["loss"], position.step == schedule.steps)
        if schedule.keep_every and position.step % schedule.keep_every == 0:
            run.checkpoint(keep_name(position.step), position)


def _loaded(run: Run, items: Iterator[Any], position: Position, stop: Stop) -> Any:
    """What was loaded for the next step; where it does not come, what was learnt so far is saved."""
    try:
        return next(items)
    except Preempted as error:
        run.checkpoint("last", position)
        after = f"after step {position.step} of {run.schedule.steps}, while it waited for data"
        raise Preempted(f"stopped by {stop.name} {after}") from error
    except ResourceError:
        run.checkpoint("last", position)
        raise


def _due(step: int, every: int, last: int) -> bool:
    return step == last or (every > 0 and step % every == 0)


def _validate(run: Run, position: Position, stop: Stop, save_time: SaveTime) -> Position:
    """The position after a validation, whose checkpoint `best` is written here and `last` is due at once."""
    with sizes_vary():
        score = run.validate(position.step, stop)
    if score is None:  # a signal cut it short: it is run again on resume
        return position
    save_time.hasten()
    better = score > position.best or position.validated == 0
    position = position._replace(validated=position.step, stale=0 if better else position.stale + 1)
    if score >= position.best:  # the later one of equal ones, and never of one that is not a number
        position = position._replace(best=score)
        run.checkpoint("best", position)
    return position


def _agree(stop: Stop, save_time: SaveTime, world: World) -> tuple[bool, bool, float]:
    """Whether any process is to stop, whether the main one wants a checkpoint, and the seconds that asking took."""
    late = world.main and save_time.due()
    spent_together(world)  # what validation asked of the others is not the step's
    asked = time.perf_counter()
    stopping, late = world.any_true(bool(stop), late)
    return stopping, late, time.perf_counter() - asked


def _advance(run: Run, batch: Any, position: Position, journal: Journal) -> dict[str, float]:
    """The metrics of a step; one that fails leaves the checkpoint before it, and a record."""
    try:
        return run.advance(batch, position.step)
    except Diverged as error:
        run.checkpoint("last", position)
        _record_failure(error, run.samples(position.step), position.step, journal)
        raise


def _record_step(
    context: RunContext, step: int, metrics: dict[str, float], images: int, waited: float, took: float
) -> None:
    """Writes the metrics of a step that is done, and how its seconds were spent."""
    times = {"images_per_second": images / took, "data_wait": waited / took}
    if context.world.size > 1:
        times["communication"] = min(1.0, spent_together(context.world) / took)
    context.journal.record("train", step, **metrics, **times)
    context.journal.progress(step)


def spent_together(world: World) -> float:
    """The seconds that this process was in collectives since this was asked last; 0 for one process."""
    return world.collectives.take() if world.collectives else 0.0


def _record_failure(error: Diverged, samples: list[str], step: int, journal: Journal) -> None:
    """Writes what is known of a step that failed; the checkpoint before it replays it with --resume."""
    if journal.main:
        record = {"step": step + 1, "message": str(error), "samples": samples, **error.record}
        write_text(journal.folder / "diverged.json", json.dumps(finite(record), indent=1) + "\n")
        journal.say(f"the step's samples and numbers are in {journal.folder / 'diverged.json'}; --resume replays it")
