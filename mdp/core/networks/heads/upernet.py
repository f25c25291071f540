"""The UPerNet head as MMSegmentation builds it, with its parameter names (Xiao et al. 2018, arXiv 1807.10221).

A pyramid of pooled maps on top, a feature pyramid below, and all four joined at the finest grid.  Up to the classifier,
which the segmentor adds.  Shape legend: B images, h x w grid of a stage, H' x W' grid of the first, finest one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdp.core.networks.heads import Head, Inputs
from mdp.core.networks.heads.deeplabv3 import conv_bn_relu, two_or_more

POOLED = (1, 2, 3, 6)  # sides of the pooled maps: MMSegmentation's pool_scales (upernet_r50.py)


class UPerNet(nn.Module):
    """Pooling on the last map, then from the coarsest map to the finest."""

    def __init__(self, stages: Sequence[int], channels: int = 512) -> None:
        super().__init__()
        last = stages[-1]
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), conv_bn_relu(last, channels, 1)) for side in POOLED
        )
        self.bottleneck = conv_bn_relu(last + len(POOLED) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(conv_bn_relu(one, channels, 1) for one in stages[:-1])
        self.fpn_convs = nn.ModuleList(conv_bn_relu(channels, channels, 3) for _ in stages[:-1])
        self.fpn_bottleneck = conv_bn_relu(len(stages) * channels, channels, 3)

    def forward(self, features: Tensor, low: Tensor | None = None, stages: Sequence[Tensor] = ()) -> Tensor:
        """Four maps (B, ., h, w) -> (B, channels, H', W').  Raises ValueError for one image in training."""
        two_or_more(self.psp_modules, features, "UPerNet")
        pooled = [resized(branch(features), features) for branch in self.psp_modules]
        maps = [self.bottleneck(torch.cat([features, *pooled], 1))]  # the coarsest first
        for number in range(len(stages) - 2, -1, -1):
            maps.append(self.lateral_convs[number](stages[number]) + resized(maps[-1], stages[number]))
        maps.reverse()  # the finest first
        joined = [conv(one) for conv, one in zip(self.fpn_convs, maps[:-1], strict=True)]
        out: Tensor = self.fpn_bottleneck(torch.cat([resized(one, maps[0]) for one in (*joined, maps[-1])], 1))
        return out


def resized(features: Tensor, like: Tensor) -> Tensor:
    """A map on the grid of another: bilinear, align_corners False."""
    if features.shape[2:] == like.shape[2:]:
        return features
    return F.interpolate(features, like.shape[2:], mode="bilinear", align_corners=False)


def build(inputs: Inputs, channels: int, dilations: tuple[int, ...], dropout: float) -> nn.Module:
    """The head, from feature maps to (B, channels, h, w); see `mdp.core.networks.heads.BuildHead`."""
    return UPerNet(inputs.stages, channels)


# channels and dropout of MMSegmentation (upernet_r50.py)
HEAD = Head(512, (), takes="stages", inner_dropout=0.0, dropout=0.1, build=build)
