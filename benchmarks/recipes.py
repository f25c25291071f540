"""Whole steps on made batches: the networks, the data and the closures that the step, GPU and scale benchmarks share.

Shape legend: V = 2 views, B images, C classes, H x W crop, h x w feature grid.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import inputs
from mdp.core.batches import Batch
from mdp.core.chance import generator
from mdp.core.geometry import downsample_labels
from mdp.core.labels import IGNORE, LabelSpace, LabelUnion
from mdp.core.methods import Data, Progress, _pixel_encoder, multi_dataset
from mdp.core.mixing import MixSettings
from mdp.core.networks import EmbeddingNetwork, EncoderPair, NetworkSettings, follow_
from mdp.core.networks.memory_layout import to_channels_last_
from mdp.core.processes import alone
from mdp.io.processes.world import ALONE
from mdp.io.recipe.settings import OptimizationSettings, RunSettings
from mdp.io.training.optimizers import build_optimizer
from mdp.io.training.update import new_trainee, unharmed, update_

Network = TypeVar("Network", bound=nn.Module)
Run = Callable[[], Tensor]  # a step; returns its loss

RATE = 0.01
OPTIMIZATION = OptimizationSettings(lr=RATE)
MIX = MixSettings(region=True, pixel=True)


@dataclass(frozen=True, kw_only=True)
class StepRecipe:
    """Network, sizes and way of a step."""

    network: NetworkSettings
    images: int  # B
    crop: int
    classes: int
    bank: int = 256  # T
    embedding: int = 256
    run: RunSettings = field(default_factory=lambda: RunSettings(channels_last=False))
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def settings(self) -> multi_dataset.Settings:
        """The method's settings: both mixings on, the dearest form of its loss."""
        return multi_dataset.Settings(embedding=self.embedding, bank_batches=self.bank, mix=MIX)

    @property
    def data(self) -> Data:
        """A union of so many classes."""
        space = LabelSpace(name="made", classes=tuple(f"class {i}" for i in range(self.classes)))
        return Data(LabelUnion([space]), self.images, self.bank)


RESNET18 = StepRecipe(
    network=NetworkSettings(backbone="resnet18", width=16, channels=64, dilations=(1, 2, 4)),
    images=4, crop=64, classes=60, bank=64, embedding=64,
)  # fmt: skip
RESNET50 = StepRecipe(network=NetworkSettings(channels=256), images=2, crop=128, classes=342)


def in_layout(recipe: StepRecipe, layout: str) -> StepRecipe:
    """The recipe in that memory layout: "NCHW" or "channels_last"."""
    return replace(recipe, run=replace(recipe.run, channels_last=layout == "channels_last"))


def made_views(recipe: StepRecipe, seed: int = 0) -> tuple[Batch, Batch]:
    """Two views of noise with label maps in patches, on the recipe's device."""
    rng, side = inputs.rng_of(seed), recipe.crop
    views = []
    for _ in range(2):
        images = torch.randn(recipe.images, 3, side, side, generator=rng).to(recipe.device)
        labels = inputs.label_maps(rng, recipe.images, side, side, recipe.classes, own=min(12, recipe.classes))
        views.append(Batch(images, labels.to(recipe.device)))
    return views[0], views[1]


def new_pair(recipe: StepRecipe) -> EncoderPair[EmbeddingNetwork]:
    """Query and key encoder, the same for the same recipe."""
    return _pixel_encoder.build(recipe.settings, recipe.network, recipe.data, generator(0))


class Given(nn.Module):
    """A key encoder that has its answer ready: what a step costs without the forward pass of the keys."""

    def __init__(self, keys: Tensor) -> None:
        super().__init__()
        self.keys = keys

    def forward(self, images: Tensor) -> Tensor:
        return self.keys


def pretraining(recipe: StepRecipe, key_forward: bool = True) -> Run:
    """One step of multi_dataset as `Pretraining.advance` takes it, without loading; returns the loss.

    Networks, bank and momentum go on from call to call.
    """
    views, device = made_views(recipe), recipe.device
    make = partial(build_optimizer, settings=OPTIMIZATION)
    pair = new_pair(recipe)
    trainee, forward = new_trainee(pair, make, recipe.run, device, ALONE, sync=False)
    keyed = forward if key_forward else EncoderPair(forward.query, Given(_keys(pair, views)))
    settings, processes, progress = recipe.settings, alone(recipe.images), Progress(0, 1, 1)
    state, step = multi_dataset.initial_state(settings, recipe.data, generator(1), device), 0

    def run() -> Tensor:
        nonlocal state, step
        with unharmed(trainee, views):
            with trainee.autocast():
                ready = multi_dataset.prepare(keyed, state, views, settings, generator(2, step), processes, progress)
            turn = partial(multi_dataset.loss, forward, ready.shared, ready.parts, settings, processes)
            values = update_(trainee, [turn], RATE, f"step {step + 1}", ready.metrics).values
        follow_(pair, 0.999)
        state, step = ready.state, step + 1
        return torch.tensor(values["loss"])

    return run


def _keys(pair: EncoderPair[EmbeddingNetwork], views: tuple[Batch, Batch]) -> Tensor:
    with torch.no_grad():
        keys: Tensor = pair.key(torch.cat([view.images for view in views]))
    return keys


def supervised(recipe: StepRecipe) -> Run:
    """A plain supervised step: the same network and a linear classifier, both views' images as one batch."""
    images, labels = joined(made_views(recipe))
    embed = new_pair(recipe).query
    network = placed_(nn.Sequential(Raw(embed), nn.Conv2d(recipe.embedding, recipe.classes, 1)), recipe)
    labels = downsample_labels(labels, embed.output_stride)  # (V B, h, w)
    optimizer = build_optimizer(network, OPTIMIZATION)

    def run() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with autocast(recipe):
            logits = network(images)
        loss = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return torch.tensor(loss.item())

    return run


def network_alone(recipe: StepRecipe) -> Run:
    """The passes that a step cannot do without: the keys' forward pass, the queries' and its backward pass."""
    images, _ = joined(made_views(recipe))
    pair = new_pair(recipe)
    for network in pair:
        placed_(network, recipe)

    def run() -> Tensor:
        pair.query.zero_grad(set_to_none=True)
        with autocast(recipe):
            with torch.no_grad():
                pair.key(images)
            queries: Tensor = pair.query(images, unit=False)
        queries.backward(queries.detach())  # type: ignore[no-untyped-call]
        return queries.detach().sum()

    return run


def joined(views: tuple[Batch, Batch]) -> tuple[Tensor, Tensor]:
    """Images and labels of both views as one batch."""
    return torch.cat([view.images for view in views]), torch.cat([view.labels for view in views])


class Raw(nn.Module):
    """An embedding network without the division by the length, as the losses call it."""

    def __init__(self, network: EmbeddingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        vectors: Tensor = self.network(images, unit=False)
        return vectors


def placed_(network: Network, recipe: StepRecipe) -> Network:
    """The network on its device, in its layout, in training."""
    network.to(recipe.device).train()
    if recipe.run.channels_last:
        to_channels_last_(network)
    if recipe.run.compile:
        network.compile()
    return network


def autocast(recipe: StepRecipe) -> AbstractContextManager[object]:
    """Reduced precision where the recipe asks for it."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.run.precision)
    return nullcontext() if dtype is None else torch.autocast(recipe.device.type, dtype)
