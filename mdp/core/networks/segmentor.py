"""The networks: pixel embeddings and image embeddings (pretraining), class logits (fine-tuning).

All keep the backbone under `backbone.` and the head, where they have it, under `decode_head.`, so that transfer is a
match of names.
Shape legend: B images, D embedding channels, C classes, F channels of the head, h x w feature grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdp.core.bounds import Bounds, Channels, Share, Side, check_bounds
from mdp.core.contrast_chunked import EPS
from mdp.core.dataset_softmax import log_softmax_by_dataset
from mdp.core.geometry import Grid
from mdp.core.networks.backbones import Backbone, build_backbone, check_backbone, inputs_of, randomly, stride_of
from mdp.core.networks.decode_heads import HEADS
from mdp.core.networks.feature_maps import FeatureMaps
from mdp.core.networks.projection_heads import instance_head, projection_head
from mdp.core.networks.resnet import FIRST_DILATIONS
from mdp.core.networks.timm_backbone import PREFIX
from mdp.core.photometry import IMAGENET, Statistics

ImageChannels = Annotated[int, Bounds(1, 4096)]  # the most bands that are read of a TIFF
Deviation = Annotated[float, Bounds(1e-9, 1e3)]  # of numbers in [0, 1]; it divides


NO_REGIONS = "head: {} looks at regions of classes, which pretraining has none of; take another, such as hrnet"


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Backbone and segmentation head; "stated" and "chosen" say where each default comes from."""

    backbone: str = "resnet50"  # stated, with the 7x7 stem; NAME_v1c has MMSegmentation's, timm:NAME is timm's
    width: Annotated[int, Bounds(1, 4096)] = 64  # channels of the first stage of our backbones; published: 64
    output_stride: Side | None = None  # None: the backbone's own, of our ResNets 8 (chosen: MMSegmentation's D8)
    first_dilation: str = "before"  # of a dilated stage: torchvision's; own: all of the stage's, as MoCo and PASS
    head: str = "deeplabv3"  # stated; deeplabv3plus | fcn | upernet | segformer | ..., see HEADS
    channels: Channels | None = None  # of the head; None: the head's own, see HEADS
    dilations: tuple[Side, ...] | None = None  # of the head's branches, 1: a 1x1 convolution; None: the head's own
    image_channels: ImageChannels = 3  # of the photos; the datasets say so (`image:` in the YAML file), 3 is RGB
    image_mean: tuple[Share, ...] | None = None  # of each channel, of photos in [0, 1]; the datasets say so
    image_std: tuple[Deviation, ...] | None = None  # None here and there: ImageNet's
    drop_path: Annotated[float, Bounds(0, 0.99)] = 0.0  # of timm:NAME: the last block's share of images that pass it by

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.first_dilation not in FIRST_DILATIONS:
            raise ValueError(f"first_dilation: expected {' or '.join(FIRST_DILATIONS)}, got {self.first_dilation!r}")
        if self.first_dilation != "before" and self.backbone.startswith(PREFIX):
            raise ValueError(f"first_dilation: {self.backbone} has its own dilation; leave it out (before)")
        if self.head not in HEADS:
            raise ValueError(f"head: expected one of {', '.join(HEADS)}, got {self.head!r}")
        if self.dilations is not None and not HEADS[self.head].dilations:
            raise ValueError(f"dilations: the head {self.head} has none; leave them out (null), or take another head")
        if self.channels is not None and self.head == "linear":
            raise ValueError("channels: the head linear has those of the backbone; leave them out (null)")
        if self.dilations == ():
            raise ValueError("dilations: expected numbers of 1 or more, got none")
        if self.backbone.startswith(PREFIX) and self.width != 64:
            raise ValueError(f"width: {self.backbone} has a width of its own; leave it out (64)")
        self._check_statistics()
        takes = HEADS[self.head].takes
        check_backbone(self.backbone, self.output_stride, takes, self.image_channels, self.drop_path)

    def _check_statistics(self) -> None:
        for name, values in (("image_mean", self.image_mean), ("image_std", self.image_std)):
            if values is None and self.image_channels != len(IMAGENET.mean):
                raise ValueError(
                    f"{name}: expected {self.image_channels} numbers, one for each image channel, got null"
                )
            if values is not None and len(values) != self.image_channels:
                raise ValueError(f"{name}: expected {self.image_channels} numbers, one for each image channel, got "
                                 f"{len(values)}")  # fmt: skip

    @property
    def statistics(self) -> Statistics:
        """By which images are normalised."""
        return Statistics(self.image_mean or IMAGENET.mean, self.image_std or IMAGENET.std)

    @property
    def last_channels(self) -> int:
        """Channels of the backbone's last map."""
        takes = HEADS[self.head].takes
        return inputs_of(self.backbone, self.width, self.output_stride, takes, self.image_channels).last

    @property
    def stride(self) -> int:
        """Image pixels to a cell of the backbone's last map."""
        return stride_of(self.backbone, self.output_stride, HEADS[self.head].takes, self.image_channels)

    @property
    def head_channels(self) -> int:
        """Channels of the features that the head gives (F)."""
        head = HEADS[self.head]
        if self.channels is not None:
            return self.channels
        if head.channels_of is None:
            assert head.channels is not None, "a head has channels of its own, or says how many"
            return head.channels
        return head.channels_of(
            inputs_of(self.backbone, self.width, self.output_stride, head.takes, self.image_channels)
        )

    @property
    def head_dilations(self) -> tuple[int, ...]:
        """Dilations of the head's branches; empty for a head without any."""
        return HEADS[self.head].dilations if self.dilations is None else self.dilations


def _backbone(settings: NetworkSettings) -> Backbone:
    takes, s = HEADS[settings.head].takes, settings
    stride = s.output_stride if s.backbone.startswith(PREFIX) else s.stride
    return build_backbone(s.backbone, s.width, stride, takes, s.image_channels, s.first_dilation, s.drop_path)


def _head(settings: NetworkSettings, backbone: Backbone, dropout: float = 0.0) -> nn.Module:
    build = HEADS[settings.head].build
    return build(backbone.inputs, settings.head_channels, settings.head_dilations, dropout)


class OnGrid(nn.Module):
    """A network whose answers lie on a feature grid."""

    grid: Grid  # where labels are taken for its cells
    backbone: nn.Module
    _maps: Callable[[nn.Module, Tensor], FeatureMaps]

    def last_map(self, images: Tensor) -> Tensor:
        """(B, K, H, W) -> the backbone's last map, (B, C, h, w)."""
        return self._maps(self.backbone, images).last

    @property
    def output_stride(self) -> int:
        """Image pixels to a cell."""
        return self.grid.stride


class DatasetClassifier(nn.Module):
    """Features (B, F, h, w) -> log p of each class among those of its own dataset, (B, C, h, w) float32."""

    def __init__(self, channels: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.conv, self.sizes = nn.Conv2d(channels, sum(sizes), 1), tuple(sizes)

    def forward(self, features: Tensor) -> Tensor:
        return log_softmax_by_dataset(self.conv(features), self.sizes)


class EmbeddingNetwork(OnGrid):
    """Images -> unit-length pixel embeddings.  Raises ValueError for a head that needs classes."""

    class_prototypes: nn.Parameter | None  # (C, D) where a method learns them
    classifier: DatasetClassifier | None  # where a method has one beside the embeddings

    def __init__(self, settings: NetworkSettings, embedding: int, hidden: int) -> None:
        super().__init__()
        self.register_parameter("class_prototypes", None)
        self.register_module("classifier", None)
        if HEADS[settings.head].auxiliary:
            raise ValueError(NO_REGIONS.format(settings.head))
        found = _backbone(settings)
        self.backbone, self._maps = found.module, found.maps
        self.decode_head = _head(settings, found)
        self.projection_head = projection_head(settings.head_channels, hidden, embedding)
        self.grid = found.grid(HEADS[settings.head].takes)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, F, h, w): what fine-tuning's classifier sees."""
        features: Tensor = self.decode_head(*self._maps(self.backbone, images))
        return features

    def forward(self, images: Tensor, unit: bool = True, classes: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> (B, D, h, w) float32 of unit length, whatever the autocast; a zero vector stays zero.

        With `unit` False they are as the network has them, for losses that divide by the length themselves.  With
        `classes` also what the classifier says, (B, C, h, w): a flag here, since what wraps a network for several
        processes knows `forward` only.
        """
        features = self.features(images)  # (B, F, h, w)
        vectors: Tensor = self.projection_head(features)  # (B, D, h, w)
        vectors = F.normalize(vectors.float(), dim=1, eps=EPS) if unit else vectors
        if not classes:
            return vectors
        assert self.classifier is not None
        return vectors, self.classifier(features)


class InstanceNetwork(OnGrid):
    """Images -> one unit-length embedding an image; a backbone without dilation, as MoCo trains it."""

    def __init__(self, settings: NetworkSettings, embedding: int) -> None:
        super().__init__()
        found = build_backbone(
            settings.backbone, settings.width, None, "last", settings.image_channels, drop_path=settings.drop_path
        )
        self.backbone, self._maps = found.module, found.maps
        self.projection_head = instance_head(found.channels, embedding)
        self.grid = found.grid("last")

    def forward(self, images: Tensor, features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> (B, D) float32 of unit length, whatever the autocast.

        With `features` also what the head saw, (B, channels) float32 as they are: a flag here, since what wraps a
        network for several processes knows `forward` only.
        """
        pooled = self._maps(self.backbone, images).last.mean((2, 3))  # (B, channels)
        embeddings = F.normalize(self.projection_head(pooled).float(), dim=1, eps=EPS)
        return (embeddings, pooled.float()) if features else embeddings


class Look(NamedTuple):
    """What a segmentor makes of images on the way to its classes, each (B, ., h, w) on a grid of its own."""

    last: Tensor  # the backbone's last map
    features: Tensor  # (B, F, h, w): what the classifier sees, before dropout
    logits: Tensor  # (B, C, h, w)
    coarse: Tensor | None = None  # (B, C, h, w): the auxiliary logits of a head that has some
    stages: tuple[Tensor, ...] = ()  # four maps, the finest first, where the head takes them


class Grids(NamedTuple):
    """Where labels are taken for the cells of what a segmentor makes of images."""

    last: Grid  # of the backbone's last map
    features: Grid  # of the features; of the finest stage, too, where the head takes stages
    stages: bool = False  # whether it does


class Segmentor(OnGrid):
    """Images -> class logits on the feature grid.

    Dropout draws from torch's global generator in training; the shell seeds it before every step.
    """

    def __init__(self, settings: NetworkSettings, classes: int) -> None:
        super().__init__()
        found, head = _backbone(settings), HEADS[settings.head]
        self.backbone, self._maps = found.module, found.maps
        self.decode_head = _head(settings, found, head.inner_dropout)
        self.decode_head.conv_seg = nn.Conv2d(settings.head_channels, classes, 1)  # all libraries keep it in the head
        if head.auxiliary:
            part = self.decode_head.get_submodule(head.auxiliary.part)
            part.conv_seg = nn.Conv2d(head.auxiliary.channels(found.inputs), classes, 1)
        self.dropout = nn.Dropout2d(head.dropout)
        self.grid = found.grid(head.takes)
        self.grids = Grids(found.grid("last"), self.grid, head.takes == "stages")
        self.statistics = settings.statistics  # by which its images are normalised

    @property
    def classifier(self) -> nn.Conv2d:
        """The 1x1 convolution from features to logits."""
        found = self.decode_head.conv_seg
        assert isinstance(found, nn.Conv2d)
        return found

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, F, h, w): what the classifier sees, before dropout."""
        features: Tensor = self.decode_head(*self._maps(self.backbone, images))
        return features

    def look(self, images: Tensor) -> Look:
        """(B, 3, H, W) -> what criteria of training ask for."""
        maps = self._maps(self.backbone, images)
        with_coarse = getattr(self.decode_head, "with_coarse", None)
        features, coarse = with_coarse(*maps) if with_coarse else (self.decode_head(*maps), None)  # (B, F, h, w)
        return Look(maps.last, features, self.classifier(self.dropout(features)), coarse, maps.stages)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, C, h, w)."""
        return self.look(images).logits


class TrainedSegmentor(OnGrid):
    """A segmentor in training, and beside it the extra head of its criterion, which nothing but training sees.

    Its parameters are those of the segmentor, by the same names, and the head's under `criterion.`.
    """

    def __init__(self, segmentor: Segmentor, head: nn.Module | None) -> None:
        super().__init__()
        for name, part in segmentor.named_children():
            self.add_module(name, part)
        self.criterion = head
        self._look = segmentor.look
        self.grid = segmentor.grid

    def forward(self, images: Tensor) -> tuple[Look, Any]:
        """(B, 3, H, W) -> what the segmentor makes of them, and what the extra head makes of that (None without)."""
        look = self._look(images)
        return look, None if self.criterion is None else self.criterion(look)


def build_embedding_network(
    settings: NetworkSettings, embedding: int, hidden: int, rng: torch.Generator
) -> EmbeddingNetwork:
    """An embedding network with random weights drawn from `rng`."""
    return randomly(lambda: EmbeddingNetwork(settings, embedding, hidden), _foreign(settings), rng)


def build_instance_network(settings: NetworkSettings, embedding: int, rng: torch.Generator) -> InstanceNetwork:
    """An instance network with random weights drawn from `rng`."""
    return randomly(lambda: InstanceNetwork(settings, embedding), _foreign(settings), rng)


def build_segmentor(settings: NetworkSettings, classes: int, rng: torch.Generator) -> Segmentor:
    """A segmentor with random weights drawn from `rng`; the classifier starts at N(0, 0.01)."""
    network = randomly(lambda: Segmentor(settings, classes), _foreign(settings), rng)
    nn.init.normal_(network.classifier.weight, std=0.01, generator=rng)
    if auxiliary := HEADS[settings.head].auxiliary:
        coarse = network.decode_head.get_parameter(f"{auxiliary.part}.conv_seg.weight")
        nn.init.normal_(coarse, std=0.01, generator=rng)
    return network


def _foreign(settings: NetworkSettings) -> bool:
    return settings.backbone.startswith(PREFIX)


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (B, C, h, w) at another resolution, (B, C, *size) float32: bilinear, align_corners False."""
    return F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)
