"""The published fine-tuning schedules of targets."""

from pathlib import Path

from mdp.io.datasets import load, names
from mdp.io.recipe.layers import Layer, as_yaml, config_layer, merge, nest, resolve


def schedule_layer(target: str) -> Layer:
    """The published fine-tuning schedule of a built-in target; the general one, which are the defaults, otherwise."""
    published = load(target).schedule if target in names() else {}
    return {"finetune": {}, "eval": {}, **published}


def recipe_yaml(file: Path | None, target: str, method: str) -> str:
    """Every setting with its default, or as the recipe file, the method and the target's published schedule have it."""
    chosen = merge(nest("finetune.target", target) if target else {}, nest("method.name", method) if method else {})
    return as_yaml(resolve(schedule_layer(target), config_layer(file), chosen))
