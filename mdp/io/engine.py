"""The step loop that pretraining and fine-tuning share, and the small parts around it: device, optimizer, tensors.

A run is three functions (`Work`): one training step, one validation, one checkpoint.  The loop decides when.
"""

import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mdp.core.chance import generator
from mdp.io.errors import CheckpointError, Diverged, Preempted, ResourceError
from mdp.io.journal import Journal
from mdp.io.signals import Stop, stop_on_signals


class Schedule(NamedTuple):
    """When things happen."""

    steps: int  # in all
    batch: int  # images a step
    validate_every: int  # steps; 0: only at the end
    checkpoint_seconds: float  # at most, between checkpoints


class Position(NamedTuple):
    """Where a run is; all of it is in every checkpoint."""

    step: int = 0  # steps done
    validated: int = 0  # the step of the last finished validation
    best: float = -math.inf  # the best validation score

    def as_json(self) -> dict[str, Any]:
        return {**self._asdict(), "best": self.best if math.isfinite(self.best) else None}


class Work(NamedTuple):
    """What a run does."""

    items: Generator[list[Any], None, None]  # one list of loaded samples a step
    advance: Callable[[list[Any], int], dict[str, float]]  # (items, step) -> metrics, "loss" and "lr" among them
    validate: Callable[[int, Stop], float]  # (steps done, stop) -> score, higher is better
    checkpoint: Callable[[str, Position], None]


def position_of(about: Mapping[str, Any]) -> Position:
    """The position that a checkpoint describes."""
    best = about["best"]
    return Position(about["step"], about["validated"], -math.inf if best is None else best)


def loop(work: Work, schedule: Schedule, journal: Journal, start: Position) -> None:
    """Runs from `start` to the end of the schedule.

    Raises Preempted, after the checkpoint, when a signal asked to stop.
    """
    step, validated, best = start
    saved_at = time.monotonic()
    with stop_on_signals() as stop, closing(work.items):
        while True:
            if step > validated and _due(step, schedule):
                score = work.validate(step, stop)
                if not stop:  # a validation that a signal cut short is run again on resume
                    validated, saved_at = step, -math.inf
                    if score >= best:
                        best = score
                        work.checkpoint("best", Position(step, validated, best))
            if stop or time.monotonic() - saved_at > schedule.checkpoint_seconds:
                work.checkpoint("last", Position(step, validated, best))
                saved_at = time.monotonic()
            if stop:
                raise Preempted(f"stopped by {stop.name} after step {step} of {schedule.steps}")
            if step == schedule.steps:
                return
            began = time.perf_counter()
            items = next(work.items)
            waited = time.perf_counter() - began
            metrics = work.advance(items, step)
            took = time.perf_counter() - began
            step += 1
            speed, waiting = schedule.batch / took, waited / took
            journal.record("train", step, **metrics, images_per_second=speed, data_wait=waiting)
            journal.progress(step, metrics["loss"], metrics["lr"], speed, waiting)


def _due(step: int, schedule: Schedule) -> bool:
    return step == schedule.steps or (schedule.validate_every > 0 and step % schedule.validate_every == 0)


def pick_device(name: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `cuda:N` stands for.  Raises ResourceError when it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ResourceError(f"--device {name}: expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ResourceError(f"--device {name}: this machine shows {torch.cuda.device_count()} CUDA devices")
    if device.type not in ("cpu", "cuda"):
        raise ResourceError(f"--device {name}: expected auto, cpu, cuda or cuda:N")
    return device


def sgd(network: nn.Module, lr: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """SGD over all parameters, weight decay on all of them, as MoCo and MMSegmentation do."""
    return torch.optim.SGD(network.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)


def optimize_(network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, lr: float, what: str) -> float:
    """One backward pass and optimizer step at rate `lr`; returns the loss.

    Raises Diverged, before anything is changed, when the loss or a gradient is not finite; `what` names the step.
    """
    value = loss.item()
    if not math.isfinite(value):
        raise Diverged(f"{what}: the loss is {value}; try a smaller --lr or pretrain.warmup_steps")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    if not bool(torch.stack(torch._foreach_norm(gradients)).sum().isfinite()):
        raise Diverged(f"{what}: a gradient is not finite although the loss is {value:.4f}; try a smaller --lr")
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    return value


def seed_dropout(seed: int, step: int) -> None:
    """Makes the dropout of a step, which draws from torch's global generator, a function of (seed, step)."""
    torch.manual_seed(int(torch.randint(2**31, (), generator=generator(seed, "dropout", step))))


# Tensors of a checkpoint, under prefixes


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`{a: x}` -> `{prefix.a: x}`."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def section(tensors: Mapping[str, Tensor], prefix: str, device: torch.device | None = None) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix.`, without it, on `device`."""
    start = f"{prefix}."
    return {name.removeprefix(start): t.to(device) for name, t in tensors.items() if name.startswith(start)}


def momentum_of(optimizer: torch.optim.SGD, network: nn.Module) -> dict[str, Tensor]:
    """The momentum buffers by parameter name."""
    states = {name: optimizer.state[parameter] for name, parameter in network.named_parameters()}
    return {name: state["momentum_buffer"] for name, state in states.items() if "momentum_buffer" in state}


def restore_momentum_(optimizer: torch.optim.SGD, network: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    """Puts back what `momentum_of` gave; matched by name, never by position."""
    for name, parameter in network.named_parameters():
        if name in buffers:
            optimizer.state[parameter]["momentum_buffer"] = buffers[name].to(parameter.device)


def restore_(network: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Loads all of a network's tensors.  Raises CheckpointError naming what differs."""
    own = network.state_dict()
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    shapes = [n for n in own if n in tensors and own[n].shape != tensors[n].shape]
    if missing or unexpected or shapes:
        first = [f"{n}: {list(tensors[n].shape)} in the checkpoint, {list(own[n].shape)} here" for n in shapes[:3]]
        raise CheckpointError(
            f"{what}: does not fit the network: {len(missing)} tensors missing, {len(unexpected)} unexpected, "
            f"{len(shapes)} of another shape ({'; '.join([*first, *missing[:2], *unexpected[:2]])}); "
            "the model settings must be those of the run"
        )
    network.load_state_dict(dict(tensors))
