"""A classifier to start fine-tuning from, made of the prototypes of related source classes (ours; not in the paper).

Prototypes live behind the projection head, the classifier in front of it.  So each target class takes the prototype of
a source class of its name, or else the nearest one, and the classifier becomes the linear map of the features that
comes closest to the logits that these prototypes would give.
Shape legend: N pixels, C target classes, S source classes, D embedding channels, F feature channels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mdp.core.float64 import in_float64
from mdp.core.prototype_bank import Prototypes


class Related(NamedTuple):
    """The source class that stands for a target class."""

    source: int
    same_name: bool
    cosine: float  # of the target class's mean embedding with the source class's prototype


def plain_name(name: str) -> str:
    """A class name as it is compared: letters and digits, in lower case, without the dataset in front.

    >>> plain_name("coco_stuff/Wall-Brick"), plain_name("wall brick")
    ('wallbrick', 'wallbrick')
    """
    return "".join(letter for letter in name.rpartition("/")[2].casefold() if letter.isalnum())


def related_classes(
    names: Sequence[str], means: Prototypes, source_names: Sequence[str], known: Prototypes
) -> list[Related | None]:
    """For each target class a source class: the nearest one of the same name, or else the nearest of all.

    `names` and `means` are those of the C target classes, `source_names` and `known` of the S source classes.  None
    for target classes without a mean, and when no source class has a prototype.
    """
    cosine = means.vectors @ known.vectors.T  # (C, S)
    cosine = cosine.masked_fill(~known.present, -torch.inf)
    sources = [plain_name(name) for name in source_names]
    found: list[Related | None] = []
    for row, name, present in zip(cosine, names, means.present.tolist(), strict=True):
        if not present or not bool(known.present.any()):
            found.append(None)
            continue
        same = torch.tensor([plain_name(name) == source for source in sources]) & known.present.cpu()
        among = row.cpu().masked_fill(~same, -torch.inf) if bool(same.any()) else row.cpu()
        source = int(among.argmax())
        found.append(Related(source, bool(same.any()), float(row[source])))
    return found


def standing_for(names: Sequence[str], related: Sequence[Related | None], source_names: Sequence[str]) -> Tensor:
    """Which source classes stand for each target class, (C, S) bool: all of its name, or else the nearest one.

    >>> standing_for(["t/sky", "t/car"], [Related(0, True, 0.9), Related(2, False, 0.8)], ["a/sky", "b/sky", "a/bus"])
    tensor([[ True,  True, False],
            [False, False,  True]])
    """
    found = torch.zeros(len(names), len(source_names), dtype=torch.bool)
    for label, (name, relation) in enumerate(zip(names, related, strict=True)):
        if relation is not None:
            found[label] = torch.tensor([plain_name(name) == plain_name(source) for source in source_names])
            found[label, relation.source] = True
    return found


def fit_classifier(features: Tensor, logits: Tensor, ridge: float = 1e-3) -> tuple[Tensor, Tensor]:
    """The linear map of `features` (N, F) nearest to `logits` (N, C): weight (C, F) and bias (C,), float32.

    Ridge regression in float64 on centred columns; `ridge` is relative to the mean variance of the features, so that
    it means the same whatever their scale.  Logits are taken relative to their mean over the classes, which no
    softmax notices.  Raises ValueError when the numbers of pixels differ or there is none.
    """
    if len(features) != len(logits) or not len(features):
        raise ValueError(f"{len(features)} rows of features and {len(logits)} of logits: expected as many, and some")
    x, y = in_float64(features), in_float64(logits)
    y = y - y.mean(1, keepdim=True)
    x_mean, y_mean = x.mean(0), y.mean(0)  # (F,), (C,)
    x, y = x - x_mean, y - y_mean
    square = x.T @ x / len(x)  # (F, F)
    damping = ridge * square.diagonal().mean().clamp(min=1e-12)
    square.diagonal().add_(damping)
    weight = torch.linalg.solve(square, x.T @ y / len(x)).T  # (C, F)
    return weight.float().to(features.device), (y_mean - weight @ x_mean).float().to(features.device)
