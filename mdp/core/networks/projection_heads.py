"""Projection heads: from features to the embeddings that losses compare."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def projection(dims: Sequence[int], conv: bool, norm: bool, last_norm: str = "none") -> nn.Sequential:
    """Layers from dims[0] channels to dims[-1], a ReLU between any two: of maps with `conv`, else of vectors.

    `norm` puts BatchNorm before every ReLU; `last_norm` after the last layer: none, affine, or plain, which learns no
    scale and shift.  A layer has a bias where no BatchNorm follows it, which would take it out again.

    >>> [type(layer).__name__ for layer in projection((8, 4, 2), conv=False, norm=True, last_norm="plain")]
    ['Linear', 'BatchNorm1d', 'ReLU', 'Linear', 'BatchNorm1d']

    Raises ValueError for fewer than two numbers of channels, or another word for the last norm.
    """
    if len(dims) < 2:
        raise ValueError(f"dims: expected the channels before and after, and any between, got {list(dims)}")
    if last_norm not in ("none", "affine", "plain"):
        raise ValueError(f"last_norm: expected none, affine or plain, got {last_norm!r}")
    batch_norm = nn.BatchNorm2d if conv else nn.BatchNorm1d
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(dims[:-1]):
        layers += [_layer(inputs, outputs, conv, bias=not norm), *([batch_norm(outputs)] if norm else [])]
        layers.append(nn.ReLU(inplace=True))
    layers.append(_layer(dims[-2], dims[-1], conv, bias=last_norm == "none"))
    if last_norm != "none":
        layers.append(batch_norm(dims[-1], affine=last_norm == "affine"))
    return nn.Sequential(*layers)


def _layer(inputs: int, outputs: int, conv: bool, bias: bool) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 1, bias=bias) if conv else nn.Linear(inputs, outputs, bias=bias)


def projection_head(inputs: int, hidden: int, embedding: int) -> nn.Sequential:
    """For pixel embeddings: three times (1x1 convolution, BatchNorm, ReLU), then a 1x1 convolution with bias.

    Four layers and 256 channels out are the paper's (sections 3.2 and 4.1); hidden width and BatchNorm are chosen.

    >>> sum(p.numel() for p in projection_head(512, 512, 256).parameters())
    920832
    """
    return projection((inputs, hidden, hidden, hidden, embedding), conv=True, norm=True)


def instance_head(inputs: int, embedding: int) -> nn.Sequential:
    """Image embeddings (MoCo-v2): two linear layers, as wide inside as the features."""
    return projection((inputs, inputs, embedding), conv=False, norm=False)
