"""Feature maps, which a backbone gives a head.  Shape legend: B images, H x W image, h x w feature grid."""

from typing import NamedTuple

from torch import Tensor


class FeatureMaps(NamedTuple):
    """The last map, and earlier, finer ones for heads that join them."""

    last: Tensor  # (B, channels, h, w)
    low: Tensor | None  # (B, low_channels, ceil(H / 4), ceil(W / 4)); None when it was not asked for
    stages: tuple[Tensor, ...] = ()  # four maps, the finest first, the last being `last`; empty when not asked for
