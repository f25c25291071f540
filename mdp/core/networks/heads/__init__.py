"""The segmentation heads, one file each: what it takes by default, and how it is built up to the classifier.

What is built here is what pretraining and fine-tuning share, under `decode_head.`; the segmentor adds dropout and the
classifier `decode_head.conv_seg`.
"""

from typing import NamedTuple, Protocol

from torch import nn


class BuildHead(Protocol):
    """How a head is built."""

    def __call__(
        self, inputs: int, low: int | None, channels: int, dilations: tuple[int, ...], dropout: float
    ) -> nn.Module:
        """The head, from feature maps to (B, channels, h, w).

        `inputs` and `low` are the channels of the last and of the finer map, `dropout` is that within the head.
        """


class Head(NamedTuple):
    """A head's numbers, and whether it joins a finer map."""

    channels: int
    dilations: tuple[int, ...]  # empty: the head has none to choose
    low: bool  # joins a finer map, and gives its features there
    inner_dropout: float  # within the head, of single values, when a classifier is trained
    dropout: float  # before the classifier, of whole channels
    build: BuildHead
