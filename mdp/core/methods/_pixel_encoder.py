"""The encoder pair of methods that compare pixel embeddings, and its settings."""

from dataclasses import dataclass

import torch

from mdp.core.bounds import Channels, Share, Temperature, check_bounds
from mdp.core.methods import Data, Progress
from mdp.core.networks import EmbeddingNetwork, EncoderPair, NetworkSettings, build_embedding_network, make_pair


@dataclass(frozen=True, kw_only=True)
class PixelSettings:
    """Settings that every such method has; "stated" and "chosen" say where each default comes from."""

    temperature: Temperature = 0.07  # stated: 0.07 beats 0.3 and 0.5 (Table 2)
    key_momentum: Share = 0.999  # chosen: MoCo-v2's
    embedding: Channels = 256  # stated
    hidden: Channels = 512  # chosen: width of the projection head's inner layers

    def __post_init__(self) -> None:
        check_bounds(self)


def build(
    settings: PixelSettings, network: NetworkSettings, data: Data, rng: torch.Generator
) -> EncoderPair[EmbeddingNetwork]:
    """Backbone, segmentation head and projection head, twice."""
    return make_pair(build_embedding_network(network, settings.embedding, settings.hidden, rng))


def key_momentum(settings: PixelSettings, progress: Progress) -> float:
    """How slowly the key encoder follows."""
    return settings.key_momentum


def temperature(settings: PixelSettings) -> float:
    """The divisor of the dot products of unit vectors."""
    return settings.temperature
