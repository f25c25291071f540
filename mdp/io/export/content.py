"""The content of an exported file, in the terms in which libraries differ."""

from typing import Any, NamedTuple

TIMM = "timm:"  # before the name of a backbone out of timm
DEEP = "_v1c"  # after the name of a backbone with a stem of three convolutions
WIDTH = 64  # channels of the first stage, in every library

UNDILATED = 32  # the stride of a backbone in every library that was not asked for another
BOTTLENECKS = ("resnet50", "resnet101")


class Content(NamedTuple):
    """A backbone, or a whole network."""

    backbone: str  # as in `model.backbone`
    width: int
    stride: int  # of the backbone's features, as it was trained
    head: str = ""  # of a whole network; "" for a bare backbone
    channels: int | None = None  # of the head; None: the head's own number
    dilations: tuple[int, ...] | None = None  # likewise
    classes: int = 0
    first_dilation: str = "before"  # of a dilated stage's first block
    image_channels: int = 3
    arguments: tuple[tuple[str, Any], ...] = ()  # of timm.create_model, for a backbone out of timm

    @property
    def plain(self) -> str:
        """The backbone's name without what says how its stem is."""
        return self.backbone.removesuffix(DEEP)
