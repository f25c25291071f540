"""A frozen backbone and the features it gives, of whatever weights there are: a run, a file, timm's, or none.

The weights are taken as `--init` takes them.  Beside them stand two controls: `scratch`, random weights, and `colors`,
histograms of colours in place of features.
Shape legend: B images, K channels of an image, D channels of the features, H x W image, h x w feature grid.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mdp.core.chance import generator
from mdp.core.color_histograms import LEVELS, cell_colors
from mdp.core.geometry import Grid
from mdp.core.networks import NetworkSettings
from mdp.core.networks.backbones import Backbone, build_backbone, randomly, statistics_of
from mdp.core.networks.memory_layout import to_channels_last_
from mdp.core.networks.timm_backbone import PREFIX
from mdp.core.photometry import Statistics, as_float, normalise_
from mdp.io.errors import CheckpointError, RecipeError
from mdp.io.recipe.layers import Layer, merge, nest, resolve
from mdp.io.run.folder import checkpoint_of, home_of, unfinished
from mdp.io.weights.init import take_of
from mdp.io.weights.inspect import model_of
from mdp.io.weights.reading import read_file
from mdp.io.weights.timm_cache import cached_weights

SCRATCH, COLORS = "scratch", "colors"
_STRIDE = 16  # of colours where none is asked for


@dataclass(frozen=True, kw_only=True)
class Features:
    """A backbone that nothing trains any more, and what is to know of its last map."""

    source: str  # what it was opened from, as it was asked for
    words: str  # what it is
    lines: list[str]  # which weights were taken, and what to know of them
    channels: int  # D
    grid: Grid  # where the cells of a map look: cell i at pixel stride i + offset
    image_channels: int  # K
    statistics: Statistics | None  # by which images are normalised; None for colours
    device: torch.device
    map_of: Callable[[Tensor], Tensor]  # normalised images (B, K, H, W) -> (B, D, h, w)

    @property
    def stride(self) -> int:
        """Image pixels to a cell."""
        return self.grid.stride

    @torch.no_grad()
    def maps(self, images: Tensor) -> Tensor:
        """The last map (B, D, h, w) float32, on the device, of images (B, K, H, W): uint8 RGB, or in [0, 1].

        h = ceil(H / stride), w likewise.
        """
        inputs = as_float(images.to(self.device))
        if self.statistics is not None:
            inputs = normalise_(inputs, self.statistics)
        return self.map_of(inputs).float()

    def pooled(self, images: Tensor) -> Tensor:
        """The mean of the last map, (B, D) float32."""
        return self.maps(images).mean((2, 3))


def open_features(
    source: str,
    asked: Layer | None = None,
    *,
    stride: int | None = None,
    start: str = "",
    device: torch.device | None = None,
) -> Features:
    """The features of RUN, FILE, `timm:NAME` (its published weights, if they are here), `scratch` or `colors`.

    `asked` are layers of settings, whose section `model` counts: the backbone of a FILE that does not show it.
    `stride`: the output stride to reach by dilating whole stages, where the backbone can; None: its own.
    `model.output_stride`, where it is asked for, wins, and is refused where the backbone cannot.  `start` is where in
    the file the backbone's names begin.
    Raises CheckpointError, RecipeError or ResourceError in one line for what cannot be opened.
    """
    asked, device = asked or {}, device or torch.device("cpu")
    if source == COLORS:
        return _colors(resolve(asked).model.output_stride or stride or _STRIDE, device)
    try:
        if source == SCRATCH:
            recipe = resolve(asked)
            model, found = _build(recipe.model, asked, stride, recipe.run.seed)
            lines = [f"random weights of seed {recipe.run.seed}"]
        else:
            model, found, lines = _read(source, asked, stride, start)
    except ValueError as error:  # of a backbone that cannot be built so
        raise RecipeError(f"{source}: model.{error}") from error
    backbone = found.module.requires_grad_(False).eval().to(device)
    to_channels_last_(backbone)
    width = "" if model.backbone.startswith(PREFIX) else f" of width {model.width}"
    return Features(
        source=source,
        words=f"{model.backbone}{width} at stride {found.stride}, {found.channels} channels",
        lines=lines,
        channels=found.channels,
        grid=found.grid("last"),
        image_channels=model.image_channels,
        statistics=model.statistics,
        device=device,
        map_of=lambda images: found.maps(backbone, images).last,
    )


def results_folder(out: Path | None, source: str, command: str, name: str) -> Path | None:
    """Where a command's results go: to `out`, else into the folder of the run that is looked at; else None."""
    home = home_of(Path(source)) if Path(source).is_file() else Path(source)
    return out or (home / command / name if (home / "checkpoints").is_dir() else None)


def weights_file(source: str) -> dict[str, Path]:
    """The file that the features are of, as processes have to agree on it; {} for those that are of none."""
    if source in (SCRATCH, COLORS):
        return {}
    path = cached_weights(source) if source.startswith(PREFIX) else checkpoint_of(Path(source))
    return {f"the weights of {source}": path}


def _colors(stride: int, device: torch.device) -> Features:
    return Features(
        source=COLORS,
        words=f"histograms of {LEVELS**3} colours in cells of {stride} pixels",
        lines=[],
        channels=LEVELS**3,
        grid=Grid(stride, (stride - 1) // 2),
        image_channels=3,
        statistics=None,
        device=device,
        map_of=lambda images: cell_colors(images, stride),
    )


def _read(source: str, asked: Layer, stride: int | None, start: str) -> tuple[NetworkSettings, Backbone, list[str]]:
    """The settings of a file's network, its backbone with the file's weights, and the lines to say."""
    if source.startswith(PREFIX):
        path, asked = cached_weights(source), merge(nest("model.backbone", source), asked)
    else:
        if not Path(source).exists():
            raise CheckpointError(
                f"{source}: expected a run folder or a weights file, found nothing; {PREFIX}NAME, {SCRATCH} and "
                f"{COLORS} are what there is besides"
            )
        path = checkpoint_of(Path(source))
    file = read_file(path)
    settings, origin = model_of(file, asked)
    if file.run is None:
        settings = _as_published(settings)
    model, found = _build(settings, asked, stride, seed=0)
    network = nn.ModuleDict({"backbone": found.module})
    try:
        tensors, lines = take_of(path, file, network, ("backbone",), start, partial=None)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; the network is {origin}") from error
    network.load_state_dict(tensors, strict=False)  # what fits was decided, and reported, by `take_of`
    return model, found, [*lines, *filter(None, [unfinished(path)])]


def _as_published(model: NetworkSettings) -> NetworkSettings:
    """The settings with the mean and deviation that the backbone's weights were published with, if none are asked."""
    own = statistics_of(model.backbone)
    if own is None or (model.image_mean, model.image_std) != (None, None) or model.image_channels != len(own.mean):
        return model
    return replace(model, image_mean=own.mean, image_std=own.std)


def _build(model: NetworkSettings, asked: Layer, stride: int | None, seed: int) -> tuple[NetworkSettings, Backbone]:
    """The backbone alone, with random weights, at the stride that is asked for."""
    section: Any = asked.get("model") or {}
    strict = section.get("output_stride")
    if strict is None and stride is not None and model.backbone.startswith(PREFIX):
        try:
            return model, _backbone(model, stride, section, seed)
        except ValueError as error:
            if not str(error).startswith("output_stride:"):
                raise
            stride = None  # it cannot be dilated
    return model, _backbone(model, model.output_stride if strict is not None else stride, section, seed)


def _backbone(model: NetworkSettings, stride: int | None, section: Any, seed: int) -> Backbone:
    # as MoCo's dense transfer has it: all 3x3 convolutions of a dilated stage, the first block's too
    first = model.first_dilation if "first_dilation" in section else "own"
    made: list[Backbone] = []

    def make() -> nn.Module:
        made.append(build_backbone(model.backbone, model.width, stride, "last", model.image_channels, first))
        return nn.ModuleDict({"backbone": made[0].module})

    randomly(make, model.backbone.startswith(PREFIX), generator(seed, "features"))
    return made[0]
