"""The step loop that pretraining and fine-tuning share, and the small parts around it: device, tensors of a checkpoint.

The loop decides when to step, validate, checkpoint and stop, on all processes alike; a `Run` says what these are.
"""

import json
import math
import time
from collections.abc import Generator
from contextlib import closing
from typing import Any, NamedTuple, Protocol

from mdp.io.errors import Diverged, Preempted
from mdp.io.files.writing import write_text
from mdp.io.journal.journal import Journal, finite
from mdp.io.processes.signals import Stop
from mdp.io.processes.world import World
from mdp.io.run.folder import keep_name
from mdp.io.run.record import Position


class Schedule(NamedTuple):
    """When things happen."""

    steps: int  # in all
    batch: int  # images a step
    validate_every: int  # steps; 0: only at the end
    checkpoint_seconds: float  # at most, between checkpoints
    keep_every: int = 0  # steps between checkpoints that are kept; 0: none


class Run(Protocol):
    """What a run does."""

    def advance(self, items: Any, step: int) -> dict[str, float]:
        """One step on these samples; metrics, "loss" and "lr" among them.  Raises Diverged before it does harm."""

    def validate(self, step: int, stop: Stop) -> float | None:
        """The score after so many steps, higher is better; None when the stop, set anywhere, cut it short."""

    def checkpoint(self, name: str, position: Position) -> None:
        """Writes all there is, if this is the main process."""

    def samples(self, step: int) -> list[str]:
        """The names of the samples of a step."""


class DataWait:
    """The share of time that goes into waiting for data; it is told once, when it is above a fifth for a while.

    `advice` says what may help; where nothing may, nothing is told.
    """

    def __init__(self, journal: Journal, advice: str, least: float = 0.2, seconds: float = 60.0) -> None:
        self.journal, self.advice, self.least, self.seconds = journal, advice, least, seconds
        self.waited = self.took = 0.0
        self.said = not advice

    def note(self, waited: float, took: float) -> None:
        """A step took so many seconds, the first of which it waited."""
        self.waited, self.took = self.waited + waited, self.took + took
        if self.said or self.took < self.seconds:
            return
        share = self.waited / self.took
        if share > self.least:
            self.said = True
            self.journal.say(f"{share:.0%} of the last {self.took:.0f} s went into waiting for data: {self.advice}")
        self.waited = self.took = 0.0


def loop(
    run: Run,
    items: Generator[Any, None, None],
    schedule: Schedule,
    journal: Journal,
    start: Position,
    stop: Stop,
    world: World,
    advice: str = "",
) -> None:
    """Runs from `start` to the end of the schedule; `items` gives what was loaded for one step after the other.

    `advice` is said once when the run waits for data for much of its time.
    A fresh run writes its first checkpoint before its first step: a full disk shows now, not after hours.
    Raises Preempted, after the checkpoint, when a signal asked to stop, and Diverged, likewise, with a record.
    """
    step, validated, best = start
    stop.patient = True
    data_wait = DataWait(journal, advice)
    saved_at = -math.inf if step == 0 else time.monotonic()
    with closing(items):
        while True:
            if step > validated and _due(step, schedule.validate_every, schedule.steps):
                score = run.validate(step, stop)
                if score is not None:  # a validation that a signal cut short is run again on resume
                    validated, saved_at = step, -math.inf
                    if score >= best:
                        best = score
                        run.checkpoint("best", Position(step, validated, best))
            late = world.main and time.monotonic() - saved_at > schedule.checkpoint_seconds
            spent_together(world)  # what validation asked of the others is not the step's
            asked = time.perf_counter()
            stopping, late = world.any_true(bool(stop), late)
            agreed = time.perf_counter() - asked
            if stopping or late:
                run.checkpoint("last", Position(step, validated, best))
                saved_at = time.monotonic()
            if stopping:
                stop.agree(world)
                raise Preempted(f"stopped by {stop.name} after step {step} of {schedule.steps}")
            if step == schedule.steps:
                return
            began = time.perf_counter()
            batch = next(items)
            waited = time.perf_counter() - began
            try:
                metrics = run.advance(batch, step)
            except Diverged as error:
                run.checkpoint("last", Position(step, validated, best))
                _record(error, run.samples(step), step, journal)
                raise
            took = time.perf_counter() - began + agreed
            step += 1
            times = {"images_per_second": schedule.batch / took, "data_wait": waited / took}
            if world.size > 1:
                times["communication"] = min(1.0, spent_together(world) / took)
            journal.record("train", step, **metrics, **times)
            journal.progress(step)
            data_wait.note(waited, took)
            if schedule.keep_every and step % schedule.keep_every == 0:
                run.checkpoint(keep_name(step), Position(step, validated, best))


def spent_together(world: World) -> float:
    """The seconds that this process was in collectives since this was asked last; 0 for one process."""
    return world.collectives.take() if world.collectives else 0.0


def _due(step: int, every: int, last: int) -> bool:
    return step == last or (every > 0 and step % every == 0)


def _record(error: Diverged, samples: list[str], step: int, journal: Journal) -> None:
    """Writes what is known of a step that failed; the checkpoint before it replays it with --resume."""
    if journal.main:
        record = {"step": step + 1, "message": str(error), "samples": samples, **error.record}
        write_text(journal.folder / "diverged.json", json.dumps(finite(record), indent=1) + "\n")
        journal.say(f"the step's samples and numbers are in {journal.folder / 'diverged.json'}; --resume replays it")
