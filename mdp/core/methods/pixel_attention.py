"""Pixel attention: what of an image a trained representation should look at (2106.03149, section 4.3, eq. 6).

A step is SwAV's with other image vectors: the mean of the last map's features, of unit length and on a grid four times
as fine, times their attention.  Only the attention and the prototypes learn; the backbone and its head come from a run
(`--init RUN`) and stay.  The network's `attended` vectors and its attention make label maps.
Settings are those of the released code unless a comment says other.
Shape legend: B images, C channels of the last map, K prototypes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mdp.core.bounds import Count, Share
from mdp.core.methods import Data, swav
from mdp.core.methods._without_classes import class_scores, known_prototypes, prototype_images
from mdp.core.methods.swav import (
    NEEDS_LABELS,
    SYNC_BATCH_NORM,
    initial_state,
    key_momentum,
    loss,
    pack,
    prepare,
    remember,
    settle_,
    state_bytes,
    temperature,
    unpack,
    view_plan,
)
from mdp.core.networks import NetworkSettings
from mdp.core.networks.clustering import AttentionNetwork, build_attention_network
from mdp.core.networks.pair import EncoderPair

# fmt: off
__all__ = [
    "NEEDS_LABELS", "PRESET", "SYNC_BATCH_NORM", "Settings", "build", "class_scores", "initial_state", "key_momentum",
    "known_prototypes", "loss", "pack", "prepare", "prototype_images", "remember", "settle_", "state_bytes",
    "temperature", "unpack", "view_plan",
]
# fmt: on
PRESET: Mapping[str, Any] = {"pretrain": {**swav.PRESET["pretrain"], "epochs": 20}}  # S50: lr 6


@dataclass(frozen=True, kw_only=True)
class Settings(swav.Settings):
    """The method's settings: SwAV's, of which embedding, hidden and prototypes are to be those of the run."""

    frozen_steps: Count = 0
    queue_epoch: Count = 0
    area: tuple[Share, Share] = (0.08, 1.0)  # S50 too, with two views
    shared: bool = False  # one attention map for all channels, which is worse (table XI c)
    frozen_statistics: bool = (
        True  # chosen: what is frozen normalises as it was trained; the released code by the batch
    )


def build(
    settings: Settings, network: NetworkSettings, data: Data, rng: torch.Generator
) -> EncoderPair[AttentionNetwork]:
    """The network of SwAV, frozen, and the attention; there is no key encoder."""
    built = build_attention_network(network, swav.heads_of(settings), settings.shared, settings.frozen_statistics, rng)
    return EncoderPair(built, built)
