"""SegFormer's all-MLP head as MMSegmentation builds it, with its parameter names (Xie et al. 2021, arXiv 2105.15203).

Every stage to one width, all on the finest grid, and one layer over them.  Up to the classifier, which the segmentor
adds.  Shape legend: B images, h x w grid of a stage, H' x W' grid of the first, finest one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mdp.core.networks.heads import Head, Inputs
from mdp.core.networks.heads.deeplabv3 import conv_bn_relu
from mdp.core.networks.heads.upernet import resized


class AllMLP(nn.Module):
    """A 1x1 convolution for each stage, and one over all of them."""

    def __init__(self, stages: Sequence[int], channels: int = 256) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv_bn_relu(one, channels, 1) for one in stages)
        self.fusion_conv = conv_bn_relu(len(stages) * channels, channels, 1)

    def forward(self, features: Tensor, low: Tensor | None = None, stages: Sequence[Tensor] = ()) -> Tensor:
        """Four maps (B, ., h, w) -> (B, channels, H', W')."""
        maps = [resized(conv(stage), stages[0]) for conv, stage in zip(self.convs, stages, strict=True)]
        out: Tensor = self.fusion_conv(torch.cat(maps, 1))
        return out


def build(inputs: Inputs, channels: int, dilations: tuple[int, ...], dropout: float) -> nn.Module:
    """The head, from feature maps to (B, channels, h, w); see `mdp.core.networks.heads.BuildHead`."""
    return AllMLP(inputs.stages, channels)


# channels and dropout of MMSegmentation (segformer_mit-b0.py); the paper's C is 256 for B0 and B1, 768 for B2 to B5
HEAD = Head(256, (), takes="stages", inner_dropout=0.0, dropout=0.1, build=build)
