"""SGD with momentum, weight decay on all parameters, as MoCo and MMSegmentation do."""

import torch

from mdp.io.recipe.settings import OptimizationSettings

DECAY_1D = True


def build(groups: list[dict[str, object]], settings: OptimizationSettings) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
