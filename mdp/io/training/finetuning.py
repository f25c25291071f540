"""Fine-tuning: ordinary supervised training of a segmentor on the target, from any starting weights."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from mdp.core.batches import Batch
from mdp.core.criteria.cross_entropy import cross_entropy
from mdp.core.labels import IGNORE
from mdp.core.methods import Loss
from mdp.core.metrics import mean_iou, pixel_accuracy
from mdp.core.networks import Segmentor, upsample
from mdp.core.networks.freezing import evaluating
from mdp.core.networks.pair import EncoderPair
from mdp.core.processes import Processes
from mdp.core.protocols.segmentation import confusion_of
from mdp.io.data.crops import Crops, FinetuneItems, crop_batch, stack_crops
from mdp.io.data.order import stream_batches
from mdp.io.data.pool import Key, Pool
from mdp.io.data.selection import Plan, plan_finetuning
from mdp.io.errors import CheckpointError, RecipeError
from mdp.io.evaluation.counts import Reading, tally_pixels
from mdp.io.inference.predict import inference_settings, predict, segmenter
from mdp.io.journal.results_csv import columns
from mdp.io.pictures.best_and_worst import ImageScores, best_median_worst, prediction_sheet
from mdp.io.processes.signals import Stop
from mdp.io.recipe.layers import Layer, Recipe, as_yaml, resolve
from mdp.io.recipe.published import schedule_layer
from mdp.io.recipe.request import Request, with_paths
from mdp.io.run import folder as run_folder
from mdp.io.run.opened import OpenedRun, new_segmentor
from mdp.io.run.record import FINETUNE, PRETRAIN
from mdp.io.run.restore import prefixed, restore_, section
from mdp.io.training.classifier_init import start_classifier_
from mdp.io.training.context import RunContext
from mdp.io.training.loop import Schedule
from mdp.io.training.optimizers import build_optimizer
from mdp.io.training.phase import Beginning, Phase, Prepared
from mdp.io.training.rates import learning_rate
from mdp.io.training.run import TrainingRun, training_lines
from mdp.io.training.update import Overflow, new_trainee, unharmed, update_
from mdp.io.weights.init import take
from mdp.io.weights.reading import read_record


class Finetuning(TrainingRun):
    """A fine-tuning run: its network, and what a step, a validation and a checkpoint are."""

    kind = FINETUNE
    stack = staticmethod(stack_crops)

    def __init__(self, plan: Plan, network: Segmentor, context: RunContext, resumed: OpenedRun | None) -> None:
        recipe, settings = plan.recipe, plan.recipe.finetune
        super().__init__(plan, schedule_of(plan), context)
        self.items = FinetuneItems(plan.pool, settings, recipe.run.seed, finish=context.finish)
        self.network = network
        make = partial(build_optimizer, settings=settings)
        pair = EncoderPair(network, network)
        self.trainee, forward = new_trainee(
            pair, make, recipe.run, context.device, context.world, sync=True, frozen=settings.freeze
        )
        self.forward = forward.query
        self.begin_average_(settings)
        if resumed:
            restore_(network, section(resumed.tensors, "network"), "segmentor")
            self.restore_training_(resumed)
            self.last = resumed.record.last

    def tensors(self) -> dict[str, Tensor]:
        return prefixed("network", self.network.state_dict())

    def keys(self, start: int, steps: int) -> Iterator[list[Key]]:
        seed, images = self.recipe.run.seed, len(self.pool.samples)
        return stream_batches(seed, images, self.recipe.finetune.batch_size, start, steps)

    def advance(self, items: Crops, step: int) -> dict[str, float]:
        settings = self.recipe.finetune
        batch = crop_batch(items, self.context.device)
        lr = learning_rate(settings, step, self.schedule.steps, len(self.pool.samples) / settings.batch_size)
        count = (batch.labels != IGNORE).sum() if settings.avg_non_ignore else torch.tensor(batch.labels.numel())
        pixels = self.context.world.all_sum(count).to(self.context.device)  # the mean is over the whole batch
        losses = self.losses(batch, step, partial(self._loss, pixels))
        try:
            with self.pictured([batch], step), unharmed(self.trainee, [batch]):
                values = update_(self.trainee, losses, lr, f"step {step + 1}").values
        except Overflow as error:
            return {**error.record, "lr": lr, "overflow": 1}
        self.average_(settings, step)
        return {**values, "lr": lr}

    def _loss(self, pixels: Tensor, part: Batch, processes: Processes) -> Loss:
        logits = upsample(self.forward(part.images), self.recipe.finetune.crop)  # (B, C, H, W)
        return Loss(cross_entropy(logits, part.labels, pixels), {})

    def validate(self, step: int, stop: Stop) -> float | None:
        if self.validation is None:
            return -math.inf  # so that the last checkpoint is the best
        context, run, images = self.context, self.recipe.run, ImageScores()
        settings = replace(inference_settings(self.recipe), boundary=False)
        skipped = context.skip if run.on_bad_sample == "skip" else None
        reading = Reading(workers=run.workers, world=context.world, stop=stop, skipped=skipped)
        with evaluating(self.scored):
            segment = segmenter(self.scored, settings, context.device)
            confusion = confusion_of(tally_pixels(segment, self.validation, settings, reading, [images]))
            stopped = stop.agree(context.world)
            if step == self.schedule.steps and not stopped:
                self._show_predictions(self.validation, images, step)
        if stopped:
            return None
        self.last, accuracy = mean_iou(confusion), pixel_accuracy(confusion)
        context.journal.record("validate", step, miou=self.last, aacc=accuracy)
        text = f"mIoU {100 * self.last:.2f}, aAcc {100 * accuracy:.2f}"
        context.journal.say(f"step {step}: validation {text}{self.whose}")
        return self.last

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
    return Schedule(steps, settings.batch_size, settings.validate_steps, seconds, run.keep_steps)


def finetune_recipe(request: Request) -> tuple[Recipe, Path | None]:
    """The recipe that a `finetune` command line resolves to, and the weights it starts from (None: scratch).

    The model's settings are those of the run that the weights come from.  Raises CheckpointError without any weights.
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
    model: Layer = {}
    if weights:
        record = read_record(weights)
        model = {"model": record.recipe["model"]} if record else {}
    return with_paths(resolve(schedule_layer(target.partition(":")[0]), model, *request.layers)), weights


def _prepare(beginning: Beginning) -> Prepared:
    plan, recipe = beginning.plan, beginning.plan.recipe
    network = new_segmentor(recipe, plan.pool.union.size)
    report = [] if beginning.resumed else _start_(network, beginning)
    report += training_lines(FINETUNE, lambda: network, recipe.finetune)
    steps, batch = schedule_of(plan).steps, recipe.finetune.batch_size
    line = f"{steps:,} steps of {batch} crops on {beginning.where(batch)}"
    return Prepared([*report, line], lambda context: Finetuning(plan, network, context, beginning.resumed))


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


FINETUNING = Phase(
    kind=FINETUNE,
    least=2,  # heads pool an image to one value a channel, and BatchNorm in training needs two
    recipe=finetune_recipe,
    plan=plan_finetuning,
    schedule=schedule_of,
    columns=partial(columns, FINETUNE),
    prepare=_prepare,
)


def finetune_yaml(request: Request) -> str:
    """The configuration that gives the same fine-tuning run again."""
    return as_yaml(finetune_recipe(request)[0], ("run", "data", "model", "finetune", "eval"))
