"""Recipes: every setting of a run, from YAML, environment and flags to frozen dataclasses.

One recipe serves pretrain, finetune and eval: each reads its own sections and shares the others.  Layers, later ones
win: defaults, the pretraining method's preset, the target's published fine-tuning schedule, the recipe of the run that
is continued from, `--config`, flags (or their MDP_* environment variables), `--set`.  Unknown keys are errors.
"""

import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

from mdp.core.criteria.cross_entropy import Settings as CrossEntropySettings
from mdp.core.methods.multi_dataset import Settings as MultiDatasetSettings
from mdp.core.networks import NetworkSettings
from mdp.io.errors import RecipeError
from mdp.io.files.reading import has_controls, printable, shown
from mdp.io.files.strict_yaml import dump_value, dump_yaml, load_yaml, parse_yaml
from mdp.io.recipe.criteria import criterion_names, find_criterion, unknown_criterion
from mdp.io.recipe.methods import find_method, method_names, suggestion, unknown_method
from mdp.io.recipe.settings import (
    DataSettings,
    EvalSettings,
    FinetuneSettings,
    LussSettings,
    PretrainSettings,
    RunSettings,
)
from mdp.io.recipe.shelf import recipe_path

Layer = dict[str, Any]

_LONGEST = 4096  # characters of a text, as of a path; values of a list
_WORDS = 500  # characters of a refusal


@dataclass(frozen=True, kw_only=True)
class MethodRecipe:
    """A pretraining method by name, and its settings."""

    name: str = "multi_dataset"
    settings: Any = field(default_factory=MultiDatasetSettings)


@dataclass(frozen=True, kw_only=True)
class CriterionRecipe:
    """A criterion of fine-tuning by name, its settings, and what is added to it."""

    name: str = "cross_entropy"
    settings: Any = field(default_factory=CrossEntropySettings)
    plus: Mapping[str, Any] = field(default_factory=dict)  # settings of further criteria, by their names


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every setting of a run."""

    run: RunSettings = field(default_factory=RunSettings)
    data: DataSettings = field(default_factory=DataSettings)
    model: NetworkSettings = field(default_factory=NetworkSettings)
    method: MethodRecipe = field(default_factory=MethodRecipe)
    pretrain: PretrainSettings = field(default_factory=PretrainSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    criterion: CriterionRecipe = field(default_factory=CriterionRecipe)
    eval: EvalSettings = field(default_factory=EvalSettings)
    luss: LussSettings = field(default_factory=LussSettings)


# Layers


class FileLayer(Layer):
    """A layer that knows the file it was read from, so that a refusal can name it."""

    def __init__(self, values: Mapping[str, Any], file: Path) -> None:
        super().__init__(values)
        self.file = printable(file)


class _Origin(NamedTuple):
    """The layers of a recipe, to say where a value comes from."""

    layers: tuple[Mapping[str, Any], ...]
    otherwise: str  # what is named where it is no file

    def refusal(self, key: str, words: str) -> RecipeError:
        """The error for a full key, or for a section: names the file of the last layer that has it."""
        words, parts = words if len(words) <= _WORDS else f"{words[:_WORDS]}...", key.split(".")
        for length in range(len(parts), 0, -1):
            for layer in reversed(self.layers):
                if _has(layer, parts[:length]):
                    return RecipeError(f"{layer.file if isinstance(layer, FileLayer) else self.otherwise}: {words}")
        return RecipeError(f"{self.otherwise}: {words}")

    def expected(self, key: str, wanted: str, value: object) -> RecipeError:
        """The error for a value that is not what its key asks for."""
        return self.refusal(key, f"{key}: expected {wanted}, got {shown(value)}")


def _has(layer: Any, parts: list[str]) -> bool:
    for part in parts:
        if not isinstance(layer, Mapping) or part not in layer:
            return False
        layer = layer[part]
    return True


def merge(*layers: Mapping[str, Any]) -> Layer:
    """The layers on top of each other, later ones winning, section by section."""
    merged: Layer = {}
    for layer in layers:
        for key, value in layer.items():
            below = merged.get(key)
            merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def config_layer(path: Path | None) -> Layer:
    """The layer of a YAML file, or of the recipe of that name that comes with mdp; empty without one."""
    if path is None:
        return {}
    path = recipe_path(path)
    return FileLayer(load_yaml(path), path)


def set_layer(assignments: tuple[str, ...]) -> Layer:
    """The layer of `--set a.b=c` options; values are YAML.  Raises RecipeError for a missing `=`."""
    layer: Layer = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise RecipeError(f"--set {assignment}: expected KEY=VALUE, such as pretrain.lr=0.1")
        value = parse_yaml(f"value: {text}", f"--set {assignment}").get("value")
        layer = merge(layer, nest(key, value))
    return layer


def nest(key: str, value: Any) -> Layer:
    """`a.b.c`, v -> {a: {b: {c: v}}}."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return cast(Layer, value)


def _one_length(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The layer, which takes back the steps or epochs of those below it where it has the other one only."""
    for phase, always, instead in (("pretrain", "epochs", "steps"), ("finetune", "steps", "epochs")):
        section = layer.get(phase)
        if isinstance(section, Mapping) and always in section and instead not in section:
            layer = {**layer, phase: {**section, instead: None}}
    return layer


def _full_terms(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The layer, in which a number in the place of a criterion's settings is its weight: `plus: {dice: 3}`."""
    section = layer.get("criterion")
    plus = section.get("plus") if isinstance(section, Mapping) else None
    if not isinstance(section, Mapping) or not isinstance(plus, Mapping):
        return layer
    full = {key: value if isinstance(value, Mapping) else {"weight": value} for key, value in plus.items()}
    return {**layer, "criterion": {**section, "plus": full}}


@cache
def _hints(kind: type) -> dict[str, Any]:
    """The types of a settings class's fields."""
    return get_type_hints(kind)


def resolve(*layers: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """The recipe that the layers make.

    Raises RecipeError, naming the full key and the file it comes from, or `source` where that is none, for unknown
    keys, wrong types and values out of range.
    """
    origin = _Origin(layers, source)
    method = dict(_section(merge(*layers).get("method", {}), "method", origin))
    name = method.pop("name", "multi_dataset")
    if name not in method_names():
        raise origin.refusal("method.name", unknown_method(name))
    kind = find_method(name).Settings
    merged = merge(*map(_full_terms, map(_one_length, (find_method(name).PRESET, *layers))))
    merged.pop("method", None)
    criterion = _criterion(merged.pop("criterion", {}), origin)
    _refuse_unknown(merged, [f.name for f in fields(Recipe)], "", origin)
    _refuse_unknown(method, list(_hints(kind)), "method.", origin, f" (method {name})")
    settings = _build(kind, method, "method", origin)
    sections = {
        key: _build(_hints(Recipe)[key], _section(value, key, origin), key, origin) for key, value in merged.items()
    }
    return Recipe(method=MethodRecipe(name=name, settings=settings), criterion=criterion, **sections)


def _criterion(value: Any, origin: _Origin) -> CriterionRecipe:
    """The section `criterion`: a name, its settings beside it, and under `plus` those of others by their names."""
    own = dict(_section(value, "criterion", origin))
    name = own.pop("name", "cross_entropy")
    plus = _section(own.pop("plus", {}), "criterion.plus", origin)
    settings = _criterion_settings("criterion.name", name, own, "criterion", origin)
    if name in plus:
        raise origin.refusal(f"criterion.plus.{name}", f"criterion.plus.{name}: the criterion {name} is there already")
    added = {
        term: _criterion_settings(f"criterion.plus.{term}", term, given, f"criterion.plus.{term}", origin)
        for term, given in plus.items()
    }
    if not any(term.weight for term in (settings, *added.values())) and not _all_supplements(name, *plus):
        raise origin.refusal("criterion.weight", "criterion.weight: expected a criterion with a weight above 0")
    return CriterionRecipe(name=name, settings=settings, plus=added)


def _all_supplements(*names: str) -> bool:
    """Whether cross-entropy stands beside the criteria, so that there is a loss whatever they weigh."""
    return all(find_criterion(name).SUPPLEMENT for name in names)


def _criterion_settings(named: str, name: Any, values: Mapping[str, Any], where: str, origin: _Origin) -> Any:
    """The settings of a criterion; `named` is the key where its name stands."""
    if name not in criterion_names():
        raise origin.refusal(named, unknown_criterion(named, name))
    kind = find_criterion(name).Settings
    _refuse_unknown(values, list(_hints(kind)), f"{where}.", origin, f" (criterion {name})")
    return _build(kind, values, where, origin)


def _section(value: Any, key: str, origin: _Origin) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise origin.expected(key, "a section of settings", value)
    return value


def _refuse_unknown(values: Mapping[str, Any], known: list[str], prefix: str, origin: _Origin, whose: str = "") -> None:
    for key in values:
        if key not in known:
            full = f"{prefix}{key}"
            raise origin.refusal(full, f"unknown setting {full}{suggestion(str(key), known)}{whose}")


def _build(kind: type, values: Mapping[str, Any], where: str, origin: _Origin) -> Any:
    """A settings dataclass from a mapping, every value checked against its field's type."""
    hints = _hints(kind)
    _refuse_unknown(values, list(hints), f"{where}.", origin)
    arguments = {key: coerce(hints[key], value, f"{where}.{key}", origin) for key, value in values.items()}
    try:
        return kind(**arguments)
    except ValueError as error:
        words = f"{where}.{error}"
        raise origin.refusal(words.partition(":")[0], words) from error


def coerce(kind: Any, value: Any, where: str, origin: _Origin) -> Any:
    """`value` as the type that a field asks for.  Raises RecipeError naming the key, the wanted type, what came."""
    if is_dataclass(kind):
        return _build(cast(type, kind), _section(value, where, origin), where, origin)
    generic, arguments = get_origin(kind), get_args(kind)
    if generic in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        kind = _alternative(arguments, value)
        if len(arguments) > 2 and kind is str and not isinstance(value, str):  # a word is one form of several
            raise origin.expected(where, "a word, a list or a section", value)
        return coerce(kind, value, where, origin)
    if generic is tuple:
        return _coerce_tuple(arguments, value, where, origin)
    if generic is dict:
        return _coerce_mapping(arguments[1], value, where, origin)
    # true and false are whole numbers to Python, and never meant as such
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:  # beyond all bounds
            return math.inf if value > 0 else -math.inf
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is str and isinstance(value, str) and (len(value) > _LONGEST or has_controls(value)):
        raise origin.expected(where, f"text of up to {_LONGEST} characters on one line", value)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    wanted = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}[kind]
    raise origin.expected(where, wanted, value)


def _coerce_tuple(kinds: tuple[Any, ...], value: Any, where: str, origin: _Origin) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        example = [value] * (1 if kinds[-1] is Ellipsis else len(kinds))
        short = isinstance(value, int | float | str) and len(str(value)) <= 40 and not has_controls(str(value))
        form = f" such as {dump_value(example)}" if short else ""
        raise origin.expected(where, f"a list{form}", value)
    if len(value) > _LONGEST:
        raise origin.expected(where, f"a list of up to {_LONGEST} values", value)
    if kinds[-1] is Ellipsis:
        return tuple(coerce(kinds[0], item, where, origin) for item in value)
    if len(value) != len(kinds):
        raise origin.expected(where, f"{len(kinds)} values", list(value))
    return tuple(coerce(kind, item, where, origin) for kind, item in zip(kinds, value, strict=True))


def _alternative(kinds: tuple[Any, ...], value: Any) -> Any:
    """The one of several types that a value is to be read as: the first, unless its form is another's."""
    form = dict if isinstance(value, Mapping) else tuple if isinstance(value, list | tuple) else None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    return next((kind for kind in kinds if form and get_origin(kind) is form), kinds[0])


def _coerce_mapping(kind: Any, value: Any, where: str, origin: _Origin) -> dict[str, Any]:
    if not isinstance(value, Mapping) or len(value) > _LONGEST:
        raise origin.expected(where, f"a section of up to {_LONGEST} values", value)
    return {coerce(str, str(key), where, origin): coerce(kind, item, where, origin) for key, item in value.items()}


# Back to YAML


def as_layer(recipe: Recipe) -> Layer:
    """The recipe as plain lists and mappings; `resolve(as_layer(recipe)) == recipe`."""
    layer = cast(Layer, _plain(asdict(recipe)))
    method = layer.pop("method")
    layer["method"] = {"name": method["name"], **method["settings"]}
    criterion = layer.pop("criterion")
    layer["criterion"] = {"name": criterion["name"], **criterion["settings"], "plus": criterion["plus"]}
    sections = ("run", "data", "model", "method", "pretrain", "criterion", "finetune", "eval", "luss")
    return {key: layer[key] for key in sections}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def as_yaml(recipe: Recipe, sections: tuple[str, ...] = ()) -> str:
    """The recipe, or some of its sections, as YAML that gives the same recipe back."""
    layer = as_layer(recipe)
    chosen = {key: layer[key] for key in sections or layer}
    return dump_yaml(chosen)


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The full keys of `after` whose values differ in `before`."""
    for key in after:
        old, new = before.get(key), after[key]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from changed_keys(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}"
