"""Adam (arXiv 1412.6980); weight decay is added to the gradient, on all parameters, as torch does."""

import torch
from torch import Tensor

from mdp.io.recipe.settings import OptimizationSettings
from mdp.io.training.optimizers._with_moments import Group, WithMoments, gradients_of

DECAY_1D = True
_EPSILON = 1e-8  # the paper's, and torch's


class Adam(WithMoments):
    """What `torch.optim.Adam` computes, to the bit, as far as rates, averages and weight decay go."""

    def __init__(self, groups: list[Group], betas: tuple[float, float]) -> None:
        super().__init__(groups)
        self.betas = betas

    def decayed_(self, parameters: list[Tensor], rate: float, decay: float) -> list[Tensor]:
        """The gradients, with the decay."""
        gradients = gradients_of(parameters)
        return list(torch._foreach_add(gradients, parameters, alpha=decay)) if decay else gradients

    @torch.no_grad()
    def step(self) -> None:
        first, second = self.betas
        for group, moved in self.moved():
            gradients = self.decayed_(moved, group["lr"], group["weight_decay"])
            states = [self._state(parameter) for parameter in moved]
            means, squares = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq"))
            torch._foreach_lerp_(means, gradients, 1 - first)
            torch._foreach_mul_(squares, second)
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
            updates = [state["step"].add_(1).item() for state in states]  # on the CPU: nothing is waited for
            scales = torch._foreach_sqrt(squares)
            torch._foreach_div_(scales, [(1 - second**count) ** 0.5 for count in updates])
            torch._foreach_add_(scales, _EPSILON)
            torch._foreach_addcdiv_(moved, means, scales, [-(group["lr"] / (1 - first**count)) for count in updates])

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        state = self.state[parameter]
        if "step" not in state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state


def build(groups: list[Group], settings: OptimizationSettings) -> Adam:
    return Adam(groups, settings.betas)
