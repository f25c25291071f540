"""The segmentation heads by name: what each takes by default, and how it is built up to the classifier.

What is built here is what pretraining and fine-tuning share, under `decode_head.`; the segmentor adds dropout and the
classifier `decode_head.conv_seg`.
"""

from typing import NamedTuple

from torch import nn

from mdp.core.networks.deeplab import ASPP
from mdp.core.networks.deeplab_plus import ASPPPlus
from mdp.core.networks.deeplab_torchvision import TorchvisionDeepLab
from mdp.core.networks.fcn import FCN

LOW_STRIDE = 4  # of the finer map


class Head(NamedTuple):
    """What is special about a head."""

    channels: int
    dilations: tuple[int, ...]  # empty: the head has none to choose
    low: bool  # joins a finer map, and gives its features there
    inner_dropout: float  # within the head, of single values, when a classifier is trained
    dropout: float  # before the classifier, of whole channels


# Channels, dilations (for stride 8) and dropout of the first three are those of MMSegmentation 0.11 to 0.30
# (deeplabv3_r50-d8.py, deeplabv3plus_r50-d8.py, fcn_r50-d8.py), of the last those of torchvision's DeepLabHead.
HEADS = {
    "deeplabv3": Head(512, (1, 12, 24, 36), low=False, inner_dropout=0.0, dropout=0.1),
    "deeplabv3plus": Head(512, (1, 12, 24, 36), low=True, inner_dropout=0.0, dropout=0.1),
    "fcn": Head(512, (), low=False, inner_dropout=0.0, dropout=0.1),
    "deeplabv3_torchvision": Head(256, (1, 12, 24, 36), low=False, inner_dropout=0.5, dropout=0.0),
}


def build_head(
    name: str, inputs: int, low: int | None, channels: int, dilations: tuple[int, ...], dropout: float = 0.0
) -> nn.Module:
    """The head of that name, from feature maps to (B, channels, h, w).

    `inputs` and `low` are the channels of the last and of the finer map, `dropout` is that within the head.
    """
    if name == "fcn":
        return FCN(inputs, channels)
    if name == "deeplabv3_torchvision":
        return TorchvisionDeepLab(inputs, channels, dilations, dropout)
    if name == "deeplabv3plus":
        assert low is not None, "the backbone was asked for the finer map"
        return ASPPPlus(inputs, low, channels, dilations)
    return ASPP(inputs, channels, dilations)
