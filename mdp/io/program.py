"""Whole runs from Python: `mdp pretrain`, `finetune`, `eval` and `predict` as functions, which `mdp.io` hands on.

The same jobs, run folders and checkpoints as on the command line, so that both can go on with what the other began.
Nothing is printed unless `quiet` is false, faults are raised as an `MdpError`, and torch's threads, switches and
generators are afterwards as they were.  Datasets may be objects and training images may be changed by a function of
the program's own (`Dataset`, `Transform`).
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mdp.core.labels import LabelSpace
from mdp.io.data.pool import Transform, name_of
from mdp.io.datasets import Dataset, Sample, offered
from mdp.io.errors import MdpError, RecipeError
from mdp.io.evaluation.job import run_evaluation
from mdp.io.inference.asked import Wanted
from mdp.io.inference.job import run_predictions
from mdp.io.recipe.layers import Layer, Recipe, as_layer, config_layer, nest
from mdp.io.recipe.request import Request
from mdp.io.run.folder import checkpoint_of
from mdp.io.run.header import read_about
from mdp.io.run.record import record_of
from mdp.io.training.job import run_finetuning, run_pretraining

__all__ = [
    "Asked", "Dataset", "LabelSpace", "MdpError", "Recipe", "Sample", "Transform", "evaluate", "finetune", "predict",
    "pretrain",
]  # fmt: skip

Asked = Recipe | Mapping[str, Any] | str | Path
Place = str | Path


def pretrain(
    recipe: Asked | None = None,
    datasets: Sequence[str | Dataset] = (),
    *,
    init: Place | None = None,
    transform: Transform | None = None,
    out: Place | None = None,
    overwrite: bool = False,
    resume: Place | None = None,
    quiet: bool = True,
    report: bool = True,
) -> Path:
    """Pretrains one backbone on the union of datasets, as `mdp pretrain` does, and returns the run's folder.

    `recipe` is a `Recipe`, which says everything; a mapping such as `{"pretrain": {"epochs": 2}}`; a YAML file, or the
    name of a recipe that comes with mdp; or None for the defaults.  `datasets` are names, YAML files or objects, and
    stand for the recipe's.  `init` are weights to start from, `out` the folder to write to instead of one under ./runs,
    `resume` the folder of a run to go on with.  `report` writes the run's HTML page.  Raises an MdpError for what has
    to be mended.
    """
    layer = {"datasets": [_name(dataset) for dataset in datasets]} if datasets else {}
    asked = _request("pretrain", recipe, {"pretrain": layer}, transform, init, out, overwrite, resume, quiet, report)
    with _as_it_was(), offered(*_objects(datasets)):
        return run_pretraining(asked)


def finetune(
    recipe: Asked | None = None,
    target: str | Dataset | None = None,
    *,
    init: Place | None = None,
    transform: Transform | None = None,
    out: Place | None = None,
    overwrite: bool = False,
    resume: Place | None = None,
    quiet: bool = True,
    report: bool = True,
) -> Path:
    """Fine-tunes a segmentor on one dataset, as `mdp finetune` does, and returns the run's folder.

    `init` is the run or weights file to start from, or "scratch".  A recipe that is a mapping or a file takes the
    model's settings from that run, and the target's published schedule, where it says nothing; a `Recipe` says
    everything.  All else is as in `pretrain`.
    """
    if init is None and resume is None:
        raise RecipeError('init: expected a run or a weights file to start from, or "scratch", got None')
    layer = {"target": _name(target)} if target is not None else {}
    asked = _request("finetune", recipe, {"finetune": layer}, transform, init, out, overwrite, resume, quiet, report)
    with _as_it_was(), offered(*_objects([target])):
        return run_finetuning(asked)


def evaluate(
    run: Place,
    target: str | Dataset | None = None,
    *,
    recipe: Asked | None = None,
    which: str = "last",
    pictures: bool = False,
    gallery: int | None = None,
    out: Place | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Scores a fine-tuning run as `mdp eval` does: writes the scores to its folder and returns those of scores.json.

    `target` is the run's own dataset where that was an object, or another one of the same classes.  Of `recipe` the
    sections run, data and eval count; None leaves the run's own.  `which` checkpoint, last or best; `pictures` keeps
    the predictions, `gallery` draws so many of the worst images.
    """
    asked = Request(
        layers=_layers(recipe),
        init=str(run),
        target="" if target is None or _name(target) == _target_of(run, which) else _name(target),
        out=_path(out),
        quiet=quiet,
        program=_program("evaluate"),
    )
    with _as_it_was(), offered(*_objects([target])):
        return run_evaluation(asked, which, pictures, gallery=gallery)[0]


def predict(
    run: Place,
    photos: Sequence[Place],
    *,
    recipe: Asked | None = None,
    which: str = "last",
    overlays: bool = False,
    probabilities: bool = False,
    existing: str = "stop",
    out: Place | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Predicts label maps for photos, folders or patterns as `mdp predict` does, and says what was done, and where.

    `existing` says what becomes of files that are there: stop, skip or overwrite.  All else is as in `evaluate`.
    """
    if existing not in ("stop", "skip", "overwrite"):
        raise RecipeError(f"existing: expected stop, skip or overwrite, got {existing!r}")
    asked = Request(layers=_layers(recipe), init=str(run), out=_path(out), quiet=quiet, program=_program("predict"))
    names = tuple(str(photo) for photo in ([photos] if isinstance(photos, str | Path) else photos))
    wanted = Wanted(photos=names, overlays=overlays, probabilities=probabilities, existing=existing, which=which)
    with _as_it_was():
        return run_predictions(asked, wanted)


# From what a program gives to what a command line would


def _request(
    kind: str,
    recipe: Asked | None,
    own: Layer,
    transform: Transform | None,
    init: Place | None,
    out: Place | None,
    overwrite: bool,
    resume: Place | None,
    quiet: bool,
    report: bool,
) -> Request:
    named: Layer = nest("data.transform", name_of(transform)) if transform or resume is None else {}
    return Request(
        layers=(*_layers(recipe), own, named),
        init=None if init is None else str(init),
        out=_path(out),
        overwrite=overwrite,
        resume=None if resume is None else str(resume),
        quiet=quiet,
        hints=not quiet,
        report=report,
        program=_program(kind),
        transform=transform,
    )


def _layers(recipe: Asked | None) -> tuple[Layer, ...]:
    """The layers that a recipe is, in any of its forms.  Raises RecipeError for anything else."""
    if recipe is None:
        return ()
    if isinstance(recipe, Recipe):
        return (as_layer(recipe),)
    if isinstance(recipe, Mapping):
        return (dict(recipe),)
    if isinstance(recipe, str | Path):
        return (config_layer(Path(recipe)),)
    raise RecipeError(f"recipe: expected a Recipe, a mapping or the path of a YAML file, got {type(recipe).__name__}")


def _name(dataset: str | Dataset | Path) -> str:
    if not isinstance(dataset, Dataset | str | Path):
        raise RecipeError(f"dataset: expected a name, the path of a YAML file or a Dataset, got {dataset!r}")
    return dataset.name if isinstance(dataset, Dataset) else str(dataset)


def _objects(datasets: Sequence[str | Dataset | None]) -> list[Dataset]:
    return [dataset for dataset in datasets if isinstance(dataset, Dataset)]


def _path(place: Place | None) -> Path | None:
    return None if place is None else Path(place)


def _target_of(run: Place, which: str) -> str:
    """The dataset that a fine-tuning run was trained on."""
    path = checkpoint_of(Path(run), which)
    return str(record_of(path, read_about(path)).recipe.get("finetune", {}).get("target", ""))


def _program(kind: str) -> str:
    """The words for a run's command.txt."""
    script = sys.argv[0] if sys.argv and sys.argv[0] not in ("", "-c") else "a Python program"
    return f"mdp.io.{kind} in {'a notebook' if 'ipykernel' in sys.modules else script}"


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Puts torch's threads, switches and generators back; a run sets them as its recipe says."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    with torch.random.fork_rng():
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(strict)
            torch.backends.cudnn.benchmark = benchmark
