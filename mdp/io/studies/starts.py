"""The weights that `mdp compare` starts from, looked at before the first cell runs: do they fit, are they what is said.

A file that does not fit the third start would otherwise be found after hours, and a name such as `imagenet` in a table
of results is a claim about the file.
"""

from pathlib import Path

import torch

from mdp.core.networks import Segmentor
from mdp.io.errors import RecipeError
from mdp.io.recipe.layers import Recipe
from mdp.io.weights.init import take
from mdp.io.weights.reading import read_file

_HEADS = ("decode_head.", "classifier.", "decoder.")  # of segmentation networks
_CLASSES = (1000, 21841, 21843, 11221, 10450)  # of ImageNet-1k and the editions of ImageNet-21k
_INSTEAD = "use weights:FILE, or run:FOLDER for a run of mdp"


def check_start(kind: str, path: Path, recipe: Recipe) -> list[str]:
    """Lines that say what a start loads, and what cannot be vouched for.

    Raises CheckpointError when it does not fit the network, RecipeError when `imagenet:` names something else.
    """
    with torch.device("meta"):  # names and shapes, without numbers
        network = Segmentor(recipe.model, 2)
    lines = [] if kind != "imagenet" else _imagenet(path)
    return [*take(path, network, recipe.finetune.load, recipe.run.init_from, recipe.run.init_partial)[1], *lines]


def _imagenet(path: Path) -> list[str]:
    file = read_file(path)
    if file.run:
        raise RecipeError(
            f"imagenet:{path}: expected a network trained on ImageNet, found a {file.container}; {_INSTEAD}"
        )
    head = next((head for head in _HEADS for name in file.tensors if f".{name}".find(f".{head}") >= 0), None)
    if head:
        raise RecipeError(
            f"imagenet:{path}: expected a network trained on ImageNet, found one with a segmentation head ({head}*); "
            f"{_INSTEAD}"
        )
    rows = [t.shape[0] for name, t in file.tensors.items() if name.endswith(("fc.weight", "head.weight")) and t.dim()]
    if any(count in _CLASSES for count in rows):
        return []
    return [f"note: {path}: no classifier of ImageNet's classes in it; that it was trained on ImageNet is your word"]
