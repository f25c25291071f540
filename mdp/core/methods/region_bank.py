"""Pixels against single images' class embeddings, kept in a queue a class: the alternative of section 3.3.

A step: keys of the clean views -> class means of each image -> queues -> queries against all rows of all queues.  The
queues are filled before the loss, so every class of the batch has a positive.  Memory and time grow with classes x
queue length, which is why the paper averages over images instead (`multi_dataset`).  Every process holds all queues.
Shape legend: V views, B images, C classes, D embedding channels, h x w feature grid, Q rows of a queue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mdp.core.batches import Batch
from mdp.core.bounds import Positive
from mdp.core.contrast import mean_over, region_anchors, region_nce
from mdp.core.geometry import downsample_labels
from mdp.core.labels import IGNORE
from mdp.core.methods import Data, Loss, Prepared, Progress
from mdp.core.methods._pixel_encoder import PixelSettings, build, key_momentum, temperature
from mdp.core.methods._usual import PRESET, remember, settle_, view_plan
from mdp.core.networks import EmbeddingNetwork, EncoderPair
from mdp.core.processes import Processes
from mdp.core.prototype_bank import Prototypes, class_means, class_similarity
from mdp.core.queues import ClassQueues, empty_queues, enqueue_classes, queue_prototypes

# fmt: off
__all__ = [
    "NEEDS_LABELS", "PRESET", "SYNC_BATCH_NORM", "Settings", "build", "class_scores", "initial_state", "key_momentum",
    "known_prototypes", "loss", "pack", "prepare", "prototype_images", "remember", "settle_", "state_bytes",
    "temperature", "unpack", "view_plan",
]
# fmt: on
NEEDS_LABELS = True
SYNC_BATCH_NORM = True


@dataclass(frozen=True, kw_only=True)
class Settings(PixelSettings):
    """The method's settings; "stated" and "chosen" say where each default comes from."""

    queue: Positive = 4096  # stated: rows a class (Table 2's "region 4096")
    denominator: str = "all"  # chosen: all rows compete (multi-positive); "negatives": Wang et al., 2101.11939

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.denominator not in ("all", "negatives"):
            raise ValueError(f"denominator: expected all or negatives, got {self.denominator!r}")


def initial_state(settings: Settings, data: Data, rng: torch.Generator, device: torch.device) -> ClassQueues:
    """Empty queues."""
    return empty_queues(data.union.size, settings.queue, settings.embedding, device)


class Shared(NamedTuple):
    """Queues and weights, the same for the loss of every part of the batch."""

    queues: ClassQueues
    weights: Tensor  # (V,) pixels of each view of the whole batch whose class has rows


def prepare(
    pair: EncoderPair[EmbeddingNetwork],
    state: ClassQueues,
    views: Sequence[Batch],
    settings: Settings,
    rng: torch.Generator,
    processes: Processes,
    progress: Progress,
) -> Prepared:
    """Keys into the queues, those of all processes in one order; the parts are a `Batch` for each view."""
    labels = downsample_labels(torch.cat([view.labels for view in views]), *pair.query.grid)  # (V B, h, w)
    with torch.no_grad():
        keys = pair.key(torch.cat([view.images for view in views]))  # (V B, D, h, w)
    means, present = class_means(keys, labels, classes=len(state.pushed), unit=True)  # (V B, C, D), (V B, C)
    queues = enqueue_classes(state, _gathered(means, len(views), processes), _gathered(present, len(views), processes))
    own = labels.chunk(len(views))  # V of (B, h, w)
    weights = [region_anchors(part, queues).sum().float() for part in own]
    valid = [(labels != IGNORE).sum().float(), labels.new_full((), labels.numel(), dtype=torch.float32)]
    counts = processes.all_sum(torch.stack([*weights, *valid]))  # (V + 2,)
    metrics = {
        "valid_share": counts[-2] / counts[-1],
        "classes_in_queues": (queues.pushed > 0).sum(),
        "rows_in_queues": queues.filled.sum(),
    }
    parts = tuple(Batch(view.images, part) for view, part in zip(views, own, strict=True))
    return Prepared(queues, Shared(queues, counts[:-2]), parts, metrics)


def _gathered(rows: Tensor, views: int, processes: Processes) -> Tensor:
    """Rows (V b, ...) of each process -> (V B, ...), view by view, as one process would have them."""
    return torch.cat([processes.gather(part) for part in rows.chunk(views)])


def loss(
    pair: EncoderPair[EmbeddingNetwork],
    shared: Shared,
    parts: tuple[Batch, ...],
    settings: Settings,
    processes: Processes,
) -> Loss:
    """Each view's pixels against the same queues: the mean over its pixels, then the mean over views."""
    queries = pair.query(torch.cat([view.images for view in parts])).chunk(len(parts))  # V of (B, D, h, w)
    losses = []
    for query, view, weight in zip(queries, parts, shared.weights, strict=True):
        found = region_nce(query, view.labels, shared.queues, settings.temperature, settings.denominator, unit=True)
        losses.append(mean_over(found.total, weight))
    return Loss(torch.stack(losses).mean(), {})


def known_prototypes(state: ClassQueues, settings: Settings) -> Prototypes:
    return queue_prototypes(state)


def prototype_images(state: ClassQueues, settings: Settings) -> Tensor:
    """As many as the class's queue holds rows."""
    return state.filled.sum(1)


def class_scores(pair: EncoderPair[EmbeddingNetwork], state: ClassQueues, images: Tensor, settings: Settings) -> Tensor:
    """Similarity of the embeddings to the means of the queues."""
    return class_similarity(pair.query(images), queue_prototypes(state))


def state_bytes(settings: Settings, data: Data) -> int:
    """float32 rows, and an int64 count a class."""
    return data.union.size * (settings.queue * 4 * settings.embedding + 8)


def pack(state: ClassQueues) -> dict[str, Tensor]:
    return state._asdict()


def unpack(tensors: dict[str, Tensor], settings: Settings, data: Data) -> ClassQueues:
    return ClassQueues(**tensors)
