"""A segmentor's prediction for one image, at the image's own resolution: whole or in windows, at one or several scales.

The network's logits are small and are kept; at the image's resolution a few classes exist at a time (core/windows.py).

Shape legend: C classes, H x W image.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mdp.core.geometry import Box, View, cut_image, fitted_size
from mdp.core.photometry import IMAGENET, as_float, normalise
from mdp.core.upsampling import upsampled_argmax
from mdp.core.windows import Windows, assemble, class_parts, first_maximum, log_partition, mean_probabilities, starts
from mdp.io.errors import ResourceError
from mdp.io.inference.memory_budget import Budget, held_bytes, new_budget, out_of_memory
from mdp.io.recipe.layers import Recipe
from mdp.io.recipe.settings import EvalSettings


class Turn(NamedTuple):
    """One look at an image: resized to `size` (height, width), mirrored or not."""

    size: tuple[int, int]
    flip: bool


def inference_settings(recipe: Recipe) -> EvalSettings:
    """The recipe's inference settings, with the fine-tuning crop as window unless another is given."""
    # image pooling never saw more at once while fine-tuning: whole images gave 20.1 mIoU on CamVid, windows 27.2
    return replace(recipe.eval, window=recipe.eval.window or recipe.finetune.crop)


def predict(
    network: nn.Module, image: Tensor, settings: EvalSettings, device: torch.device, budget: Budget | None = None
) -> Tensor:
    """Classes (H, W) int64, on the CPU, of an image (3, H, W) uint8, or (K, H, W) in [0, 1].

    The network is in evaluation mode.

    MMSegmentation's order: fit to `scale`, logits at that size, logits at the image's size, then the maximum; with
    several scales or mirrored, the maximum of the mean of the softmax scores at the image's size.

    Raises ResourceError when `budget`, or the memory there is, does not allow it.
    """
    with torch.no_grad():
        looks = _looks(network, image, settings, device, budget)
        with _memory(looks):
            return _classes(looks).cpu()


def segmenter(
    network: nn.Module, settings: EvalSettings, device: torch.device, say: Callable[[str], None] | None = None
) -> Callable[[Tensor], Tensor]:
    """`predict` for one image after the other, with one budget, of which `say` hears.

    The network is left in evaluation mode.
    """
    network.eval()
    return partial(predict, network, settings=settings, device=device, budget=new_budget(settings, say))


def probabilities(
    network: nn.Module,
    image: Tensor,
    settings: EvalSettings,
    device: torch.device,
    budget: Budget | None = None,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Class probabilities (C, H, W) float32, on the CPU, of an image (3, H, W) uint8; `predict` gives their maximum.

    With a `size` they are (C, *size); what the network sees is the same.  The answer itself is not part of the budget.
    Raises ResourceError as `predict` does.
    """
    with torch.no_grad():
        looks = _looks(network, image, settings, device, budget, size)
        with _memory(looks):
            return torch.cat([part.cpu() for part in _shares(looks)])


def turns(height: int, width: int, settings: EvalSettings) -> list[Turn]:
    """The looks that the settings ask for at an image of this size.

    A ratio multiplies both sides of `scale`, in MMSegmentation's way, or the image's own where there is none.
    """
    long, short = settings.scale or (max(height, width), min(height, width))
    sizes = [fitted_size(height, width, (max(1, int(long * ratio)), max(1, int(short * ratio))))
             for ratio in settings.scales]  # fmt: skip
    return [Turn(size, flip) for size in sizes for flip in ((False, True) if settings.flip else (False,))]


class _Looks(NamedTuple):
    """The network's logits for every look at an image."""

    views: list[Windows]
    parts: list[slice]  # of the classes: so many fit into memory at the image's size
    size: tuple[int, int]  # of the answer: the image's, unless another is asked for


def _looks(
    network: nn.Module,
    image: Tensor,
    settings: EvalSettings,
    device: torch.device,
    budget: Budget | None,
    size: tuple[int, int] | None = None,
) -> _Looks:
    budget = budget or new_budget(settings)
    own = (int(image.shape[1]), int(image.shape[2]))
    views: list[Windows] = []
    for turn in turns(*own, settings):
        views.append(_look(network, image, turn, settings, device, budget, held_bytes(views)))
    size = size or own
    return _Looks(views, class_parts(views[0].classes, budget.classes(views, size)), size)


def _classes(looks: _Looks) -> Tensor:
    """The class of the highest score at each pixel, (H, W) int64."""
    if len(looks.views) > 1:
        return first_maximum(_shares(looks))
    (view,) = looks.views
    if view.window == view.canvas == looks.size and not view.flip:
        # the common case: to upsample every class was most of an evaluation's time and memory
        return upsampled_argmax(view.logits[0], looks.size, looks.parts)
    return first_maximum(assemble(view, part, looks.size) for part in looks.parts)


def _shares(looks: _Looks) -> Iterator[Tensor]:
    """Probabilities (c, H, W) of a few classes after the other."""
    views, parts, size = looks
    norms = [log_partition(assemble(view, part, size) for part in parts) for view in views]  # (H, W) each
    for part in parts:
        pairs = zip(views, norms, strict=True)
        yield mean_probabilities((assemble(view, part, size), norm) for view, norm in pairs)


@contextmanager
def _memory(looks: _Looks) -> Iterator[None]:
    """Raises ResourceError when memory runs out inside."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        together = len(range(*looks.parts[0].indices(looks.views[0].classes)))
        raise ResourceError(
            f"out of memory with {together} classes at {looks.size[1]} x {looks.size[0]} pixels; give a --max-memory "
            "below what there is, or --device cpu"
        ) from error


def _look(
    network: nn.Module,
    image: Tensor,
    turn: Turn,
    settings: EvalSettings,
    device: torch.device,
    budget: Budget,
    held: int,
) -> Windows:
    """The network's logits for one turn of an image, beside `held` bytes of other turns."""
    whole = Box(0, 0, int(image.shape[1]), int(image.shape[2]))
    resized = cut_image(image, View(whole, turn.flip), turn.size).to(device)
    statistics = getattr(network, "statistics", IMAGENET)  # those of a `Segmentor`
    inputs = normalise(as_float(resized[None]), statistics)  # (1, K, *turn.size)
    window, corners = _grid(turn.size, settings)
    batches: list[Tensor] = []
    done = 0
    held += inputs.numel() * inputs.element_size()
    while done < len(corners):
        kept = held + sum(batch.numel() * batch.element_size() for batch in batches)
        part = corners[done : done + budget.windows(network, window, kept, device)]
        logits = _forward(network, [inputs[:, :, y : y + window[0], x : x + window[1]] for y, x in part])
        if logits is None:
            budget.shrink(len(part), window)
            if device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        batches.append(logits)
        done += len(part)
    return Windows(tuple(batches), tuple(corners), window, turn.size, turn.flip)


def _forward(network: nn.Module, pieces: list[Tensor]) -> Tensor | None:
    """Logits (n, C, h, w) of pieces (1, 3, *window); None when memory ran out."""
    try:
        logits: Tensor = network(torch.cat(pieces))
        return logits.contiguous()  # a network in channels_last gives them so; classes are looked at one by one
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return None  # the error holds on to what the network had computed: it ends here, before the next try


def _grid(size: tuple[int, int], settings: EvalSettings) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """The window's size and the corners; the last window of a row or column is shifted back inside."""
    if settings.mode == "whole":
        return size, [(0, 0)]
    assert settings.window is not None, "inference_settings fills it in"
    window = settings.window
    stride = settings.stride or (-(-2 * window[0] // 3), -(-2 * window[1] // 3))
    corners = [(y, x) for y in starts(size[0], window[0], stride[0]) for x in starts(size[1], window[1], stride[1])]
    return (min(window[0], size[0]), min(window[1], size[1])), corners
