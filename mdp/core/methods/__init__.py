"""Pretraining methods: one module each, found by its file name.

A method owns nothing.  It says how its networks are built and what state it starts from, and maps (networks, state,
views) to a loss and the next state; the loop outside does the backward pass, the optimizer step and the key encoder.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mdp.core.batches import Batch
from mdp.core.networks import NetworkSettings
from mdp.core.networks.pair import EncoderPair
from mdp.core.prototypes import Prototypes

AllSum = Callable[[Tensor], Tensor]  # sums a tensor over all processes; the identity when there is one


class Step(NamedTuple):
    """What one training step gives back."""

    loss: Tensor  # () with gradient
    state: Any  # the method's next state
    metrics: Mapping[str, Tensor]  # named scalars without gradient


class Method(Protocol):
    """What a module in this folder offers."""

    @property
    def Settings(self) -> type:
        """Frozen dataclass of the method's settings, the paper's values as defaults."""

    def build(self, settings: Any, network: NetworkSettings, rng: torch.Generator) -> EncoderPair:
        """Query and key encoder, freshly initialised."""

    def initial_state(self, settings: Any, classes: int, epoch_batches: int, device: torch.device) -> Any:
        """The state before the first step, for `classes` union classes and `epoch_batches` batches an epoch."""

    def step(
        self,
        pair: EncoderPair,
        state: Any,
        views: Sequence[Batch],
        settings: Any,
        rng: torch.Generator,
        all_sum: AllSum,
    ) -> Step:
        """One step's loss and next state; the networks' running statistics are all that it writes to."""

    def key_momentum(self, settings: Any) -> float:
        """How slowly the key encoder follows: key = m key + (1 - m) query after every step."""

    def known_prototypes(self, state: Any, settings: Any) -> Prototypes:
        """The classes' current prototypes, for scoring while training."""

    def state_bytes(self, settings: Any, classes: int, epoch_batches: int) -> int:
        """How much memory the state takes once it is full, for planning."""

    def pack(self, state: Any) -> dict[str, Tensor]:
        """The state as named tensors, for a checkpoint."""

    def unpack(self, tensors: dict[str, Tensor], settings: Any, epoch_batches: int) -> Any:
        """The state that `pack` packed."""
