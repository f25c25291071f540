"""The networks: pixel embeddings and image embeddings (pretraining), class logits (fine-tuning).

All keep the backbone under `backbone.` and ASPP, where they have it, under `decode_head.`, so that transfer is a match
of names.
Shape legend: B images, D embedding channels, C classes, h x w feature grid.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdp.core.networks.deeplab import ASPP, DeepLabHead
from mdp.core.networks.heads import instance_head, projection_head
from mdp.core.networks.resnet import LAYOUTS, ResNet, initialise_


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Backbone and DeepLab-v3 head; "stated" and "chosen" say where each default comes from."""

    backbone: str = "resnet50"  # stated, with the 7x7 stem
    width: int = 64  # channels of the first stage; the published networks have 64
    output_stride: int = 8  # chosen: MMSegmentation's D8; 16 is the alternative
    channels: int = 512  # chosen: MMSegmentation's ASPP
    dilations: tuple[int, ...] = (1, 12, 24, 36)  # chosen: MMSegmentation's, for stride 8

    def __post_init__(self) -> None:
        if self.backbone not in LAYOUTS:
            raise ValueError(f"backbone: expected one of {', '.join(LAYOUTS)}, got {self.backbone!r}")
        if self.output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride: expected 8, 16 or 32, got {self.output_stride}")
        if self.width < 1 or self.channels < 1 or not self.dilations or min(self.dilations) < 1:
            raise ValueError("width, channels and dilations: expected numbers of 1 or more")


class EmbeddingNetwork(nn.Module):
    """Images -> unit-length pixel embeddings."""

    output_stride: int

    def __init__(self, settings: NetworkSettings, embedding: int, hidden: int) -> None:
        super().__init__()
        self.backbone = ResNet(settings.backbone, settings.width, settings.output_stride)
        self.decode_head = ASPP(self.backbone.channels, settings.channels, settings.dilations)
        self.projection_head = projection_head(settings.channels, hidden, embedding)
        self.output_stride = settings.output_stride

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D, h, w) float32 of unit length, whatever the autocast; a zero vector stays zero."""
        vectors = self.projection_head(self.decode_head(self.backbone(images)))  # (B, D, h, w)
        return F.normalize(vectors.float(), dim=1, eps=1e-6)  # 1e-12 lets the gradient at zero reach 1e12


class InstanceNetwork(nn.Module):
    """Images -> one unit-length embedding an image; a backbone without dilation, as MoCo trains it."""

    output_stride = 32

    def __init__(self, settings: NetworkSettings, embedding: int) -> None:
        super().__init__()
        self.backbone = ResNet(settings.backbone, settings.width, self.output_stride)
        self.projection_head = instance_head(self.backbone.channels, embedding)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D) float32 of unit length, whatever the autocast."""
        features = self.backbone(images).mean((2, 3))  # (B, channels)
        return F.normalize(self.projection_head(features).float(), dim=1, eps=1e-6)


class Segmentor(nn.Module):
    """Images -> class logits on the feature grid."""

    def __init__(self, settings: NetworkSettings, classes: int) -> None:
        super().__init__()
        self.backbone = ResNet(settings.backbone, settings.width, settings.output_stride)
        self.decode_head = DeepLabHead(self.backbone.channels, classes, settings.channels, settings.dilations)
        self.output_stride = settings.output_stride

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, C, h, w)."""
        logits: Tensor = self.decode_head(self.backbone(images))
        return logits


def build_embedding_network(
    settings: NetworkSettings, embedding: int, hidden: int, rng: torch.Generator
) -> EmbeddingNetwork:
    """An embedding network with random weights drawn from `rng`."""
    with torch.random.fork_rng(devices=[]):  # torch's constructors draw weights that are replaced right after
        network = EmbeddingNetwork(settings, embedding, hidden)
    initialise_(network, rng)
    return network


def build_instance_network(settings: NetworkSettings, embedding: int, rng: torch.Generator) -> InstanceNetwork:
    """An instance network with random weights drawn from `rng`."""
    with torch.random.fork_rng(devices=[]):
        network = InstanceNetwork(settings, embedding)
    initialise_(network, rng)
    return network


def build_segmentor(settings: NetworkSettings, classes: int, rng: torch.Generator) -> Segmentor:
    """A segmentor with random weights drawn from `rng`; the classifier starts at N(0, 0.01)."""
    with torch.random.fork_rng(devices=[]):
        network = Segmentor(settings, classes)
    initialise_(network, rng)
    nn.init.normal_(network.decode_head.conv_seg.weight, std=0.01, generator=rng)
    return network


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (B, C, h, w) at another resolution, (B, C, *size) float32: bilinear, align_corners False."""
    return F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)
