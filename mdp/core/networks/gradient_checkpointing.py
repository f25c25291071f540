"""Gradient checkpointing (arXiv 1604.06174): the backbone keeps the inputs of its blocks only, and the backward pass
computes what is in them again.  Less memory for about a third more work; the numbers are the same.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _BatchNorm

from mdp.core.networks.resnet import ResNet

_SIDE = 64  # pixels of the images that tell whether less is kept


def checkpoint_blocks_(network: nn.Module) -> None:
    """Turns it on in the backbone of a network; its backward passes then have to be inside of `computed_again`."""
    backbone: Any = network.get_submodule("backbone")
    if isinstance(backbone, ResNet):
        backbone.checkpointed = True
    else:
        backbone.set_grad_checkpointing(True)


def refuse_unable(network: nn.Module) -> None:
    """Raises ValueError for a network whose backbone, a model of timm's, cannot do it or keeps as much as before."""
    if isinstance(network.get_submodule("backbone"), ResNet):
        return
    try:
        less = _kept(network, True) < _kept(network, False)
    except (AttributeError, AssertionError, NotImplementedError):  # what models without it raise
        less = False
    if not less:
        name = type(network.get_submodule("backbone")).__name__
        raise ValueError(
            f"gradient_checkpointing: {name} of timm keeps as much with it as without; leave it out, or --accumulate"
        )


@contextmanager
def computed_again(network: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm leaves its running statistics as they are: the first pass through a block has updated them."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, _, counter in before:
        norm.momentum = 0.0  # and not without statistics: torch wants the same tensors saved as in the first pass
        norm.num_batches_tracked = None if counter is None else counter.clone()
    try:
        yield
    finally:
        for norm, momentum, counter in before:
            norm.momentum, norm.num_batches_tracked = momentum, counter


def _kept(network: Any, checkpointed: bool) -> int:
    """The bytes that a backward pass through the backbone would need, found on the meta device."""
    found = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal found
        found += tensor.numel() * tensor.element_size()
        return tensor

    backbone = copy.deepcopy(network.backbone).to("meta").train()
    backbone.set_grad_checkpointing(checkpointed)
    first = next(parameter for parameter in backbone.parameters() if parameter.ndim == 4)
    images = torch.empty(2, first.shape[1], _SIDE, _SIDE, device="meta")
    with torch.enable_grad(), saved_tensors_hooks(count, lambda tensor: tensor), torch.random.fork_rng(devices=[]):
        network._maps(backbone, images)
    return found
