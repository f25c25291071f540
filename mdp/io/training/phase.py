"""Phases: the kinds of runs, each in a file of its own here; `job.py` runs any of them.

A new phase is one file: its settings' schedule, what it prepares before there is a run folder, and a `TrainingRun`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mdp.io.data.selection import Plan
from mdp.io.processes.device import precision_words
from mdp.io.processes.world import World
from mdp.io.recipe.layers import Recipe, as_yaml
from mdp.io.recipe.request import Request
from mdp.io.run.opened import OpenedRun
from mdp.io.training.context import RunContext
from mdp.io.training.loop import Schedule
from mdp.io.training.run import TrainingRun


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """Everything that a phase knows before there is a run folder."""

    plan: Plan
    weights: Path | None  # to start from; None: at random, or from `resumed`
    resumed: OpenedRun | None  # the run that goes on
    device: torch.device
    world: World

    def where(self, batch: int) -> str:
        """The device, and how a batch of so many images is split."""
        settings, size = self.plan.recipe.run, self.world.size
        parts = [str(self.device)]
        if size > 1:
            parts.append(f"{size} processes with {' + '.join(map(str, self.world.share(batch).images))} images each")
        if settings.accumulate > 1:
            parts.append(f"in {settings.accumulate} parts")
        return ", ".join(filter(None, [*parts, precision_words(self.device, settings.precision)]))


class Prepared(NamedTuple):
    """A run that is ready to be built, its weights read."""

    lines: list[str]  # for people, once there is a journal
    build: Callable[[RunContext], TrainingRun]


class Phase(NamedTuple):
    """A kind of run."""

    kind: str  # the word in checkpoints, folders and commands
    least: int  # images that a part of a batch must have, for BatchNorm
    recipe: Callable[[Request], tuple[Recipe, Path | None]]  # of a fresh run, and the weights that it starts from
    plan: Callable[[Recipe], Plan]  # opens the data; raises where they do not fit the recipe
    schedule: Callable[[Plan], Schedule]
    columns: Callable[[Sequence[str]], tuple[str, ...]]  # of results.csv, by the datasets that are scored
    prepare: Callable[[Beginning], Prepared]
    describe: Callable[[Request], dict[str, Any]]  # what a fresh run would take, without running it (`--dry-run`)
    sections: tuple[str, ...]  # of a recipe, which say all about such a run

    def yaml(self, request: Request) -> str:
        """The configuration that gives the same run again."""
        return as_yaml(self.recipe(request)[0], self.sections)
