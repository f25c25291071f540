"""SGD with momentum, weight decay on all parameters, as MoCo and MMSegmentation do."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from mdp.io.recipe.settings import OptimizationSettings

DECAY_1D = True


class Sgd:
    """What `torch.optim.SGD` computes, to the bit, as far as momentum and weight decay go.

    The first of torch's own optimizers imports its compiler, which takes as long as importing torch: half of the time
    before a first step.
    """

    def __init__(self, groups: list[dict[str, Any]], momentum: float) -> None:
        self.param_groups, self.momentum = groups, momentum
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def gradients(self, parameters: list[Tensor], decay: float) -> list[Tensor]:
        """What is added to the momentum: the gradients, with the decay."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        return list(torch._foreach_add(gradients, parameters, alpha=decay)) if decay else gradients

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not moved:
                continue
            updates = self.gradients(moved, group["weight_decay"])
            if self.momentum:
                updates = [self._followed(parameter, update) for parameter, update in zip(moved, updates, strict=True)]
            torch._foreach_add_(moved, updates, alpha=-group["lr"])

    def _followed(self, parameter: Tensor, update: Tensor) -> Tensor:
        """The momentum of a parameter after an update."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = update.clone()
        else:
            state["momentum_buffer"].mul_(self.momentum).add_(update)
        return state["momentum_buffer"]


def build(groups: list[dict[str, Any]], settings: OptimizationSettings) -> Sgd:
    return Sgd(groups, settings.momentum)
