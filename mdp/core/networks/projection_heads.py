"""Projection heads: from features to the embeddings that losses compare."""

from torch import nn


def projection_head(inputs: int, hidden: int, embedding: int) -> nn.Sequential:
    """For pixel embeddings: three times (1x1 convolution, BatchNorm, ReLU), then a 1x1 convolution with bias.

    Four layers and 256 channels out are the paper's (sections 3.2 and 4.1); hidden width and BatchNorm are chosen.

    >>> sum(p.numel() for p in projection_head(512, 512, 256).parameters())
    920832
    """
    layers: list[nn.Module] = []
    for channels in (inputs, hidden, hidden):
        layers += [nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(hidden, embedding, 1))


def instance_head(inputs: int, embedding: int) -> nn.Sequential:
    """Image embeddings (MoCo-v2): two linear layers, as wide inside as the features."""
    return nn.Sequential(nn.Linear(inputs, inputs), nn.ReLU(inplace=True), nn.Linear(inputs, embedding))
