"""The criterion of a fine-tuning run: the terms of its recipe, class weights as numbers of the target's classes."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdp.core.class_weights import BALANCED, weights_of
from mdp.core.criteria import Source
from mdp.core.criteria._combined import Combined
from mdp.core.rare_classes import image_chances
from mdp.io.check.class_counts import as_table, class_counts
from mdp.io.data.selection import Plan
from mdp.io.errors import RecipeError
from mdp.io.inference.memory_budget import megabytes
from mdp.io.recipe.criteria import find_criterion
from mdp.io.recipe.layers import Recipe
from mdp.io.recipe.settings import FinetuneSettings
from mdp.io.run.record import PRETRAIN, RunRecord
from mdp.io.training.classifier_init import source_of
from mdp.io.training.context import RunContext

_LISTED = 6  # names in a line


def combined(recipe: Recipe, classes: Sequence[str], pixels: Tensor | None = None) -> Combined:
    """The criteria of the recipe that count, with numbers for class weights; `pixels` (C,) are for balanced ones.

    Where all that is named teaches the classifier nothing, cross-entropy comes first.  Raises RecipeError, naming the
    key, for weights that do not fit the classes.
    """
    chosen = recipe.criterion
    terms = {chosen.name: ("criterion", chosen.settings)}
    terms |= {name: (f"criterion.plus.{name}", settings) for name, settings in chosen.plus.items()}
    terms = {name: term for name, term in terms.items() if term[1].weight}
    criteria = {name: find_criterion(name) for name in terms}
    settings = {name: _in_numbers(*term, classes, pixels) for name, term in terms.items()}
    if all(one.SUPPLEMENT for one in criteria.values()):
        first = find_criterion("cross_entropy")
        criteria, settings = {"cross_entropy": first, **criteria}, {"cross_entropy": first.Settings(), **settings}
    return Combined(criteria, settings)


def _in_numbers(key: str, settings: Any, classes: Sequence[str], pixels: Tensor | None) -> Any:
    """The settings of a term with its class weights, if it knows any, as numbers."""
    if getattr(settings, "class_weights", None) is None:
        return settings
    try:
        return replace(settings, class_weights=weights_of(settings.class_weights, classes, pixels))
    except ValueError as error:
        raise RecipeError(f"{key}.{error}") from error


def refuse_misfits(plan: Plan) -> None:
    """Raises RecipeError where the criterion's settings do not fit the target's classes, or the network."""
    classes, recipe = plan.pool.union.spaces[0].classes, plan.recipe
    found, model = combined(recipe, classes, torch.ones(len(classes))), recipe.model
    for name, criterion in found.criteria.items():
        try:
            with torch.device("meta"):  # shapes, without numbers
                criterion.build(found.settings[name], model, model.last_channels, len(classes), torch.Generator())
        except ValueError as error:
            raise RecipeError(f"{_key_of(recipe, name)}.{error}") from error
        if words := criterion.misfit(found.settings[name], model, recipe.finetune.crop):
            raise RecipeError(f"{_key_of(recipe, name)}.{words}")


def _key_of(recipe: Recipe, term: str) -> str:
    """Where the settings of a criterion stand in the recipe."""
    return "criterion" if term == recipe.criterion.name else f"criterion.plus.{term}"


# What criteria take from a pretraining run


def fitted(recipe: Recipe, record: RunRecord | None) -> Recipe:
    """The recipe, the open sizes of criteria that ask for a pretraining run being those of this one."""
    method = record.recipe.get("method", {}) if record and record.kind == PRETRAIN else {}
    chosen = recipe.criterion
    settings = find_criterion(chosen.name).fitted(chosen.settings, method)
    plus = {name: find_criterion(name).fitted(given, method) for name, given in chosen.plus.items()}
    return replace(recipe, criterion=replace(chosen, settings=settings, plus=plus))


def expect_source(recipe: Recipe, classes: Sequence[str], weights: Path | None) -> str:
    """The full key by which a criterion asks for a pretraining run to start from; "" where none does.

    Raises RecipeError, naming it, where there is none.
    """
    asked = combined(recipe, classes, torch.ones(len(classes))).asks_for()
    key = next((f"{_key_of(recipe, name)}.{setting}" for name, setting in asked.items()), "")
    if key and weights is None:
        raise RecipeError(f"{key}: random weights have no prototypes; give --init RUN, a pretraining run")
    if key and "decode_head" not in recipe.finetune.load:
        raise RecipeError(f"{key}: prototypes are behind the run's own head; leave out --backbone-only")
    return key


def source_for(plan: Plan, weights: Path | None, device: torch.device) -> tuple[Source | None, list[str]]:
    """What a pretraining run gives the criterion, where it asks for one, and lines about it.

    Raises RecipeError, naming the setting that asks, where the weights do not have it.
    """
    key = expect_source(plan.recipe, plan.pool.union.spaces[0].classes, weights)
    if not key or weights is None:
        return None, []
    source, line = source_of(weights, key, plan.recipe, plan.pool, device)
    classes, model = plan.pool.union.spaces[0].classes, plan.recipe.model
    criterion = combined(plan.recipe, classes, torch.ones(len(classes)))
    head = criterion.build(model, model.last_channels, len(classes), torch.Generator())
    start_(criterion, criterion.initial_state(len(classes), device), head, source)  # a misfit is told before a folder
    return source, [line]


def start_(criterion: Combined, state: Any, heads: Any, source: Source) -> Any:
    """The state of the criterion's terms, and their heads set, by what a pretraining run gives.

    Raises RecipeError where the sizes differ.
    """
    try:
        return criterion.start_(state, heads, source)
    except ValueError as error:
        raise RecipeError(f"criterion.{error}") from error


def memory_bytes(plan: Plan) -> int:
    """How much memory the criterion's state takes once it is full."""
    classes = plan.pool.union.spaces[0].classes
    return combined(plan.recipe, classes, torch.ones(len(classes))).state_bytes(len(classes))


def memory_lines(plan: Plan) -> list[str]:
    """What is said of the criterion's memory, where it has one."""
    count = memory_bytes(plan)
    return [f"memory of the criterion: up to {megabytes(count)}, in checkpoints too"] if count else []


# The classes of the training images


def counts_wanted(recipe: Recipe) -> bool:
    """Whether the recipe asks for the pixels that the classes have in the training images."""
    return _balanced(recipe) or recipe.finetune.rare_temperature is not None


def _balanced(recipe: Recipe) -> bool:
    terms = (recipe.criterion.settings, *recipe.criterion.plus.values())
    return any(getattr(term, "class_weights", None) == BALANCED for term in terms)


def absent_lines(recipe: Recipe, classes: Sequence[str], pixels: Tensor) -> list[str]:
    """A line about the classes that balanced weights leave out: those without a pixel in the training images."""
    absent = [name for name, count in zip(classes, pixels.tolist(), strict=True) if not count]
    if not absent or not _balanced(recipe):
        return []
    some = ", ".join(absent[:_LISTED]) + (f" and {len(absent) - _LISTED} more" if len(absent) > _LISTED else "")
    return [
        f"note: balanced class weights: {len(absent)} of {len(classes)} classes have no pixel in the training images "
        f"and weigh 0: {some}; nothing teaches the network to name them"
    ]


def training_counts(plan: Plan, context: RunContext) -> Tensor:
    """The pixels of each class in each training image, (I, C), the same on every process; the main one looks.

    Raises RecipeError where no pixel has a class.
    """
    (dataset,) = plan.pool.datasets.values()

    def count() -> str:
        workers = max(1, plan.recipe.run.loaders)
        return json.dumps(class_counts(dataset, plan.pool.samples, workers, context.journal.say))

    table = as_table(json.loads(context.world.broadcast_main(count)), len(dataset.labels.classes))
    if not table.any():
        raise RecipeError(f"{dataset.name}: no pixel of the training images has a class; nothing can be balanced")
    return torch.from_numpy(table)


def chances(settings: FinetuneSettings, counts: Tensor | None) -> NDArray[np.float64] | None:
    """How likely each training image is to be drawn, (I,); None where each comes in turn."""
    if settings.rare_temperature is None or counts is None:
        return None
    return image_chances(counts, settings.rare_temperature, settings.rare_pixels).numpy()
