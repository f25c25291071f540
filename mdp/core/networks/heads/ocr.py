"""HRNet-OCR's head as MMSegmentation builds it (Yuan et al. 2020, arXiv 1909.11065): context from objects, not places.

Coarse logits of all maps say softly where each class is (the object regions); a region's vector is the mean of its
pixels, and every pixel takes in the vectors of the regions that it is like.  The coarse logits are an output of their
own in training.  Names are MMSegmentation's, its first head under `regions.`.  Up to the classifiers, which the
segmentor adds.  Shape legend: B images, C classes, h x w grid of a stage, H' x W' grid of the first, finest one, N its
pixels, F channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mdp.core.networks.heads import Auxiliary, Head, Inputs
from mdp.core.networks.heads.deeplabv3 import conv_bn_relu
from mdp.core.networks.heads.hrnet import Joined
from mdp.core.networks.heads.upernet import resized


class ObjectAttention(nn.Module):
    """Pixels take in the vectors of object regions, each in proportion to its likeness (eq. 3 to 5)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        keys = max(1, channels // 2)  # 256 of 512: the paper's section 3.3, and MMSegmentation's ocr_channels
        self.key_project = nn.Sequential(conv_bn_relu(channels, keys, 1), conv_bn_relu(keys, keys, 1))
        self.query_project = nn.Sequential(conv_bn_relu(channels, keys, 1), conv_bn_relu(keys, keys, 1))
        self.value_project = conv_bn_relu(channels, keys, 1)
        self.out_project = conv_bn_relu(keys, channels, 1)
        self.bottleneck = conv_bn_relu(2 * channels, channels, 1)

    def forward(self, pixels: Tensor, regions: Tensor) -> Tensor:
        """(B, F, H', W') and the regions' vectors (B, F, C, 1) -> (B, F, H', W')."""
        queries = self.query_project(pixels)  # (B, keys, H', W')
        keys, values = self.key_project(regions).flatten(2), self.value_project(regions).flatten(2)  # (B, keys, C)
        likeness = queries.flatten(2).mT @ keys * keys.shape[1] ** -0.5  # (B, N, C)
        context = values @ likeness.softmax(2).to(values.dtype).mT  # (B, keys, N)
        joined = [self.out_project(context.view_as(queries)), pixels]
        out: Tensor = self.bottleneck(torch.cat(joined, 1))
        return out


class ObjectContext(nn.Module):
    """Object regions, their vectors, and what pixels take in of them."""

    def __init__(self, stages: Sequence[int], channels: int) -> None:
        super().__init__()
        self.regions = Joined(stages, sum(stages))
        self.bottleneck = conv_bn_relu(sum(stages), channels, 3)
        self.object_context_block = ObjectAttention(channels)

    def with_coarse(self, features: Tensor, low: Tensor | None, stages: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Four maps (B, ., h, w) -> (B, F, H', W') and the coarse logits (B, C, H', W')."""
        coarse = self.regions.get_submodule("conv_seg")(self.regions(features, low, stages))  # (B, C, H', W')
        pixels = self.bottleneck(torch.cat([resized(stage, stages[0]) for stage in stages], 1))  # (B, F, H', W')
        where = coarse.flatten(2).softmax(2).to(pixels.dtype)  # (B, C, N), each region's sum 1
        regions = pixels.flatten(2) @ where.mT  # (B, F, C), eq. 2
        return self.object_context_block(pixels, regions[..., None]), coarse

    def forward(self, features: Tensor, low: Tensor | None = None, stages: Sequence[Tensor] = ()) -> Tensor:
        """Four maps (B, ., h, w) -> (B, F, H', W')."""
        return self.with_coarse(features, low, stages)[0]


def build(inputs: Inputs, channels: int, dilations: tuple[int, ...], dropout: float) -> nn.Module:
    """The head, from feature maps to (B, channels, h, w); see `mdp.core.networks.heads.BuildHead`."""
    return ObjectContext(inputs.stages, channels)


# channels, dropout and the coarse logits' weight of MMSegmentation (ocrnet_hr18.py); 0.4 is the paper's too
HEAD = Head(
    512, (), takes="stages", inner_dropout=0.0, dropout=0.0, build=build,
    auxiliary=Auxiliary("regions", lambda inputs: sum(inputs.stages), 0.4),
)  # fmt: skip
