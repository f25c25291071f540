"""The extra head of the pixel contrast, which embeds pixels while a network trains."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdp.core.contrast_chunked import EPS
from mdp.core.networks import Look, NetworkSettings
from mdp.core.networks.backbones import inputs_of
from mdp.core.networks.decode_heads import HEADS
from mdp.core.networks.heads.upernet import resized

FEATURES = ("last", "stages", "head")


class PixelHead(nn.Module):
    """A `Look` -> embeddings (B, D, h, w) float32 of unit length, whatever the autocast, of one of `FEATURES`."""

    def __init__(self, features: str, layers: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.layers = layers

    def forward(self, look: Look) -> Tensor:
        return F.normalize(self.layers(self._features(look)).float(), dim=1, eps=EPS)

    def _features(self, look: Look) -> Tensor:
        if self.features == "stages":
            return torch.cat([resized(stage, look.stages[0]) for stage in look.stages], 1)
        return look.last if self.features == "last" else look.features


def channels_of(features: str, network: NetworkSettings, last: int) -> int:
    """The channels of what the head sees; the last map has `last`.

    Raises ValueError for stages that the segmentation head does not take.
    """
    if features == "last":
        return last
    if features == "head":
        return network.head_channels
    if HEADS[network.head].takes != "stages":
        raise ValueError(f"features: the head {network.head} takes no stages; give last or head, or leave it out")
    s = network
    return sum(inputs_of(s.backbone, s.width, s.output_stride, "stages", s.image_channels).stages)


def take_(head: PixelHead, projection: Mapping[str, Tensor]) -> None:
    """Sets the head's layers to those of a projection head.  Raises ValueError where that is another."""
    for name, tensor in head.layers.state_dict().items():
        there = projection.get(name)
        if there is None or there.shape != tensor.shape:
            theirs = "none" if there is None else list(there.shape)
            raise ValueError(f"hidden: the pretraining's projection head has {theirs} as {name}, this one "
                             f"{list(tensor.shape)}; leave hidden and embedding out")  # fmt: skip
    head.layers.load_state_dict(dict(projection))
