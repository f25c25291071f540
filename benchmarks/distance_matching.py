"""Distance matching of a photo: each pixel's nearest labelled regions and their vote, on features enlarged four times.

Shape legend: D channels, h x w feature grid, M regions in memory, P pixels of the enlarged map.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate
from mdp.core.distance_matching import UPSAMPLING, Memory, nearest_classes

GRID = (8, 11)  # of a photo with short side 256, at stride 32
NEIGHBOURS, TEMPERATURE = 10, 0.07


def cases() -> dict[str, Callable[[], Case]]:
    """The memories of ImageNet-S 50, 300 and 919 with the backbones that they are scored with."""
    sizes = {
        "S50: M=1050 D=512": (1050, 512, 51, ()),
        "S300: M=6300 D=2048": (6300, 2048, 301, (Gate("plain", 3.5),)),
        "S919: M=19300 D=2048": (19300, 2048, 920, (Gate("plain", 5.0),)),
    }
    return {label: partial(_case, label, *size) for label, size in sizes.items()}


def _case(label: str, regions: int, channels: int, classes: int, gates: tuple[Gate, ...]) -> Case:
    rng = inputs.rng_of(1)
    kinds = torch.randn(classes, channels, generator=rng)

    def noisy(rows: Tensor) -> Tensor:
        return (rows + torch.randn(rows.shape, generator=rng)).relu()  # features behind a ReLU

    labels = torch.randint(0, classes, (regions,), generator=rng)
    memory = Memory(F.normalize(noisy(kinds[labels]), dim=1), labels)
    here = inputs.label_maps(rng, 1, *GRID, classes, own=3, ignored=0)[0]  # (h, w)
    features = noisy(kinds[here]).movedim(2, 0).contiguous()  # (D, h, w)
    entries = (
        Entry("nearest_classes", "ours", lambda: nearest_classes(features, memory, NEIGHBOURS, TEMPERATURE)),
        Entry("features enlarged, then all products", "plain", lambda: _plain(features, memory, classes)),
        Entry("products on the grid alone", "floor", lambda: memory.vectors @ features.flatten(1)),
    )
    return Case("distance matching", label, entries, gates, lambda: (_plain(features, memory, classes),))


def _plain(features: Tensor, memory: Memory, classes: int) -> Tensor:
    """The order of the released code: enlarge, divide by the length, compare with everything, vote."""
    large = F.interpolate(features[None], scale_factor=UPSAMPLING, mode="bilinear", align_corners=False)[0]
    scores = F.normalize(large.flatten(1).T, dim=1) @ memory.vectors.T  # (P, M)
    top = scores.topk(NEIGHBOURS, dim=1)
    votes = torch.zeros(len(scores), classes).scatter_add_(
        1, memory.labels[top.indices], (top.values / TEMPERATURE).exp()
    )
    return votes.argmax(1).view(large.shape[1:])
