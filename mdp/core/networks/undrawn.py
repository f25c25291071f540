"""Networks whose random weights are not drawn, since others take their place right after: up to four times sooner."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

CONSTRUCTORS = (nn.init.kaiming_uniform_,)  # what torch's constructors draw the weights of layers by
ALL = (*CONSTRUCTORS, nn.init.normal_, nn.init.uniform_, Tensor.normal_, Tensor.uniform_)


class Undrawn(TorchFunctionMode):
    """Inside, these functions leave a tensor as memory is.

    >>> import torch
    >>> weight = torch.zeros(2)
    >>> with Undrawn(*ALL):
    ...     nn.init.normal_(weight)
    tensor([0., 0.])
    """

    def __init__(self, *functions: Callable[..., Any]) -> None:
        super().__init__()
        self.functions = functions

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self.functions:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))
