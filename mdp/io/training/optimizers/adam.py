"""Adam (arXiv 1412.6980); weight decay is added to the gradient, on all parameters, as torch does."""

import torch

from mdp.io.recipe.settings import OptimizationSettings

DECAY_1D = True


def build(groups: list[dict[str, object]], settings: OptimizationSettings) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=settings.lr, betas=settings.betas)
