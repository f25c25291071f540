"""From the classes of a dataset's YAML file to its label space and its table of colours."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mdp.io.datasets.own.yaml_values import as_list, as_mapping, refuse_unknown
from mdp.io.errors import RecipeError
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.reading import has_controls, shown
from mdp.label_space import IGNORE, RGB, LabelSpace

CLASS_KEYS = ("name", "values", "colors", "color", "labels")
COLORED = 60000  # class i of a colour-coded label map has raw value 60000 + i: no grey file has such ids by chance
IGNORED_COLOR = 65535  # the raw value that stands for ignored colours


class Class(NamedTuple):
    """A class as it is described."""

    key: Any  # in the YAML file
    name: str
    values: list[int]  # in grey and palette label maps
    colors: list[RGB]  # in colour-coded ones
    color: RGB | None  # for display


def label_space(name: str, values: Mapping[str, Any], path: Path) -> tuple[LabelSpace, dict[RGB, int] | None]:
    """The label space, and the raw values that stand for the colours of a colour-coded one."""
    ignored = as_list(values.get("ignore", []), "ignore", path)
    never = {_raw(item, "ignore", path) for item in ignored if not isinstance(item, str)}
    never_colors = {_color(item, "ignore", path) for item in ignored if isinstance(item, str)}
    described = [_class(key, value, path) for key, value in as_mapping(values, "classes", path).items()]
    kept = [entry for entry in described if set(entry.values) - never or set(entry.colors) - never_colors]
    lookup = dict.fromkeys(never, IGNORE)
    colors = dict.fromkeys(never_colors, IGNORED_COLOR)
    if never_colors or "edges" in values:
        lookup[IGNORED_COLOR] = IGNORE
    for label, entry in enumerate(kept):
        where = f"classes.{entry.key}"
        for raw in [raw for raw in entry.values if raw not in never]:
            _put(lookup, raw, label, where, path)
        for color in [color for color in entry.colors if color not in never_colors]:
            _put(colors, color, COLORED + label, where, path)
        if entry.colors:
            _put(lookup, COLORED + label, label, where, path)
    if not kept:
        raise RecipeError(f"{path}: classes: every class is also under ignore")
    palette = voc_colormap(len(kept) + 1)[1:]
    try:
        space = LabelSpace(
            name=name,
            classes=tuple(entry.name for entry in kept),
            ignore_index=_ignore_index(values, lookup, kept, path),
            lookup=lookup,
            colors=tuple(entry.color or color for entry, color in zip(kept, palette, strict=True)),
        )
    except ValueError as error:
        raise RecipeError(f"{path}: {error}") from error
    return space, colors or None


def _class(key: Any, value: Any, path: Path) -> Class:
    where = f"classes.{key}"
    entry = {"name": value} if isinstance(value, str) else value
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise RecipeError(f"{path}: {where}: expected a name or {{name: ..., values: [...]}}, got {shown(value)}")
    if has_controls(entry["name"]):
        raise RecipeError(f"{path}: {where}: expected a name on one line, got {shown(entry['name'])}")
    refuse_unknown(entry, CLASS_KEYS, f"{where}.", path)
    colors = [
        _color(item, f"{where}.colors", path) for item in as_list(entry.get("colors", []), f"{where}.colors", path)
    ]
    raws = as_list(entry.get("values", [] if colors else [key]), f"{where}.values", path)
    return Class(
        key=key,
        name=entry["name"],
        values=[_raw(raw, f"{where}.values" if "values" in entry else where, path) for raw in raws],
        colors=colors,
        color=_color(entry["color"], f"{where}.color", path) if "color" in entry else next(iter(colors), None),
    )


def _ignore_index(
    values: Mapping[str, Any], lookup: Mapping[int, int], kept: Sequence[Class], path: Path
) -> int | None:
    if values.get("ignore_index", 255) is None:
        return None
    value = _raw(values.get("ignore_index", 255), "ignore_index", path)
    if lookup.get(value, IGNORE) != IGNORE:
        raise RecipeError(
            f"{path}: ignore_index: {value} is also a value of class {kept[lookup[value]].name!r}; "
            "use `ignore_index: null` if nothing is ignored"
        )
    return value


def _put(table: dict[Any, int], key: Any, label: int, where: str, path: Path) -> None:
    if key in table:
        raise RecipeError(f"{path}: {where}: {key} is already taken by another class or by ignore")
    table[key] = label


def _raw(value: Any, where: str, path: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= IGNORED_COLOR:
        raise RecipeError(f"{path}: {where}: expected a whole number 0..65535, got {shown(value)}")
    return value


def _color(value: Any, where: str, path: Path) -> RGB:
    if not (isinstance(value, str) and re.fullmatch(r"#[0-9A-Fa-f]{6}", value)):
        raise RecipeError(f'{path}: {where}: expected a colour such as "#804080", got {shown(value)}')
    return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
