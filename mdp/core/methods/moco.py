"""MoCo-v2, instance discrimination without labels: two views of an image against a queue of others (2003.04297).

A step: shuffle, keys of the second view, unshuffle -> queries of the first view against key and queue -> enqueue.
Only the backbone is trained, without dilation.  Keys are shuffled and enqueued over all processes.
Settings are those of the released code unless a comment says other.
Shape legend: B images, D embedding channels, Q rows of the queue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mdp.core.batches import Batch
from mdp.core.bounds import Channels, Positive, Share, Temperature, check_bounds
from mdp.core.contrast import instance_nce
from mdp.core.methods import Data, Loss, Prepared, Progress
from mdp.core.methods._usual import PRESET, remember, settle_, view_plan
from mdp.core.methods._without_classes import class_scores, known_prototypes, prototype_images
from mdp.core.networks import InstanceNetwork, NetworkSettings, build_instance_network
from mdp.core.networks.batchnorm import by_groups_, in_groups
from mdp.core.networks.pair import EncoderPair, make_pair
from mdp.core.processes import Processes
from mdp.core.queues import enqueue, noise_queue

# fmt: off
__all__ = [
    "NEEDS_LABELS", "PRESET", "SYNC_BATCH_NORM", "Settings", "build", "class_scores", "initial_state", "key_momentum",
    "known_prototypes", "loss", "pack", "prepare", "prototype_images", "remember", "settle_", "state_bytes",
    "temperature", "unpack", "view_plan",
]
# fmt: on
NEEDS_LABELS = False
SYNC_BATCH_NORM = False  # statistics over all images would give away which key belongs to which query


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The method's settings, MoCo-v2's values as defaults."""

    temperature: Temperature = 0.2  # v1: 0.07
    key_momentum: Share = 0.999
    embedding: Channels = 128
    queue: Positive = 65536  # rows
    groups: Positive = 8  # BatchNorm groups of a batch, standing for MoCo's 8 GPUs; keys are shuffled among them

    def __post_init__(self) -> None:
        check_bounds(self)


def build(
    settings: Settings, network: NetworkSettings, data: Data, rng: torch.Generator
) -> EncoderPair[InstanceNetwork]:
    """Backbone and two-layer head, twice."""
    query = build_instance_network(network, settings.embedding, rng)
    by_groups_(query)
    return make_pair(query)


def initial_state(settings: Settings, data: Data, rng: torch.Generator, device: torch.device) -> Tensor:
    """A queue of noise.  Raises ValueError when a batch cannot be split into groups of two images or more."""
    if data.batch_size // settings.groups < 2:
        raise ValueError(
            f"groups: {settings.groups} BatchNorm groups leave fewer than 2 images each of a batch of {data.batch_size}"
        )
    return noise_queue(rng, settings.queue, settings.embedding, device)


class Shared(NamedTuple):
    """Negatives and batch size, the same for the loss of every part of the batch."""

    queue: Tensor  # (Q, D) the negatives: what was there before this step's keys
    images: int  # B, of the whole batch


class Instances(NamedTuple):
    """Some images: what is compared with what."""

    images: Tensor  # (B, 3, H, W) the first views
    keys: Tensor  # (B, D) of the second views


def prepare(
    pair: EncoderPair[InstanceNetwork],
    state: Tensor,
    views: Sequence[Batch],
    settings: Settings,
    rng: torch.Generator,
    processes: Processes,
    progress: Progress,
) -> Prepared:
    """Keys of the second view, in the queue's next state; the parts are `Instances`.

    BatchNorm statistics are those of a group of images.  Keys are shuffled among the groups of all processes, so that
    the statistics do not give away which key belongs to which query.
    """
    second = processes.gather(views[1].images)  # (B, 3, H, W) of the whole batch
    order = torch.randperm(len(second), generator=rng).to(second.device, non_blocking=True)
    with torch.no_grad():
        own = _in_groups(pair.key, second[order[processes.own]], settings.groups, processes.total)
    shuffled = processes.gather(own)  # (B, D)
    keys = torch.empty_like(shuffled).index_copy(0, order, shuffled)  # (B, D)
    parts = Instances(views[0].images, keys[processes.own])
    return Prepared(enqueue(state, keys), Shared(state, processes.total), parts, {})


def loss(
    pair: EncoderPair[InstanceNetwork], shared: Shared, parts: Instances, settings: Settings, processes: Processes
) -> Loss:
    """Each first view against its own key and the queue."""
    queries = _in_groups(pair.query, parts.images, settings.groups, shared.images)  # (B, D)
    found = instance_nce(queries, parts.keys, shared.queue, settings.temperature, unit=True)
    with torch.no_grad(), torch.autocast(queries.device.type, enabled=False):
        positive = (queries * parts.keys).sum(1)  # (B,)
        hits = positive > (queries @ shared.queue.T).amax(1)
    shares = {"positive_cosine": positive.sum() / shared.images, "accuracy": hits.sum() / shared.images}
    return Loss(found.total / shared.images, shares)


def _in_groups(network: nn.Module, images: Tensor, groups: int, total: int) -> Tensor:
    """The network's embeddings (B, D), group by group: in training, BatchNorm sees one group at a time.

    There are `groups` of them among `total` images, and as many of these as their share.
    """
    own = max(1, groups * len(images) // total)
    return in_groups(network, lambda part: (network(part),), images, own)[0]


def key_momentum(settings: Settings, progress: Progress) -> float:
    return settings.key_momentum


def temperature(settings: Settings) -> float:
    return settings.temperature


def state_bytes(settings: Settings, data: Data) -> int:
    """The float32 queue."""
    return 4 * settings.queue * settings.embedding


def pack(state: Tensor) -> dict[str, Tensor]:
    return {"queue": state}


def unpack(tensors: dict[str, Tensor], settings: Settings, data: Data) -> Tensor:
    return tensors["queue"]
