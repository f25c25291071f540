"""LARS, layer-wise adaptive rate scaling (You, Gitman, Ginsburg 2017, arXiv 1708.03888): gradients in, gradients out.

Each tensor's gradient gets a length in proportion to that of the weights, so that one rate serves all layers of a
large batch.  Two forms are in use; both differ from the paper in where momentum comes: SGD adds it afterwards.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_SMALL = 1e-8  # of the scaled form; the released code's


def lars_scaled(parameters: Sequence[Tensor], gradients: Sequence[Tensor], decay: float, trust: float) -> list[Tensor]:
    """trust |p| / (|g| + decay |p| + 1e-8) (g + decay p) for every tensor, biases too: LARC, unclipped.

    Where p or g is 0 in all its values the gradient stays as it is, without decay.
    """
    weights, lengths = torch._foreach_norm(list(parameters)), torch._foreach_norm(list(gradients))
    scaled = []
    for parameter, gradient, weight, length in zip(parameters, gradients, weights, lengths, strict=True):
        rate = trust * weight / (length + decay * weight + _SMALL)
        moved = (weight > 0) & (length > 0)
        scaled.append(torch.where(moved, rate * (gradient + decay * parameter), gradient))
    return scaled


def lars_added(parameters: Sequence[Tensor], gradients: Sequence[Tensor], decay: float, trust: float) -> list[Tensor]:
    """trust |p| / |g + decay p| (g + decay p) for tensors of two dimensions and more; others stay as they are.

    The form of BYOL, MoCo v3 and PixPro: decay is added before the norm; biases and norms have neither decay nor scale.
    Where p or g + decay p is 0 in all its values the factor is 1.
    """
    scaled = []
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter.ndim < 2:
            scaled.append(gradient)
            continue
        update = gradient + decay * parameter
        weight, length = torch.linalg.vector_norm(parameter), torch.linalg.vector_norm(update)
        scaled.append(torch.where((weight > 0) & (length > 0), trust * weight / length, 1.0) * update)
    return scaled
