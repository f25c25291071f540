"""SGD with momentum, weight decay on all parameters, as MoCo and MMSegmentation do."""

import torch
from torch import Tensor

from mdp.io.recipe.settings import OptimizationSettings
from mdp.io.training.optimizers._with_moments import Group, WithMoments, gradients_of

DECAY_1D = True


class Sgd(WithMoments):
    """What `torch.optim.SGD` computes, to the bit, as far as momentum and weight decay go."""

    def __init__(self, groups: list[Group], momentum: float) -> None:
        super().__init__(groups)
        self.momentum = momentum

    def gradients(self, parameters: list[Tensor], decay: float) -> list[Tensor]:
        """What is added to the momentum: the gradients, with the decay."""
        gradients = gradients_of(parameters)
        return list(torch._foreach_add(gradients, parameters, alpha=decay)) if decay else gradients

    @torch.no_grad()
    def step(self) -> None:
        for group, moved in self.moved():
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


def build(groups: list[Group], settings: OptimizationSettings) -> Sgd:
    return Sgd(groups, settings.momentum)
