"""PASS on SwAV: points of two views are aligned, and the last stage supervises earlier ones (2106.03149, section 4.2).

A step is SwAV's, and besides: the same points of both large views, projected and predicted from each other (eq. 2) ->
the embeddings of earlier stages, each compared with the prototypes and with the other view's codes (eq. 3 and 4).
Settings are those of the released code unless a comment says other.
Shape legend: B images, b of this process, K prototypes, D embedding channels, n points a side, S stages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from mdp.core.alignment import alignment_loss, point_contrast
from mdp.core.batches import Batch
from mdp.core.bounds import Bounds, Temperature
from mdp.core.clustering_loss import codes, cross_entropy_to, swapped_loss
from mdp.core.methods import Data, Loss, Prepared, Progress, swav
from mdp.core.methods._without_classes import class_scores, known_prototypes, prototype_images
from mdp.core.methods.swav import (
    NEEDS_LABELS,
    PRESET,
    SYNC_BATCH_NORM,
    initial_state,
    inputs_of,
    kept_of,
    key_momentum,
    metrics_of,
    pack,
    remember,
    settle_,
    state_bytes,
    targets_of,
    temperature,
    unpack,
    view_plan,
)
from mdp.core.networks import NetworkSettings
from mdp.core.networks.clustering import Clustered, ClusterNetwork, build_cluster_network
from mdp.core.networks.pair import EncoderPair
from mdp.core.processes import Processes
from mdp.core.queues import Ring
from mdp.core.views import matched_grids

# fmt: off
__all__ = [
    "NEEDS_LABELS", "PRESET", "SYNC_BATCH_NORM", "Settings", "build", "class_scores", "initial_state", "key_momentum",
    "known_prototypes", "loss", "pack", "prepare", "prototype_images", "remember", "settle_", "state_bytes",
    "temperature", "unpack", "view_plan",
]
# fmt: on
_WORDS = {"p2p": ("off", "cosine", "contrast", "clusters"), "d2s_from": ("last", "same"), "d2s_view": ("cross", "same")}


@dataclass(frozen=True, kw_only=True)
class Settings(swav.Settings):
    """The method's settings: SwAV's, and those of what PASS adds, with the variants of its table IX."""

    p2p: str = "cosine"  # of points | contrast, clusters: formulas of ours, the paper gives none | off
    p2p_projector: bool = True  # false: points of the last map are aligned as they are
    p2p_points: Annotated[int, Bounds(2, 10**3)] = 7  # a side
    p2p_temperature: Temperature = 0.2  # of contrast; chosen: MoCo-v2's
    stages: tuple[Annotated[int, Bounds(1, 3)], ...] = (3,)  # that the last one supervises; (): none
    d2s_from: str = "last"  # whose codes supervise | same: each stage its own
    d2s_view: str = "cross"  # codes of the other view | same

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, words in _WORDS.items():
            if getattr(self, name) not in words:
                raise ValueError(f"{name}: expected {' or '.join(words)}, got {getattr(self, name)!r}")
        if list(self.stages) != sorted(set(self.stages)):
            raise ValueError(f"stages: expected rising numbers, got {list(self.stages)}")
        if self.p2p == "clusters" and not self.p2p_projector:
            raise ValueError("p2p_projector: with p2p: clusters it is needed, to have the prototypes' channels")


def build(
    settings: Settings, network: NetworkSettings, data: Data, rng: torch.Generator
) -> EncoderPair[ClusterNetwork]:
    """Backbone, heads of images, points and stages, predictor and prototypes; there is no key encoder."""
    heads = replace(
        swav.heads_of(settings),
        points=settings.p2p != "off",
        points_projected=settings.p2p_projector,
        points_scored=settings.p2p == "clusters",
        stages=settings.stages,
    )
    built = build_cluster_network(network, heads, rng)
    return EncoderPair(built, built)


class Parts(NamedTuple):
    """Some images."""

    views: tuple[Tensor, ...]  # (b, 3, s, s) each, the large ones first
    grids: tuple[Tensor, ...]  # (b, n, n, 2) of both large views: where they show the same; none without alignment


def prepare(
    pair: EncoderPair[ClusterNetwork],
    state: Ring | None,
    views: Sequence[Batch],
    settings: Settings,
    rng: torch.Generator,
    processes: Processes,
    progress: Progress,
) -> Prepared:
    """As SwAV's, and where the large views show the same.  Raises ValueError for views without frames."""
    ready = swav.prepare(pair, state, views, settings, rng, processes, progress)
    grids: tuple[Tensor, ...] = ()
    if settings.p2p != "off":
        first, second = views[0].frames, views[1].frames
        if first is None or second is None:
            raise ValueError("frames: the alignment of points needs those of the first two views, got none")
        grids = matched_grids(first, second, settings.p2p_points)
    return ready._replace(parts=Parts(ready.parts, grids))


def loss(
    pair: EncoderPair[ClusterNetwork], shared: swav.Shared, parts: Parts, settings: Settings, processes: Processes
) -> Loss:
    """The mean of SwAV's loss and the stages', and the alignment of points (eq. 5)."""
    grids = torch.cat(parts.grids) if parts.grids else None  # (2 b, n, n, 2)
    found = pair.query(*inputs_of(shared, parts.views), grids)
    count, images = len(parts.views), len(parts.views[0])
    scores = found.scores.view(count, images, -1)  # (V, b, K)
    targets, used = targets_of(scores[:2], found.queued, settings, processes)  # (2, b, K)
    metrics = metrics_of(targets, scores, used, shared.images)
    terms = {"swapped_loss": swapped_loss(targets, scores, settings.temperature).sum()}
    for stage, own in zip(settings.stages, found.stages, strict=True):
        terms[f"stage{stage}_loss"] = _stage_loss(own.view(2, images, -1), targets, settings, processes).sum()
    value = torch.stack(list(terms.values())).mean()
    if settings.p2p != "off":
        terms["p2p_loss"] = _point_loss(found, parts.grids, settings, processes).sum()
        value = value + terms["p2p_loss"]
    metrics |= {name: term.detach() / shared.images for name, term in terms.items()}
    return Loss(value / shared.images, metrics, kept_of(found, shared, parts.views))


def _stage_loss(scores: Tensor, targets: Tensor, settings: Settings, processes: Processes) -> Tensor:
    """Cross-entropy of a stage's large views (2, b, K) to codes (2, b, K), of each image: (b,) (eq. 4)."""
    if settings.d2s_from == "same":
        targets, _ = targets_of(scores, None, settings, processes)  # the queue holds the last stage's embeddings
    if settings.d2s_view == "same":
        return cross_entropy_to(targets, scores, settings.temperature).mean(0)
    return swapped_loss(targets, scores, settings.temperature)


def _point_loss(found: Clustered, grids: tuple[Tensor, ...], settings: Settings, processes: Processes) -> Tensor:
    """The alignment of the points of both views, of each image: (b,)."""
    assert found.projected is not None
    assert found.predicted is not None
    images = len(grids[0])
    projected, predicted = (rows.view(2, images, *rows.shape[1:]) for rows in (found.projected, found.predicted))
    if settings.p2p == "cosine":
        return alignment_loss(predicted, projected)
    if settings.p2p == "contrast":
        return point_contrast(predicted, projected, settings.p2p_temperature)
    return _point_clusters(predicted, grids, settings, processes)


def _point_clusters(scores: Tensor, grids: tuple[Tensor, ...], settings: Settings, processes: Processes) -> Tensor:
    """SwAV's loss of points, from their cosines with the prototypes (2, b, K, n, n), of each image: (b,).

    Codes are shared out over the points of all images; those of images whose views do not overlap take part, and have
    loss 0.
    """
    rows = scores.flatten(3).movedim(2, 3)  # (2, b, n n, K)
    among = processes.gather(rows.detach().transpose(0, 1))  # (B, 2, n n, K)
    found = [
        codes(points.flatten(0, 1), None, settings.epsilon, settings.iterations).view_as(points)[processes.own]
        for points in among.unbind(1)
    ]
    targets = torch.stack(found)  # (2, b, n n, K)
    losses = cross_entropy_to(targets.flip(0), rows, settings.temperature).mean((0, 2))  # (b,)
    overlap = (grids[0].abs().flatten(1).amax(1) <= 1 + 1e-3).to(losses.dtype)  # (b,)
    return losses * overlap
