"""AdamW (arXiv 1711.05101); biases and norms are not decayed, as BEiT, timm and MMSegmentation's transformers do."""

import torch
from torch import Tensor

from mdp.io.recipe.settings import OptimizationSettings
from mdp.io.training.optimizers._with_moments import Group, gradients_of
from mdp.io.training.optimizers.adam import Adam

DECAY_1D = False


class AdamW(Adam):
    """Adam whose decay shrinks the weights and leaves gradients as they are, with the bits of `torch.optim.AdamW`."""

    def decayed_(self, parameters: list[Tensor], rate: float, decay: float) -> list[Tensor]:
        if decay:
            torch._foreach_mul_(parameters, 1 - rate * decay)
        return gradients_of(parameters)


def build(groups: list[Group], settings: OptimizationSettings) -> AdamW:
    return AdamW(groups, settings.betas)
