"""The criterion of a fine-tuning run: the terms of its recipe, class weights as numbers of the target's classes."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdp.core.class_weights import BALANCED, weights_of
from mdp.core.criteria._combined import Combined
from mdp.core.rare_classes import image_chances
from mdp.io.check.class_counts import as_table, class_counts
from mdp.io.data.selection import Plan
from mdp.io.errors import RecipeError
from mdp.io.inference.memory_budget import megabytes
from mdp.io.recipe.criteria import find_criterion
from mdp.io.recipe.layers import Recipe
from mdp.io.recipe.settings import FinetuneSettings
from mdp.io.training.context import RunContext


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
            key = "criterion" if name == recipe.criterion.name else f"criterion.plus.{name}"
            raise RecipeError(f"{key}.{error}") from error


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
    terms = (recipe.criterion.settings, *recipe.criterion.plus.values())
    balanced = any(getattr(term, "class_weights", None) == BALANCED for term in terms)
    return balanced or recipe.finetune.rare_temperature is not None


def training_counts(plan: Plan, context: RunContext) -> Tensor:
    """The pixels of each class in each training image, (I, C), the same on every process; the main one looks.

    Raises RecipeError where no pixel has a class.
    """
    (dataset,) = plan.pool.datasets.values()

    def count() -> str:
        workers = max(1, plan.recipe.run.workers)
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
