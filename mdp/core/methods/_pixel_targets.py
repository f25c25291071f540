"""From the labels of pixels to their targets: what is given, what is mined, mixed labels, sparse coding.

Shape legend: V views, B images, C classes, D embedding channels, H x W image, h x w feature grid, N pixels, K targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mdp.core.batches import Batch, Blend
from mdp.core.bounds import Positive, Weight, check_bounds
from mdp.core.contrast import pixel_rows
from mdp.core.geometry import Grid, downsample_labels
from mdp.core.labels import IGNORE
from mdp.core.methods import Progress
from mdp.core.mixing import MixSettings
from mdp.core.pixel_mining import (
    MiningCounts,
    MiningSettings,
    clear_classes,
    either,
    mining_counts,
    over_pixels,
    weighed,
    withheld,
)
from mdp.core.prototype_bank import Prototypes
from mdp.core.targets import (
    Targets,
    hard_targets,
    mixed_targets,
    pixel_similarity,
    prototype_similarity,
    relaxed_targets,
    sparse_targets,
    targets_by_class,
)


@dataclass(frozen=True, kw_only=True)
class SparseSettings:
    """Cross-class sparse coding (eq. 8).  Off by default: it helps unseen domains only (Table 4)."""

    variant: str = "off"  # off | csc2 (the paper's: similar classes are pulled) | csc1 (merely not pushed away)
    k: Positive = 3  # chosen: a VOC class has one to three twins in the other taxonomies
    weight: Weight = 0.1  # authors: "low"; the number is chosen
    source: str = "pixel"  # chosen: top-K by similarity to the pixel; "prototype": to its class's prototype

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.variant not in ("off", "csc1", "csc2"):
            raise ValueError(f"variant: expected off, csc1 or csc2, got {self.variant!r}")
        if self.source not in ("pixel", "prototype"):
            raise ValueError(f"source: expected pixel or prototype, got {self.source!r}")


class TargetSettings(Protocol):
    """The settings that targets depend on."""

    @property
    def mix(self) -> MixSettings:
        """How images are mixed."""

    @property
    def sparse(self) -> SparseSettings:
        """Which other classes a pixel is pulled to."""

    @property
    def mining(self) -> MiningSettings | None:
        """How pixels without a label get one; None: not at all."""


def mined_views(
    views: Sequence[Batch],
    keys: Tensor,
    told: Tensor,
    known: Prototypes,
    groups: Tensor | None,
    settings: MiningSettings,
    grid: Grid,
    progress: Progress,
) -> tuple[list[Batch], MiningCounts]:
    """The views with what was mined in place of labels that are not given, and the counts of it.

    `told` (V B, h, w) are the labels on the grid, the truth about hidden ones among them: only the counts look at it.
    """
    highest = IGNORE + settings.ignored  # of labels that are not given, and one
    cells = torch.full_like(told, IGNORE)
    if progress.epoch >= settings.warmup_epochs:
        cells = clear_classes(keys, known, settings.threshold, settings.margin, groups)
    counts = mining_counts(cells, told, told < highest, groups)
    found = []
    for view, own in zip(views, cells.chunk(len(views)), strict=True):
        classes = over_pixels(own, grid, (view.labels.shape[1], view.labels.shape[2]))  # (B, H, W)
        found.append(view._replace(labels=torch.where(view.labels < highest, withheld(classes), view.labels)))
    return found, counts


def _plain_targets(blend: Blend, settings: MixSettings, grid: Grid) -> Targets:
    """The labels' own targets, mined ones as if they were given; they decide which pixels are valid."""
    first = either(downsample_labels(blend.first, *grid))  # (B, h, w)
    if settings.pixel:
        return mixed_targets(first, either(downsample_labels(blend.second, *grid)), blend.share)
    return hard_targets(first)


def label_targets(blend: Blend, settings: TargetSettings, grid: Grid) -> Targets:
    """The targets of the labels alone, without sparse coding."""
    return _weighed(_plain_targets(blend, settings.mix, grid), blend, settings, grid)


def _weighed(targets: Targets, blend: Blend, settings: TargetSettings, grid: Grid) -> Targets:
    """The targets with what mined labels count."""
    if settings.mining is None:
        return targets
    labels = [blend.first, blend.second] if settings.mix.pixel else [blend.first]
    mined = torch.stack([downsample_labels(some, *grid).flatten() < IGNORE for some in labels], 1)  # (N, 1 or 2)
    return weighed(targets, mined, settings.mining.weight)


def pixel_targets(query: Tensor, blend: Blend, known: Prototypes, settings: TargetSettings, grid: Grid) -> Targets:
    """The targets (N, K) of the pixels of mixed images, whose queries (B, D, h, w) sparse coding may ask for."""
    return _weighed(_full_targets(query, blend, known, settings, grid), blend, settings, grid)


def _full_targets(query: Tensor, blend: Blend, known: Prototypes, settings: TargetSettings, grid: Grid) -> Targets:
    targets, sparse = _plain_targets(blend, settings.mix, grid), settings.sparse
    if sparse.variant == "off":
        return targets
    if sparse.source == "pixel":
        return _sparse(targets, pixel_similarity(pixel_rows(query), known, unit=True), known, sparse)
    if settings.mix.pixel:
        return _sparse(targets, prototype_similarity(targets, known), known, sparse)
    every = hard_targets(torch.arange(len(known.present), device=query.device))  # pixels of a class have one answer
    table = _sparse(every, prototype_similarity(every, known), known, sparse)
    return targets_by_class(either(downsample_labels(blend.first, *grid)), table)


def _sparse(targets: Targets, similarity: Tensor, known: Prototypes, sparse: SparseSettings) -> Targets:
    """`similarity` (N, C)."""
    if sparse.variant == "csc1":
        return relaxed_targets(targets, similarity, known, sparse.k)
    return sparse_targets(targets, similarity, known, sparse.k, sparse.weight)
