"""A run of any kind: its data, what is learnt from them, and what is done around every step in the same way."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mdp.core.batches import Batch, Blend
from mdp.core.methods import Loss, split
from mdp.core.networks.exponential_moving_average import average_, ema_decay, new_average
from mdp.core.networks.freezing import frozen_names
from mdp.core.networks.gradient_checkpointing import refuse_unable
from mdp.core.networks.layers import layers_of
from mdp.core.processes import Processes
from mdp.io.data.cache.opening import cache_bytes
from mdp.io.data.pool import Key
from mdp.io.data.selection import Plan
from mdp.io.errors import DatasetError, Diverged, RecipeError
from mdp.io.journal.counter import number_of
from mdp.io.pictures.samples import sample_sheet, strangest
from mdp.io.processes.device import pick_device
from mdp.io.processes.signals import Stop
from mdp.io.processes.world import ALONE
from mdp.io.recipe.layers import as_layer
from mdp.io.recipe.settings import OptimizationSettings, RunSettings
from mdp.io.run.opened import EMA, OpenedRun
from mdp.io.run.record import Position, RunRecord
from mdp.io.run.restore import prefixed, restore_, section
from mdp.io.training.context import RunContext
from mdp.io.training.loop import Schedule
from mdp.io.training.optimizers import moments_of, restore_moments_
from mdp.io.training.update import Overflow, Trainee, part_key, seed_dropout
from mdp.photo_rule import PLAIN


def cache_facts(run: RunSettings, plan: Callable[[], Plan]) -> dict[str, Any]:
    """What a dry run says of `run.cache`, where one is asked for; `plan` opens the data.

    The bytes are those of one process, by where they are, or None while photos are missing.
    """
    if run.cache == "off":
        return {}
    try:
        opened = plan()
    except DatasetError:  # their number is that which was published, and their sizes nobody knows
        return {"cache_bytes": None}
    return {"cache_bytes": cache_bytes(opened, pick_device(run.device), ALONE)}


def training_lines(
    kind: str, build: Callable[[], nn.Module], settings: OptimizationSettings, run: RunSettings
) -> list[str]:
    """What is said of how weights are trained, where it is not plainly all of them; `build` gives the network.

    Raises RecipeError, naming the setting, where the network does not have the parts or layers that it needs.
    """
    lines = []
    try:
        if settings.layer_decay != 1:
            layers_of(build())
        if settings.freeze:
            lines.append(_frozen_line(build(), settings.freeze))
    except ValueError as error:
        raise RecipeError(f"{kind}.{error}") from error
    if run.gradient_checkpointing:
        try:
            refuse_unable(build())
        except ValueError as error:
            raise RecipeError(f"run.{error}") from error
        lines.append("gradient checkpointing: the backward pass computes the backbone's blocks again")
    if settings.ema:
        rises = ", reached in a warm-up" if settings.ema_warmup else ""
        lines.append(f"EMA of the weights: decay {settings.ema:g}{rises}; it is what validations score")
    return lines


def _frozen_line(network: nn.Module, patterns: Sequence[str]) -> str:
    names = frozen_names(network, patterns)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    return (
        f"frozen: {', '.join(patterns)}: {sum(map(sizes.__getitem__, names)):,} of {sum(sizes.values()):,} parameters "
        f"in {number_of(len(names), 'tensor')}; BatchNorm there keeps its statistics"
    )


class TrainingRun:
    """The part that all kinds of runs share; each says which keys a step takes, what it is, and what to keep of it."""

    kind: str
    trainee: Trainee
    items: Any  # key -> item: what the loader's workers make
    stack: Callable[[list[Any]], Any]  # items -> what `advance` takes
    average: nn.Module | None = None  # of the trainee's weights, where there is one
    last: float | None = None  # the last validation mIoU of fine-tuning

    def __init__(self, plan: Plan, schedule: Schedule, context: RunContext) -> None:
        self.recipe, self.pool, self.validation = plan.recipe, plan.pool, plan.validation
        self.schedule, self.context = schedule, context
        self.data = tuple(part.digest() for part in plan.data)
        self.processes = context.world.share(schedule.batch)
        self.advice = context.advice(plan.pool, plan.recipe.run.loaders)

    # What a kind of run says

    def keys(self, start: int, steps: int) -> Iterator[list[Key]]:
        """The keys of steps start .. steps - 1 of the whole batch."""
        raise NotImplementedError

    def finished(self, items: Any) -> Any:
        """The stacked items of a step, which are on a GPU, as far on as they can be before the step's turn comes."""
        return items

    def advance(self, items: Any, step: int) -> dict[str, float]:
        """One step, as `loop.Run` says."""
        raise NotImplementedError

    def validate(self, step: int, stop: Stop) -> float | None:
        """The score after so many steps, as `loop.Run` says."""
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """Everything that was learnt, for a checkpoint; the optimizer's moments come to it."""
        raise NotImplementedError

    # What is the same for all

    def samples(self, step: int) -> list[str]:
        return [self.pool.name(index) for _, index in next(self.keys(step, step + 1))]

    def losses(self, parts: Any, step: int, loss: Callable[[Any, Processes], Loss]) -> list[Callable[[], Loss]]:
        """The losses of the parts that this process's images are taken in, each made in its turn.

        Each has dropout of its own, and is given the processes that share the part.
        """

        def make(number: int, part: Any, among: Processes) -> Loss:
            seed_dropout(self.recipe.run.seed, step, *part_key(self.context.world, number))
            return loss(part, among)

        turns = split(parts, self.processes, self.recipe.run.accumulate)
        return [partial(make, number, *turn) for number, turn in enumerate(turns)]

    @contextmanager
    def pictured(self, views: Sequence[Batch | Blend], step: int) -> Iterator[None]:
        """Draws what the networks see in the first step, and in one that fails, the strangest samples first."""
        try:
            yield
        except Overflow:
            raise
        except Diverged:
            self._picture("failed", views, step, strangest(*(view.images for view in views)))
            raise
        if step == 0:
            self._picture("first", views, step, None)

    def _picture(self, name: str, views: Sequence[Batch | Blend], step: int, rows: Any) -> None:
        names = self.samples(step)[self.processes.own]  # this process's part of the batch
        title, pool = f"step {step + 1}: samples as the network gets them", self.pool
        sheet = partial(sample_sheet, views, names, pool.union, title, rows, pool.statistics)
        self.context.picture(f"samples/{name}.png", sheet)

    @property
    def learnt(self) -> nn.Module:
        """The network that a run is for."""
        return self.trainee.network

    @property
    def scored(self) -> nn.Module:
        """The network that validations score: the average of its weights where there is one."""
        return self.learnt if self.average is None else self.average

    @property
    def whose(self) -> str:
        """Behind a score: whose it is, where it is not that of the network in training."""
        return "" if self.average is None else " (EMA weights)"

    def begin_average_(self, settings: OptimizationSettings) -> None:
        """Begins the exponential moving average of the weights, where it is asked for."""
        self.average = new_average(self.learnt) if settings.ema else None

    def average_(self, settings: OptimizationSettings, step: int) -> None:
        """Takes the weights after a step, counted from 0, into their average."""
        if self.average is not None:
            average_(self.average, self.learnt, ema_decay(step, settings.ema, settings.ema_warmup))

    def restore_training_(self, resumed: OpenedRun) -> None:
        """Puts back the optimizer's moments, the fp16 scale and the average of the weights."""
        restore_moments_(self.trainee.optimizer, self.trainee.network, resumed.tensors)
        self.trainee.scaler.load_state_dict(dict(resumed.record.scaler))
        if self.average is not None:
            restore_(self.average, section(resumed.tensors, EMA), "average of the weights")

    def checkpoint(self, name: str, position: Position) -> None:
        moments = moments_of(self.trainee.optimizer, self.trainee.network)
        record = RunRecord(
            kind=self.kind,
            position=position,
            recipe=as_layer(self.recipe),
            labels=tuple(self.pool.union.spaces),
            processes=self.context.world.size,
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            scaler=self.trainee.scaler.state_dict(),
            last=self.last,
            data=self.data,
            photos={name: data.photos for name, data in self.pool.datasets.items() if data.photos != PLAIN},
        )
        average = prefixed(EMA, self.average.state_dict()) if self.average is not None else {}
        self.context.save(name, {**self.tensors(), **moments, **average}, record)
