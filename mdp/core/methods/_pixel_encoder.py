"""The encoder pair of methods that compare pixel embeddings, and its settings."""

from dataclasses import dataclass

import torch

from mdp.core.methods import Data
from mdp.core.networks import EmbeddingNetwork, EncoderPair, NetworkSettings, build_embedding_network, make_pair


@dataclass(frozen=True, kw_only=True)
class PixelSettings:
    """Settings that every such method has; "stated" and "chosen" say where each default comes from."""

    temperature: float = 0.07  # stated: 0.07 beats 0.3 and 0.5 (Table 2)
    key_momentum: float = 0.999  # chosen: MoCo-v2's
    embedding: int = 256  # stated
    hidden: int = 512  # chosen: width of the projection head's inner layers

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature: expected a number above 0, got {self.temperature}")
        if not 0 <= self.key_momentum <= 1:
            raise ValueError(f"key_momentum: expected a number in [0, 1], got {self.key_momentum}")
        if self.embedding < 1 or self.hidden < 1:
            raise ValueError("embedding and hidden: expected 1 or more channels")


def build(
    settings: PixelSettings, network: NetworkSettings, data: Data, rng: torch.Generator
) -> EncoderPair[EmbeddingNetwork]:
    """Backbone, segmentation head and projection head, twice."""
    return make_pair(build_embedding_network(network, settings.embedding, settings.hidden, rng))


def key_momentum(settings: PixelSettings) -> float:
    """How slowly the key encoder follows."""
    return settings.key_momentum


def temperature(settings: PixelSettings) -> float:
    """The divisor of the dot products of unit vectors."""
    return settings.temperature
