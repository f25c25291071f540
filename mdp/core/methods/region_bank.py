"""Pixels against single images' class embeddings, kept in a queue a class: the alternative of section 3.3.

A step: keys of the clean views -> class means of each image -> queues -> queries against all rows of all queues.  The
queues are filled before the loss, so every class of the batch has a positive.  Memory and time grow with classes x
queue length, which is why the paper averages over images instead (`multi_dataset`).  Rows cannot be summed over
processes: with several of them, each would fill queues of its own.
Shape legend: V views, B images, C classes, D embedding channels, h x w feature grid, Q rows of a queue.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mdp.core.batches import Batch
from mdp.core.contrast import WeightedLoss, region_nce
from mdp.core.geometry import downsample_labels
from mdp.core.labels import IGNORE
from mdp.core.methods import AllSum, Data, Step
from mdp.core.networks import EmbeddingNetwork, EncoderPair
from mdp.core.pixel_encoder import PixelSettings, build, key_momentum  # noqa: F401 - offered as they are
from mdp.core.prototypes import Prototypes, class_means, class_similarity
from mdp.core.queues import ClassQueues, empty_queues, enqueue_classes, queue_prototypes

NEEDS_LABELS = True


@dataclass(frozen=True, kw_only=True)
class Settings(PixelSettings):
    """The method's settings; "stated" and "chosen" say where each default comes from."""

    queue: int = 4096  # stated: rows a class (Table 2's "region 4096")
    denominator: str = "all"  # chosen: all rows compete (multi-positive); "negatives": Wang et al., 2101.11939

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.queue < 1:
            raise ValueError(f"queue: expected 1 row or more a class, got {self.queue}")
        if self.denominator not in ("all", "negatives"):
            raise ValueError(f"denominator: expected all or negatives, got {self.denominator!r}")


def initial_state(settings: Settings, data: Data, rng: torch.Generator, device: torch.device) -> ClassQueues:
    """Empty queues."""
    return empty_queues(data.union.size, settings.queue, settings.embedding, device)


def step(
    pair: EncoderPair[EmbeddingNetwork],
    state: ClassQueues,
    views: Sequence[Batch],
    settings: Settings,
    rng: torch.Generator,
    all_sum: AllSum,
) -> Step:
    """One step; each view's pixels are compared with the same queues."""
    images = torch.cat([view.images for view in views])  # (V B, 3, H, W)
    labels = downsample_labels(torch.cat([view.labels for view in views]), pair.query.output_stride)  # (V B, h, w)
    with torch.no_grad():
        keys = pair.key(images)  # (V B, D, h, w)
    queues = enqueue_classes(state, *class_means(keys, labels, classes=len(state.pushed)))
    losses = []
    for query, own in zip(pair.query(images).chunk(len(views)), labels.chunk(len(views)), strict=True):
        loss = region_nce(query, own, queues, settings.temperature, settings.denominator)
        losses.append(WeightedLoss(loss.total, all_sum(loss.weight)).mean())
    total = torch.stack(losses).mean()
    metrics = {
        "loss": total.detach(),
        "valid_share": (labels != IGNORE).float().mean(),
        "classes_in_queues": (queues.pushed > 0).sum(),
        "rows_in_queues": queues.filled.sum(),
    }
    return Step(total, queues, metrics)


def known_prototypes(state: ClassQueues, settings: Settings) -> Prototypes:
    return queue_prototypes(state)


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
