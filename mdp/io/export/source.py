"""The network of a run to export, rebuilt from its checkpoint, and its parameters as other libraries want them.

Shape legend: B images, C classes, H x W image, h x w feature grid.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mdp.core.networks import InstanceNetwork, NetworkSettings, upsample
from mdp.core.networks.backbones import build_backbone
from mdp.core.networks.decode_heads import HEADS
from mdp.core.networks.heads import Takes
from mdp.core.networks.parameter_names import Layout, foreign_names
from mdp.core.networks.timm_backbone import describe
from mdp.core.networks.undrawn import ALL, Undrawn
from mdp.io.errors import CheckpointError, RecipeError
from mdp.io.export.content import TIMM, Content
from mdp.io.recipe.layers import Recipe
from mdp.io.run.checkpoints import checkpoints_in
from mdp.io.run.folder import checkpoint_of
from mdp.io.run.header import read_header
from mdp.io.run.opened import OpenedRun, new_segmentor, open_run, trained_network, trained_part
from mdp.io.run.record import FINETUNE, RunRecord
from mdp.io.run.restore import restore_


class Features(nn.Module):
    """Images -> the features of a backbone, at any stride that it has: weights do not know their stride."""

    def __init__(self, settings: NetworkSettings, stride: int, takes: Takes) -> None:
        super().__init__()
        s = settings
        found = build_backbone(s.backbone, s.width, stride, takes, s.image_channels, s.first_dilation)
        self.backbone, self._maps = found.module, found.maps

    def forward(self, images: Tensor) -> Tensor:
        """(B, K, H, W) -> (B, channels, h, w), the last map."""
        return self._maps(self.backbone, images).last


class Whole(nn.Module):
    """Images -> class logits at the images' own resolution."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H, W): bilinear, align_corners False."""
        return upsample(self.network(images), (images.shape[2], images.shape[3]))


class Source(NamedTuple):
    """The network of a run."""

    path: Path  # of the checkpoint
    record: RunRecord
    recipe: Recipe
    content: Content
    weights: dict[str, Tensor]  # by our names, in the network's order
    takes: Takes = "last"  # maps of the backbone that it was trained with
    average: str | None = None  # ema or raw, of a checkpoint that has both
    size: tuple[int, int] | None = None  # height and width of the only images that a program takes; None: any

    def rebuilt(self, weights: Mapping[str, Tensor] | None = None, stride: int | None = None) -> nn.Module:
        """The network to export, in evaluation mode: features at that stride (None: the trained one), or a whole one.

        With the run's own weights, or with others of the same names.  Raises CheckpointError when they do not fit.
        """
        given = self.weights if weights is None else weights
        if self.content.head:
            with Undrawn(*ALL):  # all of it is restored
                network: nn.Module = new_segmentor(self.recipe, self.content.classes)
            restore_(network, given, str(self.path))
            return Whole(network).eval()
        with torch.random.fork_rng(devices=[]), Undrawn(*ALL):
            features = Features(self.recipe.model, stride or self.content.stride, self.takes)
        restore_(features, given, str(self.path))
        return features.eval()


def checkpoint_at(run: Path, which: str) -> Path:
    """The checkpoint file, `last` or `best`, of a run folder, or the file itself.

    Raises CheckpointError when it is not there: another one would give other weights.
    """
    path = checkpoint_of(run, which)
    if run.is_dir() and path.stem != which:
        there = ", ".join(file.name for file in checkpoints_in(run))
        raise CheckpointError(f"{run}: no checkpoints/{which}.safetensors in it; it has {there}: give the file's path")
    return path


def read_source(run: Path, which: str, segmentor: bool, asked: str | None = None) -> Source:
    """The query encoder's backbone of a pretraining run, a fine-tuned network's backbone, or (`segmentor`) all of it.

    With the weights that `weights_of` says, `asked` for.
    Raises CheckpointError for anything but a whole checkpoint of such a run.
    """
    path = checkpoint_at(run, which)
    if path.suffix != ".safetensors" or read_header(path).texts.get("format") != "mdp":
        raise CheckpointError(f"{path}: expected a checkpoint of an mdp run, found another file; nothing to export")
    opened = open_run(path)
    trained_part(path, opened.record)  # an unknown kind is refused before anything else
    if segmentor and opened.record.kind != FINETUNE:
        raise RecipeError(f"{path}: a pretraining run has no segmentor; leave --segmentor out, or fine-tune it first")
    network = trained_network(opened, asked)
    weights = {name: t for name, t in network.state_dict().items() if segmentor or name.startswith("backbone.")}
    bad = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise CheckpointError(f"{path}: {len(bad)} tensors hold numbers that are not finite, such as {bad[0]}")
    takes = "last" if isinstance(network, InstanceNetwork) else HEADS[opened.recipe.model.head].takes
    content = _content(opened, network, segmentor)
    return Source(path, opened.record, opened.recipe, content, weights, takes, opened.weights(asked))


def crop_of(source: Source) -> tuple[int, int]:
    """Height and width of the images that the network was trained on."""
    recipe = source.recipe
    return recipe.finetune.crop if source.record.kind == FINETUNE else (recipe.pretrain.crop, recipe.pretrain.crop)


def _content(opened: OpenedRun, network: nn.Module, segmentor: bool) -> Content:
    model = opened.record.recipe["model"]
    settings = opened.recipe.model
    stride = network.output_stride if isinstance(network, InstanceNetwork) else settings.stride
    arguments: tuple[tuple[str, Any], ...] = ()
    if settings.backbone.startswith(TIMM):
        name = settings.backbone.removeprefix(TIMM)
        arguments = describe(name, stride, image_channels=settings.image_channels).arguments
    bare = Content(
        settings.backbone,
        settings.width,
        stride,
        first_dilation=settings.first_dilation,
        image_channels=settings.image_channels,
        arguments=arguments,
    )
    if not segmentor:
        return bare
    dilations = model.get("dilations")
    return bare._replace(
        head=model.get("head", "deeplabv3"),  # older runs do not name it
        channels=model.get("channels"),
        dilations=None if dilations is None else tuple(dilations),
        classes=opened.union.size,
    )


def exported(weights: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """The parameters by the library's names: contiguous, fractions in float32, each in memory of its own."""
    names = foreign_names(weights, layout)
    parameters = {foreign: weights[own].detach().cpu() for own, foreign in names.items()}
    return {name: (t.float() if t.is_floating_point() else t).contiguous().clone() for name, t in parameters.items()}
