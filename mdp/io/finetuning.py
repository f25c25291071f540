"""Fine-tuning: ordinary supervised training of a segmentor on the target, from any starting weights."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.chance import generator
from mdp.core.labels import IGNORE
from mdp.core.metrics import mean_iou, pixel_accuracy
from mdp.core.networks import Segmentor, build_segmentor, upsample
from mdp.core.schedules import polynomial, warm_up
from mdp.io.checkpoint import Checkpoint, save
from mdp.io.engine import (
    Position,
    Schedule,
    Work,
    loop,
    momentum_of,
    optimize_,
    position_of,
    prefixed,
    restore_,
    restore_momentum_,
    section,
    seed_dropout,
    sgd,
)
from mdp.io.evaluation import score
from mdp.io.inference import inference_settings
from mdp.io.journal import Journal
from mdp.io.loading import FinetuneItems, Pool, crop_batch, load, stream_batches
from mdp.io.recipe import Recipe, as_layer
from mdp.io.runs import space_json
from mdp.io.signals import Stop


def new_segmentor(recipe: Recipe, classes: int) -> Segmentor:
    """The network that fine-tuning starts from scratch with; a function of the recipe's seed."""
    return build_segmentor(recipe.model, classes, generator(recipe.run.seed, "segmentor"))


def finetune(
    recipe: Recipe,
    network: Segmentor,
    pool: Pool,
    validation: Pool | None,
    folder: Path,
    journal: Journal,
    device: torch.device,
    resume: Checkpoint | None,
) -> float | None:
    """Trains `network` on `pool`, scoring on `validation`; returns the last mIoU there, None without one.

    Raises Diverged before a step that is not finite, Preempted after the checkpoint that a signal asked for.
    """
    settings, seed = recipe.finetune, recipe.run.seed
    schedule = Schedule(
        settings.steps, settings.batch_size, settings.validate_steps, 60 * recipe.run.checkpoint_minutes
    )
    network.to(device).train()
    optimizer = sgd(network, settings.lr, settings.momentum, settings.weight_decay)
    start, last = Position(), None
    if resume:
        restore_(network, section(resume.tensors, "network"), "segmentor")
        restore_momentum_(optimizer, network, section(resume.tensors, "momentum"))
        start, last = position_of(resume.about), resume.about["last"]

    def advance(items: list[Any], step: int) -> dict[str, float]:
        batch = crop_batch(items, device)
        seed_dropout(seed, step)
        logits = upsample(network(batch.images), settings.crop)  # (B, C, H, W)
        loss = cross_entropy(logits, batch.labels, settings.avg_non_ignore)
        lr = polynomial(step / settings.steps, settings.lr, settings.min_lr, settings.power)
        lr *= warm_up(step, settings.warmup_steps)
        return {"loss": optimize_(network, optimizer, loss, lr, f"step {step + 1}"), "lr": lr}

    def validate(step: int, stop: Stop) -> float:
        nonlocal last
        if validation is None:
            return -math.inf
        confusion = score(network, validation, inference_settings(recipe), device, recipe.run.workers, stop).sum(0)
        network.train()
        if not stop:
            last = mean_iou(confusion)
            accuracy = pixel_accuracy(confusion)
            journal.record("validate", step, miou=last, aacc=accuracy)
            journal.say(f"step {step}: validation mIoU {100 * last:.2f}, aAcc {100 * accuracy:.2f}")
        return last if last is not None else -math.inf

    def checkpoint(name: str, position: Position) -> None:
        tensors = {
            **prefixed("network", network.state_dict()),
            **prefixed("momentum", momentum_of(optimizer, network)),
        }
        about = {
            "kind": "finetune",
            **position.as_json(),
            "last": last,
            "recipe": as_layer(recipe),
            "labels": [space_json(space) for space in pool.union.spaces],
        }
        save(folder / "checkpoints" / f"{name}.safetensors", tensors, about)

    keys = stream_batches(seed, len(pool.samples), settings.batch_size, start.step, settings.steps)
    items = load(FinetuneItems(pool, settings, seed), keys, recipe.run.workers)
    loop(Work(items, advance, validate, checkpoint), schedule, journal, start)
    return last


def cross_entropy(logits: Tensor, labels: Tensor, avg_non_ignore: bool) -> Tensor:
    """Pixel cross-entropy of logits (B, C, H, W) and labels (B, H, W), in float32.

    Averaged over the valid pixels, or over all pixels, ignored ones counting as 0 (MMSegmentation before 0.23).
    """
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")
    count = (labels != IGNORE).sum().clamp(min=1) if avg_non_ignore else labels.numel()
    return total / count
