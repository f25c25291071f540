"""Pixels against pixels of the same image's other view: the baseline of section 3.1 (eq. 2), without any memory.

A step: queries of both views and keys of both -> each view's queries against the other's keys, image by image.
Shape legend: V views, B images, D embedding channels, h x w feature grid.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mdp.core.batches import Batch
from mdp.core.contrast import WeightedLoss, pixel_nce
from mdp.core.geometry import downsample_labels
from mdp.core.labels import IGNORE
from mdp.core.methods import AllSum, Data, Step
from mdp.core.networks import EmbeddingNetwork, EncoderPair
from mdp.core.pixel_encoder import PixelSettings, build, key_momentum  # noqa: F401 - offered as they are

NEEDS_LABELS = True

Settings = PixelSettings


def initial_state(settings: Settings, data: Data, rng: torch.Generator, device: torch.device) -> tuple[()]:
    """Nothing: an image is compared with itself only."""
    return ()


def step(
    pair: EncoderPair[EmbeddingNetwork],
    state: tuple[()],
    views: Sequence[Batch],
    settings: Settings,
    rng: torch.Generator,
    all_sum: AllSum,
) -> Step:
    """One step; every ordered pair of views is a direction, and the loss is the mean over them."""
    images = torch.cat([view.images for view in views])  # (V B, 3, H, W)
    with torch.no_grad():
        keys = pair.key(images).chunk(len(views))  # V of (B, D, h, w)
    queries = pair.query(images).chunk(len(views))
    labels = [downsample_labels(view.labels, pair.query.output_stride) for view in views]  # V of (B, h, w)
    losses, shares = [], []
    for a in range(len(views)):
        for b in range(len(views)):
            if a != b:
                loss = pixel_nce(queries[a], keys[b], labels[a], labels[b], settings.temperature)
                losses.append(WeightedLoss(loss.total, all_sum(loss.weight)).mean())
                shares.append(loss.weight / labels[a].numel())
    total = torch.stack(losses).mean()
    metrics = {
        "loss": total.detach(),
        "valid_share": (torch.stack(labels) != IGNORE).float().mean(),
        "anchor_share": torch.stack(shares).mean(),  # pixels whose class is in the other view too
    }
    return Step(total, state, metrics)


def known_prototypes(state: tuple[()], settings: Settings) -> None:
    return None


def class_scores(pair: EncoderPair[EmbeddingNetwork], state: tuple[()], images: Tensor, settings: Settings) -> None:
    return None


def state_bytes(settings: Settings, data: Data) -> int:
    return 0


def pack(state: tuple[()]) -> dict[str, Tensor]:
    return {}


def unpack(tensors: dict[str, Tensor], settings: Settings, data: Data) -> tuple[()]:
    return ()
