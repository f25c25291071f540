"""The exponential moving average (EMA) of a network's weights over training (Polyak and Juditsky 1992; torch's
`AveragedModel`, timm's `ModelEmaV3`).

BatchNorm's running statistics are averaged as the weights are: those of the last step belong to weights that the
average is not.  Counters, which are whole numbers, are copied.
"""

import copy
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)

_POWER = 2 / 3  # timm's: 0.999 is reached after 31,600 updates, 0.99 after 1,000


def ema_decay(update: int, decay: float, warmup: bool) -> float:
    """The share of the average that stays at an update, of which the first is 0 and takes the weights as they are.

    With `warmup` it rises as 1 - (1 + update)^(-2/3) to `decay`: a short run would else end near its start.

    >>> [round(ema_decay(update, 0.999, True), 3) for update in (0, 1, 100, 10**6)], ema_decay(1, 0.999, False)
    ([0.0, 0.37, 0.954, 0.999], 0.999)
    """
    if update == 0:
        return 0.0
    return min(decay, 1 - (1 + update) ** -_POWER) if warmup else decay


def new_average(network: Network) -> Network:
    """A copy of the network to average into: in evaluation mode, without gradient."""
    return copy.deepcopy(network).requires_grad_(False).eval()


def average_(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average = decay * average + (1 - decay) * network, in place: parameters and buffers of one shape, by name."""
    ours, theirs = average.state_dict(), network.state_dict()
    fractions = [name for name, tensor in ours.items() if tensor.is_floating_point()]
    with torch.no_grad():
        torch._foreach_lerp_([ours[name] for name in fractions], [theirs[name] for name in fractions], 1 - decay)
        for name in ours.keys() - set(fractions):
            ours[name].copy_(theirs[name])
