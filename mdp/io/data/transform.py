"""A program's own change of training images: what it gets, what it must give, and the name that runs keep of it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mdp.io.errors import DatasetError

# Image (3, H, W) uint8, labels (H, W) int16 of the union (-1 where ignored), and a generator: any chance is drawn from
# it, so that the same image of the same epoch is changed alike by any worker and in a run that goes on.
Transform = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


def name_of(transform: Callable[..., Any] | None) -> str:
    """The name by which a run remembers it: module and function, or the class of an object; "" for none."""
    if transform is None:
        return ""
    thing = transform if hasattr(transform, "__qualname__") else type(transform)
    return f"{thing.__module__}.{thing.__qualname__}"


def transformed(transform: Transform, image: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """The changed image and labels.  Raises DatasetError, naming the transform, where they are not what they were."""
    new_image, new_labels = transform(image, labels, rng)
    kinds = (new_image.dtype, new_labels.dtype) == (image.dtype, labels.dtype)
    sizes = new_labels.dim() == 2 and new_image.shape == (len(image), *new_labels.shape) and new_labels.numel() > 0
    if not (kinds and sizes):
        found = f"{tuple(new_image.shape)} {new_image.dtype} and {tuple(new_labels.shape)} {new_labels.dtype}"
        raise DatasetError(
            f"transform {name_of(transform)}: expected an image ({len(image)}, H, W) {image.dtype} and labels (H, W) "
            f"{labels.dtype} of the same size, got {found}"
        )
    return new_image, new_labels
