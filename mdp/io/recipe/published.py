"""The published fine-tuning schedules of targets."""

from mdp.io.datasets import load, names
from mdp.io.recipe.layers import Layer


def schedule_layer(target: str) -> Layer:
    """The published fine-tuning schedule of a built-in target; the general one, which are the defaults, otherwise."""
    published = load(target).schedule if target in names() else {}
    return {"finetune": {}, "eval": {}, **published}
