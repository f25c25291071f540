"""LARS around SGD with momentum; see `mdp.core.lars`."""

from typing import Any

from torch import Tensor

from mdp.core.lars import lars_added, lars_scaled
from mdp.io.recipe.settings import OptimizationSettings
from mdp.io.training.optimizers.sgd import Sgd

DECAY_1D = True  # of the scaled form; the other one never does
_FORMS = {"scaled": lars_scaled, "added": lars_added}


class Lars(Sgd):
    """SGD on gradients that LARS has scaled; the decay is part of it."""

    def __init__(self, groups: list[dict[str, Any]], settings: OptimizationSettings) -> None:
        super().__init__(groups, settings.momentum)
        self._scale, self._trust = _FORMS[settings.lars_decay], settings.lars_trust

    def gradients(self, parameters: list[Tensor], decay: float) -> list[Tensor]:
        return self._scale(parameters, super().gradients(parameters, 0.0), decay, self._trust)


def build(groups: list[dict[str, Any]], settings: OptimizationSettings) -> Lars:
    return Lars(groups, settings)
