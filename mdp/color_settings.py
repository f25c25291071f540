"""Settings of what `mdp.core.photometry` does to colours.  Plain data: nothing here needs NumPy or torch."""

from dataclasses import dataclass
from typing import Annotated

from mdp.bounds import Bounds, Share, check_bounds

Sigma = Annotated[float, Bounds(0, 100, "pixels")]  # 301 taps on each side at the most
Factor = Annotated[float, Bounds(0, 100)]


@dataclass(frozen=True, kw_only=True)
class PhotometrySettings:
    """MoCo-v2's augmentation (stated: "the same augmentations as MoCo-v2"; numbers from its code)."""

    jitter: Share = 0.8  # probability of colour jitter
    brightness: Share = 0.4  # factors from U(1 - x, 1 + x)
    contrast: Share = 0.4
    saturation: Share = 0.4
    hue: Annotated[float, Bounds(0, 0.5, "turns")] = 0.1  # turns, from U(-x, x)
    grey: Share = 0.2  # probability
    blur: Share = 0.5  # probability
    sigma: tuple[Sigma, Sigma] = (0.1, 2.0)  # pixels, of the blur
    bytes: bool = False  # in whole numbers on a CPU, rounded after each operation: half the time; docs/speed.md

    def __post_init__(self) -> None:
        check_bounds(self)
        if not 0 <= self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"sigma: expected 0 <= low <= high, got {list(self.sigma)}")


@dataclass(frozen=True, kw_only=True)
class DistortionSettings:
    """MMSegmentation's photometric distortion; its numbers, each operation with its own coin."""

    probability: Share = 0.5
    brightness: Annotated[float, Bounds(0, 255)] = 32.0  # of 255, added from U(-x, x)
    contrast: tuple[Factor, Factor] = (0.5, 1.5)
    saturation: tuple[Factor, Factor] = (0.5, 1.5)
    hue: Annotated[int, Bounds(0, 180)] = 18  # OpenCV half-degrees, a whole number from -x to x - 1

    def __post_init__(self) -> None:
        check_bounds(self)
        for name in ("contrast", "saturation"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: expected low <= high, got {[low, high]}")
