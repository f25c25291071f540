"""The contrastive kernel: log-softmax over candidates, weighted by targets (paper, eq. 4, 7 and 8).

One `log_softmax` and a gather serve hard, mixed and sparse-coded targets alike.  Losses come as a total and a weight,
so that the mean can be taken over the pixels of all processes.  Always float32, whatever the autocast.
Shape legend: B images, C classes, D embedding channels, h x w feature grid, N pixels, K targets a pixel.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.prototypes import Prototypes
from mdp.core.targets import Targets


class WeightedLoss(NamedTuple):
    """A sum of pixel losses and the sum of the pixels' weights; the loss is total / weight."""

    total: Tensor  # () float32, with gradient
    weight: Tensor  # () float32

    def mean(self) -> Tensor:
        """total / weight; 0, with gradient 0, when no pixel is valid."""
        return self.total / self.weight.clamp(min=torch.finfo(torch.float32).tiny)


def pixel_rows(embeddings: Tensor) -> Tensor:
    """Pixel embeddings (B, D, h, w) as rows (B h w, D) in the order of a flattened (B, h, w) label map."""
    return embeddings.flatten(2).transpose(1, 2).reshape(-1, embeddings.shape[1])


def class_logits(rows: Tensor, known: Prototypes, temperature: float) -> Tensor:
    """q.c / temperature for each pixel and class, (N, C) float32; -inf for classes without a prototype.

    The prototypes carry no gradient: they are a classifier that is not trained.
    """
    logits = rows.float() @ known.vectors.detach().T / temperature  # (N, C)
    return logits.masked_fill(~known.present, -torch.inf)


def nce(logits: Tensor, targets: Targets) -> WeightedLoss:
    """- sum_k weight_k log p(class_k), summed over pixels (eq. 4, 7, 8; the same line of code for the three).

    Pixels of weight 0 contribute neither loss nor gradient, whatever their logits.  Raises ValueError when the
    numbers of pixels differ.

    >>> from mdp.core.targets import hard_targets
    >>> round(float(nce(torch.zeros(2, 8), hard_targets(torch.tensor([3, -1]))).mean()), 4)  # log 8
    2.0794
    """
    if len(logits) != len(targets.classes):
        raise ValueError(f"{len(logits)} rows of logits for {len(targets.classes)} pixels")
    chosen = logits.gather(1, targets.classes)  # (N, K)
    if targets.left_out is not None:
        spare = F.pad(logits, (0, 1), value=-torch.inf)  # (N, C+1): column C takes the entries that mean none
        logits = spare.scatter(1, targets.left_out, -torch.inf)
    log_p = chosen - logits.logsumexp(1, keepdim=True)  # (N, K)
    # selected before the product: 0 * inf would be NaN for the placeholder targets of ignored pixels
    terms = torch.where(targets.weights > 0, log_p, 0.0) * targets.weights  # (N, K)
    return WeightedLoss(-terms.sum(), targets.valid.sum())


def prototype_nce(embeddings: Tensor, known: Prototypes, targets: Targets, temperature: float) -> WeightedLoss:
    """The pixel-to-prototype loss (eq. 4, 7 or 8 by the targets) of unit embeddings (B, D, h, w)."""
    with torch.autocast(embeddings.device.type, enabled=False):
        return nce(class_logits(pixel_rows(embeddings), known, temperature), targets)
