"""Targets of a pixel embedding: the weighted classes of the union (paper, eq. 4, 7 and 8).

Hard labels, pixel mixing and cross-class sparse coding are one thing, a few weighted target classes a pixel, and one
kernel (`contrast.nce`) serves them all.  Shape legend: N pixels, K targets a pixel, C classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.label_checks import expect_labels
from mdp.core.labels import IGNORE
from mdp.core.prototype_bank import Prototypes


class Targets(NamedTuple):
    """Weighted target classes of N pixels.

    `valid` is the pixel's weight in the mean of the loss: 1 for a labelled pixel, 0 for an ignored one, and the kept
    share for a mixed pixel one of whose labels is ignored.  `left_out` names classes that do not compete with the
    targets (CSC1); it is None when all classes do.
    """

    classes: Tensor  # (N, K) int64, 0 where the weight is 0
    weights: Tensor  # (N, K) float32
    valid: Tensor  # (N,) float32
    left_out: Tensor | None = None  # (N, L) int64; C means none


def hard_targets(labels: Tensor) -> Targets:
    """One target a pixel (eq. 4) from labels of any shape; `IGNORE` weighs nothing.

    Raises ValueError for other values below 0 (on the CPU), and for uint8, which has no `IGNORE`.

    >>> hard_targets(torch.tensor([2, -1]))[:3]
    (tensor([[2],
            [0]]), tensor([[1.],
            [0.]]), tensor([1., 0.]))
    """
    expect_labels(labels)
    flat = labels.flatten().long()
    valid = (flat != IGNORE).float()  # (N,)
    return Targets(flat.clamp(min=0)[:, None], valid[:, None], valid)


def mixed_targets(first: Tensor, second: Tensor, share: Tensor) -> Targets:
    """Two targets a pixel, the first with weight `share`, the second with the rest (eq. 7).

    `first`, `second` (B, h, w), `share` (B,).  An ignored label leaves the other its own weight.  Raises ValueError
    when the shapes differ, and for labels as `hard_targets` does.
    """
    if first.shape != second.shape or share.shape != first.shape[:1]:
        raise ValueError(
            f"labels {tuple(first.shape)} and {tuple(second.shape)} with shares {tuple(share.shape)}: expected "
            "(B, h, w) twice, and a share for each image"
        )
    expect_labels(first)
    expect_labels(second)
    lam = share.float()[:, None, None].expand(first.shape).flatten()  # (N,)
    classes = torch.stack([first.flatten(), second.flatten()], 1).long()  # (N, 2)
    weights = torch.stack([lam, 1 - lam], 1) * (classes != IGNORE)  # (N, 2)
    return Targets(classes.clamp(min=0), weights, weights.sum(1))


def targets_by_class(labels: Tensor, table: Targets) -> Targets:
    """The targets of pixels of which each has those of its class, row c of `table`; labels of any shape.

    Raises ValueError for labels that are no row of it.

    >>> targets_by_class(torch.tensor([2, -1]), hard_targets(torch.arange(3))).classes.tolist()
    [[2], [0]]
    """
    expect_labels(labels, len(table.classes))
    valid = labels.flatten() != IGNORE  # (N,)
    own = labels.flatten().long().clamp(min=0)  # (N,)
    left_out = None if table.left_out is None else torch.where(valid[:, None], table.left_out[own], len(table.classes))
    classes = torch.where(valid[:, None], table.classes[own], 0)
    return Targets(classes, table.weights[own] * valid[:, None], valid.float(), left_out)


def pixel_similarity(embeddings: Tensor, known: Prototypes, unit: bool = False) -> Tensor:
    """Cosine of each pixel (N, D) with each prototype, (N, C); without gradient.

    Pixels are divided by their length, unless `unit` says that they have unit length, or that it does not matter.
    """
    with torch.no_grad():
        rows = embeddings.float() if unit else F.normalize(embeddings.float(), dim=1)
        return rows @ known.vectors.T


def prototype_similarity(targets: Targets, known: Prototypes) -> Tensor:
    """Cosine of each pixel's own prototype with each prototype, (N, C).

    A mixed pixel counts as the weighted mean of its labels' prototypes, so its neighbours are those of the mixture.
    Raises ValueError for targets that are no class of the prototypes.
    """
    expect_labels(targets.classes, len(known.vectors))
    table = known.vectors @ known.vectors.T  # (C, C)
    return torch.einsum("nk,nkc->nc", targets.weights, table[targets.classes])


def _similar_classes(targets: Targets, similarity: Tensor, known: Prototypes, k: int) -> tuple[Tensor, Tensor]:
    """T_i: the `k` most similar classes (N, k), the pixel's own labels and absent classes excluded, and which exist."""
    candidates = similarity.masked_fill(~known.present, -torch.inf)  # (N, C)
    # a target of weight 0 is a placeholder and must not exclude class 0: it points at the spare column C
    own = torch.where(targets.weights > 0, targets.classes, similarity.shape[1])  # (N, K)
    candidates = F.pad(candidates, (0, 1), value=-torch.inf).scatter(1, own, -torch.inf)  # (N, C+1)
    values, classes = candidates.topk(min(k, similarity.shape[1]), dim=1)
    return classes, values > -torch.inf


def sparse_targets(targets: Targets, similarity: Tensor, known: Prototypes, k: int, weight: float) -> Targets:
    """Adds a pull of weight alpha/K towards each of the K most similar other classes (eq. 8, the paper's CSC2).

    `similarity` (N, C) is `pixel_similarity` or `prototype_similarity`.  The added term enters once, unscaled by the
    share of a mix, and ignored pixels stay without any target.
    """
    classes, exist = _similar_classes(targets, similarity, known, k)
    pull = (weight / k) * exist * (targets.valid > 0)[:, None]  # (N, k)
    return targets._replace(
        classes=torch.cat([targets.classes, torch.where(exist, classes, 0)], 1),
        weights=torch.cat([targets.weights, pull], 1),
    )


def relaxed_targets(targets: Targets, similarity: Tensor, known: Prototypes, k: int) -> Targets:
    """The variant CSC1 of the rebuttal: the K most similar classes are not pushed away, and not pulled either."""
    classes, exist = _similar_classes(targets, similarity, known, k)
    # an ignored pixel keeps its whole denominator: an empty one would turn its zero gradient into NaN
    leaves = exist & (targets.valid > 0)[:, None]  # (N, k)
    return targets._replace(left_out=torch.where(leaves, classes, similarity.shape[1]))
