"""The cost of the loop around the steps: journal, clocks, signals, checkpoints due; a network of one parameter.

The steps are those of a plain `for`; the demand is that the loop adds no more than 0.2 ms to each.
"""

import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Case, Entry, Gate
from mdp.io.journal.journal import Journal
from mdp.io.processes.signals import Stop
from mdp.io.processes.world import ALONE
from mdp.io.run.record import Position
from mdp.io.training.context import RunContext
from mdp.io.training.loop import Schedule, loop

STEPS = 200
ALLOWED = 0.0002  # seconds a step


class Tiny:
    """A run that fits one parameter."""

    schedule, advice = Schedule(STEPS, 8, 0, 1e9), ""

    def __init__(self) -> None:
        self.weight = torch.zeros(1, requires_grad=True)
        self.optimizer = torch.optim.SGD([self.weight], lr=0.01, momentum=0.9)

    def advance(self, items: Iterable[Any], step: int) -> dict[str, float]:
        """Forward, backward, step, and the loss as a number."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = (self.weight - 1).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return {"epoch": 0, "loss": loss.item(), "lr": 0.01}

    def validate(self, step: int, stop: Stop) -> None:
        """Nothing."""

    def checkpoint(self, name: str, position: Position) -> None:
        """Nothing: checkpoints come by the minute."""

    def samples(self, step: int) -> list[str]:
        """None."""
        return []


def cases() -> dict[str, Callable[[], Case]]:
    """One case."""
    return {f"{STEPS} steps": _case}


def _case() -> Case:
    run, folder = Tiny(), tempfile.TemporaryDirectory()
    journal = Journal(Path(folder.name), STEPS, seconds=1e9, quiet=True)
    context = RunContext(folder=Path(folder.name), journal=journal, device=torch.device("cpu"), world=ALONE)

    def ours() -> None:
        loop(run, _items(), Position(), context, Stop())
        assert folder

    entries = (
        Entry("mdp.io.training.loop.loop", "ours", ours),
        Entry("a plain loop", "plain", lambda: _plain(run, 0.0)),
        Entry("a plain loop and 0.2 ms a step", "plain", lambda: _plain(run, ALLOWED)),
    )
    return Case("loop", f"{STEPS} steps", entries, (Gate("a plain loop and 0.2 ms a step", at_most=1.0),))


def _items() -> Generator[list[Any], None, None]:
    while True:
        yield [None]


def _plain(run: Tiny, idle: float) -> None:
    for step in range(STEPS):
        run.advance([None], step)
        end = time.process_time() + idle
        while time.process_time() < end:
            pass
