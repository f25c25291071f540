"""A dilated convolution that leaves out the taps which cannot touch the map: they multiply padding alone.

A tap that lies so many cells from the middle one is over the map somewhere only where the map is longer than that.  On
a map of 28 x 28 the branch of dilation 36 of an ASPP is its middle tap.
Shape legend: B images, h x w feature grid.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DilatedConv2d(nn.Conv2d):
    """A convolution of an odd kernel that keeps the size, with the parameter and the name of torch's own.

    The same bits where all taps touch the map, the same numbers but for the order of their sums elsewhere.  Taps that
    are left out have gradients of 0, so that what decays weights decays them.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int, groups: int = 1) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(inputs, outputs, kernel, padding=padding, dilation=dilation, groups=groups, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w)."""
        if _traced():  # a program is of any size
            return super().forward(maps)
        step, middle = int(self.dilation[0]), int(self.kernel_size[0]) // 2
        high, wide = (min(middle, (length - 1) // step) for length in maps.shape[2:])  # taps beside the middle one
        if high == wide == middle:
            return super().forward(maps)
        weight = self.weight[:, :, middle - high : middle + high + 1, middle - wide : middle + wide + 1]
        return F.conv2d(maps, weight, None, 1, (step * high, step * wide), step, self.groups)


def _traced() -> bool:
    """Whether torch.export looks on, for which a question about the size would fix it; torch.compile asks again."""
    return torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
