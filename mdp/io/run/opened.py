"""A run's checkpoint, opened: its network, labels and recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mdp.core.chance import generator
from mdp.core.labels import LabelSpace
from mdp.core.networks import Segmentor, build_segmentor
from mdp.io.data.pool import Pool
from mdp.io.errors import CheckpointError
from mdp.io.recipe.layers import Recipe, resolve
from mdp.io.recipe.request import Request, with_paths
from mdp.io.run import folder as run_folder
from mdp.io.run.checkpoint import Checkpoint
from mdp.io.run.checkpoint import load as load_checkpoint
from mdp.io.run.restore import restore_, section


def new_segmentor(recipe: Recipe, classes: int) -> Segmentor:
    """The network that fine-tuning starts from scratch with; a function of the recipe's seed."""
    return build_segmentor(recipe.model, classes, generator(recipe.run.seed, "segmentor"))


def trained_segmentor(recipe: Recipe, classes: int, start: Checkpoint, path: Path, device: torch.device) -> Segmentor:
    """The network of a fine-tuning run's checkpoint, in evaluation mode.  Raises CheckpointError when it differs."""
    network = new_segmentor(recipe, classes)
    restore_(network, section(start.tensors, "network"), str(path))
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval()


# Before the first photo


def segmentor_of(run: str | None, which: str) -> tuple[Path, Checkpoint]:
    """The checkpoint of a fine-tuning run, of the newest without one.  Raises CheckpointError when there is none."""
    source = Path(run) if run else run_folder.newest("finetune")
    if source is None:
        raise CheckpointError(
            f"no fine-tuning run under {run_folder.BASE / 'finetune'}; run `mdp finetune` first, or give --run"
        )
    path = run_folder.checkpoint_of(source, which)
    start = load_checkpoint(path)
    if start.about["kind"] != "finetune":
        raise CheckpointError(f"{path}: a {start.about['kind']} checkpoint has no classifier; fine-tune it first")
    return path, start


def space_of(about: Mapping[str, Any]) -> LabelSpace:
    """The label space that a checkpoint was trained on."""
    (space,) = about["labels"]
    lookup = space["lookup"]
    return LabelSpace(
        name=space["name"],
        classes=tuple(space["classes"]),
        ignore_index=space["ignore_index"],
        lookup=None if lookup is None else {int(raw): target for raw, target in lookup.items()},
        colors=tuple((red, green, blue) for red, green, blue in space["colors"]),
    )


def same_labels(about: Mapping[str, Any], pool: Pool, where: Path) -> None:
    """Raises CheckpointError when the checkpoint's classes are not those of the data."""
    theirs = {space["name"]: space["classes"] for space in about["labels"]}
    ours = {space.name: list(space.classes) for space in pool.union.spaces}
    if theirs != ours:
        differ = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
        counts = ", ".join(f"{n}: {len(theirs.get(n, []))} there, {len(ours.get(n, []))} here" for n in differ)
        raise CheckpointError(f"{where}: trained on other classes than the data has ({counts})")


def evaluation_recipe(request: Request, about: Mapping[str, Any]) -> Recipe:
    """The recipe that an `eval` command line resolves to, on top of the run's own.

    The network is the run's: of what is asked for, only the sections run, data and eval, and a target, count.
    """
    resolve(request.asked)  # a mistake in a section that is not read here is still a mistake
    asked = {key: value for key, value in request.asked.items() if key in ("run", "data", "eval")}
    target = {"finetune": {"target": request.target}} if request.target else {}
    return with_paths(resolve(about["recipe"], asked, target))
