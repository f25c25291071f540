"""Made inputs that look like training's: label maps in patches, a dozen classes an image, some pixels ignored."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.labels import IGNORE
from mdp.core.prototype_bank import Prototypes

LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def rng_of(seed: int) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def graded(raw: Tensor, loss: Callable[[Tensor], Tensor]) -> Callable[[], tuple[Tensor, Tensor]]:
    """A function that computes the value and the gradient of a loss of `raw`."""

    def run() -> tuple[Tensor, Tensor]:
        leaf = raw.detach().requires_grad_()
        value = loss(leaf)
        (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach(), gradient

    return run


def embeddings(
    rng: torch.Generator, count: int, channels: int, height: int, width: int, layout: str = "NCHW"
) -> Tensor:
    """(B, D, h, w) float32, of different lengths."""
    made = torch.randn(count, channels, height, width, generator=rng)
    return made.contiguous(memory_format=LAYOUTS[layout])


def label_maps(
    rng: torch.Generator, count: int, height: int, width: int, classes: int, own: int = 12, ignored: float = 0.1,
    patches: int = 8,
) -> Tensor:  # fmt: skip
    """(B, h, w) int64 of patches x patches, about `own` classes an image; -1 for the `ignored` share of pixels."""
    palette = torch.stack([torch.randperm(classes, generator=rng)[:own] for _ in range(count)])  # (B, own)
    places = torch.randint(palette.shape[1], (count, patches**2), generator=rng)
    maps = palette.gather(1, places).view(count, 1, patches, patches).float()
    maps = F.interpolate(maps, size=(height, width), mode="nearest")[:, 0].long()
    return maps.masked_fill(torch.rand(maps.shape, generator=rng) < ignored, IGNORE)


def prototypes(rng: torch.Generator, classes: int, channels: int) -> Prototypes:
    """A unit vector for each of C classes."""
    vectors = F.normalize(torch.randn(classes, channels, generator=rng), dim=1)
    return Prototypes(vectors, torch.ones(classes, dtype=torch.bool))


def unit(rng: torch.Generator, rows: int, channels: int) -> Tensor:
    """(N, D) of length 1."""
    return F.normalize(torch.randn(rows, channels, generator=rng), dim=1)
