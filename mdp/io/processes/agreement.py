"""That all processes of a run are about to do the same: program, settings, weights and data, content included."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

import mdp
from mdp.io.data.changes import changes
from mdp.io.data.manifest import DataPart, packed, unpacked
from mdp.io.datasets._dataset import Sample
from mdp.io.errors import ProcessError, ResourceError
from mdp.io.processes.world import World, first_of_machine
from mdp.io.recipe.layers import Recipe, as_layer


def agree(
    world: World,
    recipe: Recipe,
    samples: Sequence[Sequence[Sample]],
    data: Sequence[DataPart],
    files: Mapping[str, Path],
) -> None:
    """Raises ProcessError, naming what differs and where, unless all processes have all of it in common.

    `files` are weights that they start from, by what they are called.
    """
    if world.size == 1:
        return
    # threads too: sums by another number of them differ in the last digits
    versions = f"mdp {mdp.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    weights = {name: _digest(path) for name, path in files.items()}  # first: settings may come with them
    world.require_equal(**weights, settings=json.dumps(as_layer(recipe)), files=repr(samples), versions=versions)
    others = world.others(repr([part.digest() for part in data]))
    if others:
        held = [unpacked(content) for content in world.gather_objects(packed(data))]
        differ = "; ".join(change.between() for change in changes(held[0], held[others[0]]))
        raise ProcessError(
            f"data are not the same on all processes: process {others[0]} of {world.size} has others than process 0, "
            f"{differ}; start them with the same files",
            tells=first_of_machine(),
        )


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ResourceError(f"{path}: cannot be read: {error.strerror or error}") from error
