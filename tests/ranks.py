"""A step and a score in this process's part of a world: `python -m tests.ranks OUT` under a launcher's environment.

The main process saves loss, prototypes or queues, gradients and confusion matrix, for test_distributed.py to compare.
All is computed in float64: in float32 a ReLU at its kink may fall to either side of it, whatever is added up how.
"""

import sys
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch

from mdp.core.batches import Batch
from mdp.core.chance import generator
from mdp.core.criteria import cross_entropy
from mdp.core.criteria._combined import Combined
from mdp.core.methods import Data, Loss, Method, Progress, knn_moco, split
from mdp.core.mixing import MixSettings
from mdp.core.networks import EncoderPair, NetworkSettings
from mdp.core.processes import Processes
from mdp.io.data.crops import stack_crops
from mdp.io.data.selection import Plan, pool_of
from mdp.io.data.views import PretrainItems, stack_views, usual_views, view_batches
from mdp.io.datasets import load
from mdp.io.datasets._dataset import open_split
from mdp.io.evaluation.counts import Reading, tally_pixels
from mdp.io.inference.predict import segmenter
from mdp.io.journal.journal import Journal
from mdp.io.processes.world import World, joined
from mdp.io.recipe.layers import resolve
from mdp.io.recipe.methods import find_method
from mdp.io.recipe.settings import EvalSettings, OptimizationSettings, PretrainSettings, RunSettings
from mdp.io.run.opened import new_segmentor
from mdp.io.training import finetuning
from mdp.io.training.context import RunContext
from mdp.io.training.optimizers import build_optimizer
from mdp.io.training.update import Trainee, new_trainee, update_

BATCH = 8
MODEL = {"backbone": "resnet18", "width": 8, "output_stride": 16, "channels": 8, "dilations": [1, 2]}
METHODS = {
    "multi_dataset": {
        "embedding": 8,
        "hidden": 8,
        "prototypes": "both",
        "rivals": "dataset",
        "mix": MixSettings(region=True, pixel=True),
    },
    "pixel_pairs": {"embedding": 8, "hidden": 8},
    "region_bank": {"embedding": 8, "hidden": 8, "queue": 5},
    "moco": {"embedding": 8, "queue": 12, "groups": 4},
    "knn_moco": {
        "embedding": 8,
        "queue": 12,
        "groups": 4,
        "size": 64,
        "small_size": 32,
        "small_count": 2,
        "neighbours": knn_moco.NeighbourSettings(k=3, warmup_epochs=0, order="early"),
    },
    "supervised": {},
    "pass_s": {"embedding": 8, "hidden": 8, "prototypes": 6, "size": 64, "small_size": 32, "small_count": 2},
    "pixel_attention": {"embedding": 8, "hidden": 8, "prototypes": 6, "size": 64, "small_size": 32},
    "swav": {"embedding": 8, "hidden": 8, "prototypes": 6, "size": 64, "small_size": 32, "small_count": 2},
}
# These ask in the middle of a loss, and which images a part has depends on the processes
IN_THE_MIDDLE = ("swav", "pass_s", "pixel_attention")
CPU = torch.device("cpu")


class Start(NamedTuple):
    """What the steps of a method begin with, and leave as it is but for the networks, which `step` puts back."""

    method: Method
    settings: Any
    pair: EncoderPair[Any]
    weights: list[dict[str, torch.Tensor]]  # of the pair's networks
    state: Any
    views: list[Batch]


def start(name: str, world: World) -> Start:
    """Networks with fixed normalisation statistics, and images of which some are ignored altogether."""
    datasets = [load("shapes-coarse"), load("shapes-fine")]
    pool = pool_of([(dataset, open_split(dataset, Path(), "train")[0][:8]) for dataset in datasets])
    method = find_method(name)
    settings = method.Settings(**METHODS[name])
    network_settings = NetworkSettings(**{**MODEL, "dilations": (1, 2)})
    data = Data(pool.union, BATCH, 2, network_settings.last_channels)
    pair = method.build(settings, network_settings, data, generator(0))
    plan = method.view_plan(settings, usual_views(PretrainSettings(crop=64)))
    items = PretrainItems(pool, plan, seed=0)
    own = [items[0, index] for index in range(0, 16, 2)][world.share(BATCH).own]
    views = [view._replace(images=view.images.double()) for view in view_batches(stack_views(own), CPU)]
    if world.rank == world.size - 1:
        for view in views:
            view.labels[-2:] = -1  # two images without a valid pixel: with three processes, all that the last one has
    weights = [{key: tensor.clone() for key, tensor in network.state_dict().items()} for network in pair]
    return Start(method, settings, pair, weights, method.initial_state(settings, data, generator(1), CPU), views)


def trainee_of(pair: EncoderPair[Any], world: World, gradients: str) -> tuple[Trainee, EncoderPair[Any]]:
    """What `update_` trains, in one of the two ways to send gradients."""
    make = partial(build_optimizer, settings=OptimizationSettings(lr=0.1, weight_decay=0.0))
    trainee, forward = new_trainee(pair, make, RunSettings(gradients=gradients), CPU, world, sync=True)
    for network in (*pair, forward.query):
        network.eval()
    return trainee, forward


def step(
    start: Start, trainee: Trainee, forward: EncoderPair[Any], world: World, accumulate: int
) -> dict[str, torch.Tensor]:
    """One step of a method, from the beginning."""
    method, settings, pair, processes = start.method, start.settings, start.pair, world.share(BATCH)
    for network, weights in zip(pair, start.weights, strict=True):
        network.load_state_dict(weights)
    trainee.optimizer.state.clear()
    ready = method.prepare(pair, start.state, start.views, settings, generator(2), processes, Progress(0, 1, 2))

    def loss(part: object, among: Processes) -> Loss:
        return method.loss(forward, ready.shared, part, settings, among)

    turns = [partial(loss, *turn) for turn in split(ready.parts, processes, accumulate)]
    values = update_(trainee, turns, 0.1, "step 1").values
    return {
        "loss": torch.tensor(values["loss"], dtype=torch.float64),
        "gradient": torch.cat([p.grad.flatten() for p in pair.query.parameters() if p.grad is not None]),
        "weights": torch.cat([p.detach().flatten() for p in pair.query.parameters()]),
        **{f"state.{key}": tensor for key, tensor in method.pack(ready.state).items()},
    }


class Early(torch.nn.Module):
    """An extra head that its criterion does not use in the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(8, 1, 1)

    def forward(self, look: Any) -> torch.Tensor:
        rows: torch.Tensor = self.layer(look.features)
        return rows


def late_loss(look: Any, head: Any, shared: int, part: Any, settings: Any, rngs: Any, processes: Processes) -> Loss:
    value = head.square().mean((1, 2, 3)).sum() / part.images if shared else torch.zeros(())
    return Loss(value, {})


LATE = {
    **vars(cross_entropy),
    "build": lambda *_: Early(),
    "prepare": lambda state, labels, settings, processes, progress, grids: progress.step,
    "loss": late_loss,
}


def late(world: World, gradients: str) -> dict[str, torch.Tensor]:
    """Weights after two steps of a fine-tuning whose criterion has a head that is used from the second step on."""
    tuning = {"steps": 2, "crop": [32, 32], "batch_size": BATCH, "lr": 0.1, "validate_steps": 0}
    recipe = resolve({"model": MODEL, "run": {"gradients": gradients, "workers": 0}, "finetune": tuning})
    dataset = load("shapes-target")
    pool = pool_of([(dataset, open_split(dataset, Path(), "train")[0][:BATCH])])
    terms = {"cross_entropy": cross_entropy, "late": SimpleNamespace(**LATE)}
    torch.manual_seed(0)  # the head of the tests' own has no generator
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        journal = Journal(Path(folder), 2, 1.0, main=False)
        context = RunContext(folder=Path(folder), journal=journal, device=CPU, world=world)
        patch.setattr(
            finetuning, "combined", lambda *_: Combined(terms, dict.fromkeys(terms, cross_entropy.Settings()))
        )
        patch.setattr(RunContext, "picture", lambda *_: None)
        network = new_segmentor(recipe, pool.union.size)
        run = finetuning.Finetuning(Plan(recipe=recipe, pool=pool, validation=None), network, context, None)
        run.forward.eval()
        for step, keys in enumerate(run.keys(0, 2)):
            crops = stack_crops([run.items[key] for key in keys[run.processes.own]])
            run.advance(crops._replace(images=crops.images.double()), step)
    return {name: parameter.detach() for name, parameter in run.trained.named_parameters()}


def counts(world: World) -> dict[str, torch.Tensor]:
    """All pixel counts of an untrained segmentor on seven images, which no number of processes above one divides."""
    dataset = load("shapes-target")
    pool = pool_of([(dataset, open_split(dataset, Path(), "val")[0][:7])])
    network = new_segmentor(resolve({"model": MODEL}), pool.union.size)
    settings = EvalSettings()
    found = tally_pixels(segmenter(network, settings, CPU), pool, settings, Reading(workers=0, world=world))
    return {f"count.{key}": tensor for key, tensor in found.sums.items()}


def everything(world: World) -> dict[str, torch.Tensor]:
    """All that is compared."""
    found = counts(world)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            return found | steps(world)
        finally:
            torch.set_default_dtype(torch.float32)


def steps(world: World) -> dict[str, torch.Tensor]:
    """A step of every method, its gradients sent in both ways and its parts taken in one or two.

    How often gradients are sent does not depend on the method: of the first all four are tried, of the others two.
    """
    found = {}
    for place, name in enumerate(METHODS):
        begun = start(name, world)
        for gradients in ("flat", "overlapped"):
            trainee, forward = trainee_of(begun.pair, world, gradients)
            parts = (1, 2) if place == 0 else (1,) if name in IN_THE_MIDDLE or gradients == "overlapped" else (2,)
            for accumulate in parts:
                values = step(begun, trainee, forward, world, accumulate)
                found |= {f"{name} {gradients} {accumulate}.{key}": tensor for key, tensor in values.items()}
    for gradients in ("flat", "overlapped"):
        found |= {f"late {gradients}.{key}": tensor for key, tensor in late(world, gradients).items()}
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined() as world:
        answer = everything(world)
        if world.main:
            torch.save(answer, sys.argv[1])
