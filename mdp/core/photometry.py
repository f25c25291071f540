"""Colour operations on whole batches, on any device, each image with its own strength.

Two recipes: MoCo-v2's jitter, grey and blur for pretraining, MMSegmentation's photometric distortion for fine-tuning.
Draws are made one image at a time on the CPU (`draw_*`) and applied to the batch (`apply_*`): the order of each
image's operations is known on the CPU, so nothing waits for the device.
Images are float in [0, 1], (B, 3, H, W), RGB; strengths are (B,).  Every operation clips to [0, 1], as 8-bit
pipelines do; unlike them it does not round in between.  Call outside autocast.

Images may have any other number K of channels, (B, K, H, W): what is done to red, green and blue (saturation, hue,
grey) is then left out, whatever was drawn, and their mean stands in for the luma.

Each operation has a twin that ends in an underscore and overwrites its images.  `apply_*` chains these on one copy:
that of a single image stays in a CPU's cache, which saves a quarter of the time.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.color_settings import DistortionSettings, PhotometrySettings
from mdp.core.autoaugment import AutoDraw
from mdp.core.chance import coin, uniforms

__all__ = [
    "IMAGENET", "MEAN", "STD", "DistortionDraw", "DistortionSettings", "Draw", "PhotometryDraw",
    "PhotometrySettings", "Statistics", "adjust_brightness", "adjust_contrast", "adjust_hue", "adjust_saturation",
    "apply_distortion", "apply_photometry", "apply_photometry_", "as_float", "denormalise", "draw_distortion",
    "draw_photometry", "gaussian_blur", "grey", "no_photometry", "normalise", "normalise_", "of_bytes",
    "scale_saturation", "shift_brightness", "stack_draws", "to_grey",
]  # fmt: skip

MEAN = (0.485, 0.456, 0.406)  # ImageNet statistics, as MoCo, torchvision and MMSegmentation use them
STD = (0.229, 0.224, 0.225)
_GREY = (0.299, 0.587, 0.114)  # ITU-R 601 luma, as Pillow's convert("L")
_COLORS = 3  # channels of an image that has hue and saturation
_TINY = 1e-12  # in place of a span of 0

Draw = TypeVar("Draw", bound="PhotometryDraw | DistortionDraw | AutoDraw")


class Statistics(NamedTuple):
    """Mean and standard deviation of each channel, of images in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Statistics(MEAN, STD)


def normalise(images: Tensor, statistics: Statistics = IMAGENET) -> Tensor:
    """Images in [0, 1] as network input: minus the mean, over the standard deviation of each channel.

    >>> denormalise(normalise(torch.full((1, 3, 2, 2), 0.25)))[0, :, 0, 0]
    tensor([0.2500, 0.2500, 0.2500])
    """
    return normalise_(images.clone(), statistics)


def normalise_(images: Tensor, statistics: Statistics = IMAGENET) -> Tensor:
    """The same in place."""
    mean, std = _channels(statistics, images)
    return images.sub_(mean).div_(std)


@cache
def of_bytes(statistics: Statistics) -> Statistics:
    """The statistics of the same images as 0..255."""
    return Statistics(*(tuple(255 * number for number in field) for field in statistics))


def denormalise(images: Tensor, statistics: Statistics = IMAGENET) -> Tensor:
    """The inverse of `normalise`."""
    mean, std = _channels(statistics, images)
    return (images * std).add_(mean)


def grey(images: Tensor) -> Tensor:
    """Luma, (B, 1, H, W); the mean of the channels where they are not red, green and blue."""
    if images.shape[1] != _COLORS:
        return images.mean(1, keepdim=True)
    red, green, blue = images.chunk(3, 1)  # each (B, 1, H, W)
    return (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])


def _channels(statistics: Statistics, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, (K, 1, 1), on the images' device by one copy that nothing waits for."""
    mean, std = _both(statistics, images.dtype).to(images.device, non_blocking=True)
    return mean, std


@cache
def _both(statistics: Statistics, dtype: torch.dtype) -> Tensor:
    return torch.tensor(statistics, dtype=dtype)[..., None, None]  # (2, K, 1, 1)


def _each(strength: Tensor, images: Tensor) -> Tensor:
    return strength.to(images.device, images.dtype, non_blocking=True).view(-1, 1, 1, 1)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black; 1 leaves the image as it is."""
    return _brightness_(images.clone(), factor)


def _brightness_(images: Tensor, factor: Tensor) -> Tensor:
    return images.mul_(_each(factor, images)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean luma of the image."""
    return _contrast_(images.clone(), factor)


def _contrast_(images: Tensor, factor: Tensor) -> Tensor:
    mean = grey(images.mean((2, 3), keepdim=True))  # (B, 1, 1, 1): the mean of the luma is the luma of the means
    return _blend_(images, mean, factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the luma of each pixel."""
    return _saturation_(images.clone(), factor)


def _saturation_(images: Tensor, factor: Tensor) -> Tensor:
    return _blend_(images, grey(images), factor)


def _blend_(images: Tensor, luma: Tensor, factor: Tensor) -> Tensor:
    """factor * images + (1 - factor) * luma, clipped: what Pillow's ImageEnhance does."""
    share = _each(factor, images)
    return images.mul_(share).add_(luma.mul_(1 - share)).clamp_(0, 1)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Add `shift` turns to the H of HSV; grey pixels stay as they are.

    >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    >>> adjust_hue(red, torch.tensor([1 / 3])).flatten().round()
    tensor([0., 1., 0.])
    """
    return _hue_(images.clone(), shift)


def _hue_(images: Tensor, shift: Tensor) -> Tensor:
    """The same in place.

    With the colour's least part taken away and its largest scaled to 1, one of (r, g, b) is 1 and one is 0, and H goes
    round the hexagon as 1 + g + b - r sixths of a turn, backwards where g < b.  Along it each channel is V within a
    sixth of a turn of its own hue, and falls to the least part at two sixths.
    """
    red, green, blue = images.unbind(1)  # each (B, H, W)
    value, least = _largest(images)[:, 0], _least(images)[:, 0]  # (B, H, W)
    span = value - least  # (B, H, W)
    slope = (6 * span).add_(_TINY)  # (B, H, W): what a channel falls by in a turn
    scratch = blue - red
    hue = (green - least).add_(scratch).div_(slope).add_(1 / 6)  # (B, H, W) turns
    torch.sub(green, blue, out=scratch)
    hue.copysign_(scratch).add_(_each(shift, images)[:, 0])
    top = span.add_(value)
    for channel, from_last in zip((red, green, blue), (0, 1 / 3, 1 / 3), strict=True):
        hue.sub_(from_last)  # the turns from the channel's own hue,
        away = torch.sub(hue, torch.round(hue, out=scratch), out=scratch).abs_()  # the short way round
        torch.clamp(torch.addcmul(top, slope, away, value=-1, out=scratch), least, value, out=channel)
    return images


def _largest(images: Tensor) -> Tensor:
    """The V of HSV, (B, 1, H, W); a reduction over three channels takes twice as long."""
    red, green, blue = images.chunk(3, 1)
    return torch.maximum(torch.maximum(red, green), blue)


def _least(images: Tensor) -> Tensor:
    red, green, blue = images.chunk(3, 1)
    return torch.minimum(torch.minimum(red, green), blue)


def scale_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply the S of HSV, as OpenCV-based pipelines do.

    H and V stay, so each channel's distance from V grows with S = span / V, until S is 1: no hue is needed.
    """
    return _scale_saturation_(images.clone(), factor)


def _scale_saturation_(images: Tensor, factor: Tensor) -> Tensor:
    value = _largest(images)  # (B, 1, H, W)
    span = value - _least(images)  # (B, 1, H, W)
    gain = torch.minimum(value / span.clamp_(min=_TINY), _each(factor, images))  # (B, 1, H, W)
    return images.sub_(value).mul_(gain).add_(value).clamp_(0, 1)


def shift_brightness(images: Tensor, delta: Tensor) -> Tensor:
    """Add `delta` to every channel."""
    return _shift_(images.clone(), delta)


def _shift_(images: Tensor, delta: Tensor) -> Tensor:
    return images.add_(_each(delta, images)).clamp_(0, 1)


def to_grey(images: Tensor) -> Tensor:
    """The luma in all three channels."""
    return _grey_(images.clone())


def _grey_(images: Tensor) -> Tensor:
    return images.copy_(grey(images))


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a standard deviation of `sigma` pixels for each image; the edge pixels extend outwards.

    A true Gaussian, cut at three standard deviations of each image, whatever images are beside it (Pillow's is three
    box blurs that approach it); 0 leaves an image as it is.  `sigma` lies on the CPU: the taps are counted there.
    """
    return _blur_(images.clone(), sigma)


def _blur_(images: Tensor, sigma: Tensor) -> Tensor:
    return _filter_(images, _taps(sigma))


def _taps(sigma: Tensor) -> Tensor:
    """Weights (B, reach + 1) of a Gaussian of each standard deviation (B,), from the middle outwards; on the CPU."""
    cut = torch.ceil(3 * sigma).clamp(min=1)  # (B,)
    taps = torch.arange(int(cut.max()) + 1, dtype=torch.float32)  # (reach + 1,), of one side
    weights = torch.exp(-0.5 * (taps / sigma.float().clamp(min=1e-3)[:, None]) ** 2)  # (B, reach + 1)
    weights = weights * (taps <= cut[:, None])
    return weights / (2 * weights.sum(1, keepdim=True) - weights[:, :1])


def _own_taps(sigma: Tensor) -> Tensor:
    """The same for a single image (1,), in less than half the time: NumPy has less to do before it computes."""
    own = np.float32(sigma.item())
    taps = np.arange(max(1, math.ceil(np.float32(3) * own)) + 1, dtype=np.float32)  # (reach + 1,), of one side
    taps /= max(own, np.float32(1e-3))
    taps *= taps
    taps *= np.float32(-0.5)
    weights = torch.exp(torch.from_numpy(taps))  # NumPy's has other last digits
    return (weights / (2 * weights.sum() - weights[0]))[None]


def _filter_(images: Tensor, weights: Tensor) -> Tensor:
    """Both axes smoothed."""
    weights = weights.to(images.device, images.dtype, non_blocking=True)
    return _smooth_(_smooth_(images, weights, 2), weights, 3)


def _smooth_(images: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Symmetric filter along an axis with weights (B, reach + 1) from the middle outwards.

    Sums of shifted images: a convolution with a kernel for each image takes three times as long on a CPU.
    """
    reach, length = weights.shape[1] - 1, images.shape[axis]
    padding = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
    padded = F.pad(images, padding, mode="replicate")
    middle, *others = weights[:, :, None, None, None].unbind(1)  # each (B, 1, 1, 1)
    images.mul_(middle)
    both = torch.empty_like(images)
    for distance, weight in enumerate(others, 1):
        before = padded.narrow(axis, reach - distance, length)
        after = padded.narrow(axis, reach + distance, length)
        images.addcmul_(torch.add(before, after, out=both), weight)
    return images


# Draws


def stack_draws(draws: Sequence[Draw]) -> Draw:
    """The draws of a batch from the draws of its images."""
    if len(draws) == 1:  # a third of the time, which counts where views are changed one by one
        return type(draws[0])(*(field[None] for field in draws[0]))
    return type(draws[0])(*(torch.stack(field) for field in zip(*draws, strict=True)))


class _Turn(NamedTuple):
    """An operation, the images that it is done to, and its strengths there, (n, k) or (n,) on the CPU."""

    change_: Callable[[Tensor, Tensor], Tensor]
    chosen: list[int]
    strengths: Tensor


def _turn(change_: Callable[[Tensor, Tensor], Tensor], chosen: list[int], strengths: Tensor) -> _Turn:
    """A turn of the chosen ones of the images that have these strengths."""
    return _Turn(change_, chosen, strengths if len(chosen) == len(strengths) else strengths[chosen])


def _take_turns_(images: Tensor, turns: Sequence[_Turn]) -> Tensor:
    """The images after one operation after the other on those that are chosen for it; the others stay as they are.

    What a GPU has to be told of all turns goes there in two copies.
    """
    turns = [turn for turn in turns if turn.chosen]
    partly = [turn for turn in turns if len(turn.chosen) < len(images)]
    places = iter(_moved([torch.tensor(turn.chosen) for turn in partly], images.device))
    strengths = _moved([turn.strengths for turn in turns], images.device)
    for turn, strength in zip(turns, strengths, strict=True):
        if len(turn.chosen) == len(images):
            turn.change_(images, strength)
        else:
            place = next(places)
            images.index_copy_(0, place, turn.change_(images[place], strength))
    return images


def _moved(tensors: list[Tensor], device: torch.device) -> list[Tensor]:
    """The tensors, of one type, on the device, by one copy."""
    if device.type == "cpu" or not tensors:
        return tensors
    flat = torch.cat([tensor.flatten() for tensor in tensors]).to(device, non_blocking=True)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def _set(flags: Tensor) -> list[int]:
    """Where a CPU tensor of flags is set; as numbers: for single images tensors cost more than what they save."""
    return [place for place, flag in enumerate(flags.tolist()) if flag]


def as_float(images: Tensor) -> Tensor:
    """A copy in float32, uint8 0..255 scaled to [0, 1]."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images.clone()


# MoCo-v2


class PhotometryDraw(NamedTuple):
    """The random changes of one image, or, stacked, of each image of a batch (leading dimension B)."""

    jitter: Tensor  # bool
    factors: Tensor  # (4,) float32: brightness, contrast, saturation, hue shift
    order: Tensor  # (4,) int64: the jitter's operations in the order they are applied
    grey: Tensor  # bool
    sigma: Tensor  # float32; 0 means no blur


def draw_photometry(rng: torch.Generator, settings: PhotometrySettings) -> PhotometryDraw:
    """The photometry of one image."""
    blends = [(1 - span, 1 + span) for span in (settings.brightness, settings.contrast, settings.saturation)]
    *factors, jitter = uniforms(rng, *blends, (-settings.hue, settings.hue), (0, 1))
    order = torch.randperm(4, generator=rng)
    grey, blur, sigma = uniforms(rng, (0, 1), (0, 1), settings.sigma)
    return PhotometryDraw(
        jitter=torch.tensor(jitter < settings.jitter),
        factors=torch.tensor(factors),
        order=order,
        grey=torch.tensor(grey < settings.grey),
        sigma=torch.tensor(sigma if blur < settings.blur else 0.0),
    )


def no_photometry() -> PhotometryDraw:
    """The draw that leaves an image as it is."""
    none = torch.tensor(False)
    return PhotometryDraw(none, torch.zeros(4), torch.arange(4), none, torch.tensor(0.0))


_JITTER = (_brightness_, _contrast_, _saturation_, _hue_)
_PLAIN_JITTER = (_brightness_, _contrast_)  # of images without colours


def apply_photometry(images: Tensor, draws: PhotometryDraw) -> Tensor:
    """Jitter, grey, blur, each where it was drawn; uint8 or float in, float32 in [0, 1] out."""
    return apply_photometry_(as_float(images), draws)


def apply_photometry_(images: Tensor, draws: PhotometryDraw) -> Tensor:
    """The same in place, of float32 in [0, 1]."""
    colored = images.shape[1] == _COLORS
    known = _JITTER if colored else _PLAIN_JITTER
    if len(images) == 1 and images.device.type == "cpu":
        return _apply_alone_(images, draws, known)
    turns = []
    if jittered := _set(draws.jitter):
        factors = draws.factors.unbind(1)
        for column in zip(*(draws.order[image].tolist() for image in jittered), strict=True):  # the next of each image
            for operation, change_ in enumerate(known):
                chosen = [image for image, own in zip(jittered, column, strict=True) if own == operation]
                if chosen:
                    turns.append(_turn(change_, chosen, factors[operation]))
    if colored and (grey_ones := _set(draws.grey)):
        turns.append(_turn(lambda some, _: _grey_(some), grey_ones, draws.sigma))
    if blurred := _set(draws.sigma > 0):
        turns.append(_Turn(_filter_, blurred, _taps(draws.sigma[blurred])))
    return _take_turns_(images, turns)


def _apply_alone_(images: Tensor, draws: PhotometryDraw, known: Sequence[Callable[[Tensor, Tensor], Tensor]]) -> Tensor:
    """The same of one image, without the lists of who takes part: on a small view they take as long as an operation."""
    if draws.jitter:
        factors = draws.factors.unbind(1)
        for operation in draws.order[0].tolist():
            if operation < len(known):
                known[operation](images, factors[operation])
    grey_one = bool(draws.grey) and len(known) == len(_JITTER)
    changed = grey(images) if grey_one else images
    if draws.sigma > 0:
        _filter_(changed, _own_taps(draws.sigma))
    return images.copy_(changed) if grey_one else images


# MMSegmentation's PhotoMetricDistortion


class DistortionDraw(NamedTuple):
    """The random changes of one image, or, stacked, of each image of a batch (leading dimension B)."""

    applied: Tensor  # (4,) bool: brightness, contrast, saturation, hue
    strengths: Tensor  # (4,) float32: delta, factor, factor, turns
    contrast_first: Tensor  # bool: contrast before or after the colour operations


def draw_distortion(rng: torch.Generator, settings: DistortionSettings) -> DistortionDraw:
    """The distortion of one image."""
    shift = (-settings.brightness, settings.brightness)
    delta, *factors = uniforms(rng, shift, settings.contrast, settings.saturation)
    half_degrees = int(torch.randint(-settings.hue, max(settings.hue, 1 - settings.hue), (), generator=rng))
    return DistortionDraw(
        applied=torch.tensor([share < settings.probability for share in uniforms(rng, *4 * [(0, 1)])]),
        strengths=torch.tensor([delta / 255, *factors, half_degrees / 180]),
        contrast_first=torch.tensor(coin(rng, 0.5)),
    )


def apply_distortion(images: Tensor, draws: DistortionDraw) -> Tensor:
    """Brightness, contrast, saturation and hue, contrast second or last; uint8 or float in, float32 in [0, 1] out."""
    images = as_float(images)
    delta, contrast, saturation, hue = draws.strengths.unbind(1)
    turns = [
        _turn(_shift_, _set(draws.applied[:, 0]), delta),
        _turn(_brightness_, _set(draws.applied[:, 1] & draws.contrast_first), contrast),
    ]
    if images.shape[1] == _COLORS:
        turns.append(_turn(_scale_saturation_, _set(draws.applied[:, 2]), saturation))
        turns.append(_turn(_hue_, _set(draws.applied[:, 3]), hue))
    turns.append(_turn(_brightness_, _set(draws.applied[:, 1] & ~draws.contrast_first), contrast))
    return _take_turns_(images, turns)
