"""The memory layout of a network's tensors: channels_last, which is faster, wherever that is safe.

In torch 2.13.0 the gradient of a 1x1 convolution's weights is computed by a kernel that writes beyond its buffer, on a
CPU, where the tensors are in channels_last, the convolution has a stride, and a pixel's input channels do not fill a
register: fewer than 8 with AVX2, fewer than 16 with AVX-512 (there on larger maps only).  The process dies, then or
later.  The first such layer of a ResNet-18 is the shortcut of its second stage, with as many channels as the network is
wide.  In NCHW, in a forward pass, with a larger kernel, with groups and with stride 1 nothing of it was seen; how that
was measured is in `docs/log.md`.
"""

import torch
from torch import nn

_REGISTER = 16  # float32 numbers in a register of AVX-512


def to_channels_last_(network: nn.Module) -> bool:
    """Puts the network, on its device, into channels_last; leaves it as it is, and says False, where that is unsafe."""
    if any(_on_cpu(part) and unsafe_in_channels_last(part) for part in network.modules()):
        return False
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return True


def unsafe_in_channels_last(part: nn.Module) -> bool:
    """Whether it is a convolution whose backward pass may write beyond its buffers on some CPU.

    Judged alike on every CPU, so that a run has the same layout wherever it is resumed.
    """
    return (
        isinstance(part, nn.Conv2d)
        and part.kernel_size == (1, 1)
        and max(part.stride) > 1
        and part.groups == 1
        and part.in_channels < _REGISTER
    )


def _on_cpu(part: nn.Module) -> bool:
    return any(parameter.device.type == "cpu" for parameter in part.parameters(recurse=False))
