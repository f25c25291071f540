"""What a frozen network makes of photos, for clusters and label maps: its last map, and its attention if it has one.

Shape legend: B images, D channels, A attention maps (D, or 1), h x w feature grid, r rows of an image.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.geometry import Box, View, cut_image
from mdp.core.networks.clustering import AttentionNetwork
from mdp.core.networks.memory_layout import to_channels_last_
from mdp.core.networks.timm_backbone import PREFIX
from mdp.core.photometry import as_float, normalise
from mdp.core.pixel_attention import RAISED, Attended, attended_mean
from mdp.io.data.pool import Key, Pool
from mdp.io.errors import CheckpointError, MdpError, RecipeError
from mdp.io.files.reading import printable
from mdp.io.recipe.layers import Layer, resolve
from mdp.io.run.folder import checkpoint_of
from mdp.io.run.opened import open_run, trained_network
from mdp.io.run.record import PRETRAIN
from mdp.io.unsupervised.features import COLORS, SCRATCH, Features, open_features
from mdp.io.unsupervised.pipeline.stage import digest_of_file
from mdp.io.weights.timm_cache import cached_weights

CROP = 7 / 8  # of the short side: 224 of 256
_EPS = 1e-8  # the released code's


@dataclass(frozen=True, kw_only=True)
class Source:
    """A frozen network."""

    digest: str  # SHA-256 of its weights' file, or of what they were drawn by
    features: Features
    maps: Callable[[Tensor], Tensor]  # images (B, K, H, W) uint8, or in [0, 1] -> (B, D, h, w)
    attend: Callable[[Tensor], Attended] | None  # (B, D, h, w) -> four times as fine

    def kind(self, asked: str | None) -> str:
        """Which vectors are clustered.  Raises RecipeError where the network has no such."""
        if asked == "attention" and self.attend is None:
            raise RecipeError(
                f"luss.features: {self.features.source} has no pixel attention; take pooled or pixels, or a run of "
                "`mdp pretrain --method pixel_attention`"
            )
        return asked or ("attention" if self.attend else "pooled")

    def rows(self, images: Tensor, kind: str) -> Tensor:
        """The vectors (B, r, D) of images, of unit length: one of each, or one of each cell."""
        maps = self.maps(images)  # (B, D, h, w)
        if kind == "pixels":
            rows = maps.flatten(2).transpose(1, 2)  # (B, h w, D)
        elif kind == "pooled":
            rows = maps.mean((2, 3))[:, None]
        else:
            assert self.attend is not None
            rows = attended_mean(self.attend(maps))[:, None]
        unit: Tensor = rows / (torch.linalg.vector_norm(rows, dim=2, keepdim=True) + _EPS)
        return unit


def open_source(source: str, asked: Layer, device: torch.device) -> Source:
    """The network of RUN, FILE, `timm:NAME`, `scratch` or `colors`, with its attention if it is a run that has one.

    Raises what `open_features` raises.
    """
    features = open_features(source, asked, device=device)
    if source in (SCRATCH, COLORS):
        told = json.dumps([source, asked.get("model") or {}, resolve(asked).run.seed], sort_keys=True)
        digest = hashlib.sha256(told.encode()).hexdigest()
        return Source(digest=digest, features=features, maps=features.maps, attend=None)
    path = cached_weights(source) if source.startswith(PREFIX) else checkpoint_of(Path(source))
    network = _attention_of(path)
    digest = digest_of_file(path)
    if network is None:
        return Source(digest=digest, features=features, maps=features.maps, attend=None)
    network.requires_grad_(False).eval().to(device)
    to_channels_last_(network)

    @torch.no_grad()
    def maps(images: Tensor) -> Tensor:
        return network.features(normalise(as_float(images.to(device)), statistics)).float()

    assert features.statistics is not None
    statistics, attend = features.statistics, torch.no_grad()(network.attend)
    taken = replace(features, lines=[f"loaded backbone and pixel attention from {printable(path)}"])
    return Source(digest=digest, features=taken, maps=maps, attend=attend)


def _attention_of(path: Path) -> AttentionNetwork | None:
    """The network of a run that trained pixel attention; None for all other files."""
    try:
        opened = open_run(path)
    except CheckpointError:
        return None  # it was read as a file of weights already
    if opened.record.kind != PRETRAIN:
        return None
    network = trained_network(opened)
    return network if isinstance(network, AttentionNetwork) else None


# Photos as these networks get them


def short_side(image: Tensor, length: int) -> Tensor:
    """The image (K, H, W) resized so that its short side has that length; the long one is rounded down."""
    _, height, width = image.shape
    shorter = min(height, width)
    size = height * length // shorter, width * length // shorter
    return image if size == (height, width) else cut_image(image, View(Box(0, 0, height, width), False), size)


def middle(image: Tensor, length: int) -> Tensor:
    """The square in the middle of an image, 7/8 of its short side of that length."""
    resized = short_side(image, length)
    side = round(CROP * length)
    top, left = (resized.shape[1] - side + 1) // 2, (resized.shape[2] - side + 1) // 2
    return resized[:, top : top + side, left : left + side]


class MiddleItems:
    """Index -> the middle of a photo; what the loader's workers run."""

    def __init__(self, pool: Pool, length: int) -> None:
        self.pool, self.length = pool, length

    def __getitem__(self, key: Key) -> Tensor | MdpError:
        try:
            return middle(self.pool.photo(key[1]), self.length)
        except MdpError as error:
            return error


def raised(scores: Tensor) -> tuple[int, int]:
    """The size of the grid on which categories are decided: four times that of scores (., ., h, w)."""
    return scores.shape[2] * RAISED, scores.shape[3] * RAISED


def at_size(levels: Tensor, size: tuple[int, int]) -> Tensor:
    """Levels (h, w) bilinearly at an image's size (H, W)."""
    return F.interpolate(levels[None, None], size, mode="bilinear", align_corners=False)[0, 0]
