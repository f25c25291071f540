"""The query encoder and the key encoder that follows it slowly (MoCo, arXiv 1911.05722, eq. 2)."""

import copy
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class EncoderPair(NamedTuple, Generic[Network]):
    """Two networks of one shape; the key encoder takes no gradient.

    A method without a key encoder gives the query encoder twice: then following it is doing nothing.
    """

    query: Network
    key: Network


def make_pair(query: Network) -> EncoderPair[Network]:
    """`query` and a copy of it, running statistics included."""
    key = copy.deepcopy(query)
    return EncoderPair(query, key.requires_grad_(False))


def follow_(pair: EncoderPair[Network], momentum: float) -> None:
    """key = momentum * key + (1 - momentum) * query, in place; BatchNorm buffers stay the key encoder's own.

    One fused lerp: no temporary of the networks' size.
    """
    if pair.key is pair.query:
        return
    with torch.no_grad():
        torch._foreach_lerp_(list(pair.key.parameters()), list(pair.query.parameters()), 1 - momentum)
