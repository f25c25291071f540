"""Criteria of fine-tuning: one module each, found by its file name; `Combined` is a weighted sum of some.

A criterion owns nothing.  `prepare` does once a step what needs the labels of the whole batch, `loss` gives the share
of any part of the batch from what the networks give in the training pass, `remember` takes into a memory what the
losses kept.  Shares add up over the parts of a batch and over processes.
Logits are (B, C, H, W), labels (B, H, W) with `IGNORE` for pixels that do not count; every loss is in float32.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from mdp.core.methods import Loss, Progress
from mdp.core.networks import Grids, Look, NetworkSettings
from mdp.core.processes import Processes
from mdp.core.prototype_bank import Prototypes


class Part(NamedTuple):
    """Some images of a batch as a loss sees them, and what it has to know of the whole batch."""

    labels: Tensor  # (B, H, W) int64
    logits: Tensor  # (B, C, H, W) float32, those of the network at the labels' resolution
    pixels: Tensor  # () what a mean over pixels is divided by, the same for all parts
    images: int  # of the whole batch, over all parts and processes
    whole: Tensor  # (B, height, width) int64: labels of every pixel of the crops, which `loss_stride` takes some of


class Source(NamedTuple):
    """What a pretraining run gives a criterion that asks for it."""

    known: Prototypes  # (S, D) of its classes
    related: Tensor  # (C, S) bool: which of them stand for a class of the target
    projection: Mapping[str, Tensor]  # the weights of its projection head


Rngs = Callable[[int], torch.Generator]  # of an image of a part, by its place there: the same however a batch is split


class Criterion(Protocol):
    """The names that a module in this folder offers."""

    @property
    def Settings(self) -> type:
        """Frozen dataclass of the criterion's settings, among them `weight`, what it counts in a sum."""

    @property
    def SUPPLEMENT(self) -> bool:
        """Whether it teaches the classifier nothing, so that cross-entropy stands beside it where it is named alone."""

    def build(
        self, settings: Any, network: NetworkSettings, channels: int, classes: int, rng: torch.Generator
    ) -> nn.Module | None:
        """An extra head, of training only, from a `Look` to what `loss` asks for; `channels` are the last map's."""

    def initial_state(self, settings: Any, classes: int, device: torch.device) -> Any:
        """The state before the first step; () without a memory.  Raises ValueError where settings do not fit."""

    def misfit(self, settings: Any, network: NetworkSettings, crop: tuple[int, int]) -> str:
        """What keeps it from ever counting with crops of such (height, width), a setting first; "" where nothing."""

    def asks_for(self, settings: Any) -> str:
        """The setting that asks for a pretraining run to start from, as it is written; "" where none does."""

    def fitted(self, settings: Any, method: Mapping[str, Any]) -> Any:
        """The settings of one that asks, their open sizes those of the pretraining method with these settings."""

    def start_(self, state: Any, head: Any, source: Source, settings: Any) -> Any:
        """The state before the first step of one that asks, and the extra head set.  Raises ValueError for misfits."""

    def prepare(
        self, state: Any, labels: Tensor, settings: Any, processes: Processes, progress: Progress, grids: Grids
    ) -> Any:
        """What the losses of all parts share, from the labels of this process's images, without gradient.

        `labels` are those of every pixel; `grids` say where those of a `Look`'s cells are among them.
        """

    def loss(
        self, look: Look, head: Any, shared: Any, part: Part, settings: Any, rngs: Rngs, processes: Processes
    ) -> Loss:
        """The share of some images; `head` is what the extra head gave, `processes` say who has what of this part."""

    def remember(self, state: Any, kept: Any, settings: Any, processes: Processes) -> Any:
        """The state with what the losses kept, the same on every process; in the order of the images."""

    def pack(self, state: Any) -> dict[str, Tensor]:
        """The state as named tensors, for a checkpoint."""

    def unpack(self, tensors: dict[str, Tensor], settings: Any, classes: int) -> Any:
        """The state that `pack` packed."""

    def state_bytes(self, settings: Any, classes: int) -> int:
        """How much memory the state takes once it is full, for planning."""


if TYPE_CHECKING:  # here mypy holds every criterion to the Protocol; a program imports those it is asked for
    from mdp.core.criteria import cross_entropy, dice, focal, lovasz, pixel_contrast

    CHECKED: tuple[Criterion, ...] = (cross_entropy, dice, focal, lovasz, pixel_contrast)
