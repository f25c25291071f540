"""Class activation maps: where in an image a linear classifier on pooled features finds a class (arXiv 1512.04150).

Shape legend: B images, D features, C classes, h x w feature grid.
"""

import torch
from torch import Tensor


def class_activation_maps(features: Tensor, weight: Tensor) -> Tensor:
    """The scores (B, C, h, w) that each cell of features (B, D, h, w) would give by weights (C, D), without a bias.

    Their mean over the cells is the classifier's score of the pooled features, less its bias.

    >>> class_activation_maps(torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[2.0]])).tolist()
    [[[[2.0, 6.0]]]]
    """
    return torch.einsum("bdhw,cd->bchw", features, weight.to(features.dtype))


def activation_shares(maps: Tensor) -> Tensor:
    """Activation maps (..., h, w) from 0, where least or below 0, to 1, where most; a map without any above 0 is 0.

    >>> activation_shares(torch.tensor([[-3.0, 1.0, 4.0]])).tolist()
    [[0.0, 0.25, 1.0]]
    """
    above = maps.clamp(min=0)
    most = above.amax((-2, -1), keepdim=True)
    return above / torch.where(most > 0, most, 1)


def unit_range(maps: Tensor) -> Tensor:
    """Activation maps (..., h, w), each from 0 at its least to 1 at its most (2106.03149, eq. 15); a flat one is 1.

    >>> unit_range(torch.tensor([[-3.0, 1.0, 5.0]])).tolist()
    [[0.0, 0.5, 1.0]]
    """
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return torch.where(high > low, (maps - low) / torch.where(high > low, high - low, 1), 1.0)
