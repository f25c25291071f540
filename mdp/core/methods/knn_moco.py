"""kNN-MoCo: MoCo with small views, a constraint on them, AutoAugment and neighbours as positives (2106.05967).

A step: shuffle, keys and features of the second view, unshuffle -> queries of the first view and the small ones ->
each one's nearest neighbours in the queue of features -> instance loss and neighbour loss -> enqueue both.
Each of the paper's additions is a setting, and `mdp pretrain --method knn_moco` is its run.
Settings are those of the released code unless a comment says other.
Shape legend: B images, v small views, R = B (1 + v) queries, D embedding channels, F feature channels, Q rows of both
queues, k neighbours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdp.core.batches import Batch
from mdp.core.bounds import Channels, Count, Positive, Share, Side, Temperature, Weight, check_bounds
from mdp.core.contrast import neighbour_nce
from mdp.core.contrast_chunked import EPS
from mdp.core.methods import Data, Loss, Prepared, Progress
from mdp.core.methods._usual import remember, settle_
from mdp.core.methods._without_classes import class_scores, known_prototypes, prototype_images
from mdp.core.neighbours import nearest
from mdp.core.networks import InstanceNetwork, NetworkSettings, build_instance_network
from mdp.core.networks.batchnorm import by_groups_, in_groups
from mdp.core.networks.pair import EncoderPair, make_pair
from mdp.core.processes import Processes
from mdp.core.queues import AlignedQueues, enqueue, noise_queue
from mdp.core.views import ViewGroup, ViewPlan

# fmt: off
__all__ = [
    "NEEDS_LABELS", "PRESET", "SYNC_BATCH_NORM", "Settings", "build", "class_scores", "initial_state", "key_momentum",
    "known_prototypes", "loss", "pack", "prepare", "prototype_images", "remember", "settle_", "state_bytes",
    "temperature", "unpack", "view_plan",
]
# fmt: on
NEEDS_LABELS = False
SYNC_BATCH_NORM = False  # statistics over all images would give away which key belongs to which query
PRESET: Mapping[str, Any] = {  # sections 4.1 and A.1; momentum and weight decay are the defaults
    "pretrain": {"lr": 0.3, "batch_size": 256, "epochs": 200, "schedule": "cosine", "schedule_by": "epoch"},
}
_STORES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_KEY = 1  # the view that keys are made of, which the small ones must overlap


@dataclass(frozen=True, kw_only=True)
class NeighbourSettings:
    """Nearest neighbours as further positives."""

    k: Positive = 20
    weight: Weight = 0.4  # of their loss; 0: none
    warmup_epochs: Count = 5  # without them, at the start: of 200; the released code has 20 of 800
    order: str = "after"  # mined, then enqueued | early: mined among this step's keys too (the paper's first code)
    features: str = "backbone"  # that neighbours are found by | head: the embeddings, which is worse (section 4.3)
    store: str = "fp32"  # of the features | bf16: half the memory, 99.6 % of the neighbours the same

    def __post_init__(self) -> None:
        check_bounds(self)
        known = {"order": ("after", "early"), "features": ("backbone", "head"), "store": tuple(_STORES)}
        for name, words in known.items():
            if getattr(self, name) not in words:
                raise ValueError(f"{name}: expected {' or '.join(words)}, got {getattr(self, name)!r}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The method's settings, the paper's values as defaults."""

    temperature: Temperature = 0.2
    key_momentum: Share = 0.995  # 0.999 in plain MoCo
    embedding: Channels = 128
    queue: Positive = 65536  # rows of both queues
    groups: Positive = 2  # BatchNorm groups of a batch, standing for the paper's 2 GPUs
    size: Side = 160  # of the first two views
    area: tuple[Share, Share] = (0.2, 1.0)
    small_count: Count = 4  # 0: no small views
    small_size: Side = 96
    small_area: tuple[Share, Share] = (0.05, 0.14)
    min_overlap: Share = 0.2  # of a small view with the key's, as the text has it; 0.1 in the released code
    auto_augment: Share = 0.5  # share of query views that take AutoAugment; 0: none, 1: all
    neighbours: NeighbourSettings = field(default_factory=NeighbourSettings)

    def __post_init__(self) -> None:
        check_bounds(self)
        for name in ("area", "small_area"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name}: expected 0 < low <= high <= 1, got {[low, high]}")
        if self.neighbours.weight and self.neighbours.k > self.queue:
            raise ValueError(f"neighbours.k: expected at most the queue's {self.queue} rows, got {self.neighbours.k}")


def view_plan(settings: Settings, default: ViewPlan) -> ViewPlan:
    """Two views, of which the second makes the keys, and small ones that overlap it."""
    share = settings.auto_augment
    large = (share, 0.0) if share else ()
    groups = [ViewGroup(count=2, size=settings.size, area=settings.area, auto_augment=large)]
    if settings.small_count:
        small = (share,) * settings.small_count if share else ()
        groups.append(
            ViewGroup(
                count=settings.small_count, size=settings.small_size, area=settings.small_area, auto_augment=small
            )
        )
    constrained = bool(settings.small_count and settings.min_overlap)
    return ViewPlan(
        groups=tuple(groups),
        photometry=default.photometry,
        anchor=_KEY if constrained else None,
        min_overlap=settings.min_overlap if constrained else 0.0,
        max_iou=default.max_iou,
    )


def build(
    settings: Settings, network: NetworkSettings, data: Data, rng: torch.Generator
) -> EncoderPair[InstanceNetwork]:
    """Backbone and two-layer head, twice."""
    query = build_instance_network(network, settings.embedding, rng)
    by_groups_(query)
    return make_pair(query)


class State(NamedTuple):
    """What queries are compared with."""

    queues: AlignedQueues  # keys (Q, D) and features (Q, F), of unit length
    origins: Tensor  # (Q, 2) int64: the dataset and folder of each row's image; -1 for the noise at the start


def initial_state(settings: Settings, data: Data, rng: torch.Generator, device: torch.device) -> State:
    """Queues of noise.  Raises ValueError when a batch cannot be split into groups of two images or more."""
    if data.batch_size // settings.groups < 2:
        raise ValueError(
            f"groups: {settings.groups} BatchNorm groups leave fewer than 2 images each of a batch of {data.batch_size}"
        )
    keys = noise_queue(rng, settings.queue, settings.embedding, device)
    features = noise_queue(rng, settings.queue, _width(settings, data), device)
    origins = torch.full((settings.queue, 2), -1, device=device)
    return State(AlignedQueues(keys, features.to(_STORES[settings.neighbours.store])), origins)


def _width(settings: Settings, data: Data) -> int:
    """F: the channels of what neighbours are found by."""
    return data.channels if settings.neighbours.features == "backbone" else settings.embedding


class Shared(NamedTuple):
    """The same for the loss of every part of the batch."""

    queue: Tensor  # (Q, D) the negatives: what was there before this step's keys
    features: Tensor  # (Q, F) that neighbours are found in, row by row those of the queue
    origins: Tensor  # (Q, 2) likewise
    weight: float  # of the neighbours' loss in this step
    images: int  # B, of the whole batch


class Instances(NamedTuple):
    """Some images: what is compared with what."""

    images: Tensor  # (B, 3, H, W) the first views
    small: Tensor  # (B, v, 3, h, w)
    keys: Tensor  # (B, D) of the second views
    origins: Tensor  # (B, 2)


def prepare(
    pair: EncoderPair[InstanceNetwork],
    state: State,
    views: Sequence[Batch],
    settings: Settings,
    rng: torch.Generator,
    processes: Processes,
    progress: Progress,
) -> Prepared:
    """Keys and features of the second view, in the queues' next state; the parts are `Instances`.

    Keys are shuffled among the BatchNorm groups of all processes, so that the statistics do not give away which key
    belongs to which query.
    """
    wanted, device = settings.neighbours, views[_KEY].images.device
    second = processes.gather(views[_KEY].images)  # (B, 3, H, W) of the whole batch
    order = torch.randperm(len(second), generator=rng).to(device, non_blocking=True)
    with torch.no_grad():
        found = _in_groups(pair.key, second[order[processes.own]], settings.groups, processes.total, wanted.features)
    keys, features = (torch.empty_like(t).index_copy(0, order, t) for t in map(processes.gather, found))
    own = views[_KEY].origins
    origins = torch.full((len(views[_KEY].images), 2), -1, device=device) if own is None else own
    queues = state.queues.enqueue(keys, features)
    after = State(queues, enqueue(state.origins, processes.gather(origins)))
    mined = after if wanted.order == "early" else state
    late = progress.epoch >= wanted.warmup_epochs or wanted.order == "early"  # that code had no warm-up
    small = [view.images for view in views[2:]]
    parts = Instances(
        views[0].images,
        torch.stack(small, 1) if small else views[0].images[:, None, :, :0, :0][:, :0],
        keys[processes.own],
        origins,
    )
    weight = wanted.weight if late else 0.0
    shared = Shared(state.queues.keys, mined.queues.features, mined.origins, weight, processes.total)
    return Prepared(after, shared, parts, {})


def loss(
    pair: EncoderPair[InstanceNetwork], shared: Shared, parts: Instances, settings: Settings, processes: Processes
) -> Loss:
    """Each query against its image's key and the queue, and pulled to its neighbours there."""
    by, views = settings.neighbours.features, 1 + parts.small.shape[1]
    found = [_in_groups(pair.query, parts.images, settings.groups, shared.images, by)]
    if parts.small.shape[1]:
        total = shared.images * parts.small.shape[1]
        found.append(_in_groups(pair.query, parts.small.flatten(0, 1), settings.groups, total, by))
    queries, features = (_by_image(both, len(parts.images)) for both in zip(*found, strict=True))  # (R, D), (R, F)
    keys, rows = parts.keys.repeat_interleave(views, 0), shared.images * views
    near = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    if shared.weight:
        _, near = nearest(features, shared.features, settings.neighbours.k)  # (R, k)
    losses = neighbour_nce(queries, keys, shared.queue, near, settings.temperature)
    metrics = {
        "positive_cosine": (queries.detach() * keys).sum() / rows,
        "accuracy": losses.hits / rows,
        "instance_loss": losses.instances.detach() / rows,
    }
    if shared.weight:
        same = shared.origins[near] == parts.origins.repeat_interleave(views, 0)[:, None]  # (R, k, 2)
        pure = (same & (shared.origins[near] >= 0)).float().mean(1).sum(0) / rows  # (2,)
        metrics |= {"neighbour_loss": losses.neighbours.detach() / rows}
        metrics |= {"dataset_purity": pure[0], "folder_purity": pure[1]}
    return Loss((losses.instances + shared.weight * losses.neighbours) / rows, metrics)


def _in_groups(network: nn.Module, images: Tensor, groups: int, total: int, by: str) -> tuple[Tensor, Tensor]:
    """Embeddings (B, D) and what neighbours are found by (B, F), without gradient and of unit length.

    Group by group: in training, BatchNorm sees one at a time.  There are `groups` of them among `total` images, and as
    many of these as their share.
    """
    own = max(1, groups * len(images) // total)
    embeddings, features = in_groups(network, lambda part: network(part, features=True), images, own)
    found = features if by == "backbone" else embeddings
    return embeddings, F.normalize(found.detach().float(), dim=1, eps=EPS)


def _by_image(rows: Sequence[Tensor], images: int) -> Tensor:
    """Rows of the first view (B, D) and of the small ones (B v, D), each image's together: (R, D)."""
    return torch.cat([some.view(images, -1, some.shape[1]) for some in rows], 1).flatten(0, 1)


def key_momentum(settings: Settings, progress: Progress) -> float:
    return settings.key_momentum


def temperature(settings: Settings) -> float:
    return settings.temperature


def state_bytes(settings: Settings, data: Data) -> int:
    """Both queues, and where their rows come from."""
    stored = 2 if settings.neighbours.store == "bf16" else 4
    return settings.queue * (4 * settings.embedding + stored * _width(settings, data) + 16)


def pack(state: State) -> dict[str, Tensor]:
    return {"queue": state.queues.keys, "features": state.queues.features, "origins": state.origins}


def unpack(tensors: dict[str, Tensor], settings: Settings, data: Data) -> State:
    return State(AlignedQueues(tensors["queue"], tensors["features"]), tensors["origins"])
