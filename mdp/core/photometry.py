"""Colour operations on whole batches, on any device, each image with its own strength.

Two recipes: MoCo-v2's jitter, grey and blur for pretraining, MMSegmentation's photometric distortion for fine-tuning.
Draws are made one image at a time on the CPU (`draw_*`) and applied to the batch (`apply_*`): the order of each
image's operations is known on the CPU, so nothing waits for the device.
Images are float in [0, 1], (B, 3, H, W), RGB; strengths are (B,).  Every operation clips to [0, 1], as 8-bit
pipelines do; unlike them it does not round in between.  Call outside autocast.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.chance import coin, uniform

MEAN = (0.485, 0.456, 0.406)  # ImageNet statistics, as MoCo, torchvision and MMSegmentation use them
STD = (0.229, 0.224, 0.225)
_GREY = (0.299, 0.587, 0.114)  # ITU-R 601 luma, as Pillow's convert("L")

Draw = TypeVar("Draw", "PhotometryDraw", "DistortionDraw")


def normalise(images: Tensor) -> Tensor:
    """Images in [0, 1] as network input: minus the mean, over the standard deviation of each channel.

    >>> denormalise(normalise(torch.full((1, 3, 2, 2), 0.25)))[0, :, 0, 0]
    tensor([0.2500, 0.2500, 0.2500])
    """
    return (images - _channels(MEAN, images)) / _channels(STD, images)


def denormalise(images: Tensor) -> Tensor:
    """The inverse of `normalise`."""
    return images * _channels(STD, images) + _channels(MEAN, images)


def grey(images: Tensor) -> Tensor:
    """Luma, (B, 1, H, W)."""
    return (images * _channels(_GREY, images)).sum(1, keepdim=True)


def _channels(values: tuple[float, float, float], images: Tensor) -> Tensor:
    """One number a channel, (3, 1, 1), on the images' device; `images.new_tensor` would wait for a GPU."""
    return torch.tensor(values, dtype=images.dtype).view(3, 1, 1).to(images.device, non_blocking=True)


def _each(strength: Tensor, images: Tensor) -> Tensor:
    return strength.to(images.device, images.dtype, non_blocking=True).view(-1, 1, 1, 1)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """factor * images + (1 - factor) * other, clipped: what Pillow's ImageEnhance does."""
    return torch.lerp(other, images, _each(factor, images)).clamp(0, 1)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black; 1 leaves the image as it is."""
    return (images * _each(factor, images)).clamp(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean luma of the image."""
    mean = grey(images).mean((1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
    return _blend(images, mean.expand_as(images), factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the luma of each pixel."""
    return _blend(images, grey(images).expand_as(images), factor)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Add `shift` turns to the H of HSV; grey pixels stay as they are.

    >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    >>> adjust_hue(red, torch.tensor([1 / 3])).flatten().round()
    tensor([0., 1., 0.])
    """
    red, green, blue = images.unbind(1)  # each (B, H, W)
    value = images.amax(1)  # (B, H, W)
    span = value - images.amin(1)  # (B, H, W)
    # Hue in sixths of a turn: which channel is largest gives the third, the difference of the others the place in it.
    third = torch.where(value == red, 0.0, torch.where(value == green, 2.0, 4.0))  # (B, H, W)
    place = torch.where(value == red, green - blue, torch.where(value == green, blue - red, red - green))  # (B, H, W)
    turns = (third + place / torch.where(span > 0, span, 1)) / 6 + _each(shift, images)[:, 0]  # (B, H, W)
    channels = []
    for start in (5 / 6, 3 / 6, 1 / 6):
        angle = turns + start
        angle = 6 * (angle - angle.floor())  # in [0, 6); % is several times slower on a CPU
        channels.append(value - span * (2 - (angle - 2).abs()).clamp(0, 1))
    return torch.stack(channels, 1).clamp(0, 1)  # (B, 3, H, W)


def scale_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply the S of HSV, as OpenCV-based pipelines do.

    H and V stay, so each channel's distance from V grows with S = span / V, until S is 1: no hue is needed.
    """
    value = images.amax(1, keepdim=True)  # (B, 1, H, W)
    span = value - images.amin(1, keepdim=True)  # (B, 1, H, W)
    gain = torch.minimum(_each(factor, images), value / torch.where(span > 0, span, 1))  # (B, 1, H, W)
    return (value - (value - images) * gain).clamp(0, 1)


def shift_brightness(images: Tensor, delta: Tensor) -> Tensor:
    """Add `delta` to every channel."""
    return (images + _each(delta, images)).clamp(0, 1)


def to_grey(images: Tensor) -> Tensor:
    """The luma in all three channels."""
    return grey(images).expand_as(images)


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a standard deviation of `sigma` pixels for each image; the edge pixels extend outwards.

    A true Gaussian, cut at three standard deviations of each image, whatever images are beside it (Pillow's is three
    box blurs that approach it); 0 leaves an image as it is.  `sigma` lies on the CPU: the taps are counted there.
    """
    count, channels, height, width = images.shape
    cut = torch.ceil(3 * sigma).clamp(min=1)  # (B,)
    reach = int(cut.max())
    taps = torch.arange(-reach, reach + 1, dtype=torch.float32)  # (2 reach + 1,)
    weights = torch.exp(-0.5 * (taps / sigma.float().clamp(min=1e-3)[:, None]) ** 2)  # (B, 2 reach + 1)
    weights = weights * (taps.abs() <= cut[:, None])
    weights = (weights / weights.sum(1, keepdim=True)).to(images.device, images.dtype, non_blocking=True)
    weights = weights.repeat_interleave(channels, 0)[:, None]  # (B 3, 1, 2 reach + 1)
    planes = images.reshape(1, count * channels, height, width)  # (1, B 3, H, W): each plane its own group
    planes = F.pad(planes, (reach, reach, reach, reach), mode="replicate")  # (1, B 3, H + 2 reach, W + 2 reach)
    planes = F.conv2d(planes, weights[:, :, None, :], groups=count * channels)  # (1, B 3, H + 2 reach, W)
    planes = F.conv2d(planes, weights[:, :, :, None], groups=count * channels)  # (1, B 3, H, W)
    return planes.view(count, channels, height, width)


# Draws


def stack_draws(draws: Sequence[Draw]) -> Draw:
    """The draws of a batch from the draws of its images."""
    return type(draws[0])(*(torch.stack(field) for field in zip(*draws, strict=True)))


def _where(flags: Tensor, function: Callable[..., Tensor], images: Tensor, *strengths: Tensor) -> Tensor:
    """`function` on the images whose CPU flag is set, the others as they are."""
    chosen = torch.nonzero(flags).flatten()  # on the CPU: no synchronisation
    if len(chosen) == 0:
        return images
    if len(chosen) == len(flags):
        return function(images, *strengths)
    place = chosen.to(images.device, non_blocking=True)
    changed = function(images[place], *(strength[chosen] for strength in strengths))
    return images.index_copy(0, place, changed)


def as_float(images: Tensor) -> Tensor:
    """uint8 0..255 or float -> float32 in [0, 1]."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


# MoCo-v2


@dataclass(frozen=True, kw_only=True)
class PhotometrySettings:
    """MoCo-v2's augmentation (stated: "the same augmentations as MoCo-v2"; numbers from its code)."""

    jitter: float = 0.8  # probability of colour jitter
    brightness: float = 0.4  # factors from U(1 - x, 1 + x)
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1  # turns, from U(-x, x)
    grey: float = 0.2  # probability
    blur: float = 0.5  # probability
    sigma: tuple[float, float] = (0.1, 2.0)  # pixels, of the blur

    def __post_init__(self) -> None:
        for name in ("jitter", "grey", "blur", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a number in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue: expected a number of turns in [0, 0.5], got {self.hue}")
        if not 0 <= self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"sigma: expected 0 <= low <= high, got {list(self.sigma)}")


class PhotometryDraw(NamedTuple):
    """What happens to one image, or, stacked, to each image of a batch (leading dimension B)."""

    jitter: Tensor  # bool
    factors: Tensor  # (4,) float32: brightness, contrast, saturation, hue shift
    order: Tensor  # (4,) int64: the jitter's operations in the order they are applied
    grey: Tensor  # bool
    sigma: Tensor  # float32; 0 means no blur


def draw_photometry(rng: torch.Generator, settings: PhotometrySettings) -> PhotometryDraw:
    """The photometry of one image."""
    spans = (settings.brightness, settings.contrast, settings.saturation)
    factors = [uniform(rng, 1 - span, 1 + span) for span in spans] + [uniform(rng, -settings.hue, settings.hue)]
    return PhotometryDraw(
        jitter=torch.tensor(coin(rng, settings.jitter)),
        factors=torch.tensor(factors),
        order=torch.randperm(4, generator=rng),
        grey=torch.tensor(coin(rng, settings.grey)),
        sigma=torch.tensor(coin(rng, settings.blur) * uniform(rng, *settings.sigma)),
    )


_JITTER = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


def apply_photometry(images: Tensor, draws: PhotometryDraw) -> Tensor:
    """Jitter, grey, blur, each where it was drawn; uint8 or float in, float32 in [0, 1] out."""
    images = as_float(images)
    for place in range(4):
        for operation, function in enumerate(_JITTER):
            flags = draws.jitter & (draws.order[:, place] == operation)
            images = _where(flags, function, images, draws.factors[:, operation])
    images = _where(draws.grey, to_grey, images)
    return _where(draws.sigma > 0, gaussian_blur, images, draws.sigma)


# MMSegmentation's PhotoMetricDistortion


@dataclass(frozen=True, kw_only=True)
class DistortionSettings:
    """MMSegmentation's photometric distortion; its numbers, each operation with its own coin."""

    probability: float = 0.5
    brightness: float = 32.0  # of 255, added from U(-x, x)
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: int = 18  # OpenCV half-degrees, a whole number from -x to x - 1

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability: expected a number in [0, 1], got {self.probability}")
        if min(*self.contrast, *self.saturation, self.brightness, self.hue) < 0:
            raise ValueError("brightness, contrast, saturation and hue: expected numbers of 0 or more")
        for name in ("contrast", "saturation"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: expected low <= high, got {[low, high]}")


class DistortionDraw(NamedTuple):
    """What happens to one image, or, stacked, to each image of a batch (leading dimension B)."""

    applied: Tensor  # (4,) bool: brightness, contrast, saturation, hue
    strengths: Tensor  # (4,) float32: delta, factor, factor, turns
    contrast_first: Tensor  # bool: contrast before or after the colour operations


def draw_distortion(rng: torch.Generator, settings: DistortionSettings) -> DistortionDraw:
    """The distortion of one image."""
    delta = uniform(rng, -settings.brightness, settings.brightness) / 255
    factors = [uniform(rng, *settings.contrast), uniform(rng, *settings.saturation)]
    half_degrees = int(torch.randint(-settings.hue, max(settings.hue, 1 - settings.hue), (), generator=rng))
    return DistortionDraw(
        applied=torch.tensor([coin(rng, settings.probability) for _ in range(4)]),
        strengths=torch.tensor([delta, *factors, half_degrees / 180]),
        contrast_first=torch.tensor(coin(rng, 0.5)),
    )


def apply_distortion(images: Tensor, draws: DistortionDraw) -> Tensor:
    """Brightness, contrast, saturation and hue, contrast second or last; uint8 or float in, float32 in [0, 1] out."""
    images = as_float(images)
    delta, contrast, saturation, hue = draws.strengths.unbind(1)
    images = _where(draws.applied[:, 0], shift_brightness, images, delta)
    images = _where(draws.applied[:, 1] & draws.contrast_first, adjust_brightness, images, contrast)
    images = _where(draws.applied[:, 2], scale_saturation, images, saturation)
    images = _where(draws.applied[:, 3], adjust_hue, images, hue)
    return _where(draws.applied[:, 1] & ~draws.contrast_first, adjust_brightness, images, contrast)
