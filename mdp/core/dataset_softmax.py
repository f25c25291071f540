"""A softmax for each dataset: the classes of one dataset compete among each other, whatever other datasets have.

Shape legend: N pixels, C classes of the union, K targets a pixel.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mdp.core.label_checks import expect_labels
from mdp.core.targets import Targets


def log_softmax_by_dataset(logits: Tensor, sizes: Sequence[int]) -> Tensor:
    """log p of each class among those of its own dataset, (N, C, ...) float32; `sizes` are the datasets' classes.

    >>> log_softmax_by_dataset(torch.zeros(1, 3), [1, 2]).exp().tolist()
    [[1.0, 0.5, 0.5]]
    """
    parts = torch.split(logits.float(), list(sizes), dim=1)
    return torch.cat([part.log_softmax(1) for part in parts], 1)


def dataset_cross_entropy(log_p: Tensor, targets: Targets) -> Tensor:
    """- sum_k weight_k log p(class_k), summed over pixels, of `log_softmax_by_dataset` (N, C), ().

    Raises ValueError for targets that are no class.

    >>> from mdp.core.targets import hard_targets
    >>> float(dataset_cross_entropy(torch.tensor([[-1.0, -2.0], [-3.0, -4.0]]), hard_targets(torch.tensor([1, -1]))))
    2.0
    """
    expect_labels(targets.classes, log_p.shape[1])
    chosen = log_p.gather(1, targets.classes)  # (N, K)
    # selected before the product: 0 * inf would be NaN for the placeholder targets of ignored pixels
    return -(torch.where(targets.weights > 0, chosen, 0.0) * targets.weights).sum()
