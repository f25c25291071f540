"""Optimizers, one file each, and their state in checkpoints.

A new optimizer is one file here and its name in `settings.OPTIMIZERS`.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from torch import Tensor, nn

from mdp.core.networks.layers import layers_of, undecayed
from mdp.io.recipe.settings import OptimizationSettings

Group = dict[str, Any]  # params, weight_decay, lr, and rate: a factor on the learning rate


class Optimizer(Protocol):
    """What training asks of an optimizer; those of torch have it."""

    @property
    def param_groups(self) -> list[Group]: ...

    @property
    def state(self) -> Any:
        """What it remembers of each parameter, by name."""

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def step(self) -> Any:
        """Changes the parameters that have a gradient, by the `lr` of their group."""


class OptimizerModule(Protocol):
    """An optimizer's file."""

    @property
    def DECAY_1D(self) -> bool:
        """Whether its weight decay is meant for biases and norms too, where the recipe does not say."""

    def build(self, groups: list[Group], settings: OptimizationSettings) -> Optimizer:
        """The optimizer of these groups; the learning rate is set before every step."""


def build_optimizer(network: nn.Module, settings: OptimizationSettings) -> Optimizer:
    """The recipe's optimizer of all parameters that are trained.

    Raises ValueError, naming the setting, where the network does not say which layers it has and rates go by layer.
    """
    module = cast(OptimizerModule, import_module(f"{__name__}.{settings.optimizer}"))
    decay_1d = module.DECAY_1D if settings.decay_1d is None else settings.decay_1d
    return module.build(parameter_groups(network, settings, decay_1d), settings)


def parameter_groups(network: nn.Module, settings: OptimizationSettings, decay_1d: bool) -> list[Group]:
    """The trained parameters in groups of one rate and one decay, in the order of the network.

    Without `decay_1d` neither biases and norms nor what a model of timm's names besides are decayed.
    """
    layers = layers_of(network) if settings.layer_decay != 1 else {}
    spared = set() if decay_1d else undecayed(network)
    last = max(layers.values(), default=0)
    groups: dict[tuple[float, float], Group] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            rate = settings.layer_decay ** (last - layers.get(name, last))
            decayed = decay_1d or (parameter.ndim > 1 and name not in spared)
            decay = settings.weight_decay if decayed else 0.0
            fresh = {"params": [], "weight_decay": decay, "rate": rate, "lr": settings.lr * rate}
            groups.setdefault((rate, decay), fresh)["params"].append(parameter)
    return list(groups.values())


def set_rate_(optimizer: Optimizer, lr: float) -> None:
    """The learning rate of the next step, in each group by its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("rate", 1.0)


# The optimizer in a checkpoint: each of its moments by parameter name, never by position

_SECTIONS = {"momentum_buffer": "momentum", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq", "step": "updates"}


def moments_of(optimizer: Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """What the optimizer remembers, as `momentum.NAME` and the like."""
    return {
        f"{section}.{name}": optimizer.state[parameter][key]
        for key, section in _SECTIONS.items()
        for name, parameter in network.named_parameters()
        if key in optimizer.state[parameter]
    }


def restore_moments_(optimizer: Optimizer, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `moments_of` gave."""
    for name, parameter in network.named_parameters():
        for key, section in _SECTIONS.items():
            if (tensor := tensors.get(f"{section}.{name}")) is not None:
                # torch counts updates on the CPU, wherever the parameter is
                optimizer.state[parameter][key] = tensor if key == "step" else tensor.to(parameter.device)


if TYPE_CHECKING:
    from mdp.io.training.optimizers import adam, adamw, lars, sgd

    CHECKED: tuple[OptimizerModule, ...] = (sgd, adam, adamw, lars)
