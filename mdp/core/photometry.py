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

from mdp.core.chance import coin, uniforms

MEAN = (0.485, 0.456, 0.406)  # ImageNet statistics, as MoCo, torchvision and MMSegmentation use them
STD = (0.229, 0.224, 0.225)
_GREY = (0.299, 0.587, 0.114)  # ITU-R 601 luma, as Pillow's convert("L")
_TINY = 1e-12  # in place of a span of 0

Draw = TypeVar("Draw", "PhotometryDraw", "DistortionDraw")


def normalise(images: Tensor) -> Tensor:
    """Images in [0, 1] as network input: minus the mean, over the standard deviation of each channel.

    >>> denormalise(normalise(torch.full((1, 3, 2, 2), 0.25)))[0, :, 0, 0]
    tensor([0.2500, 0.2500, 0.2500])
    """
    return (images - _channels(MEAN, images)).div_(_channels(STD, images))


def denormalise(images: Tensor) -> Tensor:
    """The inverse of `normalise`."""
    return (images * _channels(STD, images)).add_(_channels(MEAN, images))


def grey(images: Tensor) -> Tensor:
    """Luma, (B, 1, H, W)."""
    red, green, blue = images.chunk(3, 1)  # each (B, 1, H, W)
    return (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])


def _channels(values: tuple[float, float, float], images: Tensor) -> Tensor:
    """One number a channel, (3, 1, 1), on the images' device; `images.new_tensor` would wait for a GPU."""
    return torch.tensor(values, dtype=images.dtype).view(3, 1, 1).to(images.device, non_blocking=True)


def _each(strength: Tensor, images: Tensor) -> Tensor:
    return strength.to(images.device, images.dtype, non_blocking=True).view(-1, 1, 1, 1)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black; 1 leaves the image as it is."""
    return (images * _each(factor, images)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean luma of the image."""
    mean = grey(images.mean((2, 3), keepdim=True))  # (B, 1, 1, 1): the mean of the luma is the luma of the means
    return _blend(images, mean, _each(factor, images))


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the luma of each pixel."""
    return _blend(images, grey(images), _each(factor, images))


def _blend(images: Tensor, luma: Tensor, factor: Tensor) -> Tensor:
    """factor * images + (1 - factor) * luma, clipped: what Pillow's ImageEnhance does."""
    return (images * factor).add_(luma * (1 - factor)).clamp_(0, 1)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Add `shift` turns to the H of HSV; grey pixels stay as they are.

    With the colour's least part taken away and its largest scaled to 1, one of (r, g, b) is 1 and one is 0, and H goes
    round the hexagon as 1 + g + b - r sixths of a turn, backwards where g < b.  Along it each channel is V within a
    sixth of a turn of its own hue, and falls to the least part at two sixths.

    >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    >>> adjust_hue(red, torch.tensor([1 / 3])).flatten().round()
    tensor([0., 1., 0.])
    """
    red, green, blue = images.unbind(1)  # each (B, H, W)
    value, least = _largest(images)[:, 0], _least(images)[:, 0]  # (B, H, W)
    span = value - least  # (B, H, W)
    sixths = (green - least).add_(blue - red).div_(span.clamp(min=_TINY)).add_(1)  # (B, H, W)
    hue = sixths.copysign_(green - blue).div_(6).add_(_each(shift, images)[:, 0])  # (B, H, W) turns
    top = value + span
    slope = span.mul_(-6)
    turned = torch.empty_like(images)  # (B, 3, H, W)
    for channel, own in enumerate((0, 1 / 3, 2 / 3)):
        away = hue - own
        away = away.sub_(away.round()).abs_()  # (B, H, W) turns, 0 to 1/2
        torch.clamp(torch.addcmul(top, slope, away), least, value, out=turned[:, channel])
    return turned


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
    value = _largest(images)  # (B, 1, H, W)
    span = value - _least(images)  # (B, 1, H, W)
    gain = torch.minimum(value / span.clamp_(min=_TINY), _each(factor, images))  # (B, 1, H, W)
    return (images - value).mul_(gain).add_(value).clamp_(0, 1)


def shift_brightness(images: Tensor, delta: Tensor) -> Tensor:
    """Add `delta` to every channel."""
    return (images + _each(delta, images)).clamp_(0, 1)


def to_grey(images: Tensor) -> Tensor:
    """The luma in all three channels."""
    return grey(images).repeat(1, 3, 1, 1)


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a standard deviation of `sigma` pixels for each image; the edge pixels extend outwards.

    A true Gaussian, cut at three standard deviations of each image, whatever images are beside it (Pillow's is three
    box blurs that approach it); 0 leaves an image as it is.  `sigma` lies on the CPU: the taps are counted there.
    """
    cut = torch.ceil(3 * sigma).clamp(min=1)  # (B,)
    taps = torch.arange(int(cut.max()) + 1, dtype=torch.float32)  # (reach + 1,), of one side
    weights = torch.exp(-0.5 * (taps / sigma.float().clamp(min=1e-3)[:, None]) ** 2)  # (B, reach + 1)
    weights = weights * (taps <= cut[:, None])
    weights = weights / (2 * weights.sum(1, keepdim=True) - weights[:, :1])
    weights = weights.to(images.device, images.dtype, non_blocking=True)
    return _smooth(_smooth(images, weights, 2), weights, 3)


def _smooth(images: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Symmetric filter along an axis with weights (B, reach + 1) from the middle outwards.

    Sums of shifted images: a convolution with a kernel for each image takes two to four times as long on a CPU.
    """
    reach, length = weights.shape[1] - 1, images.shape[axis]
    padding = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
    padded = F.pad(images, padding, mode="replicate")
    middle, *others = weights[:, :, None, None, None].unbind(1)  # each (B, 1, 1, 1)
    total = images * middle
    for distance, weight in enumerate(others, 1):
        before = padded.narrow(axis, reach - distance, length)
        after = padded.narrow(axis, reach + distance, length)
        total.addcmul_(before + after, weight)
    return total


# Draws


def stack_draws(draws: Sequence[Draw]) -> Draw:
    """The draws of a batch from the draws of its images."""
    return type(draws[0])(*(torch.stack(field) for field in zip(*draws, strict=True)))


def _on(chosen: list[int], function: Callable[..., Tensor], images: Tensor, *strengths: Tensor) -> Tensor:
    """`function` on the chosen images, the others as they are.  `images` is the caller's own, and may be written to."""
    if not chosen:
        return images
    if len(chosen) == len(images):
        return function(images, *strengths)
    place = torch.tensor(chosen)
    there = place.to(images.device, non_blocking=True)
    changed = function(images[there], *(strength[place] for strength in strengths))
    return images.index_copy_(0, there, changed)


def _set(flags: Tensor) -> list[int]:
    """Where a CPU tensor of flags is set; as numbers: for single images tensors cost more than what they save."""
    return [place for place, flag in enumerate(flags.tolist()) if flag]


def as_float(images: Tensor) -> Tensor:
    """A copy in float32, uint8 0..255 scaled to [0, 1]."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images.clone()


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


_JITTER = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


def apply_photometry(images: Tensor, draws: PhotometryDraw) -> Tensor:
    """Jitter, grey, blur, each where it was drawn; uint8 or float in, float32 in [0, 1] out."""
    images = as_float(images)
    jittered, orders = _set(draws.jitter), draws.order.tolist()
    for place in range(4):
        for operation, function in enumerate(_JITTER):
            chosen = [image for image in jittered if orders[image][place] == operation]
            images = _on(chosen, function, images, draws.factors[:, operation])
    images = _on(_set(draws.grey), to_grey, images)
    return _on(_set(draws.sigma > 0), gaussian_blur, images, draws.sigma)


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
    images = _on(_set(draws.applied[:, 0]), shift_brightness, images, delta)
    images = _on(_set(draws.applied[:, 1] & draws.contrast_first), adjust_brightness, images, contrast)
    images = _on(_set(draws.applied[:, 2]), scale_saturation, images, saturation)
    images = _on(_set(draws.applied[:, 3]), adjust_hue, images, hue)
    return _on(_set(draws.applied[:, 1] & ~draws.contrast_first), adjust_brightness, images, contrast)
