"""A segmentor's prediction for one image: whole or in windows, at the image's own resolution.

Shape legend: C classes, H x W image.
"""

from dataclasses import replace

import torch
from torch import Tensor

from mdp.core.geometry import Box, View, cut_image, fitted_size
from mdp.core.networks import Segmentor, upsample
from mdp.core.photometry import normalise
from mdp.io.recipe import EvalSettings, Recipe

_PIXELS = 2**19  # of windows at a time: 96-pixel windows run 2.2 times faster together than one by one, on a CPU


def inference_settings(recipe: Recipe) -> EvalSettings:
    """The recipe's inference settings, with the fine-tuning crop as window unless another is given."""
    return replace(recipe.eval, window=recipe.eval.window or recipe.finetune.crop)


def predict(network: Segmentor, image: Tensor, settings: EvalSettings, device: torch.device) -> Tensor:
    """Classes (H, W) int64, on the CPU, of an image (3, H, W) uint8; the network is in evaluation mode.

    MMSegmentation's order: fit to `scale`, logits at that size, logits at the image's size, then the maximum.
    """
    height, width = int(image.shape[1]), int(image.shape[2])
    size = fitted_size(height, width, settings.scale) if settings.scale else (height, width)
    with torch.no_grad():
        resized = cut_image(image, View(Box(0, 0, height, width), False), size).to(device)
        inputs = normalise(resized[None].float() / 255)  # (1, 3, *size)
        logits = _slide(network, inputs, settings) if settings.mode == "slide" else upsample(network(inputs), size)
        if size != (height, width):
            logits = upsample(logits, (height, width))  # (1, C, H, W)
        return logits[0].argmax(0).cpu()


def _slide(network: Segmentor, inputs: Tensor, settings: EvalSettings) -> Tensor:
    """Mean logits of overlapping windows; the last window of a row or column is shifted back inside."""
    height, width = int(inputs.shape[2]), int(inputs.shape[3])
    assert settings.window is not None, "inference_settings fills it in"
    window = settings.window
    stride = settings.stride or (-(-2 * window[0] // 3), -(-2 * window[1] // 3))
    size = (min(window[0], height), min(window[1], width))
    corners = [(y, x) for y in starts(height, window[0], stride[0]) for x in starts(width, window[1], stride[1])]
    together = max(1, _PIXELS // (size[0] * size[1]))
    total, hits = None, inputs.new_zeros(1, 1, height, width)
    for first in range(0, len(corners), together):
        part = corners[first : first + together]
        pieces = torch.cat([inputs[:, :, y : y + size[0], x : x + size[1]] for y, x in part])  # (n, 3, *size)
        for (y, x), logits in zip(part, upsample(network(pieces), size), strict=True):
            if total is None:
                total = logits.new_zeros(1, logits.shape[0], height, width)
            total[0, :, y : y + size[0], x : x + size[1]] += logits
            hits[:, :, y : y + size[0], x : x + size[1]] += 1
    assert total is not None
    mean: Tensor = total / hits
    return mean


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin so that they cover `length` pixels.

    >>> starts(1025, 769, 513), starts(100, 769, 513)
    ([0, 256], [0])
    """
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(0, min(i * stride, length - window)) for i in range(count)]
