"""The segmentation heads, one file each: what it takes by default, and how it is built up to the classifier.

What is built here is what pretraining and fine-tuning share, under `decode_head.`; the segmentor adds dropout and the
classifier `decode_head.conv_seg`.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from torch import nn


class Inputs(NamedTuple):
    """The channels of the maps that a backbone gives a head."""

    last: int
    low: int | None  # of the finer map; None where it was not asked for
    stages: tuple[int, ...]  # of the four stages, the finest first; empty where they were not asked for


class BuildHead(Protocol):
    """How a head is built."""

    def __call__(self, inputs: Inputs, channels: int, dilations: tuple[int, ...], dropout: float) -> nn.Module:
        """The head, from feature maps to (B, channels, h, w); `dropout` is that within the head."""


Takes = Literal["last", "low", "stages"]  # the last map alone; also a finer one; the maps of four stages


class Auxiliary(NamedTuple):
    """Logits of a head besides its classifier's, which its features come from; `with_coarse` gives both."""

    part: str  # of the head, which they come from; the segmentor adds their classifier `conv_seg` to it
    channels: Callable[[Inputs], int]  # that this classifier sees
    weight: float  # of their cross-entropy in training, beside the criterion


class Head(NamedTuple):
    """A head's numbers, and which maps it takes."""

    channels: int | None  # None: as many as `channels_of` says
    dilations: tuple[int, ...]  # empty: the head has none to choose
    takes: Takes  # with "low" and "stages" it gives its features on the finest grid of these
    inner_dropout: float  # within the head, of single values, when a classifier is trained
    dropout: float  # before the classifier, of whole channels
    build: BuildHead
    channels_of: Callable[[Inputs], int] | None = None
    auxiliary: Auxiliary | None = None
