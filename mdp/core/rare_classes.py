"""Training images drawn by class, rare ones first: rare class sampling of DAFormer (arXiv 2111.14887, section 3.3).

First a class is drawn, then one of the images that show it.
Shape legend: I images, C classes.
"""

import torch
from torch import Tensor


def class_chances(pixels: Tensor, temperature: float) -> Tensor:
    """The chance of each class to be drawn, (C,) float64, of classes with so many pixels (C,).

    P(c) ~ exp((1 - f_c) / T), where f_c is the class's share of the pixels; 0 for a class that has none.  Raises
    ValueError without any pixel.

    >>> class_chances(torch.tensor([3, 1, 0]), 0.5)  # odds of e^((3/4 - 1/4) / T) = e
    tensor([0.2689, 0.7311, 0.0000], dtype=torch.float64)
    """
    total = pixels.double().sum()
    if not total > 0:
        raise ValueError("rare classes: expected a pixel with a class")
    scores = (1 - pixels.double() / total) / temperature
    return scores.masked_fill(pixels == 0, -torch.inf).softmax(0)


def image_chances(counts: Tensor, temperature: float, least: int) -> Tensor:
    """The chance of each image to be drawn, (I,) float64, of images with so many pixels of each class (I, C).

    A class's images, all alike, are those with `least` pixels of it or more; where there are none, all that show it.

    >>> image_chances(torch.tensor([[3, 0], [0, 1]]), 0.5, 1)
    tensor([0.2689, 0.7311], dtype=torch.float64)
    """
    shown = counts >= least  # (I, C)
    shown = torch.where(shown.any(0), shown, counts > 0).double()
    each = shown / shown.sum(0).clamp(min=1)  # (I, C): the chance of an image, given the class
    return each @ class_chances(counts.sum(0), temperature)
