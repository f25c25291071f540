"""Photometry on bytes: each operation beside its exact value and torchvision's bytes, and what runs make of it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from mdp.core import photometry_bytes
from mdp.core.photometry import (
    PhotometrySettings,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    apply_photometry,
    gaussian_blur,
    stack_draws,
    to_grey,
)
from mdp.core.photometry_bytes import apply_photometry_bytes, blur, blur_weights, fraction, luma
from mdp.io.data.cache.on_device import OnDevice
from mdp.io.data.crops import FinetuneItems, crop_batch, stack_crops
from mdp.io.data.views import PretrainItems, stack_views, usual_views, view_batches
from mdp.io.errors import RecipeError
from mdp.io.recipe.settings import FinetuneSettings, PretrainSettings
from tests.laws import pure_call
from tests.peers import library_or_skip
from tests.tensors import seeds
from tests.test_loading import shapes_pool
from tests.test_photometry import photometry_draws, picture

Bytes = NDArray[np.uint8]
CPU = torch.device("cpu")
BY_BYTES = PhotometrySettings(bytes=True)


def changed(image: Bytes, name: str, strength: float) -> Bytes:
    """An image (3, H, W) after an operation in place, so that the law of purity can be asked of it."""
    levels = getattr(photometry_bytes, name)(image.astype(np.int16), strength)
    assert (levels.min(), levels.max()) >= (0, 0)
    assert levels.max() <= 255
    return levels.astype(np.uint8)


@st.composite
def noise(draw: st.DrawFn) -> Bytes:
    """The hardest image: every colour beside any other, some grey, some of full saturation; (3, H, W)."""
    rng = np.random.default_rng(draw(seeds))
    image = rng.integers(0, 256, (3, draw(st.integers(1, 9)), draw(st.integers(1, 9))), dtype=np.uint8)
    kind = rng.integers(0, 5, image.shape[1:])
    image = np.where(kind == 0, image[:1], image)
    return np.where(kind == 1, np.uint8(255) * (image > 127), image).astype(np.uint8)


def exact(operation: Callable[[Tensor, Tensor], Tensor], image: Bytes, strength: float) -> NDArray[np.float64]:
    """The operation's value in float64, in levels."""
    double = torch.from_numpy(image)[None].double() / 255
    answer: NDArray[np.float64] = 255 * operation(double, torch.tensor([strength], dtype=torch.float64))[0].numpy()
    return answer


# half a level for rounding, one for the strength (to 1/256), what luma and mean are rounded by
OPERATIONS = [
    ("brightness_", adjust_brightness, 1.5, (0.0, 2.0)),
    ("contrast_", adjust_contrast, 2.0, (0.0, 2.0)),
    ("saturation_", adjust_saturation, 2.5, (0.0, 2.0)),
    ("hue_", adjust_hue, 1.5, (-0.5, 0.5)),
]
NAMES = [name for name, *_ in OPERATIONS]


@settings(max_examples=25)
@given(image=noise(), share=st.floats(0, 1))
@pytest.mark.parametrize(("name", "operation", "levels", "span"), OPERATIONS, ids=NAMES)
def test_an_operation_is_its_exact_value_to_a_level_or_two(
    name: str,
    operation: Callable[[Tensor, Tensor], Tensor],
    levels: float,
    span: tuple[float, float],
    image: Bytes,
    share: float,
) -> None:
    strength = span[0] + share * (span[1] - span[0])
    answer = pure_call(changed, image, name, strength)
    assert np.abs(answer - exact(operation, image, strength)).max() <= levels + 1e-6
    neutral = 0.0 if name == "hue_" else 1.0
    assert np.array_equal(changed(image, name, neutral), image)


@settings(max_examples=25)
@given(image=noise(), sigma=st.floats(0, 4))
def test_luma_and_blur_are_their_exact_values_to_some_levels(image: Bytes, sigma: float) -> None:
    levels = image.astype(np.int16)
    grey = pure_call(luma, levels)
    assert np.abs(grey - exact(lambda x, _: to_grey(x)[:, 0], image, 0)).max() <= 1
    blurred = pure_call(blur, levels, sigma)
    apart = np.abs(blurred - exact(gaussian_blur, image, sigma))
    assert apart.max() <= 4  # weights to 1/256, beside pixels of any other colour
    weights = blur_weights(sigma)
    assert weights[0] + 2 * sum(weights[1:]) == 256
    assert np.array_equal(blur(np.full_like(levels, 255), sigma), np.full_like(levels, 255))
    assert np.array_equal(blur(levels[:, ::-1], sigma), blurred[:, ::-1])


@given(number=st.floats(-1, 1))
def test_a_level_times_a_strength_fits_into_sixteen_bits_and_no_bit_is_wasted(number: float) -> None:
    top, bits = found = fraction(number)
    assert 255 * abs(top) + found.half < 2**15
    assert abs(top / 2**bits - number) <= 2.0 ** -(bits + 1)
    assert not number or bits == 15 or 255 * abs(round(number * 2 ** (bits + 1))) + 2**bits >= 2**15


def test_operations_on_colours_by_hand() -> None:
    image = np.array([[[200, 10]], [[100, 10]], [[0, 10]]], dtype=np.uint8)  # orange and dark grey
    assert changed(image, "brightness_", 1.5)[:, 0].tolist() == [[255, 15], [150, 15], [0, 15]]
    assert luma(image.astype(np.int16)).tolist() == [[119, 10]]  # 0.299 * 200 + 0.587 * 100 = 118.5
    assert changed(image, "saturation_", 0.5)[:, 0].tolist() == [[160, 10], [110, 10], [60, 10]]
    assert changed(image, "contrast_", 0.5)[:, 0].tolist() == [[132, 37], [82, 37], [32, 37]]  # the mean luma is 64
    assert changed(image, "hue_", 1 / 3)[:, 0].tolist() == [[0, 10], [200, 10], [100, 10]]
    assert changed(image, "hue_", -0.5)[:, 0].tolist() == [[0, 10], [100, 10], [200, 10]]
    assert changed(image, "hue_", 1 / 12)[:, 0].tolist() == [[200, 10], [200, 10], [0, 10]]  # yellow
    point = np.zeros((1, 5, 5), dtype=np.int16)
    point[0, 2, 2] = 255
    assert blur_weights(0.5) == [202, 27]
    assert blur(point, 0.5)[0, 1:4, 1:4].tolist() == [[3, 21, 3], [21, 159, 21], [3, 21, 3]]


@pytest.mark.parametrize("seed", range(2))
def test_operations_are_torchvisions_on_bytes_to_a_level_or_so(seed: int) -> None:
    v2 = library_or_skip("torchvision.transforms.v2").functional
    photo = picture(seed)[0]
    levels = photo.numpy()
    for factor in (0.6, 0.9, 1.3):
        for name, theirs in (
            ("brightness_", v2.adjust_brightness),
            ("contrast_", v2.adjust_contrast),
            ("saturation_", v2.adjust_saturation),
        ):
            apart = np.abs(changed(levels, name, factor).astype(int) - theirs(photo, factor).numpy())
            assert apart.max() <= 2  # it cuts off what we round
            assert apart.mean() <= 0.8
    for turns in (-0.1, 0.04):
        apart = np.abs(changed(levels, "hue_", turns).astype(int) - v2.adjust_hue(photo, turns).numpy())
        assert apart.max() <= 2
    grey = luma(levels.astype(np.int16)) - v2.rgb_to_grayscale(photo).numpy()[0].astype(int)
    assert np.abs(grey).max() <= 1
    for sigma in (0.5, 1.0, 2.0):
        theirs = v2.gaussian_blur(photo, [2 * int(np.ceil(3 * sigma)) + 1] * 2, [sigma] * 2).numpy()
        apart = np.abs(blur(levels.astype(np.int16), sigma) - theirs)[:, 6:-6, 6:-6]  # it mirrors at edges
        assert apart.max() <= 3
        assert apart.mean() <= 0.5


@given(seed=seeds)
@settings(max_examples=15)
def test_a_draw_means_on_bytes_what_it_means_on_floats(seed: int) -> None:
    photo = picture(seed % 7)
    (draw,) = photometry_draws(1, seed)
    answer = pure_call(apply_photometry_bytes, photo[0], draw)
    assert answer.dtype == torch.uint8
    apart = (answer.double() - 255 * apply_photometry(photo, stack_draws([draw]))[0].double()).abs()
    assert apart.mean() <= 1
    assert apart.flatten().quantile(0.99) <= 4


def test_what_was_not_drawn_leaves_every_byte() -> None:
    photo = picture(0)
    (draw,) = photometry_draws(1, 0, PhotometrySettings(jitter=0, grey=0, blur=0))
    assert torch.equal(apply_photometry_bytes(photo[0], draw), photo[0])


def test_views_on_bytes_are_those_on_floats_to_some_levels_and_the_same_on_every_device() -> None:
    pool, usual = shapes_pool("shapes-fine"), usual_views(PretrainSettings(crop=40))
    group = replace(usual.groups[0], auto_augment=(0.5, 0.0))
    floats = replace(usual, groups=(group,))
    by_bytes = replace(floats, photometry=BY_BYTES)

    def views(plan: Any, finish: bool) -> Any:
        items = PretrainItems(pool, plan, 3, finish=finish)
        return stack_views([items[0, index] for index in range(8)])

    early, late, plain = views(by_bytes, True), views(by_bytes, False), views(floats, True)
    assert late.images[0].dtype == torch.uint8
    assert (late.draws, late.autos) == ((), ())
    for first, second, third in zip(*(view_batches(each, CPU) for each in (early, late, plain)), strict=True):
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.labels, third.labels)
        assert torch.equal(first.frames, third.frames)  # type: ignore[arg-type]
        assert 0 < (first.images - third.images).abs().mean() <= 1 / 255 / 0.225


def test_fine_tuning_on_bytes_is_that_on_floats_to_some_levels() -> None:
    pool = shapes_pool("shapes-fine")
    usual = FinetuneSettings(crop=(40, 72), photometry=PhotometrySettings())  # wider than its photos

    def batch(photometry: PhotometrySettings, finish: bool) -> Any:
        items = FinetuneItems(pool, replace(usual, photometry=photometry), 3, finish)
        return crop_batch(stack_crops([items[0, index] for index in range(6)]), CPU)

    early, late, plain = batch(BY_BYTES, True), batch(BY_BYTES, False), batch(PhotometrySettings(), True)
    assert torch.equal(early.images, late.images)
    assert torch.equal(early.labels, plain.labels)
    assert torch.equal(early.images == 0, plain.images == 0)
    assert 0 < (early.images - plain.images).abs().mean() <= 1 / 255 / 0.225


def test_bytes_are_refused_where_there_are_none() -> None:
    pool = shapes_pool("shapes-fine")
    (name,) = pool.datasets
    five = replace(
        pool.datasets[name],
        photos=pool.datasets[name].photos._replace(bands=(1, 2, 3, 4, 5), mean=(0.5,) * 5, std=(1.0,) * 5),
    )
    other = pool._replace(datasets={name: five})
    with pytest.raises(
        RecipeError, match=r"photometry\.bytes: it is for RGB of 8 bits, and shapes-fine has other chan"
    ):
        PretrainItems(other, usual_views(PretrainSettings(photometry=BY_BYTES)), 0)
    with pytest.raises(RecipeError, match=r"finetune\.photometry\.bytes: it is for RGB of 8 bits"):
        FinetuneItems(other, FinetuneSettings(photometry=BY_BYTES), 0)
    items: Any = PretrainItems(pool, usual_views(PretrainSettings(photometry=BY_BYTES)), 0)
    with pytest.raises(RecipeError, match=r"run\.cache: device: .* on cuda, and photometry\.bytes is for a CPU"):
        OnDevice(items, None, stack_views, torch.device("cuda"))  # type: ignore[arg-type]
