"""What of a run's time goes into asking other processes."""

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from mdp.io.journal.journal import Journal
from mdp.io.processes import collective_time
from mdp.io.processes.collective_time import Collectives
from mdp.io.processes.signals import Stop
from mdp.io.processes.world import ALONE, World
from mdp.io.run.record import Position
from mdp.io.training.context import RunContext
from mdp.io.training.loop import Schedule, loop

CPU = torch.device("cpu")


class Clock:
    """Time that goes on only when somebody passes some."""

    def __init__(self) -> None:
        self.now = 100.0

    def passing(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: found.now)
    return found


def failing(spent: Collectives, clock: Clock) -> None:
    with spent.timed(CPU):
        clock.passing(0.25)
        raise KeyError


def test_the_seconds_inside_count_once_and_those_of_a_collective_that_fails_too(clock: Clock) -> None:
    spent = Collectives()
    with spent.timed(CPU):
        clock.passing(0.5)
    clock.passing(2.0)
    with pytest.raises(KeyError):
        failing(spent, clock)
    assert spent.take() == 0.75
    assert spent.take() == 0.0


class Event:
    """A mark on a device that comes to it when it is told to."""

    made: list["Event"]

    def __init__(self) -> None:
        self.past, self.recorded = False, False
        Event.made.append(self)

    def record(self) -> None:
        self.recorded = True

    def query(self) -> bool:
        return self.past

    def elapsed_time(self, after: "Event") -> float:
        assert self.past
        assert after.past
        assert after.recorded
        return 250.0  # milliseconds


def test_on_cuda_the_time_is_that_between_two_marks_and_nothing_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    Event.made = []
    monkeypatch.setattr(collective_time, "_event", Event)
    spent = Collectives()
    for _ in range(2):
        with spent.timed(torch.device("cuda")):
            pass
    assert spent.take() == 0.0  # the device has come to none of them
    for event in Event.made[:2]:
        event.past = True
    assert spent.take() == 0.25
    for event in Event.made:
        event.past = True
    assert spent.take() == 0.25
    assert spent.take() == 0.0


class Slow(World):
    """A world whose other process takes half a second to agree."""

    clock: Clock

    def any_true(self, *flags: bool) -> list[bool]:
        ask(self, self.clock, 0.5)
        return list(flags)


def ask(world: World, clock: Clock, seconds: float) -> None:
    """A collective."""
    with world.collectives.timed(CPU) if world.collectives else nullcontext():
        clock.passing(seconds)


class Steps:
    """A run whose steps wait for the others, its validations much longer."""

    schedule, advice = Schedule(4, 8, 1, 1e9), ""

    def __init__(self, world: World, clock: Clock) -> None:
        self.world, self.clock = world, clock

    def advance(self, items: Any, step: int) -> dict[str, float]:
        ask(self.world, self.clock, 1.0)
        self.clock.passing(0.25)
        return {"loss": 1.0, "lr": 0.1}

    def validate(self, step: int, stop: Stop) -> float:
        ask(self.world, self.clock, 60.0)
        return 0.0

    def checkpoint(self, name: str, position: Position) -> None:
        self.clock.passing(7.0)

    def samples(self, step: int) -> list[str]:
        return []


def recorded(world: World, clock: Clock, folder: Path) -> list[tuple[float, ...]]:
    """The times in the records of four steps, each of which waits for data for a quarter of a second."""

    def items() -> Iterator[list[Any]]:
        while True:
            clock.passing(0.25)
            yield []

    journal = Journal(folder, 4, 1.0, quiet=True)
    context = RunContext(folder=folder, journal=journal, device=CPU, world=world)
    loop(Steps(world, clock), items(), Position(), context, Stop())
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = ("images_per_second", "data_wait", "communication")
    return [tuple(record[name] for name in names if name in record) for record in records]


def test_the_share_of_a_step_is_what_it_and_the_agreement_before_it_asked_of_the_others(
    clock: Clock, tmp_path: Path
) -> None:
    """By hand, in quarters of a second: 2 of agreement, 1 of data, 4 of collectives, 1 of computing: 6 of 8."""
    world = Slow(0, 2, None, Collectives())
    world.clock = clock
    assert recorded(world, clock, tmp_path) == [(8 / 2, 1 / 8, 6 / 8)] * 4


def test_one_process_has_no_communication_to_record(clock: Clock, tmp_path: Path) -> None:
    assert ALONE.collectives is None
    assert recorded(ALONE, clock, tmp_path) == [(8 / 1.5, 0.25 / 1.5)] * 4
