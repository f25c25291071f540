"""Pretraining: builds what the loop needs and says what one step, one validation and one checkpoint are.

The shell owns everything that changes; the method owns nothing.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdp.core.chance import generator
from mdp.core.labels import LabelUnion
from mdp.core.methods import Data
from mdp.core.networks.pair import follow_
from mdp.core.schedules import cosine, warm_up
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
from mdp.io.errors import RecipeError
from mdp.io.journal import Journal
from mdp.io.loading import Pool, PretrainItems, epoch_batches, load, view_batches
from mdp.io.probing import probe
from mdp.io.recipe import Recipe, as_layer, find_method
from mdp.io.runs import space_json
from mdp.io.signals import Stop


def schedule_of(recipe: Recipe, images: int) -> tuple[Schedule, int]:
    """The schedule of pretraining on so many images (a batch at least), and the number of steps an epoch."""
    settings = recipe.pretrain
    length = images // settings.batch_size
    steps = settings.steps or settings.epochs * length
    return Schedule(
        steps, settings.batch_size, settings.validate_epochs * length, 60 * recipe.run.checkpoint_minutes
    ), length


def data_of(recipe: Recipe, union: LabelUnion, images: int) -> Data:
    """What the method may know of its data.  Raises RecipeError when its settings do not fit them."""
    batch = recipe.pretrain.batch_size
    data = Data(union, batch, images // batch)
    try:
        find_method(recipe.method.name).initial_state(
            recipe.method.settings, data, torch.Generator(), torch.device("meta")
        )
    except ValueError as error:
        raise RecipeError(f"method.{error}") from error
    return data


def pretrain(
    recipe: Recipe,
    pool: Pool,
    validation: Pool,
    folder: Path,
    journal: Journal,
    device: torch.device,
    resume: Checkpoint | None,
    weights: dict[str, Tensor],
) -> None:
    """Pretrains on `pool`, scoring on `validation`; checkpoints and journal go to `folder`.

    Goes on from `resume`, or starts from random weights with `weights` in their place where there are any.

    Raises Diverged before a step that is not finite, Preempted after the checkpoint that a signal asked for.
    """
    settings, seed = recipe.pretrain, recipe.run.seed
    method, chosen = find_method(recipe.method.name), recipe.method.settings
    schedule, length = schedule_of(recipe, len(pool.samples))
    data = data_of(recipe, pool.union, len(pool.samples))
    pair = method.build(chosen, recipe.model, data, generator(seed, "weights"))
    for network in pair:
        network.load_state_dict(weights, strict=False)  # what fits was decided, and reported, before
        network.to(device).train()
    optimizer = sgd(pair.query, settings.lr, settings.momentum, settings.weight_decay)
    state = method.initial_state(chosen, data, generator(seed, "state"), device)
    start = Position()
    if resume:
        restore_(pair.query, section(resume.tensors, "query"), "query encoder")
        if pair.key is not pair.query:
            restore_(pair.key, section(resume.tensors, "key"), "key encoder")
        restore_momentum_(optimizer, pair.query, section(resume.tensors, "momentum"))
        state = method.unpack(section(resume.tensors, "state", device), chosen, data)
        start = position_of(resume.about)

    def advance(items: list[Any], step: int) -> dict[str, float]:
        nonlocal state
        views = view_batches(items, device)
        seed_dropout(seed, step)
        outcome = method.step(pair, state, views, chosen, generator(seed, "step", step), all_sum=alone)
        lr = settings.lr * cosine(step / schedule.steps) * warm_up(step, settings.warmup_steps)
        loss = optimize_(pair.query, optimizer, outcome.loss, lr, f"step {step + 1}")
        follow_(pair, method.key_momentum(chosen))
        state = outcome.state
        metrics = {name: value.item() for name, value in outcome.metrics.items()}
        return {"epoch": step // length, **metrics, "loss": loss, "lr": lr}

    def validate(step: int, stop: Stop) -> float:
        known = method.known_prototypes(state, chosen)
        classify = partial(method.class_scores, pair, state, settings=chosen)
        scores = probe(pair.query, classify, known, validation, settings, pair.query.output_stride, device, stop)
        if not stop:
            journal.record("validate", step, **scores.as_json(pool.union.names))
            journal.say(f"step {step}: {scores.sentence(pool.union.size)}")
        return scores.mean_iou

    def checkpoint(name: str, position: Position) -> None:
        tensors = {
            **prefixed("query", pair.query.state_dict()),
            **(prefixed("key", pair.key.state_dict()) if pair.key is not pair.query else {}),
            **prefixed("momentum", momentum_of(optimizer, pair.query)),
            **prefixed("state", method.pack(state)),
        }
        about = {
            "kind": "pretrain",
            **position.as_json(),
            "recipe": as_layer(recipe),
            "labels": [space_json(space) for space in pool.union.spaces],
        }
        save(folder / "checkpoints" / f"{name}.safetensors", tensors, about)

    keys = epoch_batches(
        seed, list(pool.sizes().values()), settings.batch_size, settings.balance, start.step, schedule.steps
    )
    items = load(PretrainItems(pool, settings, seed), keys, recipe.run.workers)
    loop(Work(items, advance, validate, checkpoint), schedule, journal, start)


def alone(tensor: Tensor) -> Tensor:
    """The sum over all processes when there is one."""
    return tensor
