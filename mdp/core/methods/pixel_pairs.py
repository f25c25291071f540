"""Pixels against pixels of the same image's other view: the baseline of section 3.1 (eq. 2), without any memory.

A step: queries of both views and keys of both -> each view's queries against the other's keys, image by image.
Shape legend: V views, B images, D embedding channels, h x w feature grid.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor

from mdp.core.batches import Batch
from mdp.core.contrast import mean_over, pixel_anchors, pixel_nce
from mdp.core.geometry import downsample_labels
from mdp.core.labels import IGNORE
from mdp.core.methods import Data, Loss, Prepared, Progress
from mdp.core.methods._pixel_encoder import PixelSettings, build, key_momentum, temperature
from mdp.core.methods._usual import PRESET, remember, settle_, view_plan
from mdp.core.networks import EmbeddingNetwork, EncoderPair
from mdp.core.processes import Processes

# fmt: off
__all__ = [
    "NEEDS_LABELS", "PRESET", "SYNC_BATCH_NORM", "Settings", "build", "class_scores", "initial_state", "key_momentum",
    "known_prototypes", "loss", "pack", "prepare", "prototype_images", "remember", "settle_", "state_bytes",
    "temperature", "unpack", "view_plan",
]
# fmt: on
NEEDS_LABELS = True
SYNC_BATCH_NORM = True

Settings = PixelSettings


class State(NamedTuple):
    """Nothing that changes: an image is compared with itself only."""

    classes: int  # C, of the union


def initial_state(settings: Settings, data: Data, rng: torch.Generator, device: torch.device) -> State:
    """How many classes there are."""
    return State(data.union.size)


class Shared(NamedTuple):
    """The same for the loss of every part of the batch."""

    classes: int  # C
    weights: Tensor  # (V (V - 1),) anchors of each ordered pair of views of the whole batch


class Pixels(NamedTuple):
    """One view of some images."""

    images: Tensor  # (B, 3, H, W)
    labels: Tensor  # (B, h, w)
    keys: Tensor  # (B, D, h, w)


def prepare(
    pair: EncoderPair[EmbeddingNetwork],
    state: State,
    views: Sequence[Batch],
    settings: Settings,
    rng: torch.Generator,
    processes: Processes,
    progress: Progress,
) -> Prepared:
    """Keys of all views; the parts are `Pixels` for each view."""
    with torch.no_grad():
        keys = pair.key(torch.cat([view.images for view in views])).chunk(len(views))  # V of (B, D, h, w)
    labels = [downsample_labels(view.labels, *pair.query.grid) for view in views]  # V of (B, h, w)
    anchors = [pixel_anchors(labels[a], labels[b]).sum() for a, b in permutations(range(len(views)), 2)]
    every = torch.stack(labels)  # (V, B, h, w)
    valid = [(every != IGNORE).sum(), every.new_full((), every.numel())]
    counts = processes.all_sum(torch.stack([*anchors, *valid]).float())  # (V (V - 1) + 2,)
    metrics = {
        "valid_share": counts[-2] / counts[-1],
        "anchor_share": counts[:-2].sum() / (counts[-1] * (len(views) - 1)),  # their class is in the other view too
    }
    parts = tuple(Pixels(view.images, *rest) for view, *rest in zip(views, labels, keys, strict=True))
    return Prepared(state, Shared(state.classes, counts[:-2]), parts, metrics)


def loss(
    pair: EncoderPair[EmbeddingNetwork],
    shared: Shared,
    parts: tuple[Pixels, ...],
    settings: Settings,
    processes: Processes,
) -> Loss:
    """Every ordered pair of views is a direction; the loss is the mean over them."""
    images = torch.cat([view.images for view in parts])  # (V B, 3, H, W)
    queries = pair.query(images, unit=False).chunk(len(parts))  # V of (B, D, h, w)
    losses = []
    for (a, b), weight in zip(permutations(range(len(parts)), 2), shared.weights, strict=True):
        other = parts[b]
        found = pixel_nce(
            queries[a], other.keys, parts[a].labels, other.labels, settings.temperature, unit_keys=True,
            classes=shared.classes,
        )  # fmt: skip
        losses.append(mean_over(found.total, weight))
    return Loss(torch.stack(losses).mean(), {})


def known_prototypes(state: State, settings: Settings) -> None:
    return None


def prototype_images(state: State, settings: Settings) -> None:
    return None


def class_scores(pair: EncoderPair[EmbeddingNetwork], state: State, images: Tensor, settings: Settings) -> None:
    return None


def state_bytes(settings: Settings, data: Data) -> int:
    return 0


def pack(state: State) -> dict[str, Tensor]:
    return {}


def unpack(tensors: dict[str, Tensor], settings: Settings, data: Data) -> State:
    return State(data.union.size)
