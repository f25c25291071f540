"""Pretraining methods: one module each, found by its file name.

A method owns nothing.  It says how its networks are built and what state it starts from, and maps (networks, state,
views) to a loss and the next state; the loop outside does the backward pass, the optimizer step and the key encoder.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mdp.core.batches import Batch
from mdp.core.labels import LabelUnion
from mdp.core.networks import NetworkSettings
from mdp.core.networks.pair import EncoderPair
from mdp.core.prototypes import Prototypes

AllSum = Callable[[Tensor], Tensor]  # sums a tensor over all processes; the identity when there is one


class Data(NamedTuple):
    """What a method knows of its data before it sees any."""

    union: LabelUnion
    batch_size: int  # images a step
    epoch_batches: int  # steps an epoch; a method may not need a whole one


class Step(NamedTuple):
    """What one training step gives back."""

    loss: Tensor  # () with gradient
    state: Any  # the method's next state
    metrics: Mapping[str, Tensor]  # named scalars without gradient


class Method(Protocol):
    """What a module in this folder offers."""

    @property
    def Settings(self) -> type:
        """Frozen dataclass of the method's settings, its paper's values as defaults."""

    @property
    def NEEDS_LABELS(self) -> bool:
        """Whether every dataset must be labelled."""

    def build(self, settings: Any, network: NetworkSettings, data: Data, rng: torch.Generator) -> EncoderPair[Any]:
        """Query and key encoder, freshly initialised; one network twice where the method has no key encoder."""

    def initial_state(self, settings: Any, data: Data, rng: torch.Generator, device: torch.device) -> Any:
        """The state before the first step.  Raises ValueError when the settings do not fit the data."""

    def step(
        self,
        pair: EncoderPair[Any],
        state: Any,
        views: Sequence[Batch],
        settings: Any,
        rng: torch.Generator,
        all_sum: AllSum,
    ) -> Step:
        """One step's loss and next state; the networks' running statistics are all that it writes to."""

    def key_momentum(self, settings: Any) -> float:
        """How slowly the key encoder follows: key = m key + (1 - m) query after every step."""

    def known_prototypes(self, state: Any, settings: Any) -> Prototypes | None:
        """The classes' current prototypes in the query encoder's embedding space; None for methods without."""

    def class_scores(self, pair: EncoderPair[Any], state: Any, images: Tensor, settings: Any) -> Tensor | None:
        """How well each class of the union fits each cell, (B, C, h, w), for scoring while training; None without."""

    def state_bytes(self, settings: Any, data: Data) -> int:
        """How much memory the state takes once it is full, for planning."""

    def pack(self, state: Any) -> dict[str, Tensor]:
        """The state as named tensors, for a checkpoint."""

    def unpack(self, tensors: dict[str, Tensor], settings: Any, data: Data) -> Any:
        """The state that `pack` packed."""
