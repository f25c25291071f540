"""Optimizers and their state in checkpoints."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def sgd(network: nn.Module, lr: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """SGD over all parameters, weight decay on all of them, as MoCo and MMSegmentation do."""
    return torch.optim.SGD(network.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)


# The optimizer in a checkpoint


def momentum_of(optimizer: torch.optim.SGD, network: nn.Module) -> dict[str, Tensor]:
    """The momentum buffers by parameter name."""
    states = {name: optimizer.state[parameter] for name, parameter in network.named_parameters()}
    return {name: state["momentum_buffer"] for name, state in states.items() if "momentum_buffer" in state}


def restore_momentum_(optimizer: torch.optim.SGD, network: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    """Puts back what `momentum_of` gave; matched by name, never by position."""
    for name, parameter in network.named_parameters():
        if name in buffers:
            optimizer.state[parameter]["momentum_buffer"] = buffers[name].to(parameter.device)
