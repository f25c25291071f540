"""One update of the weights: backward pass, gradients of all processes, checks, optimizer.

The gradient is a sum over the parts of a batch and over processes, by one all-reduce of all parameters in their order:
the same numbers in the same order whenever a run is resumed, where DistributedDataParallel regroups its buckets.
Nothing that is not finite reaches weights, momentum or running statistics.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mdp.core.batches import Batch
from mdp.core.chance import generator
from mdp.core.float64 import in_float64
from mdp.core.geometry import Grid
from mdp.core.methods import Loss
from mdp.core.networks.batchnorm import over_processes_
from mdp.core.networks.freezing import freeze_
from mdp.core.networks.gradient_checkpointing import checkpoint_blocks_, computed_again
from mdp.core.networks.memory_layout import to_channels_last_
from mdp.core.networks.pair import EncoderPair
from mdp.core.pixel_mining import given
from mdp.core.processes import join_rows
from mdp.io.errors import Diverged, RecipeError
from mdp.io.processes.world import World
from mdp.io.recipe.settings import RunSettings
from mdp.io.training.optimizers import Optimizer, set_rate_

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_SMALLEST_SCALE = 2.0**-14  # fp16 gradients that overflow at this scale are not a matter of the scale


class Overlapped(DistributedDataParallel):
    """Sends gradients while the backward pass goes on: faster over nccl, but resumed runs differ in the last bits."""

    @property
    def grid(self) -> Grid:
        grid: Grid = self.module.grid
        return grid

    @property
    def class_prototypes(self) -> nn.Parameter | None:
        learnt: nn.Parameter | None = self.module.class_prototypes
        return learnt


@dataclass(frozen=True, kw_only=True)
class Trainee:
    """A network in training and what trains it."""

    network: nn.Module  # whose weights are learnt
    forward: nn.Module  # the same network, or a wrapper around it that the losses call
    others: tuple[nn.Module, ...]  # networks whose running statistics change besides: the key encoder
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device
    settings: RunSettings
    world: World

    def autocast(self) -> AbstractContextManager[Any]:
        """Reduced precision for the networks; losses, bank and softmax stay float32."""
        dtype = _DTYPES.get(self.settings.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)


def new_trainee(
    pair: EncoderPair[Any],
    optimizer: Callable[[nn.Module], Optimizer],
    settings: RunSettings,
    device: torch.device,
    world: World,
    sync: bool,
    frozen: Sequence[str] = (),
) -> tuple[Trainee, EncoderPair[Any]]:
    """The networks on their device, ready for training, and the pair that losses are computed with.

    `sync`: whether BatchNorm looks at the images of all processes, on CUDA; `frozen`: names of the
    parts that are not trained.  Raises RecipeError where channels_last is asked for and unsafe.
    """
    networks = list(dict.fromkeys(pair))
    for network in networks:
        network.to(device).train()
        if settings.channels_last is not False and not to_channels_last_(network) and settings.channels_last:
            raise RecipeError(
                "run.channels_last: true: on a CPU torch would write beyond its buffers in a strided 1x1 convolution "
                "of fewer than 16 input channels, which this network has; leave the setting out, or take model.width=16"
            )
        if sync and world.size > 1 and device.type == "cuda":
            over_processes_(network, world.all_sum)
        freeze_(network, frozen)
        if settings.gradient_checkpointing and network is pair.query:
            checkpoint_blocks_(network)
        if settings.compile:
            network.compile()
    overlapped = settings.gradients == "overlapped" or (
        settings.gradients == "auto" and device.type == "cuda" and not settings.deterministic
    )
    forward: nn.Module = pair.query
    if overlapped and world.size > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer versions have another name for the last argument
            forward = Overlapped(
                pair.query, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
            )
    built = Trainee(
        network=pair.query,
        forward=forward,
        others=() if pair.key is pair.query else (pair.key,),
        optimizer=optimizer(pair.query),
        scaler=torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16"),
        device=device,
        settings=settings,
        world=world,
    )
    return built, EncoderPair(forward, forward if pair.key is pair.query else pair.key)


@contextmanager
def unharmed(trainee: Trainee, views: Sequence[Batch]) -> Iterator[None]:
    """Takes back what a step that fails did to running statistics, and records what it was given."""
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for buffer in _buffers(trainee):
        kinds.setdefault(buffer.dtype, []).append(buffer)
    with torch.no_grad():
        # copies of all, by a few kernels for each type instead of one each; a ViT with a linear head has none
        before = [torch._foreach_mul(buffers, 1) for buffers in kinds.values()]
    try:
        yield
    except Diverged as error:
        with torch.no_grad():
            for buffers, values in zip(kinds.values(), before, strict=True):
                torch._foreach_copy_(buffers, values)
        if not isinstance(error, Overflow):
            error.record["views"] = [_statistics(view) for view in views]
        raise


def _statistics(view: Batch) -> dict[str, Any]:
    """The ranges of this process's images, and how many pixels each label has."""
    classes, pixels = torch.unique(given(view.labels), return_counts=True)
    return {
        "finite": bool(view.images.isfinite().all()),
        "least": view.images.flatten(1).amin(1).tolist(),
        "mean": view.images.flatten(1).mean(1).tolist(),
        "greatest": view.images.flatten(1).amax(1).tolist(),
        "pixels": dict(zip(map(str, classes.tolist()), pixels.tolist(), strict=True)),
    }


class Overflow(Diverged):
    """The fp16 gradients overflowed: the scale is smaller now, and the step does not count."""


class Update(NamedTuple):
    """An update that is done."""

    values: dict[str, float]  # loss and metrics
    kept: Any  # what the losses kept, a row for each image of this process


def update_(
    trainee: Trainee,
    losses: Iterable[Callable[[], Loss]],
    lr: float,
    what: str,
    besides: Mapping[str, Tensor] | None = None,
) -> Update:
    """One step at rate `lr` down the sum of the losses, each made when its turn comes.

    `besides` are metrics of the whole batch to return too: all numbers of a step are waited for once, before weights
    are changed.

    Raises Diverged, before weights or momentum are changed, when loss or gradient is not finite, on all processes
    alike; Overflow when a smaller fp16 scale will help.  `what` names the step.
    """
    trainee.optimizer.zero_grad(set_to_none=True)
    turns = list(losses)
    shares: list[Mapping[str, Tensor]] = []
    kept = []
    for turn, make in enumerate(turns, 1):
        with _sent(trainee, last=turn == len(turns)), trainee.world.answered():
            with trainee.autocast():
                loss = make()
            with _recomputing(trainee):
                trainee.scaler.scale(loss.value).backward()  # type: ignore[no-untyped-call]
        shares.append({"loss": loss.value.detach(), **loss.metrics})
        kept.append(loss.kept)
    sums = torch.stack([in_float64(torch.stack([share[name] for share in shares])).sum() for name in shares[0]])
    summed = dict(zip(shares[0], trainee.world.all_sum(sums).unbind(), strict=True))
    _reduce_(trainee)
    trainee.scaler.unscale_(_torchs(trainee.optimizer))
    numbers = {**(besides or {}), **summed, "": _norm(trainee)}
    trainee.world.settled(trainee.device)
    values = _numbers(numbers)
    norm = values.pop("")
    if not math.isfinite(values["loss"]):
        raise Diverged(f"{what}: the loss is {values['loss']}; try a smaller --lr, or pretrain.warmup_steps", values)
    if not math.isfinite(norm):
        _overflow_(trainee, values, what)
    clip = trainee.settings.clip_norm
    if clip and norm > clip:
        torch._foreach_mul_(_gradients(trainee), clip / norm)
    set_rate_(trainee.optimizer, lr)
    trainee.optimizer.step()  # the scaler's own step would wait for what the norm has told already
    trainee.scaler.update()
    return Update(values, join_rows(kept))


def _torchs(optimizer: Optimizer) -> torch.optim.Optimizer:
    """The optimizer as the types of torch's scaler want it, which uses no more than ours have."""
    return cast(torch.optim.Optimizer, optimizer)


def _sent(trainee: Trainee, last: bool) -> AbstractContextManager[Any]:
    """Overlapped gradients are sent during the last part's backward pass only."""
    return nullcontext() if last or not isinstance(trainee.forward, Overlapped) else trainee.forward.no_sync()


def _recomputing(trainee: Trainee) -> AbstractContextManager[Any]:
    """Where the backward pass computes blocks again."""
    return computed_again(trainee.network) if trainee.settings.gradient_checkpointing else nullcontext()


def _gradients(trainee: Trainee) -> list[Tensor]:
    return [parameter.grad for parameter in trainee.network.parameters() if parameter.grad is not None]


def _buffers(trainee: Trainee) -> list[Tensor]:
    """Running statistics."""
    return [buffer for network in (trainee.network, *trainee.others) for buffer in network.buffers()]


def _reduce_(trainee: Trainee) -> None:
    """Sums the gradients over all processes, and averages the running statistics, which each has from its images.

    Statistics of what is frozen are the same everywhere, and a mean would round them.
    """
    if trainee.world.size == 1:
        return
    networks = (trainee.network, *trainee.others)
    moving = [module for network in networks for module in network.modules() if module.training]
    statistics = [buffer for module in moving for buffer in module.buffers(recurse=False) if buffer.is_floating_point()]
    if isinstance(trainee.forward, Overlapped):
        torch._foreach_mul_(_gradients(trainee), trainee.world.size)  # it averages
        gradients = []
    else:
        for parameter in trainee.network.parameters():  # a parameter without gradient here may have one elsewhere
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = _gradients(trainee)
    summed = [*gradients, *statistics]
    if not summed:  # overlapped, and without BatchNorm: all has been sent
        return
    flat = trainee.world.all_sum(torch.cat([tensor.flatten() for tensor in summed]))
    parts = torch.split(flat, [tensor.numel() for tensor in summed])
    shaped = [part.view_as(tensor) for part, tensor in zip(parts, summed, strict=True)]
    with torch.no_grad():
        if gradients:
            torch._foreach_copy_(gradients, shaped[: len(gradients)])
        if statistics:
            torch._foreach_copy_(statistics, torch._foreach_div(shaped[len(gradients) :], trainee.world.size))


def _norm(trainee: Trainee) -> Tensor:
    """The Euclidean norm of the gradient, ()."""
    total: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(_gradients(trainee))))
    return total


def _numbers(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """Scalars as numbers of Python, integers as such; the one place where a step waits for a GPU."""
    values = torch.stack([in_float64(tensor) for tensor in tensors.values()]).tolist()
    kinds = [float if tensor.is_floating_point() else int for tensor in tensors.values()]
    return {name: kind(value) for name, kind, value in zip(tensors, kinds, values, strict=True)}


def _overflow_(trainee: Trainee, values: dict[str, float], what: str) -> None:
    """Raises Overflow, the fp16 scale halved, or Diverged, naming parameters, where the scale is not to blame."""
    named = ((name, parameter.grad) for name, parameter in trainee.network.named_parameters())
    names = [name for name, grad in named if grad is not None and not grad.isfinite().all()]
    if trainee.scaler.is_enabled() and trainee.scaler.get_scale() > _SMALLEST_SCALE:
        trainee.scaler.step(_torchs(trainee.optimizer))  # skips, and counts
        trainee.scaler.update()
        raise Overflow(f"{what}: fp16 gradients overflow", values)
    some = ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])]) or "all parameters together"
    raise Diverged(
        f"{what}: the gradient of {some} is not finite although the loss is {values['loss']:.4f}; "
        "try a smaller --lr, or --set run.clip_norm=1",
        {**values, "parameters": names},
    )


def part_key(world: World, part: int) -> tuple[int, ...]:
    """The key of a part of a batch among all parts and processes; empty for the first, which may be all there is."""
    return (world.rank, part) if world.rank or part else ()


def seed_dropout(seed: int, *key: int | str) -> None:
    """Makes the dropout of a step, which draws from torch's global generator, a function of seed and key."""
    number = int(torch.randint(2**31, (), generator=generator(seed, "dropout", *key)))
    if torch.cuda.is_initialized() or torch.backends.mps.is_available():  # type: ignore[no-untyped-call]
        torch.manual_seed(number)
    else:  # the same, but for the stack trace that torch keeps for a GPU that may come, at each step
        torch.default_generator.manual_seed(number)
