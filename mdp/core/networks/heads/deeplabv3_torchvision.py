"""The DeepLab-v3 head as torchvision builds it, with its parameter names below `aspp`, `conv` and `bn`.

It differs from MMSegmentation's by fewer channels, a 1x1 projection before the 3x3 convolution, and its dropout.  Up to
the classifier, which the segmentor adds.  Shape legend: B images, h x w feature grid.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mdp.core.networks.dilated_convolution import DilatedConv2d
from mdp.core.networks.heads import Head, Inputs
from mdp.core.networks.heads.deeplabv3 import everywhere, two_or_more


def conv_bn(inputs: int, outputs: int, dilation: int = 0) -> list[nn.Module]:
    """A 1x1 convolution (dilation 0) or a dilated 3x3 one that keeps the size, BatchNorm, ReLU."""
    conv = DilatedConv2d(inputs, outputs, 3, dilation) if dilation else nn.Conv2d(inputs, outputs, 1, bias=False)
    return [
        conv,
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


class TorchvisionASPP(nn.Module):
    """Parallel dilated convolutions and image pooling, which comes last here, joined by a 1x1 projection."""

    def __init__(self, inputs: int, channels: int, dilations: Sequence[int], dropout: float) -> None:
        super().__init__()
        branches = [nn.Sequential(*conv_bn(inputs, channels, 0 if d == 1 else d)) for d in dilations]
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn(inputs, channels))
        self.convs = nn.ModuleList([*branches, pool])
        self.project = nn.Sequential(*conv_bn(channels * (len(dilations) + 1), channels), nn.Dropout(dropout))

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, channels, h, w).  Raises ValueError for one image in training."""
        *dilated, pool = self.convs
        two_or_more(pool, features)
        branches = [branch(features) for branch in dilated]  # each (B, channels, h, w)
        out: Tensor = self.project(torch.cat([*branches, everywhere(pool(features), branches[0])], 1))
        return out


class TorchvisionDeepLab(nn.Module):
    """ASPP, a 3x3 convolution, BatchNorm, ReLU."""

    def __init__(
        self, inputs: int, channels: int = 256, dilations: Sequence[int] = (1, 12, 24, 36), dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.aspp = TorchvisionASPP(inputs, channels, dilations, dropout)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, features: Tensor, low: Tensor | None = None, stages: Sequence[Tensor] = ()) -> Tensor:
        """(B, inputs, h, w) -> (B, channels, h, w); other maps are not used.

        Raises ValueError for one image in training.
        """
        out: Tensor = self.bn(self.conv(self.aspp(features))).relu_()
        return out


def build(inputs: Inputs, channels: int, dilations: tuple[int, ...], dropout: float) -> nn.Module:
    """The head, from feature maps to (B, channels, h, w); see `mdp.core.networks.heads.BuildHead`."""
    return TorchvisionDeepLab(inputs.last, channels, dilations, dropout)


# channels, dilations (for stride 8) and dropout of torchvision's DeepLabHead
HEAD = Head(256, (1, 12, 24, 36), takes="last", inner_dropout=0.5, dropout=0.0, build=build)
