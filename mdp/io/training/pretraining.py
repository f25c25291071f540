"""Pretraining: what one step, one validation and one checkpoint are; the loop decides when.

The run owns everything that changes; the method owns nothing.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdp.core.batches import Batch, Blend
from mdp.core.chance import generator
from mdp.core.labels import LabelUnion
from mdp.core.methods import Data, Loss, Progress
from mdp.core.networks import EncoderPair
from mdp.core.networks.decode_heads import HEADS
from mdp.core.networks.freezing import evaluating
from mdp.core.networks.pair import follow_
from mdp.core.networks.segmentor import NO_REGIONS, OnGrid
from mdp.core.photometry import as_float, normalise
from mdp.core.processes import Processes
from mdp.core.protocols import distance_matching
from mdp.core.views import ViewPlan
from mdp.io.data.channels import refuse_other_channels
from mdp.io.data.order import epoch_batches
from mdp.io.data.pool import Key, Pool
from mdp.io.data.selection import Plan, expect_pretraining, mines, plan_pretraining, without_labels
from mdp.io.data.views import PretrainItems, ViewOverlaps, Views, finished_views, stack_views, usual_views, view_batches
from mdp.io.errors import RecipeError
from mdp.io.evaluation.counts import Reading
from mdp.io.evaluation.matching import Matching, matched_scores, open_matching
from mdp.io.journal.progress_text import percent
from mdp.io.journal.results_csv import columns
from mdp.io.processes.signals import Stop
from mdp.io.recipe.backbone import backbone_lines, of_backbone
from mdp.io.recipe.layers import Recipe, resolve
from mdp.io.recipe.methods import find_method
from mdp.io.recipe.relations import read_relations
from mdp.io.recipe.request import Request, with_paths
from mdp.io.run import folder as run_folder
from mdp.io.run.opened import OpenedRun
from mdp.io.run.record import PRETRAIN, Position
from mdp.io.run.restore import prefixed, restore_, section
from mdp.io.training.context import RunContext
from mdp.io.training.loop import Schedule
from mdp.io.training.optimizers import build_optimizer
from mdp.io.training.phase import Beginning, Phase, Prepared
from mdp.io.training.rates import learning_rate
from mdp.io.training.run import TrainingRun, cache_facts, training_lines
from mdp.io.training.update import Overflow, new_trainee, seed_dropout, unharmed, update_
from mdp.io.training.validation import Looker, draw_predictions, probe
from mdp.io.weights.init import take
from mdp.io.weights.word_vectors import class_vectors

Weights = dict[str, Tensor]


def schedule_of(recipe: Recipe, images: int) -> tuple[Schedule, int]:
    """The schedule of pretraining on so many images (a batch at least), and the number of steps an epoch."""
    settings = recipe.pretrain
    length = images // settings.batch_size
    steps = settings.steps or settings.epochs * length
    every, seconds = settings.validate_epochs * length, 60 * recipe.run.checkpoint_minutes
    return Schedule(steps, settings.batch_size, every, seconds, recipe.run.keep_steps), length


def data_of(recipe: Recipe, union: LabelUnion, images: int) -> Data:
    """The facts of its data that the method may know.  Raises RecipeError when its settings do not fit them."""
    batch, chosen = recipe.pretrain.batch_size, recipe.method.settings
    data = Data(union, batch, images // batch, recipe.model.last_channels)
    if getattr(chosen, "relations", None):
        data = data._replace(relations=read_relations(Path(chosen.relations), union).relations)
    if getattr(chosen, "class_embeddings", None):
        data = data._replace(words=class_vectors(Path(chosen.class_embeddings), union))
    try:
        find_method(recipe.method.name).initial_state(
            recipe.method.settings, data, torch.Generator(), torch.device("meta")
        )
    except ValueError as error:
        raise RecipeError(f"method.{error}") from error
    return data


def relation_lines(recipe: Recipe, union: LabelUnion) -> list[str]:
    """What the recipe's file of relations says of these classes, in a line; none without one."""
    path = getattr(recipe.method.settings, "relations", None)
    return [read_relations(Path(path), union).line] if path else []


def plan_of(recipe: Recipe) -> ViewPlan:
    """The views of every image.  Raises RecipeError where the method's settings fit no plan, or not these photos."""
    try:
        plan = find_method(recipe.method.name).view_plan(recipe.method.settings, usual_views(recipe.pretrain))
    except ValueError as error:
        raise RecipeError(f"method.{error}") from error
    if any(plan.auto_augment) and recipe.model.image_channels != 3:
        channels = recipe.model.image_channels
        raise RecipeError(
            f"method.auto_augment: it changes colours, and these photos have {channels} channels: set it to 0"
        )
    return plan


def matching_of(recipe: Recipe) -> Matching | None:
    """What features are scored by while they are learnt, where a dataset is named for that."""
    if not recipe.pretrain.validate_by:
        return None
    found = open_matching(recipe.pretrain.validate_by, Path(recipe.data.root))
    refuse_other_channels(recipe.model.image_channels, found.dataset)
    return found


class Pretraining(TrainingRun):
    """A pretraining run: its networks, the method's state, and what a step, a validation and a checkpoint are."""

    kind = PRETRAIN
    stack = staticmethod(stack_views)
    validation: Pool

    def __init__(self, plan: Plan, context: RunContext, resumed: OpenedRun | None, weights: Weights) -> None:
        recipe, settings, seed, images = plan.recipe, plan.recipe.pretrain, plan.recipe.run.seed, len(plan.pool.samples)
        schedule, self.epoch_steps = schedule_of(recipe, images)
        super().__init__(plan, schedule, context)
        self.method, self.chosen, self.views = find_method(recipe.method.name), recipe.method.settings, plan_of(recipe)
        self.overlaps = ViewOverlaps(context.folder, self.views) if context.world.main else None
        self.matching = matching_of(recipe)
        labelled = self.method.NEEDS_LABELS
        hidden = without_labels(plan.pool, recipe) if labelled else frozenset()
        self.items = PretrainItems(plan.pool, self.views, seed, labelled, context.finish, hidden, mines(recipe))
        data = data_of(recipe, plan.pool.union, images)
        self.pair = self.method.build(self.chosen, recipe.model, data, generator(seed, "weights"))
        for network in self.pair:
            network.load_state_dict(weights, strict=False)  # what fits was decided, and reported, before
        self.method.settle_(self.pair, self.chosen)
        make = partial(build_optimizer, settings=settings)
        sync = self.method.SYNC_BATCH_NORM
        self.trainee, self.forward = new_trainee(
            self.pair, make, recipe.run, context.device, context.world, sync, settings.freeze
        )
        self.begin_average_(settings)
        self.state = self.method.initial_state(self.chosen, data, generator(seed, "state"), context.device)
        if resumed:
            self._restore_(resumed, data)
        elif not weights and not any(p.requires_grad for p in self.pair.query.backbone.parameters()):
            context.journal.say(
                f"note: the method {recipe.method.name} trains on a backbone that stays as it is, and this one is "
                "random; give --init RUN"
            )

    def _restore_(self, resumed: OpenedRun, data: Data) -> None:
        restore_(self.pair.query, section(resumed.tensors, "query"), "query encoder")
        if self.pair.key is not self.pair.query:
            restore_(self.pair.key, section(resumed.tensors, "key"), "key encoder")
        self.state = self.method.unpack(section(resumed.tensors, "state", self.context.device), self.chosen, data)
        self.restore_training_(resumed)

    def tensors(self) -> dict[str, Tensor]:
        return {
            **prefixed("query", self.pair.query.state_dict()),
            **(prefixed("key", self.pair.key.state_dict()) if self.pair.key is not self.pair.query else {}),
            **prefixed("state", self.method.pack(self.state)),
        }

    def keys(self, start: int, steps: int) -> Iterator[list[Key]]:
        settings, sizes = self.recipe.pretrain, list(self.pool.sizes().values())
        return epoch_batches(self.recipe.run.seed, sizes, settings.batch_size, settings.balance, start, steps)

    def finished(self, items: Views) -> Views:
        return finished_views(items, self.context.device, self.pool.statistics)

    def advance(self, items: Views, step: int) -> dict[str, float]:
        settings, seed = self.recipe.pretrain, self.recipe.run.seed
        progress = Progress(step, self.schedule.steps, self.epoch_steps)
        epoch, lr = step // self.epoch_steps, learning_rate(settings, step, self.schedule.steps, self.epoch_steps)
        views = view_batches(items, self.context.device, self.pool.statistics)
        if self.overlaps:
            self.overlaps.look(items.frames, step)
        shown: list[Batch | Blend] = [*views]
        besides = self._missed(items.missed)
        try:
            with self.pictured(shown, step), unharmed(self.trainee, views):
                seed_dropout(seed, step, self.context.world.rank, "keys")  # a key encoder may have stochastic depth
                with self.trainee.autocast():
                    ready = self.method.prepare(
                        self.pair,
                        self.state,
                        views,
                        self.chosen,
                        generator(seed, "step", step),
                        self.processes,
                        progress,
                    )
                shown[:] = [part for part in ready.parts if isinstance(part, Blend)] or views  # as they are mixed
                losses = self.losses(ready.parts, step, partial(self._loss, ready.shared))
                done = update_(self.trainee, losses, lr, f"step {step + 1}", {**ready.metrics, **besides})
        except Overflow as error:
            return {"epoch": epoch, **error.record, "lr": lr, "overflow": 1}
        follow_(self.pair, self.method.key_momentum(self.chosen, progress))
        self.method.settle_(self.pair, self.chosen)
        self.average_(settings, step)
        self.state = self.method.remember(ready.state, done.kept, self.chosen, self.processes, done.values)
        return {"epoch": epoch, **done.values, "lr": lr}

    def checkpoint(self, name: str, position: Position) -> None:
        if self.overlaps:
            self.overlaps.write()
        super().checkpoint(name, position)

    def _missed(self, own: int) -> dict[str, Tensor]:
        """The views of the whole batch that are not as the plan wants them, where it wants anything."""
        if not self.views.constrained:
            return {}
        count = torch.tensor(own).to(self.context.device, non_blocking=True)
        return {"missed_views": self.context.world.all_sum(count)}

    def _loss(self, shared: Any, part: Any, processes: Processes) -> Loss:
        return self.method.loss(self.forward, shared, part, self.chosen, processes)

    def validate(self, step: int, stop: Stop) -> float | None:
        return self._matched(self.matching, step, stop) if self.matching else self._probed(step, stop)

    def _matched(self, matching: Matching, step: int, stop: Stop) -> float | None:
        """The mIoU of distance matching, which asks nothing of the method."""
        query, context = self.scored, self.context
        reading = Reading(workers=0, world=context.world, stop=stop)
        assert isinstance(query, OnGrid)

        def maps(photos: Tensor) -> Tensor:
            inputs = normalise(as_float(photos.to(context.device)), self.pool.statistics)
            return query.last_map(inputs).float()

        luss = self.recipe.luss
        settings = distance_matching.Settings(neighbours=luss.neighbours, temperature=luss.temperature)
        with evaluating(query), torch.no_grad():
            scores = matched_scores(matching, maps, settings, reading, luss.short_side)
        if stop.agree(context.world) or scores is None:
            return None
        name, shown = matching.dataset.name, ("miou", "image_accuracy", "f_beta")
        context.journal.record("validate", step, **{key: {name: scores[key]} for key in shown})
        words = f"{name} {matching.split} by distance matching: mIoU {percent(scores['miou'])}"
        context.journal.say(f"step {step}: {words}{self.whose}")
        return float(scores["miou"])

    def _probed(self, step: int, stop: Stop) -> float | None:
        known = self.method.known_prototypes(self.state, self.chosen)
        query, context = self.scored, self.context
        pair = self.pair._replace(query=query)
        classify = partial(self.method.class_scores, pair, self.state, settings=self.chosen)
        looker = Looker(classify, self.validation, self.recipe.pretrain, self.pair.query.grid, context.device)
        scores = probe(query, looker, known, stop, context.world)
        if stop.agree(context.world):
            return None
        context.journal.record("validate", step, **scores.as_json(self.pool.union.names))
        context.journal.say(f"step {step}: {scores.sentence(self.pool.union.size)}{self.whose}")
        for name, images in scores.images.items() if step == self.schedule.steps else ():
            scored = images.of_all(context.world)
            title = f"{name}: validation after step {step}, scored on the feature grid"
            draw = partial(draw_predictions, query, looker, name, scored, title)
            context.picture(f"predictions/{name}.png", draw)
        return scores.mean_iou


# The phase


def pretrain_recipe(request: Request) -> Recipe:
    """The recipe that a `pretrain` command line resolves to.  Raises RecipeError for a head that needs classes."""
    recipe = of_backbone(with_paths(resolve(*request.layers)))
    if HEADS[recipe.model.head].auxiliary:
        raise RecipeError(
            f"model.{NO_REGIONS.format(recipe.model.head)}, and --head {recipe.model.head} in fine-tuning"
        )
    return recipe


def _plan(recipe: Recipe) -> Plan:
    plan = plan_pretraining(recipe)
    plan_of(plan.recipe)  # a misfit is reported before there is a run folder
    matching_of(plan.recipe)
    data_of(plan.recipe, plan.pool.union, len(plan.pool.samples))
    return plan


def _prepare(beginning: Beginning) -> Prepared:
    plan, recipe, images = beginning.plan, beginning.plan.recipe, len(beginning.plan.pool.samples)
    weights, report = _weights(beginning) if beginning.weights else ({}, [])
    schedule, length = schedule_of(recipe, images)
    line = (
        f"{images:,} images, {plan.pool.union.size} classes; {schedule.steps:,} steps of {schedule.batch} "
        f"images ({length:,} an epoch) on {beginning.where(schedule.batch)}"
    )
    report += training_lines(PRETRAIN, lambda: _pair(plan).query, recipe.pretrain, recipe.run)
    lines = [*backbone_lines(recipe.model), *relation_lines(recipe, plan.pool.union), line, *report]
    return Prepared(lines, lambda context: Pretraining(plan, context, beginning.resumed, weights))


def _pair(plan: Plan) -> EncoderPair[Any]:
    """The networks that the recipe asks for, with any weights."""
    recipe = plan.recipe
    data = data_of(recipe, plan.pool.union, len(plan.pool.samples))
    return find_method(recipe.method.name).build(recipe.method.settings, recipe.model, data, torch.Generator())


def _weights(beginning: Beginning) -> tuple[Weights, list[str]]:
    """The weights to start from, by the network's names, and lines that say what came from where."""
    plan, recipe = beginning.plan, beginning.plan.recipe
    assert beginning.weights
    path = run_folder.checkpoint_of(beginning.weights)
    parts = ("backbone", "decode_head", "projection_head", "prototypes")
    tensors, report = take(path, _pair(plan).query, parts, recipe.run.init_from, recipe.run.init_partial)
    return tensors, [*report, *filter(None, [run_folder.unfinished(path)])]


def describe_pretraining(request: Request) -> dict[str, Any]:
    """The data, steps and memory that a pretraining run would take, without running it (`--dry-run`)."""
    expected = expect_pretraining(pretrain_recipe(request))
    recipe, images = expected.recipe, sum(expected.images.values())
    schedule, length = schedule_of(recipe, images)
    data = data_of(recipe, expected.union, images)
    method, settings = find_method(recipe.method.name), recipe.method.settings
    pair: EncoderPair[Any] = method.build(settings, recipe.model, data, torch.Generator())
    return {
        "method": recipe.method.name,
        "found": [*expected.lines, *backbone_lines(recipe.model), *relation_lines(recipe, expected.union)],
        "images": expected.images,
        "classes": expected.union.size,
        "epochs": recipe.pretrain.epochs if recipe.pretrain.steps is None else None,
        "steps": schedule.steps,
        "steps_an_epoch": length,
        "batch_size": schedule.batch,
        "views": [f"{group.count} of {group.size} x {group.size}" for group in plan_of(recipe).groups],
        "images_seen": schedule.steps * schedule.batch,
        "parameters": sum(parameter.numel() for parameter in pair.query.parameters()),
        "state_bytes": method.state_bytes(settings, data),
        **cache_facts(recipe.run, lambda: _plan(recipe)),
    }


PRETRAINING = Phase(
    kind=PRETRAIN,
    least=1,
    recipe=lambda request: (pretrain_recipe(request), Path(request.init) if request.init else None),
    plan=_plan,
    schedule=lambda plan: schedule_of(plan.recipe, len(plan.pool.samples))[0],
    columns=partial(columns, PRETRAIN),
    prepare=_prepare,
    describe=describe_pretraining,
    sections=("run", "data", "model", "method", "pretrain"),
)
