"""What label maps hold: their raw values or colours, how much of each, and the names that a file beside them gives."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdp.io.annotations.class_tables import class_table
from mdp.io.datasets.draft.text import class_line
from mdp.io.datasets.draft.tree import Tree, evenly, parent
from mdp.io.errors import DatasetError
from mdp.io.files.decoding import open_image
from mdp.io.files.label_maps import read_labels
from mdp.io.files.reading import read_bytes

_MAPS = 1000  # label maps that are looked into
_FORMATS = ("PNG", "BMP", "TIFF", "PPM", "GIF", "JPEG")
_CLASSES = 256  # values, or colours, that a draft lists at most
_TABLES = ("_classes.csv", "labelmap.txt", "class_dict.csv")  # class tables of tools, by their names
_LISTS = ("labels.txt", "classes.txt", "class_names.txt", "label_names.txt", "names.txt", "codes.txt", "label.txt")


@dataclass
class Seen:
    """Label maps that were looked into."""

    maps: int = 0
    pixels: int = 0
    values: Counter[int] = field(default_factory=Counter)  # pixels of grey and palette maps
    colors: Counter[int] = field(default_factory=Counter)  # of colour maps, as 0xrrggbb
    areas: set[int] = field(default_factory=set)  # colours that fill 3 x 3 pixels somewhere
    within: list[frozenset[int]] = field(default_factory=list)  # the values of each map
    palettes: dict[int, set[int]] = field(default_factory=dict)  # the colours that an index has
    jpeg: int = 0
    broken: list[str] = field(default_factory=list)


def look_into(tree: Tree, files: Sequence[str]) -> Seen:
    """What the label maps hold; of many, evenly spaced ones are read."""
    seen = Seen()
    for file in evenly(files, _MAPS):
        try:
            _look_(seen, tree.path(file))
        except DatasetError as error:
            seen.broken.append(str(error))
    return seen


def _look_(seen: Seen, path: str) -> None:
    if path.lower().endswith((".mat", ".npy")):
        _count_(seen, read_labels(path))
        return
    image = open_image(path, read_bytes(path, "label map"), _FORMATS, "label map")
    seen.jpeg += image.format == "JPEG"
    pixels = np.array(image)
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB") or [], dtype=np.int64).reshape(-1, 3)
        for index in np.unique(pixels).tolist():
            if index < len(palette):
                seen.palettes.setdefault(index, set()).add(int(palette[index] @ (65536, 256, 1)))
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        codes = pixels[..., :3].astype(np.int64) @ np.array([65536, 256, 1])
        values, counts = np.unique(codes, return_counts=True)
        seen.colors.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        seen.areas.update(_filled(codes))
        seen.maps, seen.pixels = seen.maps + 1, seen.pixels + codes.size
    else:
        _count_(seen, pixels if pixels.ndim == 2 else pixels[..., 0])


def _filled(codes: NDArray[np.int64]) -> list[int]:
    """The colours (H, W) that fill 3 x 3 pixels somewhere, as mixtures along edges do not."""
    level = np.where((codes[:, :-2] == codes[:, 1:-1]) & (codes[:, 2:] == codes[:, 1:-1]), codes[:, 1:-1], -1)
    filled = level[1:-1][(level[1:-1] == level[:-2]) & (level[1:-1] == level[2:]) & (level[1:-1] >= 0)]
    return list(np.unique(filled).tolist())


def _count_(seen: Seen, values: NDArray[Any]) -> None:
    found, counts = np.unique(values, return_counts=True)
    seen.values.update(dict(zip(found.astype(np.int64).tolist(), counts.tolist(), strict=True)))
    seen.within.append(frozenset(found.astype(np.int64).tolist()))
    seen.maps, seen.pixels = seen.maps + 1, seen.pixels + values.size


# As lines


@dataclass
class Lines:
    """The lines that label maps give."""

    classes: list[str]
    more: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def class_lines(tree: Tree, files: Sequence[str], beside: str) -> Lines:
    """Classes by what the label maps hold, named where a class table lies near them (`beside` first)."""
    seen = look_into(tree, files)
    listed, table = class_table_near(tree, beside)
    if seen.colors and not seen.values:
        lines = _by_color(seen, table, listed)
    elif seen.jpeg:
        lines = _by_brightness(seen)
    elif any(len(colors) > 1 for colors in seen.palettes.values()) or (_has_colors(table) and seen.palettes):
        lines = _by_palette(seen, table, listed)
    else:
        lines = _by_value(seen, table, listed)
    if seen.maps < len(files):
        lines.notes.append(f"{seen.maps:,} of {len(files):,} label maps were looked into; others may hold more.")
    lines.notes += [f"Not read: {text}" for text in seen.broken[:3]]
    others = _other_tables(tree, listed, table)
    if others:
        lines.notes.append(f"{others[0]} says something else than {listed}: are the splits labelled alike?")
    if seen.colors and seen.values:
        lines.notes.append("Some label maps are in colours, others are not: mdp check will name them.")
    return lines


def value_lines(tree: Tree, files: Sequence[str], table: Mapping[Any, Any], listed: str, ignored: int | None) -> Lines:
    """Classes of grey and palette label maps by their values, named by a table; `ignored` is the value of none."""
    seen = look_into(tree, files)
    lines = _by_value(seen, table, listed)
    if ignored is None:
        return lines
    rest = replace(seen, values=Counter({value: count for value, count in seen.values.items() if value != ignored}))
    share = _share(seen.values[ignored], seen)
    lines = _by_value(rest, table, listed)
    return replace(lines, more=[f"ignore_index: {ignored}  # {share}"])


def class_table_near(tree: Tree, beside: str) -> tuple[str, Mapping[Any, Any]]:
    """The class table of a tool, or a list of names, that lies nearest, and what it holds; nothing where none does."""
    named = [file for file in tree.files if PurePosixPath(file).name.lower() in (*_TABLES, *_LISTS)]
    known = [*_TABLES, *_LISTS]
    folder = beside if beside != "." else ""

    def far(file: str) -> tuple[int, bool, int, str]:
        above = parent(file)
        near = above in (folder, parent(folder + "/x"), "") or folder.startswith(f"{above}/")
        return known.index(PurePosixPath(file).name.lower()), not near, len(above), file

    for file in sorted(named, key=far):
        try:
            return file, class_table(Path(tree.path(file)))
        except DatasetError:
            continue
    return "", {}


def _other_tables(tree: Tree, listed: str, table: Mapping[Any, Any]) -> list[str]:
    """Class tables of the same name as the one that was taken, in folders of other splits, that say something else."""
    name = PurePosixPath(listed).name
    same = [file for file in tree.files if listed and PurePosixPath(file).name == name and file != listed]
    return [file for file in same if class_table(Path(tree.path(file))) != table]


def name_list(tree: Tree) -> tuple[str, list[str]]:
    """The file that lists names of classes, and the names."""
    file, table = class_table_near(tree, "")
    return file, [_name(entry) for entry in table.values()]


def _name(entry: Any) -> str:
    return str(entry["name"] if isinstance(entry, Mapping) else entry)


def _has_colors(table: Mapping[Any, Any]) -> bool:
    return bool(table) and all(isinstance(entry, Mapping) and "colors" in entry for entry in table.values())


def _share(pixels: int, seen: Seen) -> str:
    share = pixels / max(seen.pixels, 1)
    return "not seen" if not pixels else f"{share:.1%} of the pixels" if share >= 0.001 else f"{pixels:,} pixels"


def _about(value: int, seen: Seen) -> str:
    """How much there is of a value, and the colour that palettes give it."""
    colors = seen.palettes.get(value, set())
    return _share(seen.values[value], seen) + "".join(f", {_hex(color)} in the palette" for color in colors)


def _from(listed: str) -> list[str]:
    return [f"Names are those of {listed}."] if listed else ["Names are made up: no list of names was found."]


def _by_value(seen: Seen, table: Mapping[Any, Any], listed: str) -> Lines:
    values = sorted(seen.values)
    if len(values) > _CLASSES:
        note = f"The label maps hold {len(values):,} values: instances, or photos?  The first {_CLASSES} stand here."
        return Lines([class_line(value, f"class_{value}") for value in values[:_CLASSES]], notes=[note])
    if values == [0, 255] and not table:
        both = ("background", "foreground")
        classes = [
            class_line(value, name, _share(seen.values[value], seen)) for value, name in zip(values, both, strict=True)
        ]
        return Lines(classes, ["ignore_index: null  # 255 is a class here"], ["Names are made up."])
    ignored = values[-1] if len(values) > 1 and values[-1] in (255, 65535) and values[-1] not in table else None
    rest = [value for value in values if value != ignored]
    named = bool(table) and set(rest) <= set(table)
    names = (
        {key: _name(entry) for key, entry in table.items()}
        if named
        else {value: _made_up(value, rest) for value in rest}
    )
    keys = [key for key in names if isinstance(key, int)]
    lines = Lines(
        [class_line(key, names[key], _share(seen.values[key], seen)) for key in keys],
        notes=_from(listed if named else ""),
    )
    if table and not named:
        missing = sorted(set(rest) - set(table))
        lines.notes.append(f"{listed} has no name for the values {missing[:8]}, so it was not used.")
    if ignored is not None:
        share = _share(seen.values[ignored], seen)
        lines.more.append(f"ignore_index: {ignored}  # {share}; a guess, since {ignored} is seldom a class")
        lines.more.append(f"# ignore_index: null  # in its place, with `{ignored}: NAME` under classes, if it is one")
    elif 255 in values:
        lines.more.append("ignore_index: null  # 255 is a class here")
    if 0 in names and len(rest) > 2 and not named:
        lines.more.append("# ignore: [0]  # in place of class 0, if it is what nobody labelled")
    if _counts_objects(seen, rest):
        lines.notes.append(
            "Values 1, 2, ... may count objects rather than classes: each occurs only beside the one before."
        )
        lines.more.append(
            '# classes: {0: background, 1: {name: object, values: "1-"}}  # in place of those above, if so'
        )
    return lines


def _made_up(value: int, values: Sequence[int]) -> str:
    if list(values) in ([0, 1], [0, 255]):
        return "background" if value == 0 else "foreground"
    return f"class_{value}"


def _counts_objects(seen: Seen, values: Sequence[int]) -> bool:
    """Whether values look like the numbers of objects: 1, 2, ... without a gap, in each map from 1 on."""
    things = [frozenset(value for value in found if 0 < value < 255) for found in seen.within]
    if len(values) < 3 or list(values) != list(range(len(values))) or len(set(things)) < 2:
        return False
    return all(found == frozenset(range(1, len(found) + 1)) for found in things)


def _by_brightness(seen: Seen) -> Lines:
    dark = sum(count for value, count in (seen.values or seen.colors).items() if (value & 255) < 128)
    classes = [
        class_line(0, {"name": "background", "values": "0-127"}, _share(dark, seen)),
        class_line(1, {"name": "foreground", "values": "128-255"}, _share(seen.pixels - dark, seen)),
    ]
    note = "The label maps are JPEG files, whose values are not exact: dark and bright pixels are told apart."
    return Lines(classes, ["ignore_index: null  # 255 is bright"], [note])


def _hex(color: int) -> str:
    return f"#{color:06x}"


def _by_color(seen: Seen, table: Mapping[Any, Any], listed: str) -> Lines:
    names = {color: _name(entry) for entry in table.values() if _has_colors(table) for color in entry["colors"]}
    used = Counter({_hex(color): count for color, count in seen.colors.items()})
    if names and set(used) <= set(names):
        classes = [
            class_line(
                key,
                {"name": _name(entry), "colors": entry["colors"]},
                _share(sum(used[c] for c in entry["colors"]), seen),
            )
            for key, entry in table.items()
        ]
        return Lines(classes, notes=_from(listed))
    filled = [color for color, _ in used.most_common() if int(color[1:], 16) in seen.areas or color in names]
    soft = 0 < len(filled) < len(used) - len(filled)  # most colours are along edges only
    kept = (filled if soft else [color for color, _ in used.most_common()])[:_CLASSES]
    classes = [
        class_line(i, {"name": names.get(color, f"class_{i}"), "colors": [color]}, _share(used[color], seen))
        for i, color in enumerate(kept)
    ]
    lines = Lines(classes, notes=_from(listed if names else ""))
    rest = len(used) - len(kept)
    if rest:
        share = sum(count for color, count in used.items() if color not in kept) / seen.pixels
        lines.notes.append(
            f"{rest:,} further colours on {share:.1%} of the pixels are left out: smooth edges, or a resize?"
        )
        lines.more.append("edges: ignore  # what lies between these colours; or nearest: the colour of a neighbour")
    return lines


def _by_palette(seen: Seen, table: Mapping[Any, Any], listed: str) -> Lines:
    """Palette maps by their colours: where palettes differ between files an index means nothing."""
    names = {color: _name(entry) for entry in table.values() if _has_colors(table) for color in entry["colors"]}
    colors = sorted({_hex(color) for found in seen.palettes.values() for color in found})
    every = list(dict.fromkeys([*names, *colors]))
    classes = [
        class_line(i, {"name": names.get(color, f"class_{i}"), "colors": [color]}) for i, color in enumerate(every)
    ]
    differ = any(len(found) > 1 for found in seen.palettes.values())
    note = ["The palettes of the label maps differ, so classes go by their colours."] if differ else []
    return Lines(classes, notes=[*note, *_from(listed if names else "")])
