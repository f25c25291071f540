"""Pixel attention of a backbone's last map, four times as fine: its forward pass and its gradient (arXiv 2106.03149).

Shape legend: B images, C channels, h x w cells of the last map.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate
from mdp.core.networks.projection_heads import projection
from mdp.core.pixel_attention import attended_directions


def cases() -> dict[str, Callable[[], Case]]:
    """ResNet-18's map, and ResNet-50's, of 224 pixels."""
    gate = (Gate("plain", 1.7),)
    sizes: dict[str, tuple[int, int, tuple[Gate, ...]]] = {
        "B=4 C=512 7x7": (4, 512, ()),
        "B=2 C=2048 7x7": (2, 2048, gate),
    }
    return {label: partial(_case, label, *size) for label, size in sizes.items()}


def _case(label: str, images: int, channels: int, gates: tuple[Gate, ...]) -> Case:
    maps = torch.randn(images, channels, 7, 7, generator=inputs.rng_of(1)).relu()
    head = projection((channels, channels, channels), conv=True, norm=True, last_norm="affine")
    exact = copy.deepcopy(head).double()
    threshold = torch.zeros(channels)
    entries = (
        Entry("attended_directions", "ours", lambda: _graded(head, _ours(maps, head, threshold))),
        Entry("all on the finer grid", "plain", lambda: _graded(head, _plain(maps, head, threshold))),
    )
    expected = lambda: _graded(exact, _plain(maps.double(), exact, threshold.double()))  # noqa: E731
    return Case("pixel attention", label, entries, gates, expected)


def _graded(head: nn.Sequential, vectors: Tensor) -> Sequence[Tensor]:
    """Image vectors, and the gradient of the sum of their squares for the second convolution."""
    weight = head[3].weight
    assert isinstance(weight, Tensor)
    gradients = torch.autograd.grad(vectors.square().sum() * 1e6, list(head.parameters()))
    return vectors.detach(), gradients[3]


def _ours(maps: Tensor, head: nn.Sequential, threshold: Tensor) -> Tensor:
    return attended_directions(maps, head[0], head[1:], threshold)


def _plain(maps: Tensor, head: nn.Sequential, threshold: Tensor) -> Tensor:
    """As the paper writes it."""
    raised = F.interpolate(maps, scale_factor=4, mode="bilinear", align_corners=False)
    unit = F.normalize(raised, dim=1)
    attention = torch.sigmoid(head(unit) + threshold[:, None, None])
    return (unit * attention).mean((2, 3))
