"""Photometry: Pillow and float64 references for each operation, and the laws of drawing and applying."""

import colorsys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor
from torch.nn import functional as F

from mdp.core import photometry
from mdp.core.photometry import (
    DistortionDraw,
    DistortionSettings,
    PhotometryDraw,
    PhotometrySettings,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    apply_distortion,
    apply_photometry,
    denormalise,
    draw_distortion,
    draw_photometry,
    gaussian_blur,
    normalise,
    scale_saturation,
    shift_brightness,
    stack_draws,
    to_grey,
)
from tests.laws import pure_call
from tests.tensors import rng_of, seeds

Operation = Callable[[Tensor, Tensor], Tensor]
JITTER: list[Operation] = [adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue]
EVERY: list[Operation] = [*JITTER, scale_saturation, shift_brightness, gaussian_blur]
NEUTRAL = dict(zip(EVERY, (1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0), strict=True))


@st.composite
def photos(draw: st.DrawFn) -> Tensor:
    """Noise, with some grey, black and saturated pixels in it; (B, 3, H, W) float32 in [0, 1]."""
    rng = rng_of(draw(seeds))
    count, height, width = draw(st.integers(1, 4)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    images = torch.rand(count, 3, height, width, generator=rng)
    kind = torch.randint(5, (count, 1, height, width), generator=rng)
    images = torch.where(kind == 0, images[:, :1], images)
    return torch.where(kind == 1, images.round(), images)


def each(images: Tensor, seed: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(len(images), generator=rng_of(seed))


def picture(seed: int) -> Tensor:
    """Smooth colours and some grain, (1, 3, 60, 80) uint8: as close to a photo as a test can generate."""
    rng = rng_of(seed)
    smooth = F.interpolate(torch.rand(1, 3, 6, 8, generator=rng), (60, 80), mode="bicubic").clamp(0, 1)
    grainy = (smooth + 0.08 * torch.randn(1, 3, 60, 80, generator=rng)).clamp(0, 1)
    return (255 * grainy).round().byte()


# Pillow


def to_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image[0].permute(1, 2, 0).numpy())


def steps_apart(ours: Tensor, theirs: Image.Image) -> Tensor:
    """Distance in steps of 1/255; Pillow rounds to them after every operation, we never do."""
    expected = torch.from_numpy(np.asarray(theirs).copy()).permute(2, 0, 1)[None]
    return (255 * ours.double() - expected).abs()


def pillow_hue(image: Image.Image, shift: int) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turned = Image.fromarray(((np.asarray(hue).astype(int) + shift) % 256).astype(np.uint8))
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("factor", [0.6, 0.8, 1.2, 1.4])
@pytest.mark.parametrize(
    ("operation", "enhancer", "steps"),
    [  # measured on 20 pictures: 0.80, 1.16, 1.20
        (adjust_brightness, ImageEnhance.Brightness, 1.0),
        (adjust_contrast, ImageEnhance.Contrast, 1.5),
        (adjust_saturation, ImageEnhance.Color, 1.5),
    ],
)
def test_jitter_is_pillows_image_enhance_up_to_rounding(
    operation: Operation,
    enhancer: Callable[[Image.Image], ImageEnhance._Enhance],
    steps: float,
    factor: float,
    seed: int,
) -> None:
    photo = picture(seed)
    ours = operation(photo.float() / 255, torch.tensor([factor]))
    assert steps_apart(ours, enhancer(to_pillow(photo)).enhance(factor)).max() <= steps


@pytest.mark.parametrize("seed", range(3))
def test_grey_is_pillows_luma_up_to_rounding(seed: int) -> None:
    photo = picture(seed)
    assert steps_apart(to_grey(photo.float() / 255), to_pillow(photo).convert("L").convert("RGB")).max() <= 0.51


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shift", [-25, -8, 8, 25])
def test_hue_is_pillows_up_to_its_256_hues(seed: int, shift: int) -> None:
    photo = picture(seed)
    apart = steps_apart(
        adjust_hue(photo.float() / 255, torch.tensor([shift / 256])), pillow_hue(to_pillow(photo), shift)
    )
    assert apart.mean() <= 1  # measured 0.67; one step of hue moves a channel by up to 6 steps
    assert apart.flatten().quantile(0.99) <= 7  # measured 5.4


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_is_pillows_up_to_its_box_approximation(seed: int, sigma: float) -> None:
    photo = picture(seed)
    ours = gaussian_blur(photo.float() / 255, torch.tensor([sigma]))
    apart = steps_apart(ours, to_pillow(photo).filter(ImageFilter.GaussianBlur(sigma)))
    assert apart.mean() <= 0.8  # measured 0.59
    assert apart.flatten().quantile(0.99) <= 3  # measured 2.3


# float64 references, one pixel at a time


def by_pixel(images: Tensor, function: Callable[..., tuple[float, float, float]], strength: Tensor) -> Tensor:
    out = images.double().permute(0, 2, 3, 1).clone()  # (B, H, W, 3)
    for b, i, j in np.ndindex(*out.shape[:3]):
        out[b, i, j] = torch.tensor(function(*out[b, i, j].tolist(), float(strength[b])), dtype=torch.float64)
    return out.permute(0, 3, 1, 2).clamp(0, 1)


def turned(red: float, green: float, blue: float, shift: float) -> tuple[float, float, float]:
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    return colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)


def saturated(red: float, green: float, blue: float, factor: float) -> tuple[float, float, float]:
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    return colorsys.hsv_to_rgb(hue, min(1, saturation * factor), value)


def blended(red: float, green: float, blue: float, factor: float) -> tuple[float, float, float]:
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return tuple(factor * x + (1 - factor) * luma for x in (red, green, blue))  # type: ignore[return-value]


def added(red: float, green: float, blue: float, delta: float) -> tuple[float, float, float]:
    return red + delta, green + delta, blue + delta


@given(images=photos(), seed=seeds)
@pytest.mark.parametrize(
    ("operation", "reference", "low", "high"),
    [
        (adjust_hue, turned, -0.5, 0.5),
        (scale_saturation, saturated, 0.0, 2.0),
        (adjust_saturation, blended, 0.0, 2.0),
        (shift_brightness, added, -0.3, 0.3),
    ],
)
def test_colour_operations_are_their_definitions(
    operation: Operation,
    reference: Callable[..., tuple[float, float, float]],
    low: float,
    high: float,
    images: Tensor,
    seed: int,
) -> None:
    strength = each(images, seed, low, high)
    answer = pure_call(operation, images, strength)
    torch.testing.assert_close(answer.double(), by_pixel(images, reference, strength), rtol=0, atol=3e-6)


@given(images=photos(), seed=seeds)
def test_contrast_blends_with_the_mean_luma_of_the_image(images: Tensor, seed: int) -> None:
    factor = each(images, seed, 0, 2)
    luma = torch.einsum("bchw,c->bhw", images.double(), torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64))
    mean, share = luma.mean((1, 2))[:, None, None, None], factor.double()[:, None, None, None]
    expected = (share * images.double() + (1 - share) * mean).clamp(0, 1)
    torch.testing.assert_close(pure_call(adjust_contrast, images, factor).double(), expected, rtol=0, atol=3e-6)


def naive_blur(image: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """A Gaussian of ten standard deviations' reach, edges extended, (3, H, W)."""
    reach = int(np.ceil(10 * sigma))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps /= taps.sum()
    for axis in (1, 2):
        padded = np.pad(image, [(reach, reach) if a == axis else (0, 0) for a in range(3)], mode="edge")
        image = np.apply_along_axis(lambda line: np.convolve(line, taps, "valid"), axis, padded)
    return image


@settings(max_examples=15)
@given(images=photos(), seed=seeds)
def test_blur_is_a_gaussian_to_half_a_percent(images: Tensor, seed: int) -> None:
    sigma = each(images, seed, 0.1, 2)
    answer = pure_call(gaussian_blur, images, sigma)
    expected = np.stack([naive_blur(i.double().numpy(), float(s)) for i, s in zip(images, sigma, strict=True)])
    torch.testing.assert_close(answer.double(), torch.from_numpy(expected), rtol=0, atol=5e-3)  # cut at 3 sigma


@settings(max_examples=30)
@given(sigma=st.floats(0.0625, 100, width=32), seed=seeds)
def test_an_image_alone_is_blurred_by_the_bits_of_one_among_others_that_is_grey_before(sigma: float, seed: int) -> None:
    weights = pure_call(photometry._own_taps, torch.tensor([sigma]))
    assert torch.equal(weights, photometry._taps(torch.tensor([sigma])))
    images = torch.rand(2, 3, 7, 5, generator=rng_of(seed))
    draws = photometry_draws(2, seed, PhotometrySettings(grey=1, blur=1, sigma=(sigma / 40, sigma / 40)))
    alone = [apply_photometry(image[None], stack_draws([draw])) for image, draw in zip(images, draws, strict=True)]
    assert torch.equal(torch.cat(alone), apply_photometry(images, stack_draws(draws)))


def test_blur_leaves_a_flat_image_and_spreads_a_point_evenly() -> None:
    flat = torch.full((1, 3, 9, 9), 0.25)
    torch.testing.assert_close(gaussian_blur(flat, torch.tensor([1.5])), flat)
    point = torch.zeros(1, 3, 15, 15)
    point[:, :, 7, 7] = 1
    spread = gaussian_blur(point, torch.tensor([1.0]))
    assert spread[0, 0, 7, 7].item() == pytest.approx(1 / (2 * np.pi), rel=0.01)  # the density of N(0, 1) squared
    assert spread[0, 0].sum().item() == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(spread, spread.transpose(2, 3))
    torch.testing.assert_close(spread, spread.flip(3))


# Laws of the operations


@given(images=photos())
@pytest.mark.parametrize("operation", EVERY, ids=lambda operation: operation.__name__)
def test_neutral_strength_changes_nothing(operation: Operation, images: Tensor) -> None:
    answer = pure_call(operation, images, torch.full((len(images),), NEUTRAL[operation]))
    torch.testing.assert_close(answer, images, rtol=0, atol=2e-6)


@given(images=photos(), seed=seeds)
@pytest.mark.parametrize("operation", EVERY, ids=lambda operation: operation.__name__)
def test_each_image_has_its_own_strength_and_stays_in_range(operation: Operation, images: Tensor, seed: int) -> None:
    strength = each(images, seed, 0.1, 2)
    answer = pure_call(operation, images, strength)
    alone = [operation(image[None], s[None]) for image, s in zip(images, strength, strict=True)]
    torch.testing.assert_close(answer, torch.cat(alone), rtol=0, atol=2e-6)
    assert answer.min() >= 0
    assert answer.max() <= 1 + 1e-6


@given(images=photos(), turns=st.integers(-2, 2), shift=st.floats(-0.5, 0.5))
def test_hue_is_a_circle(images: Tensor, turns: int, shift: float) -> None:
    shifts = torch.full((len(images),), shift)
    once = pure_call(adjust_hue, images, shifts)
    torch.testing.assert_close(adjust_hue(images, shifts + turns), once, rtol=0, atol=1e-5)
    torch.testing.assert_close(adjust_hue(once, -shifts), images, rtol=0, atol=1e-5)


@given(images=photos())
def test_grey_has_three_equal_channels_and_no_hue_to_turn(images: Tensor) -> None:
    answer = pure_call(to_grey, images)
    assert torch.equal(answer[:, 0], answer[:, 1])
    assert torch.equal(answer[:, 0], answer[:, 2])
    third = torch.full((len(images),), 0.3)
    torch.testing.assert_close(adjust_hue(answer, third), answer)
    torch.testing.assert_close(scale_saturation(answer, third), answer)


def test_primaries_turn_into_each_other() -> None:
    red, green, blue = (torch.eye(3)[channel].view(1, 3, 1, 1) for channel in range(3))
    third = torch.tensor([1 / 3])
    torch.testing.assert_close(adjust_hue(red, third), green, atol=1e-6, rtol=0)
    torch.testing.assert_close(adjust_hue(green, third), blue, atol=1e-6, rtol=0)
    torch.testing.assert_close(adjust_hue(blue, third), red, atol=1e-6, rtol=0)


@given(images=photos())
def test_normalising_is_undone_by_denormalising(images: Tensor) -> None:
    torch.testing.assert_close(pure_call(denormalise, pure_call(normalise, images)), images)


def test_normalisation_is_imagenets() -> None:
    values = normalise(torch.tensor([124 / 255, 116 / 255, 104 / 255]).view(1, 3, 1, 1)).flatten()
    mmsegmentation = [(124 - 123.675) / 58.395, (116 - 116.28) / 57.12, (104 - 103.53) / 57.375]
    assert values.tolist() == pytest.approx(mmsegmentation, abs=1e-6)


# Draws, and what they do


def photometry_draws(count: int, seed: int, settings: PhotometrySettings | None = None) -> list[PhotometryDraw]:
    rng = rng_of(seed)
    return [draw_photometry(rng, settings or PhotometrySettings()) for _ in range(count)]


def distortion_draws(count: int, seed: int, settings: DistortionSettings | None = None) -> list[DistortionDraw]:
    rng = rng_of(seed)
    return [draw_distortion(rng, settings or DistortionSettings()) for _ in range(count)]


def by_hand(image: Tensor, draw: PhotometryDraw) -> Tensor:
    """One image, one operation after the other."""
    for operation in draw.order.tolist() if draw.jitter else []:
        image = JITTER[operation](image, draw.factors[operation : operation + 1])
    image = to_grey(image) if draw.grey else image
    return gaussian_blur(image, draw.sigma[None]) if draw.sigma > 0 else image


@given(images=photos(), seed=seeds)
def test_photometry_gives_each_image_its_operations_in_its_order(images: Tensor, seed: int) -> None:
    draws = photometry_draws(len(images), seed, PhotometrySettings(sigma=(1.0, 1.0)))
    answer = pure_call(apply_photometry, images, stack_draws(draws))
    expected = torch.cat([by_hand(image[None], draw) for image, draw in zip(images, draws, strict=True)])
    torch.testing.assert_close(answer, expected, rtol=0, atol=2e-6)
    assert answer.min() >= 0
    assert answer.max() <= 1 + 1e-6


def distorted_by_hand(image: Tensor, draw: DistortionDraw) -> Tensor:
    brightness, contrast, saturation, hue = draw.strengths[:, None]
    steps: list[tuple[Tensor, Operation, Tensor]] = [
        (draw.applied[0], shift_brightness, brightness),
        (draw.applied[1] & draw.contrast_first, adjust_brightness, contrast),
        (draw.applied[2], scale_saturation, saturation),
        (draw.applied[3], adjust_hue, hue),
        (draw.applied[1] & ~draw.contrast_first, adjust_brightness, contrast),
    ]
    for applied, operation, strength in steps:
        image = operation(image, strength) if applied else image
    return image


@given(images=photos(), seed=seeds)
def test_distortion_gives_each_image_its_operations(images: Tensor, seed: int) -> None:
    draws = distortion_draws(len(images), seed)
    answer = pure_call(apply_distortion, images, stack_draws(draws))
    expected = torch.cat([distorted_by_hand(image[None], draw) for image, draw in zip(images, draws, strict=True)])
    torch.testing.assert_close(answer, expected, rtol=0, atol=2e-6)
    assert answer.min() >= 0
    assert answer.max() <= 1 + 1e-6


@given(images=photos(), seed=seeds)
def test_what_was_not_drawn_is_not_applied(images: Tensor, seed: int) -> None:
    nothing = photometry_draws(len(images), seed, PhotometrySettings(jitter=0, grey=0, blur=0))
    assert torch.equal(pure_call(apply_photometry, images, stack_draws(nothing)), images)
    calm = distortion_draws(len(images), seed, DistortionSettings(probability=0))
    assert torch.equal(pure_call(apply_distortion, images, stack_draws(calm)), images)


@given(seed=seeds)
def test_bytes_and_floats_give_the_same(seed: int) -> None:
    images = torch.randint(256, (2, 3, 5, 4), dtype=torch.uint8, generator=rng_of(seed))
    draws, distortions = stack_draws(photometry_draws(2, seed)), stack_draws(distortion_draws(2, seed))
    floats = images.float() / 255
    assert torch.equal(pure_call(apply_photometry, images, draws), apply_photometry(floats, draws))
    assert torch.equal(pure_call(apply_distortion, images, distortions), apply_distortion(floats, distortions))


def test_no_pixel_is_read_back_from_the_device() -> None:
    images = torch.empty(8, 3, 16, 16, dtype=torch.uint8, device="meta")  # has no values: reading one raises
    answer = normalise(apply_photometry(images, stack_draws(photometry_draws(8, 0))))
    assert (answer.shape, answer.dtype) == ((8, 3, 16, 16), torch.float32)
    assert apply_distortion(images, stack_draws(distortion_draws(8, 0))).shape == (8, 3, 16, 16)


@given(seed=seeds)
def test_draws_are_a_function_of_the_generator(seed: int) -> None:
    draw = pure_call(draw_photometry, rng_of(seed), PhotometrySettings())
    assert sorted(draw.order.tolist()) == [0, 1, 2, 3]
    assert ((draw.factors[:3] - 1).abs() <= 0.4 + 1e-6).all()
    assert draw.factors[3].abs() <= 0.1 + 1e-6
    assert draw.sigma == 0 or 0.1 <= draw.sigma <= 2
    distortion = pure_call(draw_distortion, rng_of(seed), DistortionSettings())
    brightness, contrast, saturation, hue = distortion.strengths.tolist()
    assert abs(brightness) <= 32 / 255 + 1e-6
    assert 0.5 <= contrast <= 1.5
    assert 0.5 <= saturation <= 1.5
    assert round(180 * hue, 3) in range(-18, 18)


def test_draws_are_as_frequent_as_the_recipes_say() -> None:
    draws = stack_draws(photometry_draws(2000, 0))
    assert draws.jitter.float().mean().item() == pytest.approx(0.8, abs=0.04)
    assert draws.grey.float().mean().item() == pytest.approx(0.2, abs=0.04)
    assert (draws.sigma > 0).float().mean().item() == pytest.approx(0.5, abs=0.04)
    assert [(draws.order[:, 0] == k).float().mean().item() for k in range(4)] == pytest.approx([0.25] * 4, abs=0.04)
    distortions = stack_draws(distortion_draws(2000, 0))
    assert distortions.applied.float().mean(0).tolist() == pytest.approx([0.5] * 4, abs=0.04)
    assert distortions.contrast_first.float().mean().item() == pytest.approx(0.5, abs=0.04)
    half_degrees = (180 * distortions.strengths[:, 3]).round()
    assert (half_degrees.min(), half_degrees.max()) == (-18, 17)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jitter": 1.2}, r"jitter: expected a number in \[0, 1\], got 1.2"),
        ({"hue": 0.6}, "hue: expected a number of turns"),
        ({"sigma": (2.0, 0.1)}, "sigma: expected 0 <= low <= high"),
    ],
)
def test_impossible_photometry_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PhotometrySettings(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": -0.1}, "probability: expected"),
        ({"brightness": -1.0}, "0 or more"),
        ({"contrast": (1.5, 0.5)}, "contrast: expected low <= high"),
    ],
)
def test_impossible_distortion_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistortionSettings(**change)  # type: ignore[arg-type]
