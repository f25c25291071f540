"""Networks that give images to prototypes: SwAV's (2006.09882), PASS's and that of pixel attention (2106.03149).

The backbone has no dilation, as both papers train it.  `features`, `pooled` and `attended` are what label generation
takes; `forward` is a training step.
Shape legend: B images, V views, N = V B rows, view by view, K prototypes, D embedding channels, C channels of the last
map, n points a side, Q rows of a queue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdp.core.alignment import matched_features
from mdp.core.contrast_chunked import EPS
from mdp.core.networks.backbones import build_backbone, randomly
from mdp.core.networks.heads import Takes
from mdp.core.networks.projection_heads import projection
from mdp.core.networks.segmentor import NetworkSettings, OnGrid
from mdp.core.networks.timm_backbone import PREFIX
from mdp.core.pixel_attention import Attended, attended_directions, attended_mean, pixel_attention


@dataclass(frozen=True, kw_only=True)
class ClusterHeads:
    """What stands on the backbone."""

    embedding: int  # D
    prototypes: int  # K
    hidden: int | None = None  # inner channels of all heads; None: those of the backbone's last map
    points: bool = False  # embeddings of points
    points_projected: bool = True  # by a head; else the last map as it is
    points_scored: bool = False  # compared with the prototypes; else there is a predictor of points
    stages: tuple[int, ...] = ()  # 1 to 3: stages with heads of their own


class Clustered(NamedTuple):
    """What the network makes of all views; float32 whatever the autocast."""

    embeddings: Tensor  # (N, D) of unit length
    scores: Tensor  # (N, K) cosines with the prototypes
    queued: Tensor | None = None  # (Q, K) of the rows of a queue, without gradient
    projected: Tensor | None = None  # (N', D, n, n) of the first group's N' rows, at the points of the grids
    predicted: Tensor | None = None  # (N', D, n, n) from these; or cosines (N', K, n, n) with the prototypes
    stages: tuple[Tensor, ...] = ()  # (N', K) of each stage; here and of points no gradient goes to the prototypes


class ClusterNetwork(OnGrid):
    """Images -> embeddings and their cosines with prototypes."""

    def __init__(self, settings: NetworkSettings, heads: ClusterHeads) -> None:
        super().__init__()
        takes: Takes = "stages" if heads.stages else "last"
        found = build_backbone(
            settings.backbone, settings.width, None, takes, settings.image_channels, drop_path=settings.drop_path
        )
        self.backbone, self._maps = found.module, found.maps
        self.grid, self.channels = found.grid("last"), found.channels
        width, embedding, hidden = found.channels, heads.embedding, heads.hidden or found.channels
        self.projection_head = _image_head(width, hidden, embedding)
        self.prototypes = nn.Linear(embedding, heads.prototypes, bias=False)
        self.stages = heads.stages
        self.points_scored = heads.points_scored
        if heads.points:
            inner = embedding if heads.points_projected else width
            self.point_head = _point_head(width, hidden, inner) if heads.points_projected else nn.Identity()
        if heads.points and not heads.points_scored:
            self.predictor = projection((inner, inner, inner), conv=True, norm=True)
        if heads.stages:
            widths = [found.stage_channels[stage - 1] for stage in heads.stages]
            self.stage_point_heads = nn.ModuleList(_point_head(width, hidden, width) for width in widths)
            self.stage_heads = nn.ModuleList(_image_head(width, hidden, embedding) for width in widths)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> the backbone's last map (B, C, h, w)."""
        return self._maps(self.backbone, images).last

    def pooled(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> the mean of the last map, (B, C) float32: what image-level clustering takes."""
        return self.features(images).float().mean((2, 3))

    def forward(
        self,
        groups: Sequence[Tensor],
        queued: Tensor | None = None,
        frozen: bool = False,
        grids: Tensor | None = None,
    ) -> Clustered:
        """Groups of views of one size, each (V B, 3, s, s) view by view, which BatchNorm sees together.

        `queued` are embeddings (Q, D) to be scored too; `frozen`: the prototypes get a gradient of zeros (and not none,
        which wrappers of several processes would wait for); `grids` (N', n, n, 2) say where the first group is matched.
        """
        maps = [self._maps(self.backbone, images) for images in groups]
        vectors = torch.cat([self.vector(found.last) for found in maps])  # (N, C): the head sees all views together
        embeddings = _unit(self.projection_head(vectors))  # (N, D)
        stages = []
        for number, stage in enumerate(self.stages):
            points = self.stage_point_heads[number](maps[0].stages[stage - 1])  # (N', ., h, w)
            stages.append(_unit(self.stage_heads[number](points.mean((2, 3)))))  # (N', D)
        projected = predicted = None
        if grids is not None:
            projected = matched_features(self.point_head(maps[0].last), grids)  # (N', D, n, n)
            predicted = None if self.points_scored else self.predictor(projected).float()
        weight = self.prototypes.weight
        with torch.autocast(embeddings.device.type, enabled=False):
            still = weight.detach()
            if projected is not None and self.points_scored:
                predicted = F.conv2d(_unit(projected), still[:, :, None, None])  # (N', K, n, n)
            scores = F.linear(embeddings, still) + 0 * weight.sum() if frozen else F.linear(embeddings, weight)
            queue = None if queued is None else F.linear(queued, still)
            found = tuple(F.linear(rows, still) for rows in stages)
        return Clustered(embeddings, scores, queue, projected, predicted, found)

    def vector(self, maps: Tensor) -> Tensor:
        """The last map (B, C, h, w) -> what the image head sees, (B, C)."""
        return maps.mean((2, 3))


class AttentionNetwork(ClusterNetwork):
    """A trained network whose image vectors are weighted by pixel attention, the only part that learns.

    With `frozen_statistics` the backbone's BatchNorm normalises by its running statistics, also in training.  The
    head's goes by the batch: what it gets is some fifty times as short as what its statistics are of, by which all
    images would be alike.
    """

    def __init__(self, settings: NetworkSettings, heads: ClusterHeads, shared: bool, frozen_statistics: bool) -> None:
        super().__init__(settings, heads)
        maps = 1 if shared else self.channels
        self.attention_head = projection((self.channels, self.channels, maps), conv=True, norm=True, last_norm="affine")
        self.threshold = nn.Parameter(torch.zeros(maps))
        self.frozen_statistics = frozen_statistics
        self.backbone.requires_grad_(False)
        self.projection_head.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Training mode, which the backbone stays out of."""
        super().train(mode)
        if self.frozen_statistics:
            self.backbone.eval()
        return self

    def attend(self, maps: Tensor) -> Attended:
        """The last map (B, C, h, w) -> the same four times as fine, and its attention (B, C or 1, 4h, 4w)."""
        return pixel_attention(maps, self.attention_head[0], self.attention_head[1:], self.threshold)

    def attention(self, images: Tensor) -> Attended:
        """(B, 3, H, W) -> features (B, C, 4h, 4w) and their attention (B, C or 1, 4h, 4w)."""
        return self.attend(self.features(images))

    def attended(self, images: Tensor, threshold: float = 0.0) -> Tensor:
        """(B, 3, H, W) -> the mean of features times attention, (B, C) float32: what k-means takes."""
        return attended_mean(self.attention(images), threshold=threshold)

    def vector(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C): the mean of features of unit length times attention."""
        return attended_directions(maps.detach(), self.attention_head[0], self.attention_head[1:], self.threshold)


def _image_head(inputs: int, hidden: int, embedding: int) -> nn.Sequential:
    """The released code's: the last BatchNorm has no scale and shift; SwAV has none there."""
    return projection((inputs, hidden, embedding), conv=False, norm=True, last_norm="plain")


def _point_head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Three 1x1 convolutions, as the released code has it (the text: two)."""
    return projection((inputs, hidden, hidden, outputs), conv=True, norm=True, last_norm="plain")


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors.float(), dim=1, eps=EPS)


def build_cluster_network(settings: NetworkSettings, heads: ClusterHeads, rng: torch.Generator) -> ClusterNetwork:
    """A network with random weights drawn from `rng`."""
    return randomly(lambda: ClusterNetwork(settings, heads), settings.backbone.startswith(PREFIX), rng)


def build_attention_network(
    settings: NetworkSettings, heads: ClusterHeads, shared: bool, frozen_statistics: bool, rng: torch.Generator
) -> AttentionNetwork:
    """Likewise; weights that it is to look at come from a run."""
    make = lambda: AttentionNetwork(settings, heads, shared, frozen_statistics)  # noqa: E731
    return randomly(make, settings.backbone.startswith(PREFIX), rng)


def settle_prototypes_(network: ClusterNetwork) -> None:
    """The prototypes' lengths are 1; a write, since with lengths in the graph the gradient would be another."""
    with torch.no_grad():
        network.prototypes.weight.copy_(F.normalize(network.prototypes.weight, dim=1, eps=EPS))
