"""From the classes of a dataset's YAML file to its label space and its table of colours."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from mdp.io.datasets.own.raw_values import HIGHEST, LOWEST, Range, ranges_of, without
from mdp.io.datasets.own.yaml_values import as_list, as_mapping, refuse_unknown
from mdp.io.errors import RecipeError
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.reading import has_controls, shown
from mdp.label_space import IGNORE, RGB, LabelSpace

CLASS_KEYS = ("name", "values", "colors", "color", "labels")
COLORED = 60000  # 60000 + i stands for class i of colour-coded label maps, and of values beyond 16 bits
IGNORED_COLOR = 65535  # stands for ignored colours and for such values
_VALUES = 2**16  # raw values that a label space has


class Class(NamedTuple):
    """A class as it is described."""

    key: Any  # in the YAML file
    name: str
    values: list[Range]  # in grey and palette label maps
    colors: list[RGB]  # in colour-coded ones
    color: RGB | None  # for display


class Labels(NamedTuple):
    """How the raw values of label maps are to be read."""

    space: LabelSpace
    colors: dict[RGB, int] | None  # the raw values that stand for the colours of a colour-coded label map
    codes: tuple[tuple[int, int, int], ...]  # first, last of values beyond 16 bits, and what stands for them


def label_space(name: str, values: Mapping[str, Any], path: Path) -> Labels:
    """The label space that `classes`, `ignore` and `ignore_index` describe.  Raises RecipeError naming the key."""
    ignored = as_list(values.get("ignore", []), "ignore", path)
    never_colors = {_color(item, "ignore", path) for item in ignored if _is_color(item)}
    never = ranges_of([item for item in ignored if not _is_color(item)], "ignore", path)
    described = [_class(key, value, path) for key, value in as_mapping(values, "classes", path).items()]
    kept = [entry for entry in described if without(entry.values, never) or set(entry.colors) - never_colors]
    if not kept:
        raise RecipeError(f"{path}: classes: every class is also under ignore")
    named = [(part, label) for label, entry in enumerate(kept) for part in without(entry.values, never)]
    _refuse_twice(named, kept, path)
    ignore_index = _ignore_index(values, named, kept, path)
    wide = any(part.first < 0 or part.last >= _VALUES for part in [*never, *(part for part, _ in named)])
    if ignore_index is not None and not 0 <= ignore_index < (COLORED if wide else _VALUES):
        never, ignore_index = [*never, Range(ignore_index, ignore_index)], None
    lookup, ranges, coded = _tables([*((part, IGNORE) for part in never), *named])
    colors = dict.fromkeys(never_colors, IGNORED_COLOR)
    if never_colors or "edges" in values:
        lookup[IGNORED_COLOR] = IGNORE
    for label, entry in enumerate(kept):
        for color in [color for color in entry.colors if color not in never_colors]:
            _refuse_taken(color in colors, color, entry, path)
            colors[color] = COLORED + label
        if entry.colors:
            code = COLORED + label
            _refuse_taken(not coded and any(part.first <= code <= part.last for part, _ in named), code, entry, path)
            lookup[code] = label
    palette = voc_colormap(len(kept) + 1)[1:]
    try:
        space = LabelSpace(
            name=name,
            classes=tuple(entry.name for entry in kept),
            ignore_index=ignore_index,
            lookup=lookup,
            ranges=tuple(ranges),
            colors=tuple(entry.color or color for entry, color in zip(kept, palette, strict=True)),
        )
    except ValueError as error:
        raise RecipeError(f"{path}: {error}") from error
    return Labels(space, colors or None, tuple(coded))


def _tables(
    entries: Sequence[tuple[Range, int]],
) -> tuple[dict[int, int], list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """Single values and ranges with their classes; and, where values go beyond 16 bits, what stands for them."""
    wide = any(part.first < 0 or part.last >= _VALUES for part, _ in entries)
    lookup: dict[int, int] = {}
    ranges: list[tuple[int, int, int]] = []
    coded: list[tuple[int, int, int]] = []
    for part, label in entries:
        for inside in without([part], [Range(LOWEST, -1), Range(COLORED, HIGHEST)]) if wide else [part]:
            if inside.first == inside.last:
                lookup[inside.first] = label
            else:
                ranges.append((inside.first, inside.last, label))
        for outside in without([part], [Range(0, COLORED - 1)]) if wide else []:
            code = IGNORED_COLOR if label == IGNORE else COLORED + label
            lookup[code] = label
            coded.append((outside.first, outside.last, code))
    return lookup, ranges, coded


def _refuse_twice(named: Sequence[tuple[Range, int]], kept: Sequence[Class], path: Path) -> None:
    """Raises RecipeError for a value of two classes."""
    for (before, one), (after, other) in pairwise(sorted(named)):
        _refuse_taken(after.first <= before.last, after.first, kept[max(one, other)], path)


def _refuse_taken(taken: bool, value: Any, entry: Class, path: Path) -> None:
    if taken:
        raise RecipeError(f"{path}: classes.{entry.key}: {value} is already taken by another class or by ignore")


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
    raws = entry.get("values", [] if colors else [key])
    return Class(
        key=key,
        name=entry["name"],
        values=ranges_of(raws, f"{where}.values" if "values" in entry else where, path),
        colors=colors,
        color=_color(entry["color"], f"{where}.color", path) if "color" in entry else next(iter(colors), None),
    )


def _ignore_index(
    values: Mapping[str, Any], named: Sequence[tuple[Range, int]], kept: Sequence[Class], path: Path
) -> int | None:
    if values.get("ignore_index", 255) is None:
        return None
    value = values.get("ignore_index", 255)
    if not isinstance(value, int) or isinstance(value, bool) or not LOWEST <= value <= HIGHEST:
        raise RecipeError(f"{path}: ignore_index: expected a whole number {LOWEST}..{HIGHEST}, got {shown(value)}")
    taken = next((label for part, label in named if part.first <= value <= part.last), None)
    if taken is not None:
        raise RecipeError(
            f"{path}: ignore_index: {value} is also a value of class {kept[taken].name!r}; "
            "use `ignore_index: null` if nothing is ignored"
        )
    return value


def _is_color(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("#")


def _color(value: Any, where: str, path: Path) -> RGB:
    if not (isinstance(value, str) and re.fullmatch(r"#[0-9A-Fa-f]{6}", value)):
        raise RecipeError(f'{path}: {where}: expected a colour such as "#804080", got {shown(value)}')
    return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
