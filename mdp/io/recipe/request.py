"""The request of a command line, or of a Python program, besides the settings of its recipe."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from mdp.io.datasets import names as dataset_names
from mdp.io.files.reading import is_dir
from mdp.io.recipe.layers import Layer, Recipe, config_layer, merge, nest, set_layer
from mdp.io.recipe.settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class Request:
    """Config file, overrides, run folder and switches of a command line."""

    layers: tuple[Layer, ...] = ()  # config, flags, --set; later ones win
    out: Path | None = None
    overwrite: bool = False
    init: str | None = None  # weights to start from (finetune: also "scratch"), or the run to score
    target: str = ""  # eval: another dataset of the same classes
    resume: str | None = None  # a run folder, or "" for the newest
    quiet: bool = False
    hints: bool = True  # whether to say what may make a run faster
    report: bool = True  # write the run's report at the end
    program: str = ""  # what asks for it where that is no command line: words for the run's command.txt
    transform: Callable[..., Any] | None = None  # a program's own change of training images

    @property
    def asked(self) -> Layer:
        """The layers as one."""
        return merge(*self.layers)

    @property
    def timeout(self) -> float:
        """`run.timeout` where it is asked for, for what comes before there is a recipe; nonsense is refused later."""
        section = self.asked.get("run")
        asked: Any = section.get("timeout") if isinstance(section, Mapping) else None
        if isinstance(asked, int | float) and 1 <= asked <= 10**6:
            return float(asked)
        return RunSettings().timeout


def layers_of(given: Mapping[str, Any]) -> tuple[Layer, ...]:
    """The layers of what was given by full keys (`pretrain.lr`), `config` (a file) and `assignments` (of --set).

    A key without a dot that has several values is a section.
    """
    settings = {key: value for key, value in given.items() if "." in key or isinstance(value, Mapping)}
    flags = merge(*(nest(key, value) for key, value in settings.items()))
    return config_layer(given.get("config")), flags, set_layer(given.get("assignments", ()))


def requested(given: Mapping[str, Any]) -> Request:
    """The request for what was given: its layers, and its fields by their names."""
    names = {field.name for field in fields(Request)}
    return Request(layers=layers_of(given), **{key: value for key, value in given.items() if key in names})


FILES = ("relations", "class_embeddings")  # settings of methods that are files


def with_paths(recipe: Recipe) -> Recipe:
    """The recipe with files as absolute paths, so that a run can be resumed and scored from anywhere."""
    settings = recipe.method.settings
    files = {name: getattr(settings, name, None) for name in FILES}
    absolute = {name: str(Path(file).resolve()) for name, file in files.items() if file}
    datasets = tuple(_absolute(text) for text in recipe.pretrain.datasets)
    return replace(
        recipe,
        method=replace(recipe.method, settings=replace(settings, **absolute)),
        pretrain=replace(recipe.pretrain, datasets=datasets, validate_by=_absolute(recipe.pretrain.validate_by)),
        finetune=replace(recipe.finetune, target=_absolute(recipe.finetune.target)),
    )


def _absolute(text: str) -> str:
    file = text.partition(":")[0]
    own = file.endswith((".yaml", ".yml")) or (file not in dataset_names() and is_dir(file))
    return str(Path(text).resolve()) if file and own else text
