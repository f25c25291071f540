"""What optimizers share that remember something of each parameter.

The first of torch's own optimizers imports its compiler, which takes as long as importing torch: half of the time
before a first step.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from torch import Tensor

Group = dict[str, Any]


class WithMoments:
    """Groups of parameters, and what is remembered of each."""

    def __init__(self, groups: list[Group]) -> None:
        self.param_groups = groups
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def moved(self) -> Iterator[tuple[Group, list[Tensor]]]:
        """The groups in which parameters have a gradient, and these."""
        for group in self.param_groups:
            if moved := [parameter for parameter in group["params"] if parameter.grad is not None]:
                yield group, moved


def gradients_of(parameters: list[Tensor]) -> list[Tensor]:
    """The gradients of parameters that have one."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
