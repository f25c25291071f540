"""AdamW (arXiv 1711.05101); biases and norms are not decayed, as BEiT, timm and MMSegmentation's transformers do."""

import torch

from mdp.io.recipe.settings import OptimizationSettings

DECAY_1D = False


def build(groups: list[dict[str, object]], settings: OptimizationSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas)
