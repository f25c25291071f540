"""HRNet's head as MMSegmentation builds it, with its parameter names (Wang et al. 2020, arXiv 1908.07919, HRNetV2).

All four maps on the finest grid, and one 1x1 convolution as wide as they are together.  Up to the classifier, which
the segmentor adds.  Shape legend: B images, h x w grid of a stage, H' x W' grid of the first, finest one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mdp.core.networks.heads import Head, Inputs
from mdp.core.networks.heads.deeplabv3 import conv_bn_relu
from mdp.core.networks.heads.upernet import resized


class Joined(nn.Module):
    """One convolution over all stages."""

    def __init__(self, stages: Sequence[int], channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(conv_bn_relu(sum(stages), channels, 1))

    def forward(self, features: Tensor, low: Tensor | None = None, stages: Sequence[Tensor] = ()) -> Tensor:
        """Four maps (B, ., h, w) -> (B, channels, H', W')."""
        out: Tensor = self.convs(torch.cat([resized(stage, stages[0]) for stage in stages], 1))
        return out


def build(inputs: Inputs, channels: int, dilations: tuple[int, ...], dropout: float) -> nn.Module:
    """The head, from feature maps to (B, channels, h, w); see `mdp.core.networks.heads.BuildHead`."""
    return Joined(inputs.stages, channels)


# as wide as the stages together, without dropout: MMSegmentation (fcn_hr18.py)
HEAD = Head(
    None, (), takes="stages", inner_dropout=0.0, dropout=0.0, build=build, channels_of=lambda inputs: sum(inputs.stages)
)
