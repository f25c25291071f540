"""Depthwise convolutions whose backward pass on a CPU is two convolutions forward: the same numbers, sooner.

On a CPU torch 2.13 takes a general path for the gradients of a dilated depthwise convolution, and for the weights of a
large kernel: 107 ms for 32 maps of 1,152 x 6 x 6 under a 5 x 5 kernel of dilation 2, whose forward pass takes 2.  By
the chain rule the gradient of the input is the output's under the flipped kernel, and that of the weight is the input
under the output's gradient as a kernel of its own for each image and channel: 8 ms.  `benchmarks/depthwise.py`
measures it.
Shape legend: B images, C channels, h x w feature grid, k kernel.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_LARGEST = 64  # cells a side


class DepthwiseConv2d(nn.Conv2d):
    """torch's own depthwise convolution of stride 1 that keeps the size, with another backward pass on a CPU.

    Forward the same bits; gradients the same numbers but for the order of their sums.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        if not _trained_on_cpu(maps, self.weight):
            return super().forward(maps)
        out: Tensor = _Depthwise.apply(maps, self.weight, self.bias, self.dilation[0])  # type: ignore[no-untyped-call]
        return out


def as_depthwise_(network: nn.Module) -> nn.Module:
    """Makes a `DepthwiseConv2d` of each of a network's convolutions that can be one; names and values stay."""
    for part in network.modules():
        if type(part) is nn.Conv2d and _fits(part):
            part.__class__ = DepthwiseConv2d
    return network


def _fits(part: nn.Conv2d) -> bool:
    kernel, dilation = part.kernel_size[0], part.dilation[0]
    return (
        part.groups == part.in_channels == part.out_channels > 1
        and part.kernel_size == (kernel, kernel)
        and kernel % 2 == 1
        and (kernel > 3 or (kernel > 1 and dilation > 1))  # torch is quick at others
        and part.dilation == (dilation, dilation)
        and dilation <= 2  # at 4 it was as slow as torch
        and part.stride == (1, 1)
        and part.padding == (dilation * (kernel // 2),) * 2
        and part.padding_mode == "zeros"
    )


def _trained_on_cpu(maps: Tensor, weight: Tensor) -> bool:
    """Whether gradients of float32 on a CPU are wanted; what compiles, exports or casts has torch's own layer."""
    return (
        torch.is_grad_enabled()
        and (maps.requires_grad or weight.requires_grad)
        and maps.device.type == "cpu"
        and maps.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution of maps (B, C, h, w) with a weight (C, 1, k, k) and a bias (C,) or none, zeros around."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.dilation = dilation
        return _convolved(maps, weight, bias, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        maps, weight = ctx.saved_tensors
        for_maps, for_weight, for_bias, _ = ctx.needs_input_grad
        of_maps = _convolved(gradient, weight.flip(2, 3), None, ctx.dilation) if for_maps else None
        of_weight = _weight_gradient(maps, gradient, weight, ctx.dilation) if for_weight else None
        return of_maps, of_weight, gradient.sum((0, 2, 3)) if for_bias else None, None


def _convolved(maps: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    return F.conv2d(maps, weight, bias, 1, dilation * (weight.shape[2] // 2), dilation, weight.shape[0])


def _weight_gradient(maps: Tensor, gradient: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """The sum over images and cells of the maps, moved by each of the kernel's taps, times the gradient."""
    (images, channels, height, width), kernel = maps.shape, weight.shape[2]
    padding = dilation * (kernel // 2)
    if max(height, width) > _LARGEST:  # the way below is no faster than torch's there
        of_weight: Tensor = torch.ops.aten.convolution_backward(
            gradient, maps, weight, None, (1, 1), (padding,) * 2, (dilation,) * 2, False, (0, 0), channels,
            (False, True, False),
        )[1]  # fmt: skip
        return of_weight
    one = maps.reshape(1, images * channels, height, width)
    kernels = gradient.reshape(images * channels, 1, height, width)
    found = F.conv2d(one, kernels, None, dilation, padding, 1, images * channels)
    return found.view(images, channels, kernel, kernel).sum(0).unsqueeze(1)
