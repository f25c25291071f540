"""Depthwise convolutions in training on a CPU, forward and backward: gradients by convolutions forward.

Shape legend: B images, C channels, h x w grid, k kernel, d dilation.
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate
from mdp.core.networks.depthwise import as_depthwise_

# B, C, side, k, d: layers of EfficientNet-Lite0 at stride 16 on crops of 96 and 224, and of ConvNeXt-Tiny
SIZES = {
    "B=32 1,152 x 6x6 k=5 d=2": ((32, 1152, 6, 5, 2), (Gate("plain", 6.0),)),
    "B=16 1,152 x 14x14 k=5 d=2": ((16, 1152, 14, 5, 2), (Gate("plain", 2.5),)),
    "B=8 96 x 56x56 k=7 d=1": ((8, 96, 56, 7, 1), (Gate("plain", 1.5),)),
}


def cases() -> dict[str, Callable[[], Case]]:
    """The sizes above, in channels_last, as networks are trained."""
    return {label: partial(_case, label, *size, gates) for label, (size, gates) in SIZES.items()}


def _case(
    label: str, count: int, channels: int, side: int, kernel: int, dilation: int, gates: tuple[Gate, ...]
) -> Case:
    rng = inputs.rng_of(1)
    maps = inputs.embeddings(rng, count, channels, side, side, "channels_last")
    padding = dilation * (kernel // 2)
    plain = nn.Conv2d(channels, channels, kernel, padding=padding, dilation=dilation, groups=channels, bias=False)
    with torch.no_grad():
        plain.weight.normal_(0, 1 / kernel, generator=rng)
    ours = as_depthwise_(copy.deepcopy(plain))
    entries = (
        Entry("DepthwiseConv2d", "ours", _step(ours, maps)),
        Entry("nn.Conv2d", "plain", _step(plain, maps)),
        Entry("forward alone", "floor", _forward(plain, maps), exact=False),
    )
    return Case("depthwise convolution", label, entries, gates, _step(copy.deepcopy(plain).double(), maps.double()))


def _step(conv: nn.Module, maps: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """The output's mean square and its gradients by weight and maps."""
    leaf = maps.clone().requires_grad_()

    def run() -> tuple[Tensor, ...]:
        out = conv(leaf).square().mean()
        return (out.detach(), *torch.autograd.grad(out, [leaf, *conv.parameters()]))

    return run


def _forward(conv: nn.Module, maps: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    @torch.no_grad()
    def run() -> tuple[Tensor, ...]:
        return (conv(maps).square().mean(),)

    return run
