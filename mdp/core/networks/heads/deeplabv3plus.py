"""The DeepLab-v3+ head as MMSegmentation builds it, with its parameter names (Chen et al. 2018, arXiv 1802.02611).

ASPP whose dilated convolutions are depthwise separable, then joined with the finer map of an early stage.  Up to the
classifier, which the segmentor adds.  Shape legend: B images, h x w feature grid, H/4 x W/4 the finer grid.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdp.core.networks.heads import Head, Inputs
from mdp.core.networks.heads.deeplabv3 import ASPP, conv_bn_relu

LOW_CHANNELS = 48  # the paper's choice (section 4.1), and MMSegmentation's c1_channels


def separable_conv(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    """A 3x3 convolution of each channel by itself, then 1x1 over channels; BatchNorm and ReLU after both."""
    return nn.Sequential(
        OrderedDict(
            depthwise_conv=conv_bn_relu(inputs, inputs, 3, dilation, groups=inputs),
            pointwise_conv=conv_bn_relu(inputs, outputs, 1),
        )
    )


class ASPPPlus(ASPP):
    """Separable ASPP, then two separable 3x3 convolutions over it and the finer map."""

    def __init__(self, inputs: int, low: int, channels: int = 512, dilations: Sequence[int] = (1, 12, 24, 36)) -> None:
        super().__init__(inputs, channels, dilations, separable_conv)
        self.c1_bottleneck = conv_bn_relu(low, LOW_CHANNELS, 1)
        self.sep_bottleneck = nn.Sequential(
            separable_conv(channels + LOW_CHANNELS, channels), separable_conv(channels, channels)
        )

    def forward(self, features: Tensor, low: Tensor | None = None, stages: Sequence[Tensor] = ()) -> Tensor:
        """(B, inputs, h, w) and (B, low, H/4, W/4) -> (B, channels, H/4, W/4).

        Raises ValueError for one image in training, and without the finer map.
        """
        if low is None:
            raise ValueError("DeepLab-v3+ joins a finer feature map, got none")
        coarse = super().forward(features)  # (B, channels, h, w)
        fine = self.c1_bottleneck(low)  # (B, 48, H/4, W/4)
        coarse = F.interpolate(coarse, fine.shape[2:], mode="bilinear", align_corners=False)  # (B, channels, H/4, W/4)
        out: Tensor = self.sep_bottleneck(torch.cat([coarse, fine], 1))
        return out


def build(inputs: Inputs, channels: int, dilations: tuple[int, ...], dropout: float) -> nn.Module:
    """The head, from feature maps to (B, channels, h, w); see `mdp.core.networks.heads.BuildHead`."""
    assert inputs.low is not None, "the backbone was asked for the finer map"
    return ASPPPlus(inputs.last, inputs.low, channels, dilations)


# channels, dilations (for stride 8) and dropout of MMSegmentation 0.11 to 0.30 (deeplabv3plus_r50-d8.py)
HEAD = Head(512, (1, 12, 24, 36), takes="low", inner_dropout=0.0, dropout=0.1, build=build)
