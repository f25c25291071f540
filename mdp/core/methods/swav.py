"""SwAV: images are given to prototypes, and each view is to say which another view is given to (2006.09882).

A step: embeddings of all views, and their cosines with the prototypes -> codes of the two large views by Sinkhorn, over
the images of all processes and a queue of earlier ones -> each view's cross-entropy to the codes of the others.
It is the base of PASS (2106.03149), whose numbers these are, of its released scripts: the defaults are for
ImageNet-S300 and -S919, those for S50 stand in comments.
Shape legend: B images, b of this process, V views, K prototypes, D embedding channels, Q rows of the queue.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from mdp.core.batches import Batch
from mdp.core.bounds import Bounds, Channels, Count, Positive, Share, Side, Temperature, check_bounds
from mdp.core.clustering_loss import codes, swapped_loss
from mdp.core.methods import Data, Loss, Prepared, Progress
from mdp.core.methods._without_classes import class_scores, known_prototypes, prototype_images
from mdp.core.networks import NetworkSettings
from mdp.core.networks.clustering import (
    Clustered,
    ClusterHeads,
    ClusterNetwork,
    build_cluster_network,
    settle_prototypes_,
)
from mdp.core.networks.pair import EncoderPair
from mdp.core.processes import Processes
from mdp.core.queues import Ring, empty_ring
from mdp.core.views import ViewGroup, ViewPlan

# fmt: off
__all__ = [
    "NEEDS_LABELS", "PRESET", "SYNC_BATCH_NORM", "Settings", "build", "class_scores", "initial_state", "key_momentum",
    "known_prototypes", "loss", "pack", "prepare", "prototype_images", "remember", "settle_", "state_bytes",
    "temperature", "unpack", "view_plan",
]
# fmt: on
NEEDS_LABELS = False
SYNC_BATCH_NORM = True
PRESET: Mapping[str, Any] = {
    "pretrain": {
        "optimizer": "lars",  # LARC without clipping, lars_decay: scaled; momentum 0.9 is the default
        "lr": 0.6,
        "min_lr": 0.0006,  # in all scripts; 6e-6 in the text
        "weight_decay": 1e-6,
        "batch_size": 256,
        "epochs": 100,  # S50: 200
        "photometry": {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
    },
}
_LARGE = 2  # views, which codes are made of


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The method's settings."""

    temperature: Temperature = 0.1
    epsilon: Annotated[float, Bounds(0.03, 100)] = 0.05  # of Sinkhorn; below 0.03 exp of cosines leaves float32
    iterations: Positive = 3
    embedding: Channels = 128
    hidden: Channels | None = None  # of the heads; None: as many as the backbone's last map, as in the scripts
    prototypes: Positive = 3000  # S50: 500
    frozen_steps: Count = 5005  # at the start, in which the prototypes stay; S50: 1001
    queue: Positive | None = 3840  # rows; None: no queue; S50: 2048
    queue_epoch: Count = 15  # from which it is filled; it counts once it is full
    size: Side = 224  # of the first two views
    area: tuple[Share, Share] = (0.08, 1.0)  # S50: 0.14 to 1
    small_count: Count = 0  # S50: 6
    small_size: Side = 96
    small_area: tuple[Share, Share] = (0.05, 0.14)

    def __post_init__(self) -> None:
        check_bounds(self)
        for name in ("area", "small_area"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name}: expected 0 < low <= high <= 1, got {[low, high]}")


def view_plan(settings: Settings, default: ViewPlan) -> ViewPlan:
    """Two large views, and the small ones."""
    groups = [ViewGroup(count=_LARGE, size=settings.size, area=settings.area)]
    if settings.small_count:
        groups.append(ViewGroup(count=settings.small_count, size=settings.small_size, area=settings.small_area))
    return ViewPlan(groups=tuple(groups), photometry=default.photometry, max_iou=default.max_iou)


def build(
    settings: Settings, network: NetworkSettings, data: Data, rng: torch.Generator
) -> EncoderPair[ClusterNetwork]:
    """Backbone, head and prototypes; there is no key encoder."""
    built = build_cluster_network(network, heads_of(settings), rng)
    return EncoderPair(built, built)


def heads_of(settings: Settings) -> ClusterHeads:
    return ClusterHeads(embedding=settings.embedding, prototypes=settings.prototypes, hidden=settings.hidden)


def initial_state(settings: Settings, data: Data, rng: torch.Generator, device: torch.device) -> Ring | None:
    """An empty ring of the large views' embeddings, (Q, 2, D); None without a queue."""
    return None if settings.queue is None else empty_ring(settings.queue, (_LARGE, settings.embedding), device)


class Shared(NamedTuple):
    """The same for the loss of every part of the batch."""

    queued: Tensor | None  # (Q, 2, D) what codes are shared out with besides
    filling: bool  # whether the queue takes this step's embeddings
    frozen: bool  # whether the prototypes stay
    images: int  # B, of the whole batch


def prepare(
    pair: EncoderPair[ClusterNetwork],
    state: Ring | None,
    views: Sequence[Batch],
    settings: Settings,
    rng: torch.Generator,
    processes: Processes,
    progress: Progress,
) -> Prepared:
    """What the run's progress says of queue and prototypes; the parts are the views (b, 3, s, s), large ones first."""
    queued = state.rows if state is not None and state.full else None
    filling = state is not None and progress.epoch >= settings.queue_epoch
    shared = Shared(queued, filling, progress.step < settings.frozen_steps, processes.total)
    rows = torch.full((), 0 if queued is None else len(queued), device=views[0].images.device)
    return Prepared(state, shared, tuple(view.images for view in views), {"queue_rows": rows})


def loss(
    pair: EncoderPair[ClusterNetwork],
    shared: Shared,
    parts: tuple[Tensor, ...],
    settings: Settings,
    processes: Processes,
) -> Loss:
    """Each view's cross-entropy to the codes of the large ones that it is not."""
    found = pair.query(*inputs_of(shared, parts))
    scores = found.scores.view(len(parts), len(parts[0]), -1)  # (V, b, K)
    targets, used = targets_of(scores[:_LARGE], found.queued, settings, processes)  # (2, b, K)
    value = swapped_loss(targets, scores, settings.temperature).sum() / shared.images
    return Loss(value, metrics_of(targets, scores, used, shared.images), kept_of(found, shared, parts))


def inputs_of(shared: Shared, parts: Sequence[Tensor]) -> tuple[list[Tensor], Tensor | None, bool]:
    """What the network takes: the views in groups of one size, view by view, the queue's rows, and whether prototypes
    stay."""
    groups = [torch.cat(list(some)) for some in (parts[:_LARGE], parts[_LARGE:]) if some]
    queued = None if shared.queued is None else shared.queued.transpose(0, 1).flatten(0, 1)  # (2 Q, D)
    return groups, queued, shared.frozen


def targets_of(
    scores: Tensor, queued: Tensor | None, settings: Settings, processes: Processes
) -> tuple[Tensor, Tensor]:
    """The codes of own images, (2, b, K), from cosines of the large views (2, b, K) and of the queue's (2 Q, K).

    Every process shares out the images of all; also how many prototypes these take, (), which sinks to 1 in a collapse.
    """
    among = processes.gather(scores.detach().transpose(0, 1)).transpose(0, 1)  # (2, B, K)
    earlier = (None, None) if queued is None else queued.chunk(_LARGE)
    found = [
        codes(view, rows, settings.epsilon, settings.iterations)[processes.own]
        for view, rows in zip(among, earlier, strict=True)
    ]
    use = (among / settings.temperature).softmax(2).mean((0, 1))  # (K,)
    return torch.stack(found), torch.special.entr(use).sum().exp()


def metrics_of(targets: Tensor, scores: Tensor, used: Tensor, images: int) -> dict[str, Tensor]:
    """Shares of these images: how often a view's best prototype is its code's, and how many prototypes are in use."""
    best, wanted = scores.detach().argmax(2), targets.argmax(2)  # (V, b), (2, b)
    same = best == wanted[:, None]  # (2, V, b)
    hits = same.sum() - sum(same[view, view].sum() for view in range(_LARGE))
    pairs = _LARGE * (len(scores) - 1)
    return {"accuracy": hits / (pairs * images), "prototypes_used": used * (scores.shape[1] / images)}


def kept_of(found: Clustered, shared: Shared, parts: Sequence[Tensor]) -> Tensor:
    """The large views' embeddings for the queue, (b, 2, D); (b, 0, D) before its time."""
    embeddings = found.embeddings.detach().view(len(parts), len(parts[0]), -1)  # (V, b, D)
    return embeddings[: _LARGE if shared.filling else 0].transpose(0, 1)


def remember(
    state: Ring | None, kept: Tensor, settings: Settings, processes: Processes, numbers: Mapping[str, float]
) -> Ring | None:
    """The queue with the embeddings of all processes, once it is filled."""
    return state if state is None or not kept.shape[1] else state.push(processes.gather(kept))


def settle_(pair: EncoderPair[ClusterNetwork], settings: Settings) -> None:
    """The prototypes' lengths are 1."""
    settle_prototypes_(pair.query)


def key_momentum(settings: Settings, progress: Progress) -> float:
    return 0.0  # there is none to follow


def temperature(settings: Settings) -> float:
    return settings.temperature


def state_bytes(settings: Settings, data: Data) -> int:
    """The float32 queue, and the count of its rows."""
    return 0 if settings.queue is None else 4 * settings.queue * _LARGE * settings.embedding + 8


def pack(state: Ring | None) -> dict[str, Tensor]:
    return {} if state is None else {"queue": state.rows, "pushed": state.pushed}


def unpack(tensors: dict[str, Tensor], settings: Settings, data: Data) -> Ring | None:
    return None if settings.queue is None else Ring(tensors["queue"], tensors["pushed"].cpu())
