"""The fully convolutional head as MMSegmentation builds it, with its parameter names (Long et al. 2015, 1411.4038).

Up to the classifier, which the segmentor adds.  Shape legend: B images, h x w feature grid.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mdp.core.networks.heads import Head, Inputs
from mdp.core.networks.heads.deeplabv3 import conv_bn_relu


class FCN(nn.Module):
    """Two 3x3 convolutions; a third over their output beside their input."""

    def __init__(self, inputs: int, channels: int = 512) -> None:
        super().__init__()
        self.convs = nn.Sequential(conv_bn_relu(inputs, channels, 3), conv_bn_relu(channels, channels, 3))
        self.conv_cat = conv_bn_relu(inputs + channels, channels, 3)

    def forward(self, features: Tensor, low: Tensor | None = None, stages: Sequence[Tensor] = ()) -> Tensor:
        """(B, inputs, h, w) -> (B, channels, h, w); other maps are not used."""
        out: Tensor = self.conv_cat(torch.cat([features, self.convs(features)], 1))
        return out


def build(inputs: Inputs, channels: int, dilations: tuple[int, ...], dropout: float) -> nn.Module:
    """The head, from feature maps to (B, channels, h, w); see `mdp.core.networks.heads.BuildHead`."""
    return FCN(inputs.last, channels)


# channels and dropout of MMSegmentation 0.11 to 0.30 (fcn_r50-d8.py)
HEAD = Head(512, (), takes="last", inner_dropout=0.0, dropout=0.1, build=build)
