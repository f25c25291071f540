"""The DeepLab-v3 head as MMSegmentation builds it, with its parameter names (Chen et al. 2017, arXiv 1706.05587).

Shape legend: B images, h x w feature grid, C classes.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def conv_bn_relu(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """A convolution that keeps the size, BatchNorm, ReLU; its parameters are named conv.* and bn.*."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False),
            bn=nn.BatchNorm2d(outputs),
            relu=nn.ReLU(inplace=True),
        )
    )


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: image pooling and parallel dilated convolutions, joined by a 3x3 convolution."""

    def __init__(self, inputs: int, channels: int = 512, dilations: Sequence[int] = (1, 12, 24, 36)) -> None:
        super().__init__()
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_bn_relu(inputs, channels, 1))
        self.aspp_modules = nn.ModuleList(
            conv_bn_relu(inputs, channels, 1 if dilation == 1 else 3, dilation) for dilation in dilations
        )
        self.bottleneck = conv_bn_relu(channels * (len(dilations) + 1), channels, 3)
        self.channels = channels

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, channels, h, w).

        Raises ValueError for one image in training: BatchNorm of the pooled 1x1 map has nothing to average over
        (SyncBatchNorm may have, in other processes, and decides for itself).
        """
        if self.training and len(features) == 1 and isinstance(self.image_pool[1].bn, nn.BatchNorm2d):
            raise ValueError("DeepLab needs two images or more a batch in training, got one")
        branches = [branch(features) for branch in self.aspp_modules]  # each (B, channels, h, w)
        # The bilinear resize of a 1x1 map is that map everywhere.  Written in the layout of the other branches,
        # because `cat` falls back to NCHW, at the largest tensor of the network, when layouts differ.
        pooled = torch.empty_like(branches[0]).copy_(self.image_pool(features))  # (B, channels, h, w)
        out: Tensor = self.bottleneck(torch.cat([pooled, *branches], 1))
        return out


class DeepLabHead(ASPP):
    """ASPP with a classifier: dropout and a 1x1 convolution.

    Dropout draws from torch's global generator in training; the shell seeds it before every step.
    """

    def __init__(
        self, inputs: int, classes: int, channels: int = 512, dilations: Sequence[int] = (1, 12, 24, 36)
    ) -> None:
        super().__init__(inputs, channels, dilations)
        self.dropout = nn.Dropout2d(0.1)
        self.conv_seg = nn.Conv2d(channels, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, h, w) -> logits (B, C, h, w)."""
        logits: Tensor = self.conv_seg(self.dropout(super().forward(features)))
        return logits
