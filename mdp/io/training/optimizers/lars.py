"""LARS around SGD with momentum; see `mdp.core.lars`."""

from collections.abc import Callable
from typing import Any

import torch

from mdp.core.lars import lars_added, lars_scaled
from mdp.io.recipe.settings import OptimizationSettings

DECAY_1D = True  # of the scaled form; the other one never does
_FORMS = {"scaled": lars_scaled, "added": lars_added}


class Lars(torch.optim.SGD):
    """SGD on gradients that LARS has scaled; the decay is LARS's, so SGD has none."""

    def __init__(self, groups: list[dict[str, Any]], settings: OptimizationSettings) -> None:
        own = [{**group, "lars_decay": group["weight_decay"], "weight_decay": 0.0} for group in groups]
        super().__init__(own, lr=settings.lr, momentum=settings.momentum)
        self._scale, self._trust = _FORMS[settings.lars_decay], settings.lars_trust

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            gradients = self._scale(moved, [parameter.grad for parameter in moved], group["lars_decay"], self._trust)
            for parameter, gradient in zip(moved, gradients, strict=True):
                parameter.grad = gradient
        result: float | None = super().step(closure)
        return result


def build(groups: list[dict[str, Any]], settings: OptimizationSettings) -> torch.optim.Optimizer:
    return Lars(groups, settings)
