"""Pretraining: what one step, one validation and one checkpoint are; the loop decides when.

The run owns everything that changes; the method owns nothing.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mdp.core.batches import Batch, Blend
from mdp.core.chance import generator
from mdp.core.labels import LabelUnion
from mdp.core.methods import Data, Loss, split
from mdp.core.networks import EncoderPair
from mdp.core.networks.pair import follow_
from mdp.core.schedules import cosine, warm_up
from mdp.io.data.loader import own_parts
from mdp.io.data.order import epoch_batches
from mdp.io.data.pool import Key, Pool
from mdp.io.data.selection import expect_pretraining
from mdp.io.data.views import PretrainItems, Views, stack_views, view_batches
from mdp.io.errors import Diverged, RecipeError
from mdp.io.pictures.samples import sample_sheet, strangest
from mdp.io.processes.signals import Stop
from mdp.io.recipe.layers import Recipe, resolve
from mdp.io.recipe.methods import find_method
from mdp.io.recipe.request import Request, with_paths
from mdp.io.run.opened import OpenedRun
from mdp.io.run.record import Position
from mdp.io.run.restore import prefixed, restore_, section
from mdp.io.training.context import RunContext
from mdp.io.training.loop import Schedule, loop
from mdp.io.training.optimizers import momentum_of, restore_momentum_, sgd
from mdp.io.training.update import Overflow, new_trainee, part_key, seed_dropout, unharmed, update_
from mdp.io.training.validation import Looker, draw_predictions, probe

Weights = dict[str, Tensor]


def schedule_of(recipe: Recipe, images: int) -> tuple[Schedule, int]:
    """The schedule of pretraining on so many images (a batch at least), and the number of steps an epoch."""
    settings = recipe.pretrain
    length = images // settings.batch_size
    steps = settings.steps or settings.epochs * length
    every, seconds = settings.validate_epochs * length, 60 * recipe.run.checkpoint_minutes
    return Schedule(steps, settings.batch_size, every, seconds, recipe.run.keep_steps), length


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


class Pretraining:
    """A pretraining run: its networks, the method's state, and what a step, a validation and a checkpoint are."""

    def __init__(
        self,
        recipe: Recipe,
        pool: Pool,
        validation: Pool,
        context: RunContext,
        resume: OpenedRun | None,
        weights: Weights,
    ) -> None:
        settings, seed = recipe.pretrain, recipe.run.seed
        self.recipe, self.pool, self.validation, self.context = recipe, pool, validation, context
        self.method, self.chosen = find_method(recipe.method.name), recipe.method.settings
        self.schedule, self.epoch_steps = schedule_of(recipe, len(pool.samples))
        self.processes = context.world.share(settings.batch_size)
        data = data_of(recipe, pool.union, len(pool.samples))
        self.pair = self.method.build(self.chosen, recipe.model, data, generator(seed, "weights"))
        for network in self.pair:
            network.load_state_dict(weights, strict=False)  # what fits was decided, and reported, before
        make = partial(sgd, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)
        sync = self.method.SYNC_BATCH_NORM
        self.trainee, self.forward = new_trainee(self.pair, make, recipe.run, context.device, context.world, sync)
        self.state = self.method.initial_state(self.chosen, data, generator(seed, "state"), context.device)
        if resume:
            self._restore_(resume, data)

    def _restore_(self, resume: OpenedRun, data: Data) -> None:
        restore_(self.pair.query, section(resume.tensors, "query"), "query encoder")
        if self.pair.key is not self.pair.query:
            restore_(self.pair.key, section(resume.tensors, "key"), "key encoder")
        restore_momentum_(self.trainee.optimizer, self.pair.query, section(resume.tensors, "momentum"))
        self.state = self.method.unpack(section(resume.tensors, "state", self.context.device), self.chosen, data)
        self.trainee.scaler.load_state_dict(dict(resume.record.scaler))

    def keys(self, start: int, steps: int) -> Iterator[list[Key]]:
        """The keys of steps start .. steps - 1 of the whole batch."""
        settings, sizes = self.recipe.pretrain, list(self.pool.sizes().values())
        return epoch_batches(self.recipe.run.seed, sizes, settings.batch_size, settings.balance, start, steps)

    def samples(self, step: int) -> list[str]:
        return [self.pool.name(index) for _, index in next(self.keys(step, step + 1))]

    def advance(self, items: Views, step: int) -> dict[str, float]:
        settings, seed = self.recipe.pretrain, self.recipe.run.seed
        views = view_batches(items, self.context.device)
        lr = settings.lr * cosine(step / self.schedule.steps) * warm_up(step, settings.warmup_steps)
        seen: Sequence[Batch | Blend] = views
        try:
            with unharmed(self.trainee, views):
                seed_dropout(seed, step, self.context.world.rank, "keys")  # a key encoder may have stochastic depth
                with self.trainee.autocast():
                    ready = self.method.prepare(
                        self.pair, self.state, views, self.chosen, generator(seed, "step", step), self.processes
                    )
                seen = [part for part in ready.parts if isinstance(part, Blend)] or views  # as they are mixed
                losses = [
                    partial(self._loss, ready.shared, part, step, number)
                    for number, part in enumerate(split(ready.parts, items.labels.shape[1], self.recipe.run.accumulate))
                ]
                values = update_(self.trainee, losses, lr, f"step {step + 1}", ready.metrics)
        except Overflow as error:
            return {"epoch": step // self.epoch_steps, **error.record, "lr": lr, "overflow": 1}
        except Diverged:
            self._picture("failed", seen, step)
            raise
        if step == 0:
            self._picture("first", seen, step)
        follow_(self.pair, self.method.key_momentum(self.chosen))
        self.state = ready.state
        return {"epoch": step // self.epoch_steps, **values, "lr": lr}

    def _picture(self, name: str, seen: Sequence[Batch | Blend], step: int) -> None:
        """Draws samples of this process's part of the batch; the strangest ones first where the step failed."""
        names, rows = self.samples(step)[self.processes.own], None
        if name == "failed":
            rows = strangest(torch.cat([view.images for view in seen], 1))
        title = f"step {step + 1}: samples as the network gets them"
        self.context.picture(f"samples/{name}.png", lambda: sample_sheet(seen, names, self.pool.union, title, rows))

    def _loss(self, shared: Any, part: Any, step: int, number: int) -> Loss:
        """The loss of one part, which has dropout of its own."""
        seed_dropout(self.recipe.run.seed, step, *part_key(self.context.world, number))
        return self.method.loss(self.forward, shared, part, self.chosen)

    def validate(self, step: int, stop: Stop) -> float | None:
        known = self.method.known_prototypes(self.state, self.chosen)
        classify = partial(self.method.class_scores, self.pair, self.state, settings=self.chosen)
        query, context = self.pair.query, self.context
        looker = Looker(classify, self.validation, self.recipe.pretrain, query.output_stride, context.device)
        scores = probe(query, looker, known, stop, context.world)
        if stop.agree(context.world):
            return None
        context.journal.record("validate", step, **scores.as_json(self.pool.union.names))
        context.journal.say(f"step {step}: {scores.sentence(self.pool.union.size)}")
        for name, images in scores.images.items() if step == self.schedule.steps else ():
            scored = images.of_all(context.world)
            title = f"{name}: validation after step {step}, scored on the feature grid"
            draw = partial(draw_predictions, query, looker, name, scored, title)
            context.picture(f"predictions/{name}.png", draw)
        return scores.mean_iou

    def checkpoint(self, name: str, position: Position) -> None:
        tensors = {
            **prefixed("query", self.pair.query.state_dict()),
            **(prefixed("key", self.pair.key.state_dict()) if self.pair.key is not self.pair.query else {}),
            **prefixed("momentum", momentum_of(self.trainee.optimizer, self.pair.query)),
            **prefixed("state", self.method.pack(self.state)),
        }
        self.context.save(name, tensors, "pretrain", position, self.recipe, self.pool.union, self.trainee.scaler)


def pretrain(
    recipe: Recipe,
    pool: Pool,
    validation: Pool,
    context: RunContext,
    stop: Stop,
    resume: OpenedRun | None,
    weights: Weights,
) -> None:
    """Pretrains on `pool`, scoring on `validation`; checkpoints and journal go to `context`.

    Goes on from `resume`, or starts from random weights with `weights` in their place where there are any.

    Raises Diverged before a step that is not finite, Preempted after the checkpoint that a signal asked for.
    """
    run = Pretraining(recipe, pool, validation, context, resume, weights)
    start = resume.record.position if resume else Position()
    keys = own_parts(run.keys(start.step, run.schedule.steps), run.processes.own)
    made = PretrainItems(pool, recipe.pretrain, recipe.run.seed, finish=context.finish)
    items = context.load(made, pool, keys, recipe.run, stack_views)
    advice = context.advice(pool, recipe.run.workers)
    loop(run, items, run.schedule, context.journal, start, stop, context.world, advice)


def pretrain_recipe(request: Request) -> Recipe:
    """The recipe that a `pretrain` command line resolves to."""
    return with_paths(resolve(request.asked))


def describe_pretraining(request: Request) -> dict[str, Any]:
    """What a pretraining run would need, without running it (`--dry-run`)."""
    expected = expect_pretraining(pretrain_recipe(request))
    recipe, images = expected.recipe, sum(expected.images.values())
    schedule, length = schedule_of(recipe, images)
    data = data_of(recipe, expected.union, images)
    method, settings = find_method(recipe.method.name), recipe.method.settings
    pair: EncoderPair[Any] = method.build(settings, recipe.model, data, torch.Generator())
    return {
        "method": recipe.method.name,
        "found": expected.lines,
        "images": expected.images,
        "classes": expected.union.size,
        "epochs": recipe.pretrain.epochs if recipe.pretrain.steps is None else None,
        "steps": schedule.steps,
        "steps_an_epoch": length,
        "batch_size": schedule.batch,
        "images_seen": schedule.steps * schedule.batch,
        "parameters": sum(parameter.numel() for parameter in pair.query.parameters()),
        "state_bytes": method.state_bytes(settings, data),
    }
