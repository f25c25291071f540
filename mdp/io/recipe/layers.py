"""Recipes: every setting of a run, from YAML, environment and flags to frozen dataclasses.

One recipe serves pretrain, finetune and eval: each reads its own section and shares the others.  Layers, later ones
win: defaults, the target's published fine-tuning schedule, the recipe of the run that is continued from, `--config`,
flags (or their MDP_* environment variables), `--set`.  Unknown keys are errors.
"""

import types
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from mdp.core.methods.multi_dataset import Settings as MultiDatasetSettings
from mdp.core.networks import NetworkSettings
from mdp.io.errors import RecipeError
from mdp.io.files.strict_yaml import dump_yaml, load_yaml, parse_yaml
from mdp.io.recipe.methods import find_method, suggestion
from mdp.io.recipe.settings import DataSettings, EvalSettings, FinetuneSettings, PretrainSettings, RunSettings

Layer = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class MethodRecipe:
    """A pretraining method by name, and its settings."""

    name: str = "multi_dataset"
    settings: Any = field(default_factory=MultiDatasetSettings)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every setting of a run."""

    run: RunSettings = field(default_factory=RunSettings)
    data: DataSettings = field(default_factory=DataSettings)
    model: NetworkSettings = field(default_factory=NetworkSettings)
    method: MethodRecipe = field(default_factory=MethodRecipe)
    pretrain: PretrainSettings = field(default_factory=PretrainSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    eval: EvalSettings = field(default_factory=EvalSettings)


# Layers


def merge(*layers: Mapping[str, Any]) -> Layer:
    """The layers on top of each other, later ones winning, section by section."""
    merged: Layer = {}
    for layer in layers:
        for key, value in layer.items():
            below = merged.get(key)
            merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def config_layer(path: Path | None) -> Layer:
    """The layer of a YAML file; empty without one."""
    return load_yaml(path) if path else {}


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


def resolve(*layers: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """The recipe that the layers make.

    Raises RecipeError, naming the full key, for unknown keys, wrong types and values out of range.
    """
    merged = merge(*layers)
    method = dict(_section(merged.pop("method", {}), "method", source))
    name = method.pop("name", "multi_dataset")
    known = [f.name for f in fields(Recipe)]
    _refuse_unknown(merged, known, "", source)
    kind = find_method(str(name)).Settings
    _refuse_unknown(method, list(get_type_hints(kind)), "method.", source, f" (method {name})")
    settings = _build(kind, method, "method", source)
    sections = {
        key: _build(get_type_hints(Recipe)[key], _section(value, key, source), key, source)
        for key, value in merged.items()
    }
    return Recipe(method=MethodRecipe(name=str(name), settings=settings), **sections)


def _section(value: Any, key: str, source: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RecipeError(f"{source}: {key}: expected a section of settings, got {value!r}")
    return value


def _refuse_unknown(values: Mapping[str, Any], known: list[str], prefix: str, source: str, whose: str = "") -> None:
    for key in values:
        if key not in known:
            raise RecipeError(f"{source}: unknown setting {prefix}{key}{suggestion(str(key), known)}{whose}")


def _build(kind: type, values: Mapping[str, Any], where: str, source: str) -> Any:
    """A settings dataclass from a mapping, every value checked against its field's type."""
    hints = get_type_hints(kind)
    _refuse_unknown(values, list(hints), f"{where}.", source)
    arguments = {key: coerce(hints[key], value, f"{where}.{key}", source) for key, value in values.items()}
    try:
        return kind(**arguments)
    except ValueError as error:
        raise RecipeError(f"{source}: {where}.{error}") from error


def coerce(kind: Any, value: Any, where: str, source: str) -> Any:
    """`value` as the type that a field asks for.  Raises RecipeError naming the key, the wanted type, what came."""
    if is_dataclass(kind):
        return _build(cast(type, kind), _section(value, where, source), where, source)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return coerce(next(a for a in arguments if a is not type(None)), value, where, source)
    if origin is tuple:
        return _coerce_tuple(arguments, value, where, source)
    # true and false are whole numbers to Python, and never meant as such
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind in (bool, str) and isinstance(value, kind):
        return value
    wanted = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}[kind]
    raise RecipeError(f"{source}: {where}: expected {wanted}, got {value!r}")


def _coerce_tuple(kinds: tuple[Any, ...], value: Any, where: str, source: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise RecipeError(f"{source}: {where}: expected a list, got {value!r}")
    if kinds[-1] is Ellipsis:
        return tuple(coerce(kinds[0], item, where, source) for item in value)
    if len(value) != len(kinds):
        raise RecipeError(f"{source}: {where}: expected {len(kinds)} values, got {list(value)}")
    return tuple(coerce(kind, item, where, source) for kind, item in zip(kinds, value, strict=True))


# Back to YAML


def as_layer(recipe: Recipe) -> Layer:
    """The recipe as plain lists and mappings; `resolve(as_layer(recipe)) == recipe`."""
    layer = cast(Layer, _plain(asdict(recipe)))
    method = layer.pop("method")
    layer["method"] = {"name": method["name"], **method["settings"]}
    return {key: layer[key] for key in ("run", "data", "model", "method", "pretrain", "finetune", "eval")}


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
