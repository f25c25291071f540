"""A fine-tuning step with pixel contrast beside one of cross-entropy alone: the same network, images and labels.

The memory is full: for the larger network 190,000 rows of regions and pixels of 19 classes, as the published runs on
Cityscapes have them.  The batch there has a sixteenth of their pixels, and of their anchors.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate, Run
from mdp.core.batches import Batch
from mdp.core.chance import generator
from mdp.core.criteria import Part
from mdp.core.criteria._combined import Combined
from mdp.core.criteria._pixel_memory import Memory
from mdp.core.methods import Loss, Progress
from mdp.core.networks import EncoderPair, NetworkSettings, TrainedSegmentor, build_segmentor, upsample
from mdp.core.processes import alone
from mdp.core.queues import ClassQueues
from mdp.io.processes.world import ALONE
from mdp.io.recipe.criteria import find_criterion
from mdp.io.recipe.settings import OptimizationSettings, RunSettings
from mdp.io.training.optimizers import build_optimizer
from mdp.io.training.update import new_trainee, unharmed, update_

CLASSES, SAMPLES, RATE = 19, 64, 0.01
SMALL = NetworkSettings(backbone="resnet18", width=8, channels=16)
LARGE = NetworkSettings(backbone="resnet18", channels=256)


class Size(NamedTuple):
    """The network, its batch, and the rows of a class in each of the two memories."""

    network: NetworkSettings
    images: int
    crop: int
    capacity: int | None


SIZES = {
    "ResNet-18 / 8, 2 crops of 96^2": Size(SMALL, 2, 96, 50),
    "ResNet-18, 4 crops of 256^2": Size(LARGE, 4, 256, None),
}


def cases() -> dict[str, Callable[[], Case]]:
    """Stride 8: a small network and memory, then ResNet-18 with DeepLab-v3."""
    return {label: partial(_case, label, size) for label, size in SIZES.items()}


def _case(label: str, size: Size) -> Case:
    batch = _batch(size.images, size.crop)
    entries = (
        Entry("memory, semi-hard rows", "ours", _step(batch, size, {})),
        Entry("memory, all rows", "ours", _step(batch, size, {"mining": "all"})),
        Entry("in the batch", "ours", _step(batch, size, {"memory": "off"})),
        Entry("cross-entropy", "plain", _step(batch, size, None)),
    )
    gates = (Gate("cross-entropy", at_most=1.3), Gate("cross-entropy", at_most=1.15, of="in the batch"))
    return Case("fine-tuning step", f"{label}, C={CLASSES}", entries, gates if size.capacity is None else ())


def _batch(images: int, crop: int) -> Batch:
    rng = inputs.rng_of(0)
    labels = inputs.label_maps(rng, images, crop, crop, CLASSES, own=5)
    return Batch(torch.randn(images, 3, crop, crop, generator=rng), labels)


def _step(batch: Batch, size: Size, contrast: Mapping[str, Any] | None) -> Run:
    """One step as `Finetuning.advance` takes it, without loading; weights and memory go on from call to call."""
    criteria = ["cross_entropy"] if contrast is None else ["cross_entropy", "pixel_contrast"]
    given = {"max_samples": SAMPLES, "max_views": 20, "warmup_steps": 0, "capacity": size.capacity, **(contrast or {})}
    found = {name: find_criterion(name) for name in criteria}
    criterion = Combined(found, {
        name: one.Settings(**(given if name == "pixel_contrast" else {})) for name, one in found.items()
    })  # fmt: skip
    segmentor = build_segmentor(size.network, CLASSES, generator(0))
    head = criterion.build(size.network, size.network.last_channels, CLASSES, generator(1))
    network = TrainedSegmentor(segmentor, head)
    make = partial(build_optimizer, settings=OptimizationSettings(lr=RATE))
    run_settings = RunSettings(channels_last=False)
    trainee, forward = new_trainee(
        EncoderPair(network, network), make, run_settings, torch.device("cpu"), ALONE, sync=False
    )
    state, step = criterion.initial_state(CLASSES, torch.device("cpu")), 0
    if "pixel_contrast" in state:
        state["pixel_contrast"] = _full(state["pixel_contrast"])
    processes, pixels = alone(len(batch.images)), torch.tensor(batch.labels.numel())

    def loss(shared: Any) -> Loss:
        look, embeddings = forward.query(batch.images)
        logits = upsample(look.logits, (batch.labels.shape[1], batch.labels.shape[2]))
        part = Part(batch.labels, logits, pixels, len(batch.images), batch.labels)
        return criterion.loss(look, embeddings, shared, part, partial(generator, 2, step), processes)

    def run() -> Tensor:
        nonlocal state, step
        with unharmed(trainee, [batch]):
            shared = criterion.prepare(state, batch.labels, processes, Progress(step, 1000, 100), segmentor.grids)
            done = update_(trainee, [partial(loss, shared)], RATE, f"step {step + 1}")
        state, step = criterion.remember(state, done.kept, processes), step + 1
        return torch.tensor(done.values["loss"])

    return run


def _full(memory: Memory) -> Memory:
    """The memory with its rings full of unit vectors around a centre for each class."""
    rng = inputs.rng_of(3)

    def full(queues: ClassQueues | None) -> ClassQueues | None:
        if queues is None:
            return None
        classes, size, channels = queues.rows.shape
        centres = torch.randn(classes, 1, channels, generator=rng)
        rows = F.normalize(centres + torch.randn(classes, size, channels, generator=rng), dim=2)
        return ClassQueues(rows, torch.full((classes,), size))

    return memory._replace(regions=full(memory.regions), pixels=full(memory.pixels))
