"""The query encoder and the key encoder that follows it slowly (MoCo, arXiv 1911.05722, eq. 2)."""

import copy
from typing import NamedTuple

import torch

from mdp.core.networks.segmentor import EmbeddingNetwork


class EncoderPair(NamedTuple):
    """Two networks of one shape; the key encoder takes no gradient."""

    query: EmbeddingNetwork
    key: EmbeddingNetwork


def make_pair(query: EmbeddingNetwork) -> EncoderPair:
    """`query` and a copy of it, running statistics included."""
    key = copy.deepcopy(query)
    return EncoderPair(query, key.requires_grad_(False))


def follow_(pair: EncoderPair, momentum: float) -> None:
    """key = momentum * key + (1 - momentum) * query, in place; BatchNorm buffers stay the key encoder's own.

    One fused lerp: no temporary of the networks' size.
    """
    with torch.no_grad():
        torch._foreach_lerp_(list(pair.key.parameters()), list(pair.query.parameters()), 1 - momentum)
