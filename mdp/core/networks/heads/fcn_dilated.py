"""A 3x3 convolution for each dilation, one after the other, as frozen and fine-tuned backbones are compared by.

The head of van Gansbeke et al. 2021 (arXiv 2106.05967, appendix A.3) and of MoCo's dense transfer; the names are those
of MMSegmentation's `FCNHead` without a skip.  Up to the classifier, which the segmentor adds.
Shape legend: B images, h x w feature grid.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from mdp.core.networks.heads import Head, Inputs
from mdp.core.networks.heads.deeplabv3 import dilated_conv


class DilatedFCN(nn.Module):
    """Dilated 3x3 convolutions with BatchNorm and ReLU in a row."""

    def __init__(self, inputs: int, channels: int = 256, dilations: Sequence[int] = (6, 6)) -> None:
        super().__init__()
        sizes = [inputs, *(channels for _ in dilations)]
        self.convs = nn.Sequential(*(dilated_conv(sizes[i], channels, d) for i, d in enumerate(dilations)))

    def forward(self, features: Tensor, low: Tensor | None = None, stages: Sequence[Tensor] = ()) -> Tensor:
        """(B, inputs, h, w) -> (B, channels, h, w); other maps are not used."""
        out: Tensor = self.convs(features)
        return out


def build(inputs: Inputs, channels: int, dilations: tuple[int, ...], dropout: float) -> nn.Module:
    """The head, from feature maps to (B, channels, h, w); see `mdp.core.networks.heads.BuildHead`."""
    return DilatedFCN(inputs.last, channels, dilations)


# two convolutions of 256 channels, dilation 6 (VOC; 1 on Cityscapes): arXiv 2106.05967, appendix A.3
HEAD = Head(256, (6, 6), takes="last", inner_dropout=0.0, dropout=0.0, build=build)
