"""A weighted sum of criteria: what a run asks of its criterion, asked of each term with the settings of that one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mdp.core.criteria import Criterion, Part, Rngs, Source
from mdp.core.methods import Loss, Progress
from mdp.core.networks import Grids, Look, NetworkSettings
from mdp.core.processes import Processes


class Heads(nn.ModuleDict):
    """The extra heads of those terms that have one."""

    def forward(self, look: Look) -> dict[str, Any]:
        return {name: head(look) for name, head in self.items()}


@dataclass(frozen=True)
class Combined:
    """The criteria of a run by name, and the settings of each."""

    criteria: Mapping[str, Criterion]
    settings: Mapping[str, Any]

    def _terms(self) -> Iterator[tuple[str, Criterion, Any]]:
        return ((name, criterion, self.settings[name]) for name, criterion in self.criteria.items())

    def build(self, network: NetworkSettings, channels: int, classes: int, rng: torch.Generator) -> Heads | None:
        """The extra heads, if any term has one."""
        built = {name: one.build(given, network, channels, classes, rng) for name, one, given in self._terms()}
        heads = {name: head for name, head in built.items() if head is not None}
        return Heads(heads) if heads else None

    def initial_state(self, classes: int, device: torch.device) -> dict[str, Any]:
        """The state of each term before the first step."""
        return {name: one.initial_state(given, classes, device) for name, one, given in self._terms()}

    def asks_for(self) -> dict[str, str]:
        """The terms that ask for a pretraining run, and the setting by which each does."""
        asked = {name: one.asks_for(given) for name, one, given in self._terms()}
        return {name: setting for name, setting in asked.items() if setting}

    def start_(self, state: Mapping[str, Any], heads: Heads | None, source: Source) -> dict[str, Any]:
        """The state of each term before the first step, and the heads set, by what a pretraining run gives."""
        own = dict(heads.items()) if heads is not None else {}
        return {name: one.start_(state[name], own.get(name), source, given) for name, one, given in self._terms()}

    def prepare(
        self, state: Mapping[str, Any], labels: Tensor, processes: Processes, progress: Progress, grids: Grids
    ) -> dict[str, Any]:
        """What the losses of all parts share, of each term."""
        return {
            name: one.prepare(state[name], labels, given, processes, progress, grids)
            for name, one, given in self._terms()
        }

    def loss(
        self, look: Look, heads: Mapping[str, Any] | None, shared: Mapping[str, Any], part: Part, rngs: Rngs,
        processes: Processes,
    ) -> Loss:  # fmt: skip
        """The sum of the terms by their weights; of several, each without its weight is a metric."""
        value, kept = torch.zeros((), device=part.logits.device), []
        metrics: dict[str, Tensor] = {}
        for name, one, given in self._terms():
            head = heads.get(name) if heads else None
            found = one.loss(look, head, shared[name], part, given, rngs, processes)
            value = value + given.weight * found.value
            metrics |= {name: found.value.detach()} if len(self.criteria) > 1 else {}
            metrics |= found.metrics
            kept.append(found.kept)
        return Loss(value, metrics, tuple(kept))

    def remember(self, state: Mapping[str, Any], kept: Sequence[Any], processes: Processes) -> dict[str, Any]:
        """The next state of each term, from what the terms kept, in their order."""
        terms = zip(self._terms(), kept, strict=True)
        return {name: one.remember(state[name], own, given, processes) for (name, one, given), own in terms}

    def pack(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The state as named tensors."""
        return {
            f"{name}.{key}": tensor
            for name, one in self.criteria.items()
            for key, tensor in one.pack(state[name]).items()
        }

    def unpack(self, tensors: Mapping[str, Tensor], classes: int) -> dict[str, Any]:
        """The state that `pack` packed."""

        def own(name: str) -> dict[str, Tensor]:
            start = f"{name}."
            return {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}

        return {name: one.unpack(own(name), given, classes) for name, one, given in self._terms()}

    def state_bytes(self, classes: int) -> int:
        """How much memory all states take."""
        return sum(one.state_bytes(given, classes) for _, one, given in self._terms())
