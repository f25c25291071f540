"""How much memory a network's forward pass takes, found before there is anything to take.

The network runs on torch's meta device, where tensors have shapes but no memory, and every tensor that lives is
counted with the size it would have.
"""

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mdp.core.photometry import IMAGENET


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the tensors that live while operations run; `most` is the most at one time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes, self.most = 0, 0
        self.users: dict[int, int] = {}  # tensors that share a storage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        if func is torch.ops.aten.convolution.default:  # kernels copy what goes in and out into a layout of their own
            copied = (*args[:2], result)
            self.most = max(self.most, self.bytes + sum(tensor.untyped_storage().nbytes() for tensor in copied))
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.users:
            self.bytes += size
            self.most = max(self.most, self.bytes)
        self.users[key] = self.users.get(key, 0) + 1
        weakref.finalize(tensor, self._leave, key, size)

    def _leave(self, key: int, size: int) -> None:
        self.users[key] -= 1
        if not self.users[key]:
            del self.users[key]
            self.bytes -= size


def activation_bytes(network: nn.Module, size: tuple[int, int], images: int = 1) -> int:
    """The most bytes that one forward pass of images (K, *size) takes at one time beyond weights, without gradients.

    For a convolution, what goes in and out is counted twice: on a CPU it is copied into another layout.
    """
    tensors = (*network.named_parameters(), *network.named_buffers())  # each once, also where layers share weights
    weights = {name: tensor.to("meta") for name, tensor in tensors}
    channels = len(getattr(network, "statistics", IMAGENET).mean)
    inputs = torch.empty(images, channels, *size, device="meta")
    with torch.no_grad(), _Living() as living:
        functional_call(network, weights, (inputs,))
    return int(living.most)
