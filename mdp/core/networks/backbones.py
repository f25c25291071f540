"""Backbones by name: our own ResNets, and timm's models as `timm:NAME`; and what a head has to know of them.

Shape legend: B images, H x W image.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from mdp.core.geometry import Grid
from mdp.core.networks import timm_backbone
from mdp.core.networks.decode_heads import LOW_STRIDE
from mdp.core.networks.feature_maps import FeatureMaps
from mdp.core.networks.heads import Inputs, Takes
from mdp.core.networks.resnet import LAYOUTS, ResNet, initialise_, stage_channels
from mdp.core.networks.timm_backbone import PREFIX
from mdp.core.networks.undrawn import CONSTRUCTORS, Undrawn
from mdp.core.photometry import Statistics

Network = TypeVar("Network", bound=nn.Module)


class Backbone(NamedTuple):
    """A feature extractor, and what a head has to know of it."""

    module: nn.Module  # its parameters have the names of the library it comes from
    maps: Callable[[nn.Module, Tensor], FeatureMaps]  # of the module and images (B, 3, H, W)
    stride: int  # of the last map
    channels: int
    low_channels: int | None  # of the finer map; None when it was not asked for
    stage_channels: tuple[int, ...] = ()  # of the four stages; empty when they were not asked for
    finest: int = LOW_STRIDE  # stride of the finer map, or of the first stage
    offset: int = 0  # the pixel of its stride that a cell of the last map is centred on; 0 in our ResNets
    finest_offset: int = 0  # likewise of the finer map, or of the first stage

    def grid(self, takes: Takes) -> Grid:
        """The grid that a head which takes these maps gives its features on."""
        return Grid(self.stride, self.offset) if takes == "last" else Grid(self.finest, self.finest_offset)

    @property
    def inputs(self) -> Inputs:
        """The channels that a head is built for."""
        return Inputs(self.channels, self.low_channels, self.stage_channels)


OWN_STRIDE = 8  # of our ResNets where nothing is asked; chosen: MMSegmentation's D8, 16 is the alternative


def check_backbone(
    name: str, output_stride: int | None, takes: Takes, image_channels: int = 3, drop_path: float = 0.0
) -> None:
    """Raises ValueError, naming the setting, unless there is such a backbone with such feature maps."""
    if name.startswith(PREFIX):
        _described(name, output_stride, takes, image_channels)
        if drop_path:
            timm_backbone.expect_drop_path(name.removeprefix(PREFIX))
        return
    if drop_path:
        raise ValueError(f"drop_path: only backbones {PREFIX}NAME have it; leave it at 0")
    if name not in LAYOUTS:
        raise ValueError(f"backbone: expected one of {', '.join(LAYOUTS)} or {PREFIX}NAME, got {name!r}")
    if output_stride not in (None, 8, 16, 32):
        raise ValueError(f"output_stride: expected 8, 16 or 32, got {output_stride}")


def stride_of(name: str, output_stride: int | None, takes: Takes, image_channels: int = 3) -> int:
    """Image pixels to a cell of the last map, where that output stride (None: the backbone's own) is asked for."""
    if output_stride is not None or not name.startswith(PREFIX):
        return output_stride or OWN_STRIDE
    return _described(name, None, takes, image_channels).stride


def inputs_of(name: str, width: int, output_stride: int | None, takes: Takes, image_channels: int = 3) -> Inputs:
    """The channels of the maps that such a backbone gives a head, without building it."""
    if name.startswith(PREFIX):
        found = _described(name, output_stride, takes, image_channels)
        return Inputs(found.channels, found.low_channels, found.stage_channels)
    stages = stage_channels(name, width)
    return Inputs(stages[-1], stages[0] if takes == "low" else None, stages if takes == "stages" else ())


def _described(name: str, output_stride: int | None, takes: Takes, image_channels: int) -> timm_backbone.Description:
    low = LOW_STRIDE if takes == "low" else None
    return timm_backbone.describe(name.removeprefix(PREFIX), output_stride, low, takes == "stages", image_channels)


def statistics_of(name: str) -> Statistics | None:
    """By which images are normalised for the weights that a backbone was published with; None: ImageNet's, or open."""
    return timm_backbone.statistics(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None


def build_backbone(
    name: str,
    width: int,
    output_stride: int | None,
    takes: Takes,
    image_channels: int = 3,
    first_dilation: str = "before",
    drop_path: float = 0.0,
) -> Backbone:
    """The backbone of that name; an output stride of None is its own, undilated one.  `takes`: what the head does.

    `first_dilation` is a ResNet's, see there; timm's have theirs.  `drop_path` is timm's, see `timm_backbone`.

    timm's draw their weights from torch's global generator, see `randomly`.  Raises ValueError for what does not exist.
    """
    if not name.startswith(PREFIX):
        stride = output_stride or 32
        own = ResNet(name, width, stride, image_channels, first_dilation)
        if takes == "stages":
            return Backbone(own, _own_stages, stride, own.channels, None, own.stage_channels)
        return Backbone(own, _own_maps, stride, own.channels, own.low_channels)
    found = _described(name, output_stride, takes, image_channels)
    module, maps = timm_backbone.build(found, drop_path), partial(timm_backbone.maps, found)
    finest = found.stage_strides[0] if found.stage_strides else LOW_STRIDE
    return Backbone(
        module,
        maps,
        found.stride,
        found.channels,
        found.low_channels,
        found.stage_channels,
        finest,
        found.offset,
        found.finest_offset,
    )


def _own_maps(backbone: nn.Module, images: Tensor) -> FeatureMaps:
    assert isinstance(backbone, ResNet)
    return backbone.maps(images)


def _own_stages(backbone: nn.Module, images: Tensor) -> FeatureMaps:
    assert isinstance(backbone, ResNet)
    return backbone.stages(images)


def randomly(make: Callable[[], Network], foreign: bool, rng: torch.Generator) -> Network:
    """The network of `make` with random weights drawn from `rng`; `foreign`: its backbone keeps its own start.

    Such a backbone draws from torch's global generator, which is seeded from `rng` for it and put back.
    """
    with torch.random.fork_rng(devices=[]), nullcontext() if foreign else Undrawn(*CONSTRUCTORS):
        if foreign:
            torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=rng)))
        network = make()
    for name, part in network.named_children():
        if not foreign or name != "backbone":
            initialise_(part, rng)
    return network
