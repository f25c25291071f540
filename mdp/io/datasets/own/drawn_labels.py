"""The label space of a dataset whose label maps are drawn from annotations: classes go by their names in the files.

`background` says what pixels in no annotation are, the name of a class or `ignore`; `overlap` which of two annotations
holds where they overlap, `later` (in the file), `smaller` or `ignore` (neither); a class may have several `labels`.
"""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from mdp.io.annotations.drawing import Drawing
from mdp.io.annotations.labelme import IGNORED
from mdp.io.annotations.patches import OVERLAPS, REST, UNDECIDED
from mdp.io.datasets.own.label_space import label_space
from mdp.io.datasets.own.yaml_values import as_list, as_mapping
from mdp.io.errors import RecipeError
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.reading import shown
from mdp.label_space import IGNORE, RGB, LabelSpace

KEYS = ("background", "overlap")
_DRAWN = 60000  # class i is drawn with raw value 60000 + i, as class i of a colour-coded label map is read


class Labels(NamedTuple):
    """How the label maps of a dataset are read."""

    space: LabelSpace
    colors: dict[RGB, int] | None
    codes: tuple[tuple[int, int, int], ...]
    drawing: Drawing


def drawn_labels(name: str, values: Mapping[str, Any], path: Path, listed: bool) -> Labels:
    """The label space, and how annotations are drawn.  Where a file lists the classes, `background` may be one more.

    Raises RecipeError naming the key.
    """
    ignored = as_list(values.get("ignore", []), "ignore", path)
    never = [item for item in ignored if isinstance(item, str) and not item.startswith("#")]
    space, colors, codes = label_space(
        name, {**values, "ignore": [item for item in ignored if item not in never]}, path
    )
    table = {IGNORED: UNDECIDED}
    for key, entry in as_mapping(values, "classes", path).items():
        class_name = entry["name"] if isinstance(entry, Mapping) else entry
        for label in _labels(entry, f"classes.{key}.labels", path):
            value = _DRAWN + space.classes.index(class_name) if class_name in space.classes else UNDECIDED
            if table.setdefault(label, value) != value:
                raise RecipeError(f"{path}: classes.{key}: the label {shown(label)} is already taken by another class")
    table.update(dict.fromkeys(never, UNDECIDED))
    space, rest = _with_background(space, values, path, listed)
    lookup = {_DRAWN + i: i for i in range(len(space.classes))} | {REST: rest, UNDECIDED: IGNORE}
    overlap = values.get("overlap", "later")
    if overlap not in OVERLAPS:
        raise RecipeError(f"{path}: overlap: expected one of {', '.join(OVERLAPS)}, got {shown(overlap)}")
    return Labels(replace(space, lookup={**(space.lookup or {}), **lookup}), colors, codes, Drawing(table, overlap))


def _labels(entry: Any, where: str, path: Path) -> list[str]:
    """The names that a class has in annotations: its own, or those that it lists."""
    if not isinstance(entry, Mapping) or "labels" not in entry:
        return [entry["name"] if isinstance(entry, Mapping) else entry]
    labels = as_list(entry["labels"], where, path)
    for label in labels:
        if not isinstance(label, str):
            raise RecipeError(f"{path}: {where}: expected names of annotations, got {shown(label)}")
    return labels


def _with_background(space: LabelSpace, values: Mapping[str, Any], path: Path, listed: bool) -> tuple[LabelSpace, int]:
    """The label space with the class of pixels in no annotation, and which one that is (or `IGNORE`)."""
    name = values.get("background")
    if name == "ignore":
        return space, IGNORE
    if not isinstance(name, str) or not name:
        raise RecipeError(
            f"{path}: background: pixels in no annotation have to be something: expected the name of a class, or "
            f"`background: ignore`, got {shown(name)}"
        )
    if name in space.classes:
        return space, space.classes.index(name)
    if not listed:
        close = difflib.get_close_matches(name, space.classes, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "add it there, or say `background: ignore`"
        raise RecipeError(f"{path}: background: {shown(name)} is not among the classes; {hint}")
    count = len(space.classes)
    return replace(
        space, classes=(*space.classes, name), colors=(*space.colors, voc_colormap(count + 2)[count + 1])
    ), count
