"""The DeepLab-v3 head as MMSegmentation builds it, with its parameter names (Chen et al. 2017, arXiv 1706.05587).

Up to the classifier, which the segmentor adds.  Shape legend: B images, h x w feature grid.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mdp.core.networks.dilated_convolution import DilatedConv2d
from mdp.core.networks.heads import Head, Inputs


def conv_bn_relu(inputs: int, outputs: int, kernel: int, dilation: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps the size, BatchNorm, ReLU; its parameters are named conv.* and bn.*."""
    conv: nn.Conv2d
    if dilation > 1:
        conv = DilatedConv2d(inputs, outputs, kernel, dilation, groups)
    else:
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(
        OrderedDict(
            conv=conv,
            bn=nn.BatchNorm2d(outputs),
            relu=nn.ReLU(inplace=True),
        )
    )


def dilated_conv(inputs: int, outputs: int, dilation: int) -> nn.Sequential:
    """A dilated 3x3 convolution, BatchNorm, ReLU."""
    return conv_bn_relu(inputs, outputs, 3, dilation)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: image pooling and parallel dilated convolutions, joined by a 3x3 convolution.

    A dilation of 1 stands for a 1x1 convolution; `dilated` makes the other branches.
    """

    def __init__(
        self,
        inputs: int,
        channels: int = 512,
        dilations: Sequence[int] = (1, 12, 24, 36),
        dilated: Callable[[int, int, int], nn.Module] = dilated_conv,
    ) -> None:
        super().__init__()
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_bn_relu(inputs, channels, 1))
        self.aspp_modules = nn.ModuleList(
            conv_bn_relu(inputs, channels, 1) if dilation == 1 else dilated(inputs, channels, dilation)
            for dilation in dilations
        )
        self.bottleneck = conv_bn_relu(channels * (len(dilations) + 1), channels, 3)
        self.channels = channels

    def forward(self, features: Tensor, low: Tensor | None = None, stages: Sequence[Tensor] = ()) -> Tensor:
        """(B, inputs, h, w) -> (B, channels, h, w); other maps are not used.

        Raises ValueError for one image in training.
        """
        two_or_more(self.image_pool, features)
        branches = [branch(features) for branch in self.aspp_modules]  # each (B, channels, h, w)
        pooled = everywhere(self.image_pool(features), branches[0])
        out: Tensor = self.bottleneck(torch.cat([pooled, *branches], 1))
        return out


def two_or_more(pool: nn.Module, features: Tensor, name: str = "DeepLab") -> None:
    """Raises ValueError for one image in training: BatchNorm of the pooled 1x1 map has nothing to average over.

    SyncBatchNorm may have, in other processes, and decides for itself.
    """
    if pool.training and len(features) == 1 and any(isinstance(part, nn.BatchNorm2d) for part in pool.modules()):
        raise ValueError(f"{name} needs two images or more a batch in training, got one")


def everywhere(pooled: Tensor, like: Tensor) -> Tensor:
    """A pooled map (B, channels, 1, 1) at every place of the map `like`: the bilinear resize of one pixel.

    In the memory layout of `like`, because `cat` falls back to NCHW, at the largest tensor of the network, when
    layouts differ.
    """
    return torch.empty_like(like).copy_(pooled)


def build(inputs: Inputs, channels: int, dilations: tuple[int, ...], dropout: float) -> nn.Module:
    """The head, from feature maps to (B, channels, h, w); see `mdp.core.networks.heads.BuildHead`."""
    return ASPP(inputs.last, channels, dilations)


# channels, dilations (for stride 8) and dropout of MMSegmentation 0.11 to 0.30 (deeplabv3_r50-d8.py)
HEAD = Head(512, (1, 12, 24, 36), takes="last", inner_dropout=0.0, dropout=0.1, build=build)
