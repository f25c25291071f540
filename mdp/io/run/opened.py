"""A run's checkpoint, opened: its record, recipe and labels, and the networks and states that its tensors are."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mdp.core.chance import generator
from mdp.core.labels import LabelUnion
from mdp.core.methods import Data
from mdp.core.networks import Segmentor, build_segmentor
from mdp.core.networks.memory_layout import to_channels_last_
from mdp.core.networks.undrawn import ALL, Undrawn
from mdp.io.errors import CheckpointError
from mdp.io.files.reading import printable
from mdp.io.recipe.layers import Recipe, resolve
from mdp.io.recipe.methods import find_method
from mdp.io.recipe.request import Request, with_paths
from mdp.io.run import folder as run_folder
from mdp.io.run.checkpoint import load
from mdp.io.run.record import FINETUNE, PRETRAIN, RunRecord, record_of, unknown_kind
from mdp.io.run.restore import restore_, section

EMA = "ema"  # the prefix of the average of the weights
WEIGHTS = (EMA, "raw")  # which weights of a run with an average are asked for: that, or those of its last step


@dataclass(frozen=True, kw_only=True)
class OpenedRun:
    """A whole checkpoint of a run."""

    path: Path
    record: RunRecord
    tensors: dict[str, Tensor]

    @cached_property
    def recipe(self) -> Recipe:
        """The run's own recipe.  Raises RecipeError when this mdp has no such settings."""
        return resolve(self.record.recipe)

    @cached_property
    def union(self) -> LabelUnion:
        """The classes that it was trained on."""
        return LabelUnion(list(self.record.labels))

    def weights(self, asked: str | None = None) -> str | None:
        """What `weights_of` says of it."""
        return weights_of(self.path, self.tensors, asked)

    @property
    def data(self) -> Data:
        """The facts of its data that a method may know; no image is one too many: whatever a bank holds is kept."""
        channels = self.recipe.model.last_channels
        return Data(self.union, self.recipe.pretrain.batch_size, sys.maxsize, channels)


def open_run(path: Path) -> OpenedRun:
    """Reads a checkpoint file and checks every byte of it.

    Raises CheckpointError, naming the file and what is wrong, for anything but a whole checkpoint of a run.
    """
    tensors, about = load(path)
    return OpenedRun(path=path, record=record_of(path, about), tensors=tensors)


def segmentor_file(run: str | None, which: str, otherwise: str = "") -> Path:
    """The checkpoint file of a fine-tuning run, of the newest without one.

    Raises CheckpointError when there is none; `otherwise` says what else may help then.
    """
    source = Path(run) if run else run_folder.newest(FINETUNE)
    if source is None:
        raise CheckpointError(
            f"no fine-tuning run in {run_folder.BASE / FINETUNE} or {run_folder.BASE}; run `mdp finetune` first"
            f"{otherwise}"
        )
    return run_folder.checkpoint_of(source, which)


def open_segmentor(run: str | None, which: str, otherwise: str = "") -> OpenedRun:
    """The checkpoint of a fine-tuning run, of the newest without one.  Raises what `segmentor_file` raises."""
    opened = open_run(segmentor_file(run, which, otherwise))
    if opened.record.kind != FINETUNE:
        raise CheckpointError(f"{opened.path}: a {opened.record.kind} checkpoint has no classifier; fine-tune it first")
    return opened


# What its tensors are


def trained_part(path: Path, record: RunRecord) -> str:
    """The prefix of the tensors that later steps start from.  Raises CheckpointError for an unknown kind of run."""
    parts = {PRETRAIN: "query", FINETUNE: "network"}
    if record.kind not in parts:
        raise unknown_kind(path, record.kind)
    return parts[record.kind]


def weights_of(path: Path, names: Iterable[str], asked: str | None) -> str | None:
    """`ema` or `raw`: which weights of a checkpoint with tensors of these names are taken; None where it has one kind.

    The average, which validations scored and `best` was chosen by, unless the others are asked for.  Raises
    CheckpointError where the average is asked for and there is none.
    """
    if any(name.startswith(f"{EMA}.") for name in names):
        return asked or EMA
    if asked == EMA:
        raise CheckpointError(f"{path}: trained without an average of its weights; leave --weights out")
    return None


def whose(weights: str | None) -> str:
    """Which weights of a checkpoint are taken, for people; "" where it has one kind."""
    return {None: "", EMA: "EMA weights", "raw": "raw weights, not their EMA"}[weights]


def at_step(opened: OpenedRun, weights: str | None) -> str:
    """The moment that a checkpoint is of, and which of its weights are taken, in brackets."""
    return f"({', '.join(filter(None, [f'step {opened.record.position.step}', whose(weights)]))})"


def part_of(opened: OpenedRun, weights: str | None = None) -> str:
    """The prefix of its tensors that are the network's.  Raises what `trained_part` and `weights_of` raise."""
    part = trained_part(opened.path, opened.record)
    return EMA if opened.weights(weights) == EMA else part


def new_segmentor(recipe: Recipe, classes: int) -> Segmentor:
    """The network that fine-tuning starts from scratch with; a function of the recipe's seed."""
    return build_segmentor(recipe.model, classes, generator(recipe.run.seed, "segmentor"))


def trained_segmentor(opened: OpenedRun, recipe: Recipe, device: torch.device, weights: str | None = None) -> Segmentor:
    """The network of a fine-tuning run's checkpoint, in evaluation mode, with the weights that `weights_of` says.

    Raises CheckpointError when it differs.
    """
    with Undrawn(*ALL):  # all of it is restored
        network = new_segmentor(recipe, opened.union.size)
    restore_(network, section(opened.tensors, part_of(opened, weights)), str(opened.path))
    to_channels_last_(network.to(device))
    return network.eval()


def trained_network(opened: OpenedRun, weights: str | None = None) -> nn.Module:
    """The network that later steps start from: the query encoder of pretraining, the segmentor of fine-tuning.

    On the CPU, in training mode, with the weights that `weights_of` says.  Raises CheckpointError when the tensors do
    not fit it, or for an unknown kind of run.
    """
    part = part_of(opened, weights)
    recipe = opened.recipe
    with Undrawn(*ALL):  # all of it is restored
        if opened.record.kind == FINETUNE:
            network: nn.Module = new_segmentor(recipe, opened.union.size)
        else:
            method = find_method(recipe.method.name)
            network = method.build(recipe.method.settings, recipe.model, opened.data, torch.Generator()).query
    restore_(network, section(opened.tensors, part), str(opened.path))
    return network


def method_state(opened: OpenedRun, device: torch.device | None = None) -> Any:
    """The state of a pretraining run's method: bank or queues.  Raises KeyError when a tensor of it is missing."""
    chosen = opened.recipe.method
    return find_method(chosen.name).unpack(section(opened.tensors, "state", device), chosen.settings, opened.data)


# What is asked of it


def same_labels(record: RunRecord, union: LabelUnion, where: Path) -> None:
    """Raises CheckpointError when the checkpoint's classes are not those of the data."""
    theirs = {space.name: space.classes for space in record.labels}
    ours = {space.name: space.classes for space in union.spaces}
    if theirs != ours:
        differ = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
        told = "; ".join(f"{name}: {_difference(theirs.get(name), ours.get(name))}" for name in differ)
        raise CheckpointError(f"{where}: trained on other classes than the data has ({told})")


def _difference(theirs: tuple[str, ...] | None, ours: tuple[str, ...] | None) -> str:
    """The first class that differs between a checkpoint's dataset and the one here, in words."""
    if theirs is None or ours is None:
        return "not there" if theirs is None else "not here"
    first = next((i for i, names in enumerate(zip(theirs, ours, strict=False)) if len(set(names)) > 1), None)
    counts = f"{len(theirs)} there, {len(ours)} here"
    if first is None:
        first, more = min(len(theirs), len(ours)), max(theirs, ours, key=len)
        where = "there" if len(theirs) > len(ours) else "here"
        return f"{counts}; class {first}, {printable(repr(more[first]))}, is only {where}"
    return f"{counts}; class {first} is {printable(repr(theirs[first]))} there, {printable(repr(ours[first]))} here"


def evaluation_recipe(request: Request, record: RunRecord) -> Recipe:
    """The recipe that an `eval` command line resolves to, on top of the run's own.

    The network is the run's: of what is asked for, only the sections run, data and eval, and a target, count.
    """
    resolve(*request.layers)  # a mistake in a section that is not read here is still a mistake
    asked = {key: value for key, value in request.asked.items() if key in ("run", "data", "eval")}
    target = {"finetune": {"target": request.target}} if request.target else {}
    return with_paths(resolve(record.recipe, asked, target))
