"""Fine-tuning: ordinary supervised training of a segmentor on the target, from any starting weights."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from mdp.core.batches import Batch
from mdp.core.criteria.cross_entropy import cross_entropy
from mdp.core.labels import IGNORE
from mdp.core.methods import Loss, split
from mdp.core.metrics import mean_iou, pixel_accuracy
from mdp.core.networks import Segmentor, upsample
from mdp.core.networks.pair import EncoderPair
from mdp.core.schedules import polynomial, warm_up
from mdp.io.data.crops import Crops, FinetuneItems, crop_batch, stack_crops
from mdp.io.data.loader import own_parts
from mdp.io.data.order import stream_batches
from mdp.io.data.pool import Key, Pool
from mdp.io.errors import CheckpointError, Diverged
from mdp.io.evaluation.counts import score
from mdp.io.inference.predict import inference_settings, predict
from mdp.io.pictures.best_and_worst import ImageScores, best_median_worst, prediction_sheet
from mdp.io.pictures.samples import sample_sheet, strangest
from mdp.io.processes.signals import Stop
from mdp.io.recipe.layers import Layer, Recipe, resolve
from mdp.io.recipe.published import schedule_layer
from mdp.io.recipe.request import Request, with_paths
from mdp.io.run import folder as run_folder
from mdp.io.run.opened import OpenedRun
from mdp.io.run.record import Position
from mdp.io.run.restore import prefixed, restore_, section
from mdp.io.training.context import RunContext
from mdp.io.training.loop import Schedule, loop
from mdp.io.training.optimizers import momentum_of, restore_momentum_, sgd
from mdp.io.training.update import Overflow, new_trainee, part_key, seed_dropout, unharmed, update_
from mdp.io.weights.reading import read_record


class Finetuning:
    """A fine-tuning run: its network, and what a step, a validation and a checkpoint are."""

    def __init__(
        self,
        recipe: Recipe,
        network: Segmentor,
        pool: Pool,
        validation: Pool | None,
        context: RunContext,
        resume: OpenedRun | None,
    ) -> None:
        settings = recipe.finetune
        self.recipe, self.network, self.pool, self.validation, self.context = recipe, network, pool, validation, context
        self.processes = context.world.share(settings.batch_size)
        make = partial(sgd, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)
        pair = EncoderPair(network, network)
        self.trainee, forward = new_trainee(pair, make, recipe.run, context.device, context.world, sync=True)
        self.forward = forward.query
        self.last: float | None = None
        if resume:
            restore_(network, section(resume.tensors, "network"), "segmentor")
            restore_momentum_(self.trainee.optimizer, network, section(resume.tensors, "momentum"))
            self.trainee.scaler.load_state_dict(dict(resume.record.scaler))
            self.last = resume.record.last

    def keys(self, start: int, steps: int) -> Iterator[list[Key]]:
        """The keys of steps start .. steps - 1 of the whole batch."""
        return stream_batches(
            self.recipe.run.seed, len(self.pool.samples), self.recipe.finetune.batch_size, start, steps
        )

    def samples(self, step: int) -> list[str]:
        return [self.pool.name(index) for _, index in next(self.keys(step, step + 1))]

    def advance(self, items: Crops, step: int) -> dict[str, float]:
        settings = self.recipe.finetune
        batch = crop_batch(items, self.context.device)
        lr = polynomial(step / settings.steps, settings.lr, settings.min_lr, settings.power)
        lr *= warm_up(step, settings.warmup_steps)
        count = (batch.labels != IGNORE).sum() if settings.avg_non_ignore else torch.tensor(batch.labels.numel())
        pixels = self.context.world.all_sum(count).to(self.context.device)
        losses = [
            partial(self._loss, part, pixels, step, number)
            for number, part in enumerate(split(batch, len(batch.labels), self.recipe.run.accumulate))
        ]
        try:
            with unharmed(self.trainee, [batch]):
                values = update_(self.trainee, losses, lr, f"step {step + 1}")
        except Overflow as error:
            return {**error.record, "lr": lr, "overflow": 1}
        except Diverged:
            self._picture("failed", batch, step)
            raise
        if step == 0:
            self._picture("first", batch, step)
        return {**values, "lr": lr}

    def _picture(self, name: str, batch: Batch, step: int) -> None:
        """Draws samples of this process's part of the batch; the strangest ones first where the step failed."""
        names = self.samples(step)[self.processes.own]
        rows = strangest(batch.images) if name == "failed" else None
        title = f"step {step + 1}: samples as the network gets them"
        self.context.picture(f"samples/{name}.png", lambda: sample_sheet([batch], names, self.pool.union, title, rows))

    def _loss(self, part: Batch, pixels: Tensor, step: int, number: int) -> Loss:
        """The loss of one part of the batch, which has dropout of its own."""
        seed_dropout(self.recipe.run.seed, step, *part_key(self.context.world, number))
        logits = upsample(self.forward(part.images), self.recipe.finetune.crop)  # (B, C, H, W)
        return Loss(cross_entropy(logits, part.labels, pixels), {})

    def validate(self, step: int, stop: Stop) -> float | None:
        if self.validation is None:
            return -math.inf
        context, run, images = self.context, self.recipe.run, ImageScores()
        confusion = score(
            self.network, self.validation, inference_settings(self.recipe), context.device, run.workers, stop,
            world=context.world, skipped=context.skip if run.on_bad_sample == "skip" else None, observer=images,
        ).sum(0)  # fmt: skip
        stopped = stop.agree(context.world)
        if step == self.recipe.finetune.steps and not stopped:
            self._show_predictions(self.validation, images, step)
        self.network.train()
        if stopped:
            return None
        self.last, accuracy = mean_iou(confusion), pixel_accuracy(confusion)
        context.journal.record("validate", step, miou=self.last, aacc=accuracy)
        context.journal.say(f"step {step}: validation mIoU {100 * self.last:.2f}, aAcc {100 * accuracy:.2f}")
        return self.last

    def _show_predictions(self, pool: Pool, images: ImageScores, step: int) -> None:
        """Draws the best, median and worst images of the validation."""
        chosen = best_median_worst(images.of_all(self.context.world))
        space, settings = pool.union.spaces[0], inference_settings(self.recipe)
        names = [sample.image for sample in pool.samples]

        def guess(index: int) -> tuple[Tensor, Tensor, Tensor]:
            image, labels = pool.read(index)
            return image, predict(self.network, image, settings, self.context.device), labels

        title = f"{space.name}: validation after step {step}"
        if chosen:
            self.context.picture(
                f"predictions/{space.name}.png", lambda: prediction_sheet(chosen, guess, names, space, title)
            )

    def checkpoint(self, name: str, position: Position) -> None:
        tensors = {
            **prefixed("network", self.network.state_dict()),
            **prefixed("momentum", momentum_of(self.trainee.optimizer, self.network)),
        }
        self.context.save(
            name, tensors, "finetune", position, self.recipe, self.pool.union, self.trainee.scaler, last=self.last
        )


def finetune(
    recipe: Recipe,
    network: Segmentor,
    pool: Pool,
    validation: Pool | None,
    context: RunContext,
    stop: Stop,
    resume: OpenedRun | None,
) -> float | None:
    """Trains `network` on `pool`, scoring on `validation`; returns the last mIoU there, None without one.

    Raises Diverged before a step that is not finite, Preempted after the checkpoint that a signal asked for.
    """
    settings, seconds = recipe.finetune, 60 * recipe.run.checkpoint_minutes
    run = Finetuning(recipe, network, pool, validation, context, resume)
    start = resume.record.position if resume else Position()
    schedule = Schedule(settings.steps, settings.batch_size, settings.validate_steps, seconds, recipe.run.keep_steps)
    keys = own_parts(run.keys(start.step, settings.steps), run.processes.own)
    made = FinetuneItems(pool, settings, recipe.run.seed, finish=context.finish)
    items = context.load(made, pool, keys, recipe.run, stack_crops)
    advice = context.advice(pool, recipe.run.workers)
    loop(run, items, schedule, context.journal, start, stop, context.world, advice)
    return run.last


def finetune_recipe(request: Request) -> tuple[Recipe, Path | None]:
    """The recipe that a `finetune` command line resolves to, and the weights it starts from (None: scratch).

    The model's settings are those of the run that the weights come from.  Raises CheckpointError without any weights.
    """
    asked = request.asked
    target = str((asked.get("finetune") or {}).get("target", ""))
    weights = None
    if request.init != "scratch":
        source = Path(request.init) if request.init else run_folder.newest("pretrain")
        if source is None:
            raise CheckpointError(
                f"no pretraining run under {run_folder.BASE / 'pretrain'}; run `mdp pretrain` first, or give "
                "--init FILE, or --init scratch for random weights"
            )
        weights = run_folder.checkpoint_of(source)
    model: Layer = {}
    if weights:
        record = read_record(weights)
        model = {"model": record.recipe["model"]} if record else {}
    return with_paths(resolve(schedule_layer(target.partition(":")[0]), model, asked)), weights
