"""Pretraining methods: one module each, found by its file name.

A method owns nothing.  It says how its networks are built and what state it starts from, and a step of it is three
functions: `prepare` does once what needs the whole batch (keys, memory, mixing, what the loss is divided by), `loss`
gives the share of any part of the batch in its loss, and `remember` puts into the state what the losses kept.  Shares
add up over the parts of a batch and over processes, so that the loss is the same however a batch is split.  The loop
outside does the backward pass, the optimizer step, what a method `settle_`s after it, and the key encoder.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mdp.core.batches import Batch
from mdp.core.class_relations import Relation
from mdp.core.labels import LabelUnion
from mdp.core.networks import NetworkSettings
from mdp.core.networks.pair import EncoderPair
from mdp.core.processes import Processes, alone, join_rows, rows_of
from mdp.core.prototype_bank import Prototypes
from mdp.core.views import ViewPlan


class Data(NamedTuple):
    """Facts about its data that a method is told before it sees any."""

    union: LabelUnion
    batch_size: int  # images a step
    epoch_batches: int  # steps an epoch; a method may not need a whole one
    channels: int = 0  # of the backbone's last map
    relations: tuple[Relation, ...] = ()  # between classes of the union, where the recipe names a file of them
    words: Tensor | None = None  # (C, E) vectors of the classes' names, likewise


class Progress(NamedTuple):
    """How far a run is."""

    step: int  # steps done before this one
    steps: int  # in all
    epoch_steps: int  # steps an epoch

    @property
    def epoch(self) -> float:
        """Epochs done before this step, with a fraction."""
        return self.step / self.epoch_steps


class Prepared(NamedTuple):
    """A step before its gradient."""

    state: Any  # the method's next state, the same on every process
    shared: Any  # what the loss of every part needs
    parts: Any  # tensors in nested tuples, a row for each image of this process
    metrics: Mapping[str, Tensor]  # named scalars of the whole batch


class Loss(NamedTuple):
    """The share of some images in the loss of the whole batch; adds up over parts and processes."""

    value: Tensor  # () with gradient
    metrics: Mapping[str, Tensor]  # named scalars without gradient, shares likewise
    kept: Any = ()  # what the state is to remember: detached tensors in nested tuples, a row for each image


class Step(NamedTuple):
    """The result of one training step."""

    loss: Tensor  # () with gradient
    state: Any  # the method's next state
    metrics: Mapping[str, Tensor]  # named scalars without gradient


class Method(Protocol):
    """The names that a module in this folder offers."""

    @property
    def Settings(self) -> type:
        """Frozen dataclass of the method's settings, its paper's values as defaults."""

    @property
    def NEEDS_LABELS(self) -> bool:
        """Whether every dataset must be labelled."""

    @property
    def SYNC_BATCH_NORM(self) -> bool:
        """Whether BatchNorm may look at the images of all processes; no where leaking between images is the danger."""

    @property
    def PRESET(self) -> Mapping[str, Any]:
        """The method's own schedule: a layer of a recipe above the defaults, below all that is asked for."""

    def view_plan(self, settings: Any, default: ViewPlan) -> ViewPlan:
        """The views of every image that a step sees; `default` is what the recipe asks for.

        Raises ValueError when the settings fit no plan.
        """

    def build(self, settings: Any, network: NetworkSettings, data: Data, rng: torch.Generator) -> EncoderPair[Any]:
        """Query and key encoder, freshly initialised; one network twice where the method has no key encoder."""

    def initial_state(self, settings: Any, data: Data, rng: torch.Generator, device: torch.device) -> Any:
        """The state before the first step.  Raises ValueError when the settings do not fit the data."""

    def prepare(
        self,
        pair: EncoderPair[Any],
        state: Any,
        views: Sequence[Batch],
        settings: Any,
        rng: torch.Generator,
        processes: Processes,
        progress: Progress,
    ) -> Prepared:
        """The next state and what the losses need, from this process's images; `rng` is the same on every process.

        `views` are in the order of the view plan, without label maps where the method needs none.

        Without gradient; the key encoder's running statistics are all that it writes to.
        """

    def loss(self, pair: EncoderPair[Any], shared: Any, parts: Any, settings: Any, processes: Processes) -> Loss:
        """The share of some images; the query encoder's running statistics are all that it writes to.

        `processes` are those that share these images: what is gathered, or summed, in the middle of a loss is of one
        part of the batch.  Every process has as many parts.
        """

    def remember(self, state: Any, kept: Any, settings: Any, processes: Processes, numbers: Mapping[str, float]) -> Any:
        """The state with what the losses of this process's images kept, the same on every process.

        Called after an update; what was kept of one that fails is dropped, as `prepare`'s state is.  `numbers` are the
        step's metrics, which the host has waited for by then; empty where it has not.
        """

    def settle_(self, pair: EncoderPair[Any], settings: Any) -> None:
        """Puts weights back to where the method wants them, before the first step and after every one, in place."""

    def key_momentum(self, settings: Any, progress: Progress) -> float:
        """How slowly the key encoder follows: key = m key + (1 - m) query after every step."""

    def known_prototypes(self, state: Any, settings: Any) -> Prototypes | None:
        """The classes' current prototypes in the query encoder's embedding space; None for methods without."""

    def prototype_images(self, state: Any, settings: Any) -> Tensor | None:
        """How many images are behind each class's prototype, (C,) int64; each view counts.  None likewise."""

    def temperature(self, settings: Any) -> float | None:
        """The divisor of similarities; None for methods that compare no embeddings."""

    def class_scores(self, pair: EncoderPair[Any], state: Any, images: Tensor, settings: Any) -> Tensor | None:
        """How well each class of the union fits each cell, (B, C, h, w), for scoring while training; None without."""

    def state_bytes(self, settings: Any, data: Data) -> int:
        """How much memory the state takes once it is full, for planning."""

    def pack(self, state: Any) -> dict[str, Tensor]:
        """The state as named tensors, for a checkpoint."""

    def unpack(self, tensors: dict[str, Tensor], settings: Any, data: Data) -> Any:
        """The state that `pack` packed."""


def split(parts: Any, processes: Processes, accumulate: int) -> list[tuple[Any, Processes]]:
    """The rows of a process's images in so many parts, as even as can be, and the processes that share each.

    None is empty: where a process has fewer images, all take as many parts as it has images.
    """
    count, start, found = min(accumulate, *processes.images), 0, []
    for number in range(count):
        among = processes.part(number, count)
        end = start + among.images[among.rank]
        found.append((rows_of(parts, slice(start, end)), among))
        start = end
    return found


def step(
    method: Method,
    pair: EncoderPair[Any],
    state: Any,
    views: Sequence[Batch],
    settings: Any,
    rng: torch.Generator,
    processes: Processes | None = None,
    accumulate: int = 1,
    progress: Progress | None = None,
) -> Step:
    """One whole step, for notebooks and tests: loss with gradient, next state, metrics.

    With several processes, loss and metrics are this process's shares.
    """
    processes = processes or alone(len(views[0].images))
    ready = method.prepare(pair, state, views, settings, rng, processes, progress or Progress(0, 1, 1))
    turns = split(ready.parts, processes, accumulate)
    losses = [method.loss(pair, ready.shared, part, settings, among) for part, among in turns]
    loss = torch.stack([part.value for part in losses]).sum()
    shares = {name: torch.stack([part.metrics[name] for part in losses]).sum() for name in losses[0].metrics}
    state = method.remember(ready.state, join_rows([part.kept for part in losses]), settings, processes, {})
    return Step(loss, state, {"loss": loss.detach(), **ready.metrics, **shares})


if TYPE_CHECKING:  # here mypy holds every method to the Protocol; a program imports the one it is asked for
    from mdp.core.methods import (
        knn_moco,
        moco,
        multi_dataset,
        pass_s,
        pixel_attention,
        pixel_pairs,
        region_bank,
        supervised,
        swav,
    )

    CHECKED: tuple[Method, ...] = (
        knn_moco,
        moco,
        multi_dataset,
        pass_s,
        pixel_attention,
        pixel_pairs,
        region_bank,
        supervised,
        swav,
    )
