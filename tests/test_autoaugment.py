"""AutoAugment: the same bytes as Pillow, for every operation, level and direction."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from mdp.core.autoaugment import (
    FIXED,
    LEVELS,
    MATRICES,
    PIXELS,
    POLICY,
    TABLES,
    AutoDraw,
    apply_auto,
    augment,
    draw_auto,
    no_auto,
)
from mdp.core.autoaugment_batched import apply_auto_batch, augment_batch
from tests.laws import pure_call
from tests.peers import library_or_skip
from tests.tensors import rng_of

NEAREST = Image.Resampling.NEAREST


def linspace(low: float, high: float, level: int) -> float:
    return float(np.linspace(low, high, LEVELS)[level])


def factor(level: int, sign: int) -> float:
    return 1 + sign * linspace(0, 0.9, level)


def moved(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, NEAREST)


ORACLE: dict[str, Callable[[Image.Image, int, int], Image.Image]] = {
    "posterize": lambda image, level, sign: ImageOps.posterize(image, [8, 8, 7, 7, 6, 6, 5, 5, 4, 4][level]),
    "solarize": lambda image, level, sign: ImageOps.solarize(image, linspace(256, 0, level)),  # type: ignore[arg-type]
    "invert": lambda image, level, sign: ImageOps.invert(image),
    "equalize": lambda image, level, sign: ImageOps.equalize(image),
    "autocontrast": lambda image, level, sign: ImageOps.autocontrast(image),
    "brightness": lambda image, level, sign: ImageEnhance.Brightness(image).enhance(factor(level, sign)),
    "contrast": lambda image, level, sign: ImageEnhance.Contrast(image).enhance(factor(level, sign)),
    "color": lambda image, level, sign: ImageEnhance.Color(image).enhance(factor(level, sign)),
    "sharpness": lambda image, level, sign: ImageEnhance.Sharpness(image).enhance(factor(level, sign)),
    "shear_x": lambda image, level, sign: moved(image, 1, sign * linspace(0, 0.3, level), 0, 0, 1, 0),
    "shear_y": lambda image, level, sign: moved(image, 1, 0, 0, sign * linspace(0, 0.3, level), 1, 0),
    "translate_x": lambda image, level, sign: moved(
        image, 1, 0, sign * linspace(0, 150 / 331, level) * image.width, 0, 1, 0
    ),
    "translate_y": lambda image, level, sign: moved(
        image, 1, 0, 0, 0, 1, sign * linspace(0, 150 / 331, level) * image.height
    ),
    "rotate": lambda image, level, sign: image.rotate(sign * linspace(0, 30, level), NEAREST),
}


def pillow(pixels: np.ndarray, operations: list[tuple[str, int, int]]) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    for name, level, sign in operations:
        image = ORACLE[name](image, level, sign)
    return np.array(image).transpose(2, 0, 1)


def picture(seed: int, height: int, width: int, kind: str) -> np.ndarray:
    """Noise, a few values, one colour, a ramp that leaves out both ends, or a photo's soft shapes."""
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return rng.integers(0, 256, (3, height, width), dtype=np.uint8)
    if kind == "few":
        return rng.choice(rng.integers(0, 256, 4, dtype=np.uint8), (3, height, width))
    if kind == "one":
        return np.broadcast_to(rng.integers(0, 256, (3, 1, 1), dtype=np.uint8), (3, height, width)).copy()
    ramp = np.linspace(rng.integers(0, 60), rng.integers(90, 250), height * width).reshape(1, height, width)
    return (ramp * rng.uniform(0.3, 1, (3, 1, 1))).astype(np.uint8)


KINDS = ("noise", "few", "one", "ramp")
CHAINS = st.lists(
    st.tuples(st.sampled_from(list(ORACLE)), st.integers(0, LEVELS - 1), st.sampled_from([-1, 1])), max_size=4
)


def test_every_operation_is_there() -> None:
    assert {*FIXED, *TABLES, *MATRICES, *PIXELS} == {*ORACLE}
    assert len(ORACLE) == 14


@pytest.mark.parametrize("name", ORACLE)
def test_each_operation_gives_pillows_bytes_at_every_level(name: str) -> None:
    for number, (level, sign) in enumerate((level, sign) for level in range(LEVELS) for sign in (-1, 1)):
        for kind in KINDS:
            pixels = picture(number, 17 + number, 40 - number, kind)
            operations = [(name, level, sign)]
            np.testing.assert_array_equal(
                augment(pixels, operations), pillow(pixels, operations), err_msg=f"{operations} {kind}"
            )


@given(
    seed=st.integers(0, 10**6), height=st.integers(1, 40), width=st.integers(1, 40), kind=st.sampled_from(KINDS),
    operations=CHAINS,
)  # fmt: skip
def test_chains_of_operations_give_pillows_bytes(
    seed: int, height: int, width: int, kind: str, operations: list[tuple[str, int, int]]
) -> None:
    pixels = picture(seed, height, width, kind)
    before = pixels.copy()
    np.testing.assert_array_equal(augment(pixels, operations), pillow(pixels, operations))
    np.testing.assert_array_equal(pixels, before)


def test_the_policy_is_the_published_one() -> None:
    torchvision: Any = library_or_skip("torchvision.transforms.autoaugment")
    theirs = torchvision.AutoAugment(torchvision.AutoAugmentPolicy.IMAGENET).policies
    ours = [[(o.name.replace("_", ""), o.probability, o.level) for o in pair] for pair in POLICY]
    assert ours == [[(name.lower(), p, level or 0) for name, p, level in pair] for pair in theirs]


def test_draws_are_a_function_of_their_generator_and_as_likely_as_the_policy_says() -> None:
    draws = [pure_call(draw_auto, rng_of(seed)) if seed < 5 else draw_auto(rng_of(seed)) for seed in range(2000)]
    chosen = torch.stack([draw.policy for draw in draws]).bincount(minlength=len(POLICY))
    assert 40 < int(chosen.min()) <= int(chosen.max()) < 130  # 80 of each are expected
    for number, pair in enumerate(POLICY):
        own = [draw for draw in draws if int(draw.policy) == number]
        for place, operation in enumerate(pair):
            share = sum(bool(draw.applied[place]) for draw in own) / len(own)
            assert abs(share - operation.probability) < 0.25
    signs = torch.stack([draw.signs for draw in draws])
    assert {*signs.unique().tolist()} == {-1, 1}
    assert abs(float(signs.double().mean())) < 0.1


def test_what_is_drawn_is_what_is_applied() -> None:
    pixels = picture(0, 20, 30, "noise")
    for seed in range(60):
        draw = draw_auto(rng_of(seed))
        pair = zip(POLICY[int(draw.policy)], draw.applied.tolist(), draw.signs.tolist(), strict=True)
        operations = [(o.name, o.level, sign) for o, applied, sign in pair if applied]
        np.testing.assert_array_equal(apply_auto(pixels, draw), pillow(pixels, operations))


# Whole batches


@pytest.mark.parametrize("name", ORACLE)
def test_a_batch_gives_the_bytes_of_single_images_at_every_level(name: str) -> None:
    operations = [(name, level, sign) for level in range(LEVELS) for sign in (-1, 1)]
    pixels = np.stack([picture(number, 21, 34, KINDS[number % 4]) for number in range(len(operations))])
    found = pure_call(augment_batch, torch.from_numpy(pixels), [[step] for step in operations])
    for own, step, image in zip(pixels, operations, found, strict=True):
        np.testing.assert_array_equal(image.numpy(), augment(own, [step]), err_msg=str(step))


@given(
    seed=st.integers(0, 10**6), height=st.integers(1, 24), width=st.integers(1, 24),
    chains=st.lists(CHAINS, min_size=1, max_size=6),
)  # fmt: skip
def test_a_batch_gives_the_bytes_of_single_images_whatever_each_takes(
    seed: int, height: int, width: int, chains: list[list[tuple[str, int, int]]]
) -> None:
    pixels = np.stack([picture(seed + n, height, width, KINDS[n % 4]) for n in range(len(chains))])
    found = augment_batch(torch.from_numpy(pixels), chains)
    for own, steps, image in zip(pixels, chains, found, strict=True):
        np.testing.assert_array_equal(image.numpy(), augment(own, steps))


def test_a_batch_of_draws_is_changed_as_its_images_are() -> None:
    pixels = np.stack([picture(seed, 20, 30, "noise") for seed in range(60)])
    draws = [draw_auto(rng_of(seed)) for seed in range(59)] + [no_auto()]
    stacked = AutoDraw(*map(torch.stack, zip(*draws, strict=True)))
    found = apply_auto_batch(torch.from_numpy(pixels), stacked).numpy()
    np.testing.assert_array_equal(found, np.stack([apply_auto(*each) for each in zip(pixels, draws, strict=True)]))
    np.testing.assert_array_equal(found[-1], pixels[-1])
