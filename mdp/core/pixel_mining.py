"""Pixels without a label that are clearly of one class, and what a loss makes of them.

A photo may have no labels at all, a labelled one has pixels that are ignored.  Where the nearest prototype of such a
pixel is near enough, and leads the next one by enough, the pixel is pulled to it as one of that class would be, with a
weight of its own; it never feeds the prototypes.

Labels that are not given travel beside those that are, as numbers below `IGNORE`: `withheld` makes them of classes, and
classes of them.  Between the data and the step they are the truth about photos whose labels are hidden, which nothing
but a metric looks at; between mining and the loss they are the classes that were mined.
Shape legend: B images, C classes, D embedding channels, h x w feature grid, N pixels, K targets a pixel.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.bounds import Bounds, Weight, check_bounds
from mdp.core.geometry import Grid
from mdp.core.label_checks import expect_grid
from mdp.core.labels import IGNORE
from mdp.core.prototype_bank import Prototypes
from mdp.core.targets import Targets

_CHUNK = 2**24  # similarities at a time


@dataclass(frozen=True, kw_only=True)
class MiningSettings:
    """Which pixels without a label are mined, and what they count; "chosen" says that no paper has a number."""

    threshold: Annotated[float, Bounds(-1, 1)] = 0.8  # least cosine to the nearest prototype; chosen: docs/objective.md
    margin: Annotated[float, Bounds(0, 2)] = 0.1  # least lead over the next one; chosen
    warmup_epochs: Weight = 5  # before which nothing is mined; chosen
    weight: Weight = 1.0  # of a mined pixel, where a labelled one has 1; chosen
    ignored: bool = False  # ignored pixels of labelled photos are mined too

    def __post_init__(self) -> None:
        check_bounds(self)


def withheld(labels: Tensor) -> Tensor:
    """Labels as numbers that say they are not given, and such numbers as labels.

    >>> withheld(torch.tensor([-1, 0, 5])).tolist(), withheld(torch.tensor([-2, -3, -8])).tolist()
    ([-2, -3, -8], [-1, 0, 5])
    """
    return 2 * IGNORE - 1 - labels


def given(labels: Tensor) -> Tensor:
    """The labels that are given; `IGNORE` for others.

    >>> given(torch.tensor([3, -1, -2, -8])).tolist()
    [3, -1, -1, -1]
    """
    return labels.clamp(min=IGNORE)


def either(labels: Tensor) -> Tensor:
    """The classes of labels that are given and of those that are not.

    >>> either(torch.tensor([3, -1, -2, -8])).tolist()
    [3, -1, -1, 5]
    """
    return torch.where(labels < IGNORE, withheld(labels), labels)


def clear_classes(
    embeddings: Tensor, known: Prototypes, threshold: float, margin: float, groups: Tensor | None = None
) -> Tensor:
    """The class of the nearest prototype of each pixel, (B, h, w) int64, where it is clear; `IGNORE` elsewhere.

    `embeddings` (B, D, h, w) of unit length.  Clear is a cosine of `threshold` or more that leads those of all others
    by `margin` or more; classes of one of the `groups` (C,) are equal, and do not compete.  A prototype that is alone
    leads by any margin.  Without gradient.

    >>> known = Prototypes(torch.eye(2), torch.ones(2, dtype=torch.bool))
    >>> pixels = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]]).T.view(1, 2, 1, 3)
    >>> clear_classes(pixels, known, 0.7, 0.3).tolist()
    [[[0, -1, -1]]]
    """
    count, channels, height, width = embeddings.shape
    with torch.no_grad(), torch.autocast(embeddings.device.type, enabled=False):
        rows = embeddings.detach().float().permute(0, 2, 3, 1).reshape(-1, channels)  # (N, D)
        vectors = F.normalize(known.vectors.float(), dim=1)  # (C, D)
        own = torch.arange(len(vectors), device=rows.device) if groups is None else groups
        parts = torch.split(rows, max(1, _CHUNK // max(1, len(vectors))))
        found = [_clear(part @ vectors.T, known.present, threshold, margin, own) for part in parts]
        return torch.cat(found).view(count, height, width)


def _clear(cosines: Tensor, present: Tensor, threshold: float, margin: float, groups: Tensor) -> Tensor:
    """The same of cosines (N, C), (N,)."""
    cosines = cosines.masked_fill(~present, -torch.inf)
    best, classes = cosines.max(1)  # (N,)
    others = cosines.masked_fill(groups[classes][:, None] == groups, -torch.inf)  # (N, C)
    clear = (best >= threshold) & (best - others.amax(1) >= margin)  # without any prototype best is -inf
    return torch.where(clear, classes, IGNORE)


def over_pixels(cells: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """What cells (B, h, w) of a feature grid have, at each pixel (B, *size): that of the cell it is nearest to.

    At the pixels that `downsample_labels` takes it is the cell's own.

    >>> over_pixels(torch.tensor([[[1, 2]]]), Grid(4), (1, 6)).tolist()
    [[[1, 1, 2, 2, 2, 2]]]
    """
    index = []
    for length, count in zip(size, cells.shape[1:], strict=True):
        pixels = torch.arange(length, device=cells.device)
        index.append(((pixels + grid.stride // 2 - grid.offset) // grid.stride).clamp(0, count - 1))
    return cells[:, index[0][:, None], index[1]]


class MiningCounts(NamedTuple):
    """How many pixels were mined, and how often rightly; each () float32, they add up over processes."""

    candidates: Tensor  # pixels without a label
    mined: Tensor
    known: Tensor  # mined pixels of which the truth is known
    right: Tensor  # of these


def mining_counts(mined: Tensor, labels: Tensor, candidates: Tensor, groups: Tensor | None = None) -> MiningCounts:
    """The counts of `mined` classes (B, h, w), by labels (B, h, w) of which those not given are the truth.

    `candidates` (B, h, w) says which pixels may be mined.  A class equal to the true one, of the same of the `groups`
    (C,), is right too.  Raises ValueError when the grids differ.

    >>> labels = torch.tensor([[[0, -3, -4, -2]]])  # given, then 0, 1 and nothing that are not given
    >>> [int(count) for count in mining_counts(torch.tensor([[[-1, 0, 0, 1]]]), labels, labels < -1)]
    [3, 3, 2, 1]
    """
    expect_grid(labels[:, None], mined, candidates)
    truth = torch.where(labels < IGNORE, withheld(labels), IGNORE)
    taken = candidates & (mined != IGNORE)
    known = taken & (truth != IGNORE)
    first, second = mined.clamp(min=0), truth.clamp(min=0)
    same = first == second if groups is None else groups[first] == groups[second]
    return MiningCounts(*(which.sum().float() for which in (candidates, taken, known, known & same)))


def weighed(targets: Targets, mined: Tensor, weight: float) -> Targets:
    """The targets with mined labels counting `weight` in place of 1.

    `mined` (N, L) says which of a pixel's L labels are: the first L of its targets.  What was added to these, as sparse
    coding does, counts as they do on average, and so does the pixel in the mean.

    >>> from mdp.core.targets import hard_targets
    >>> targets = weighed(hard_targets(torch.tensor([2, 1])), torch.tensor([[True], [False]]), 0.5)
    >>> targets.weights.tolist(), targets.valid.tolist()
    ([[0.5], [1.0]], [0.5, 1.0])
    """
    count = mined.shape[1]
    full = targets.weights[:, :count]  # (N, L)
    own = torch.where(mined, weight * full, full)
    share = own.sum(1) / full.sum(1).clamp(min=torch.finfo(torch.float32).tiny)  # (N,)
    share = torch.where(mined.any(1), share, 1.0)  # exactly, where nothing was mined
    added = targets.weights[:, count:] * share[:, None]
    return targets._replace(weights=torch.cat([own, added], 1), valid=targets.valid * share)
