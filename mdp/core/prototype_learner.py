"""Multi-dataset prototype contrast for training loops of one's own: what such a loop must keep between its steps.

Everything here is a call of a pure function; this only holds the bank and counts the steps.  It is the one object of
`mdp.core` that changes, in its methods that end in an underscore and in `load_state_dict`, whose name is torch's.
Shape legend: B images, C classes of all datasets, D embedding channels, H x W label map, h x w feature grid.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mdp.core.contrast import prototype_nce
from mdp.core.labels import LabelUnion
from mdp.core.prototype_bank import (
    ClassSums,
    Prototypes,
    class_sums,
    empty_bank,
    pack_bank,
    prototypes,
    push,
    unpack_bank,
)
from mdp.core.targets import hard_targets
from mdp.label_space import LabelSpace


class PrototypeLearner:
    """The bank of class prototypes over several datasets, and the loss that pulls embeddings to them (eq. 3 and 4).

    `spaces` are the datasets' label spaces; their classes stand side by side and are never merged.  `channels` is D,
    `bank_batches` the number of batches whose means make the prototypes (about an epoch's), `temperature` the paper's.
    With several processes give `all_sum`, which returns a tensor's sum over them: they must have one bank.

    >>> spaces = [LabelSpace(name="a", classes=("wall",)), LabelSpace(name="b", classes=("wall", "car"))]
    >>> learner = PrototypeLearner(spaces, channels=2)
    >>> labels = learner.labels(torch.tensor([[[0, 255]], [[1, 0]]]), ["a", "b"])
    >>> labels.tolist()
    [[[0, -1]], [[2, 1]]]
    >>> loss = learner.loss_(torch.ones(2, 2, 1, 2), labels)  # nothing tells the three classes apart
    >>> round(float(loss), 4), learner.steps  # log 3
    (1.0986, 1)
    """

    def __init__(
        self,
        spaces: Sequence[LabelSpace],
        channels: int,
        *,
        bank_batches: int = 100,
        temperature: float = 0.07,
        device: torch.device | str = "cpu",
        all_sum: Callable[[Tensor], Tensor] = lambda sums: sums,
    ) -> None:
        self.union, self.temperature, self.all_sum = LabelUnion(spaces), temperature, all_sum
        self.bank, self.steps = empty_bank(self.union.size, channels, bank_batches, device), 0

    @property
    def prototypes(self) -> Prototypes:
        """A vector of unit length for each class, and which classes have been seen."""
        return prototypes(self.bank)

    def labels(self, maps: Tensor, datasets: Sequence[str]) -> Tensor:
        """Classes (B, H, W) int64 of the union, -1 where ignored, of label maps as files have them, and whose they are.

        Raises UnknownLabels for values that a dataset does not have, KeyError for an unknown dataset, ValueError unless
        there is one for each map.
        """
        raw = maps.cpu().numpy()
        classes = [self.union.to_union(image, name) for image, name in zip(raw, datasets, strict=True)]
        return torch.stack(classes).long().to(maps.device)

    def loss_(self, embeddings: Tensor, labels: Tensor, keys: Tensor | None = None) -> Tensor:
        """A step: puts the class means of `keys` into the bank and returns the mean loss of the embeddings, ().

        `embeddings` (B, D, h, w) have gradient and any length; `keys`, likewise, are the same pixels by a slower
        encoder, or None for the embeddings themselves.  `labels` (B, H, W), in -1 .. C - 1, are on their grid or finer:
        then the label at the centre of each of h x w equal cells is taken (for networks whose cells lie elsewhere,
        take labels down to the grid first).

        Raises ValueError for shapes that do not fit, and for numbers that are no class.
        """
        if labels.dim() == 3 and min(a - b for a, b in zip(labels.shape[1:], embeddings.shape[2:], strict=True)) >= 0:
            labels = _at_centres(labels, embeddings.shape[2:])  # (B, h, w)
        found = class_sums(embeddings if keys is None else keys, labels, self.union.size)
        self.bank = push(self.bank, ClassSums(self.all_sum(found.sums), self.all_sum(found.counts)))
        self.steps += 1
        return prototype_nce(embeddings, self.prototypes, hard_targets(labels), self.temperature).mean()

    def state_dict(self) -> dict[str, Any]:
        """The bank, the steps and the names of the classes, for `torch.save`."""
        return {**pack_bank(self.bank), "steps": self.steps, "classes": list(self.union.names)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where that state was taken.  Raises ValueError when it is of other classes or channels."""
        if list(state["classes"]) != list(self.union.names):
            raise ValueError(f"a state of classes {state['classes']}, expected {list(self.union.names)}")
        if state["total_sums"].shape != self.bank.total.sums.shape:
            channels = self.bank.total.sums.shape[1]
            raise ValueError(f"a state of {state['total_sums'].shape[1]} channels, expected {channels}")
        device = self.bank.total.sums.device
        tensors = {name: value.to(device) for name, value in state.items() if isinstance(value, Tensor)}
        self.bank, self.steps = unpack_bank(tensors, self.bank.size), int(state["steps"])


def _at_centres(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Labels (B, H, W) at the centres of h x w equal cells."""
    rows, columns = (
        ((torch.arange(cells, device=labels.device) * 2 + 1) * pixels) // (2 * cells)
        for cells, pixels in zip(size, labels.shape[1:], strict=True)
    )
    return labels[:, rows[:, None], columns]
