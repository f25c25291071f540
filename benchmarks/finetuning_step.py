"""A fine-tuning step with pixel contrast beside one of cross-entropy alone: the same network, images and labels.

The memory is full, 190,000 rows of regions and pixels for 19 classes, as the published runs on Cityscapes have it; the
batch has an eighth of their pixels, and an eighth of their anchors.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

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

CLASSES, SAMPLES, RATE = 19, 128, 0.01
NETWORK = NetworkSettings(backbone="resnet18", channels=256)
SIZES = {"ResNet-18, 2 crops of 128^2": (2, 128), "ResNet-18, 8 crops of 256^2": (8, 256)}


def cases() -> dict[str, Callable[[], Case]]:
    """Stride 8, a small batch and a larger one."""
    return {label: partial(_case, label, *size) for label, size in SIZES.items()}


def _case(label: str, images: int, crop: int) -> Case:
    batch = _batch(images, crop)
    entries = (
        Entry("memory, semi-hard rows", "ours", _step(batch, {})),
        Entry("memory, all rows", "ours", _step(batch, {"mining": "all"})),
        Entry("in the batch", "ours", _step(batch, {"memory": "off"})),
        Entry("cross-entropy", "plain", _step(batch, None)),
    )
    gates = (Gate("cross-entropy", at_most=1.3), Gate("cross-entropy", at_most=1.15, of="in the batch"))
    return Case("fine-tuning step", f"{label}, C={CLASSES}", entries, gates if crop > 128 else ())


def _batch(images: int, crop: int) -> Batch:
    rng = inputs.rng_of(0)
    labels = inputs.label_maps(rng, images, crop, crop, CLASSES, own=5)
    return Batch(torch.randn(images, 3, crop, crop, generator=rng), labels)


def _step(batch: Batch, contrast: Mapping[str, Any] | None) -> Run:
    """One step as `Finetuning.advance` takes it, without loading; weights and memory go on from call to call."""
    criteria = ["cross_entropy"] if contrast is None else ["cross_entropy", "pixel_contrast"]
    given = {"max_samples": SAMPLES, "warmup_steps": 0, **(contrast or {})}
    found = {name: find_criterion(name) for name in criteria}
    criterion = Combined(found, {
        name: one.Settings(**(given if name == "pixel_contrast" else {})) for name, one in found.items()
    })  # fmt: skip
    segmentor = build_segmentor(NETWORK, CLASSES, generator(0))
    head = criterion.build(NETWORK, NETWORK.last_channels, CLASSES, generator(1))
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
