"""Fine-tuning: ordinary supervised training of a segmentor on the target, from any starting weights."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdp.core.chance import generator
from mdp.core.criteria import Part, Source
from mdp.core.criteria.cross_entropy import cross_entropy
from mdp.core.geometry import thin_labels
from mdp.core.labels import IGNORE
from mdp.core.methods import Loss, Progress
from mdp.core.metrics import mean_iou, pixel_accuracy
from mdp.core.networks import Segmentor, TrainedSegmentor, upsample
from mdp.core.networks.decode_heads import HEADS
from mdp.core.networks.freezing import evaluating
from mdp.core.networks.pair import EncoderPair
from mdp.core.processes import Processes
from mdp.core.protocols.segmentation import confusion_of
from mdp.io.data.crops import Crops, FinetuneItems, crop_batch, finished_batch, stack_crops
from mdp.io.data.order import drawn_batches, stream_batches
from mdp.io.data.pool import Key, Pool
from mdp.io.data.selection import Plan, plan_finetuning
from mdp.io.errors import CheckpointError, RecipeError
from mdp.io.evaluation.counts import Reading, tally_pixels
from mdp.io.evaluation.named_score import expect_class, named_score, needs_boundaries
from mdp.io.inference.predict import inference_settings, predict, segmenter
from mdp.io.journal.results_csv import columns
from mdp.io.pictures.best_and_worst import ImageScores, best_median_worst, prediction_sheet
from mdp.io.processes.signals import Stop
from mdp.io.recipe.backbone import backbone_lines, of_backbone
from mdp.io.recipe.layers import Layer, Recipe, resolve
from mdp.io.recipe.published import schedule_layer
from mdp.io.recipe.request import Request, with_paths
from mdp.io.run import folder as run_folder
from mdp.io.run.opened import OpenedRun, new_segmentor
from mdp.io.run.record import FINETUNE, PRETRAIN
from mdp.io.run.restore import prefixed, restore_, section
from mdp.io.training.classifier_init import start_classifier_
from mdp.io.training.context import RunContext
from mdp.io.training.criterion import (
    absent_lines,
    chances,
    combined,
    counts_wanted,
    expect_source,
    fitted,
    memory_bytes,
    memory_lines,
    refuse_misfits,
    source_for,
    start_,
    training_counts,
)
from mdp.io.training.loop import Schedule
from mdp.io.training.optimizers import build_optimizer
from mdp.io.training.phase import Beginning, Phase, Prepared
from mdp.io.training.rates import learning_rate
from mdp.io.training.run import TrainingRun, cache_facts, training_lines
from mdp.io.training.update import Overflow, new_trainee, unharmed, update_
from mdp.io.weights.init import take
from mdp.io.weights.reading import read_record


class Finetuning(TrainingRun):
    """A fine-tuning run: its network, and what a step, a validation and a checkpoint are."""

    kind = FINETUNE
    stack = staticmethod(stack_crops)

    def __init__(
        self,
        plan: Plan,
        network: Segmentor,
        context: RunContext,
        resumed: OpenedRun | None,
        source: Source | None = None,
    ) -> None:
        recipe, settings, seed = plan.recipe, plan.recipe.finetune, plan.recipe.run.seed
        super().__init__(plan, schedule_of(plan), context)
        self.items = FinetuneItems(plan.pool, settings, seed, finish=context.finish)
        self.network = network
        counts = training_counts(plan, context) if counts_wanted(recipe) else None
        self.chances = None if settings.rare_temperature is None else chances(settings, counts)
        classes = plan.pool.union.spaces[0].classes
        self.criterion = combined(recipe, classes, None if counts is None else counts.sum(0))
        if counts is not None and not resumed:
            for line in absent_lines(recipe, classes, counts.sum(0)):
                context.journal.say(line)
        # drawn after the segmentor, by a generator of its own, so that the segmentor has the same weights with any
        head = self.criterion.build(
            recipe.model, recipe.model.last_channels, len(classes), generator(seed, "criterion")
        )
        self.state = self.criterion.initial_state(len(classes), context.device)
        if source:
            self.state = start_(self.criterion, self.state, head, source)
        make = partial(build_optimizer, settings=settings)
        self.trained = TrainedSegmentor(network, head)
        pair = EncoderPair(self.trained, self.trained)
        self.trainee, forward = new_trainee(
            pair, make, recipe.run, context.device, context.world, sync=True, frozen=settings.freeze
        )
        self.forward = forward.query
        self.begin_average_(settings)
        if resumed:
            self._restore_(resumed)

    @property
    def learnt(self) -> Segmentor:
        """The segmentor, without what only training sees."""
        return self.network

    def _restore_(self, resumed: OpenedRun) -> None:
        restore_(self.network, section(resumed.tensors, "network"), "segmentor")
        if self.trained.criterion is not None:
            restore_(self.trained.criterion, section(resumed.tensors, "criterion"), "criterion")
        state = section(resumed.tensors, "state", self.context.device)
        self.state = self.criterion.unpack(state, self.pool.union.size)
        self.restore_training_(resumed)
        self.last = resumed.record.last

    def tensors(self) -> dict[str, Tensor]:
        head = self.trained.criterion
        return {
            **prefixed("network", self.network.state_dict()),
            **(prefixed("criterion", head.state_dict()) if head is not None else {}),
            **prefixed("state", self.criterion.pack(self.state)),
        }

    def keys(self, start: int, steps: int) -> Iterator[list[Key]]:
        seed, images, batch = self.recipe.run.seed, len(self.pool.samples), self.recipe.finetune.batch_size
        if self.chances is not None:
            return drawn_batches(seed, self.chances, batch, start, steps)
        return stream_batches(seed, images, batch, start, steps)

    def finished(self, items: Crops) -> Crops:
        return finished_batch(items, self.context.device, self.pool.statistics)

    def advance(self, items: Crops, step: int) -> dict[str, float]:
        settings, world = self.recipe.finetune, self.context.world
        batch = crop_batch(items, self.context.device, self.pool.statistics)
        epoch_steps = len(self.pool.samples) / settings.batch_size
        lr = learning_rate(settings, step, self.schedule.steps, epoch_steps)
        progress = Progress(step, self.schedule.steps, max(1, round(epoch_steps)))
        labels = thin_labels(batch.labels, settings.loss_stride)
        count = (labels != IGNORE).sum() if settings.avg_non_ignore else labels.new_full((), labels.numel())
        pixels = world.all_sum(count)  # the mean is over the whole batch
        shared = self.criterion.prepare(self.state, batch.labels, self.processes, progress, self.network.grids)
        places = torch.arange(self.processes.own.start, self.processes.own.stop)  # in the whole batch
        parts = (batch.images, labels, places, batch.labels)
        losses = self.losses(parts, step, partial(self._loss, pixels, shared, step))
        try:
            with self.pictured([batch], step), unharmed(self.trainee, [batch]):
                done = update_(self.trainee, losses, lr, f"step {step + 1}")
        except Overflow as error:
            return {**error.record, "lr": lr, "overflow": 1}
        self.average_(settings, step)
        self.state = self.criterion.remember(self.state, done.kept, self.processes)
        return {**done.values, "lr": lr}

    def _loss(
        self, pixels: Tensor, shared: Any, step: int, turn: tuple[Tensor, Tensor, Tensor, Tensor], processes: Processes
    ) -> Loss:
        images, labels, places, whole = turn
        look, head = self.forward(images)
        logits = upsample(look.logits, (labels.shape[1], labels.shape[2]))  # (B, C, H, W)
        part = Part(labels, logits, pixels, self.processes.total, whole)

        def rng(place: int) -> torch.Generator:
            return generator(self.recipe.run.seed, "criterion", step, int(places[place]))

        loss = self.criterion.loss(look, head, shared, part, rng, processes)
        loss = loss._replace(value=loss.value + self._unused())
        return loss if look.coarse is None else self._with_coarse(loss, look.coarse, part)

    def _unused(self) -> Tensor | float:
        """0, with a gradient of 0 for the criterion's extra head: terms that do not use it yet leave it without any.

        What sends gradients early would wait for it, and one process would not decay its weights, where several do.
        """
        head = self.trained.criterion
        parameters = [] if head is None else [one for one in head.parameters() if one.requires_grad]
        return 0 * torch.stack([one.sum() for one in parameters]).sum() if parameters else 0.0

    def _with_coarse(self, loss: Loss, coarse: Tensor, part: Part) -> Loss:
        """The loss and the cross-entropy of a head's auxiliary logits, by the head's weight."""
        auxiliary = HEADS[self.recipe.model.head].auxiliary
        assert auxiliary is not None
        logits = upsample(coarse, (part.labels.shape[1], part.labels.shape[2]))  # (B, C, H, W)
        value = cross_entropy(logits, part.labels, part.pixels)
        return Loss(loss.value + auxiliary.weight * value, {**loss.metrics, "auxiliary": value.detach()}, loss.kept)

    def validate(self, step: int, stop: Stop) -> float | None:
        if self.validation is None:
            return -math.inf  # so that the last checkpoint is the best
        context, run, images = self.context, self.recipe.run, ImageScores()
        chosen = self.recipe.finetune.best
        settings = replace(inference_settings(self.recipe), boundary=needs_boundaries(chosen))
        skipped = context.skip if run.on_bad_sample == "skip" else None
        reading = Reading(workers=run.loaders, world=context.world, stop=stop, skipped=skipped)
        with evaluating(self.scored):
            segment = segmenter(self.scored, settings, context.device)
            counts = tally_pixels(segment, self.validation, settings, reading, [images])
            confusion = confusion_of(counts)
            stopped = stop.agree(context.world)
            if (step == self.schedule.steps or self.schedule.patience) and not stopped:  # any may be the last then
                self._show_predictions(self.validation, images, step)
        if stopped:
            return None
        self.last, accuracy = mean_iou(confusion), pixel_accuracy(confusion)
        score = named_score(chosen, counts, self.validation.union.spaces[0])
        context.journal.record("validate", step, **{"miou": self.last, "aacc": accuracy, chosen: score})
        text = f"mIoU {100 * self.last:.2f}, aAcc {100 * accuracy:.2f}"
        text += f", {chosen} {100 * score:.2f}" if chosen not in ("miou", "aacc") else ""
        context.journal.say(f"step {step}: validation {text}{self.whose}")
        return score

    def _show_predictions(self, pool: Pool, images: ImageScores, step: int) -> None:
        """Draws the best, median and worst images of the validation."""
        chosen = best_median_worst(images.of_all(self.context.world))
        space, settings = pool.union.spaces[0], inference_settings(self.recipe)
        names = [sample.image for sample in pool.samples]

        def guess(index: int) -> tuple[Tensor, Tensor, Tensor]:
            image, labels = pool.read(index)
            return image, predict(self.scored, image, settings, self.context.device), labels

        title = f"{space.name}: validation after step {step}"
        if chosen:
            self.context.picture(
                f"predictions/{space.name}.png", lambda: prediction_sheet(chosen, guess, names, space, title)
            )


# The phase


def schedule_of(plan: Plan) -> Schedule:
    """The schedule of fine-tuning."""
    settings, run = plan.recipe.finetune, plan.recipe.run
    seconds = 60 * run.checkpoint_minutes
    steps = settings.steps
    if settings.epochs is not None:
        steps = max(1, round(settings.epochs * len(plan.pool.samples) / settings.batch_size))
    every = settings.validate_steps
    return Schedule(steps, settings.batch_size, every, seconds, run.keep_steps, settings.patience or 0)


def finetune_recipe(request: Request) -> tuple[Recipe, Path | None]:
    """The recipe that a `finetune` command line resolves to, and the weights it starts from (None: scratch).

    The model's settings are those of the run that the weights come from, unless another backbone is asked for.
    Raises CheckpointError without any weights.
    """
    section = request.asked.get("finetune")
    target = str(section.get("target", "")) if isinstance(section, Mapping) else ""  # anything else is refused below
    weights = None
    if request.init != "scratch":
        source = Path(request.init) if request.init else run_folder.newest(PRETRAIN)
        if source is None:
            raise CheckpointError(
                f"no pretraining run in {run_folder.BASE / PRETRAIN} or {run_folder.BASE}; run `mdp pretrain` first, "
                "or give --init RUN or FILE of another place, or --init scratch for random weights"
            )
        weights = run_folder.checkpoint_of(source)
    record, published = read_record(weights) if weights else None, schedule_layer(target.partition(":")[0])
    if record and _backbone(request.asked) in (None, record.recipe["model"].get("backbone")):
        model: Layer = {"model": record.recipe["model"]}
        return fitted(with_paths(resolve(published, model, *request.layers)), record), weights
    return fitted(of_backbone(with_paths(resolve(published, *request.layers))), record), weights


def _backbone(asked: Layer) -> Any:
    """The backbone that is asked for, if any is."""
    section = asked.get("model")
    return section.get("backbone") if isinstance(section, Mapping) else None  # anything else is refused elsewhere


def _plan(recipe: Recipe) -> Plan:
    """The data.  Raises RecipeError where they do not have what is asked of them, such as the class of `best`."""
    plan, settings = plan_finetuning(recipe), recipe.finetune
    refuse_misfits(plan)
    if plan.validation is None and (settings.patience or settings.best != "miou"):
        key = "patience" if settings.patience else "best"
        raise RecipeError(
            f"finetune.{key}: {settings.target} has no validation split, so there is no score; leave it out"
        )
    try:
        expect_class(settings.best, plan.pool.union.spaces[0])
    except ValueError as error:
        raise RecipeError(f"finetune.{error}") from error
    return plan


def _prepare(beginning: Beginning) -> Prepared:
    plan, recipe = beginning.plan, beginning.plan.recipe
    network = new_segmentor(recipe, plan.pool.union.size)
    report = [] if beginning.resumed else _start_(network, beginning)
    report += training_lines(FINETUNE, lambda: network, recipe.finetune, recipe.run)
    steps, batch = schedule_of(plan).steps, recipe.finetune.batch_size
    source, lines = (None, []) if beginning.resumed else source_for(plan, beginning.weights, beginning.device)
    report += [*lines, *memory_lines(plan)]
    line = f"{steps:,} steps of {batch} crops on {beginning.where(batch)}"
    lines = [*([] if beginning.resumed else backbone_lines(recipe.model)), *report, line]
    return Prepared(lines, lambda context: Finetuning(plan, network, context, beginning.resumed, source))


def _start_(network: Segmentor, beginning: Beginning) -> list[str]:
    """Puts what there is to start from into a fresh network, and says what came from where."""
    recipe, weights = beginning.plan.recipe, beginning.weights
    report = ["starting from random weights"]
    if weights:
        load, run = recipe.finetune.load, recipe.run
        tensors, report = take(weights, network, load, run.init_from, run.init_partial)
        report += filter(None, [run_folder.unfinished(weights)])
        network.load_state_dict(tensors, strict=False)  # what fits was decided, and reported, by `take`
    if recipe.finetune.head_init == "prototypes":
        if weights is None:
            raise RecipeError("--head-init prototypes: scratch has no prototypes; give --init RUN")
        report.append(start_classifier_(network, weights, recipe, beginning.plan.pool, beginning.device))
    return report


def describe_finetuning(request: Request) -> dict[str, Any]:
    """The data, steps and weights that a fine-tuning run would take, without running it (`--dry-run`).

    Raises what the run would raise: the images must be there, and the weights must fit.
    """
    recipe, weights = finetune_recipe(request)
    plan = _plan(recipe)
    schedule, network = schedule_of(plan), new_segmentor(plan.recipe, plan.pool.union.size)
    settings, run = plan.recipe.finetune, plan.recipe.run
    expect_source(plan.recipe, plan.pool.union.spaces[0].classes, weights)
    taken = take(weights, network, settings.load, run.init_from, run.init_partial)[1] if weights else []
    return {
        "target": plan.pool.union.spaces[0].name,
        "found": [*plan.lines, *backbone_lines(plan.recipe.model)],
        "starts_from": taken or ["random weights"],
        "images": len(plan.pool.samples),
        "classes": plan.pool.union.size,
        "steps": schedule.steps,
        "batch_size": schedule.batch,
        "images_seen": schedule.steps * schedule.batch,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "state_bytes": memory_bytes(plan),
        **cache_facts(run, lambda: plan),
    }


FINETUNING = Phase(
    kind=FINETUNE,
    least=2,  # heads pool an image to one value a channel, and BatchNorm in training needs two
    recipe=finetune_recipe,
    plan=_plan,
    schedule=schedule_of,
    columns=partial(columns, FINETUNE),
    prepare=_prepare,
    describe=describe_finetuning,
    sections=("run", "data", "model", "criterion", "finetune", "eval"),
)
