"""AutoAugment's policy for ImageNet on a view of bytes, as drawn: ours, Pillow's operations, torchvision on tensors.

A call changes one view by 50 draws, each of the 25 pairs of operations twice.  Pillow starts from an image of its own
and ends with one, so that no conversion counts; torchvision draws for itself.  The floor is of the same operations the
calls alone that look at every pixel: a histogram and a look-up, a look-up, a gather, a luma and a blend.
"""

from collections.abc import Callable
from functools import partial
from types import ModuleType

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate, Run
from benchmarks.peers import load, peer
from mdp.core.autoaugment import LEVELS, POLICY, AutoDraw, apply_auto, draw_auto

PILLOW, TENSORS, IMAGES = "Pillow", "torchvision v2, tensors", "torchvision v2, Pillow images"
NEAREST = Image.Resampling.NEAREST
Steps = list[tuple[str, int, int]]  # operation, level, sign


def cases() -> dict[str, Callable[[], Case]]:
    """The two sizes of views of kNN-MoCo."""
    return {f"{side}x{side}": partial(_case, side) for side in (96, 160)}


def _case(side: int) -> Case:
    view, draws = _view(side), _draws()
    image = Image.fromarray(np.ascontiguousarray(view.transpose(1, 2, 0)))
    steps = [_steps(draw) for draw in draws]
    v2 = "torchvision.transforms.v2"
    entries = (
        Entry("apply_auto", "ours", lambda: [torch.from_numpy(apply_auto(view, draw)) for draw in draws]),
        Entry(PILLOW, "peer", lambda: [_by_pillow(image, each) for each in steps], exact=False),
        peer(TENSORS, v2, partial(_torchvision, torch.from_numpy(view), len(draws)), exact=False),
        peer(IMAGES, v2, partial(_torchvision, image, len(draws)), exact=False),
        Entry("the calls that look at every pixel", "floor", partial(_bare, view, steps), exact=False),
    )
    names = {entry.name.partition(" (")[0]: entry.name for entry in entries}
    gates = (Gate(PILLOW, at_most=1.1), Gate(names[TENSORS], 5.0))
    expected = partial(_bytes, image, steps)
    return Case("AutoAugment", f"{side}x{side}, {len(draws)} draws", entries, gates, expected)


def _view(side: int) -> np.ndarray:
    """Waves and grain, (3, s, s)."""
    y, x = np.mgrid[:side, :side]
    pixels = np.stack([128 + 90 * np.sin(x / 40 + c) + 60 * np.cos(y / (25 + 5 * c)) for c in range(3)])
    return (pixels + np.random.default_rng(0).normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8)


def _draws() -> list[AutoDraw]:
    rng = inputs.rng_of(0)
    return [
        draw_auto(rng)._replace(policy=torch.tensor(number), applied=_coins(number, rng))
        for number in range(len(POLICY))
        for _ in range(2)
    ]


def _coins(number: int, rng: torch.Generator) -> Tensor:
    probabilities = torch.tensor([operation.probability for operation in POLICY[number]])
    return torch.rand(2, generator=rng) <= probabilities


def _steps(draw: AutoDraw) -> Steps:
    chosen = zip(POLICY[int(draw.policy)], draw.applied.tolist(), draw.signs.tolist(), strict=True)
    return [(operation.name, operation.level, sign) for operation, applied, sign in chosen if applied]


def _bytes(image: Image.Image, steps: list[Steps]) -> list[Tensor]:
    return [torch.from_numpy(np.array(_by_pillow(image, each)).transpose(2, 0, 1)) for each in steps]


def _by_pillow(image: Image.Image, steps: Steps) -> Image.Image:
    for name, level, sign in steps:
        image = _OPERATIONS[name](image, level, sign)
    return image


def _bare(view: np.ndarray, steps: list[Steps]) -> None:
    """What is left of each operation when tables, places and strengths cost nothing."""
    channels, places = torch.from_numpy(view).flatten(1), np.arange(view[0].size)[::-1].copy()
    for name in (name for each in steps for name, _, _ in each):
        if name in ("equalize", "autocontrast"):
            for channel in channels:
                channel.bincount(minlength=256)
        if name in ("rotate", "shear_x"):
            view.reshape(3, -1).take(places, axis=1)
        elif name in ("color", "contrast", "sharpness"):
            (view[0] * np.float32(0.3) + view[1] * np.float32(0.6) + view[2] * np.float32(0.1)).astype(np.uint8)
        if name in ("color", "sharpness"):
            (view.astype(np.float32) * np.float32(1.1)).astype(np.uint8)
        elif name not in ("rotate", "shear_x"):
            bytearray(view).translate(_TABLE)


_TABLE = bytes(range(256))


def _share(level: int, most: float) -> float:
    return most * level / (LEVELS - 1)


_OPERATIONS: dict[str, Callable[[Image.Image, int, int], Image.Image]] = {
    "posterize": lambda image, level, sign: ImageOps.posterize(image, [8, 8, 7, 7, 6, 6, 5, 5, 4, 4][level]),
    "solarize": lambda image, level, sign: ImageOps.solarize(image, 256 - _share(level, 256)),  # type: ignore[arg-type]
    "invert": lambda image, level, sign: ImageOps.invert(image),
    "equalize": lambda image, level, sign: ImageOps.equalize(image),
    "autocontrast": lambda image, level, sign: ImageOps.autocontrast(image),
    "contrast": lambda image, level, sign: ImageEnhance.Contrast(image).enhance(1 + sign * _share(level, 0.9)),
    "color": lambda image, level, sign: ImageEnhance.Color(image).enhance(1 + sign * _share(level, 0.9)),
    "sharpness": lambda image, level, sign: ImageEnhance.Sharpness(image).enhance(1 + sign * _share(level, 0.9)),
    "rotate": lambda image, level, sign: image.rotate(sign * _share(level, 30), NEAREST),
    "shear_x": lambda image, level, sign: image.transform(
        image.size, Image.Transform.AFFINE, (1, sign * _share(level, 0.3), 0, 0, 1, 0), NEAREST
    ),
}  # what the policy has of them


def _torchvision(image: Tensor | Image.Image, count: int, v2: ModuleType) -> Run:
    policies = load("torchvision.transforms.autoaugment")
    assert policies is not None
    augment = v2.AutoAugment(policies.AutoAugmentPolicy.IMAGENET)
    return lambda: [augment(image) for _ in range(count)]
