"""The branches of an ASPP in training, forward and backward: taps that cannot touch the map left out.

Shape legend: B images, F features of the backbone, h x w grid.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate
from mdp.core.networks.dilated_convolution import DilatedConv2d

FEATURES, CHANNELS = 512, 128
DILATIONS = (12, 24, 36)  # the default's, of stride 8


def cases() -> dict[str, Callable[[], Case]]:
    """The grids of crops of 224 at stride 8 and 16; where nothing is left out, in the last, both are the same."""
    sizes: dict[str, tuple[int, int, tuple[Gate, ...]]] = {
        "B=2 28x28": (2, 28, (Gate("plain", 1.3),)),
        "B=8 14x14": (8, 14, (Gate("plain", 2.0),)),
        "B=1 40x40": (1, 40, ()),
    }
    return {f"{label} {layout}": partial(_case, f"{label} {layout}", *size, layout)
            for label, size in sizes.items() for layout in ("NCHW", "channels_last")}  # fmt: skip


def _case(label: str, count: int, side: int, gates: tuple[Gate, ...], layout: str) -> Case:
    rng = inputs.rng_of(1)
    features = inputs.embeddings(rng, count, FEATURES, side, side, layout)
    weights = [0.02 * torch.randn(CHANNELS, FEATURES, 3, 3, generator=rng) for _ in DILATIONS]
    ours = [DilatedConv2d(FEATURES, CHANNELS, 3, dilation) for dilation in DILATIONS]
    plain = [_torchs(dilation) for dilation in DILATIONS]
    middles = [nn.Conv2d(FEATURES, CHANNELS, 1, bias=False) for _ in DILATIONS]
    with torch.no_grad():
        for convs in (ours, plain):
            for conv, weight in zip(convs, weights, strict=True):
                conv.weight.copy_(weight)
    entries = (
        Entry("DilatedConv2d", "ours", _step(ours, features)),
        Entry("nn.Conv2d", "plain", _step(plain, features)),
        Entry("the middle taps alone", "floor", _step(middles, features), exact=False),
    )
    doubled = [_torchs(dilation).double() for dilation in DILATIONS]
    for conv, weight in zip(doubled, weights, strict=True):
        conv.load_state_dict({"weight": weight.double()})
    return Case("ASPP's branches", label, entries, gates, _step(doubled, features.double()))


def _torchs(dilation: int) -> nn.Conv2d:
    return nn.Conv2d(FEATURES, CHANNELS, 3, padding=dilation, dilation=dilation, bias=False)


def _step(convs: list[nn.Conv2d] | list[DilatedConv2d], features: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """The outputs, summed, and the gradients of the weights and the features."""
    leaf = features.clone().requires_grad_()

    def run() -> tuple[Tensor, ...]:
        out = torch.stack([conv(leaf).square().mean() for conv in convs]).sum()
        return (out.detach(), *torch.autograd.grad(out, [leaf, *(conv.weight for conv in convs)]))

    return run
