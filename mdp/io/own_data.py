"""A dataset of your own, described by a YAML file.

name: site_a
root: site_a                 # optional: under --root; without it paths are relative to the YAML file
splits:
  train: {images: images/train, labels: labels/train}
  val:   {images: images/val, labels: labels/val, label: "{stem}_gt.png"}
  test:  {images: images, labels: labels, list: test.txt}   # a line each: id, image path, or "image labels"
  all:   {images: photos, labels: masks, count: 1200}       # optional: how many images there should be
ignore_index: 255
ignore: [0, "#000000"]       # raw values, or colours, that are never a class, even if named below
classes:
  1: road                                      # raw value 1
  2: {name: vehicle, values: [2, 7]}           # several raw values
  3: {name: tree, colors: ["#008000"]}         # a colour-coded label map

Without `classes` and `labels` it is unlabelled photos, all those below the folder `images`, for methods that need no
labels.  A plain folder is the same: `--datasets photos/`.
"""

import difflib
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from mdp.core.labels import IGNORE, RGB, LabelSpace
from mdp.io.datasets import Absent, Dataset, Pair, Sample, files_in, lines_of, paired, same_size
from mdp.io.errors import DatasetError, RecipeError
from mdp.io.images import read_labels, read_rgb, voc_colormap
from mdp.io.strict_yaml import load_yaml

_PHOTOS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_LABELS = (".png", ".bmp", ".tif", ".tiff", ".mat", ".jpg", ".jpeg")  # JPEG is refused when it is read
_KEYS = ("name", "root", "splits", "ignore_index", "ignore", "classes", "home")
_SPLIT_KEYS = ("images", "labels", "label", "list", "count")
_CLASS_KEYS = ("name", "values", "colors", "color")
_COLORED = 60000  # class i of a colour-coded label map has raw value 60000 + i: no grey file has such ids by chance
_IGNORED_COLOR = 65535  # the raw value that stands for ignored colours
_HOME = "see the paths in its YAML file"


class Split(NamedTuple):
    """Where the files of a split are, relative to the dataset's folder."""

    images: str
    labels: str
    label: str | None  # template of a label file's name, with {stem}; None: the image's stem, any suffix
    list: str | None
    expected: int | None  # how many images there should be


class Class(NamedTuple):
    """A class as it is described."""

    key: Any  # in the YAML file
    name: str
    values: list[int]  # in grey and palette label maps
    colors: list[RGB]  # in colour-coded ones
    color: RGB | None  # for display


def load_own(path: Path) -> Dataset:
    """The dataset that the YAML file describes.

    Raises RecipeError, naming file and key, for anything that is not as described above.
    """
    path = path.resolve()
    values = load_yaml(path)
    _refuse_unknown(values, _KEYS, "", path)
    name = values.get("name", path.stem)
    if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][\w.-]*", name)):
        raise RecipeError(f"{path}: name: expected a word of letters, digits, - and _, got {name!r}")
    labelled = "classes" in values
    if not labelled and {"ignore", "ignore_index"} & set(values):
        raise RecipeError(f"{path}: classes: expected `key: value` lines beside ignore and ignore_index, found none")
    splits = {
        str(key): _split(value, f"splits.{key}", path, labelled)
        for key, value in _mapping(values, "splits", path).items()
    }
    labels, colors = _label_space(name, values, path) if labelled else (LabelSpace(name=name, classes=()), None)
    folder = values.get("root")
    if folder is not None and not isinstance(folder, str):
        raise RecipeError(f"{path}: root: expected a folder name, got {folder!r}")
    home = str(values.get("home", _HOME))
    return Dataset(
        name=name,
        labels=labels,
        splits={key: split.expected for key, split in splits.items()},
        train=("train",) if "train" in splits else (next(iter(splits)),),
        val="val" if "val" in splits and labelled else None,
        home=home,
        source=str(path),
        samples=partial(_samples, name=name, splits=splits, folder=folder, yaml=path, home=home, labelled=labelled),
        read=partial(_read, colors=colors) if labelled else _read_unlabelled,
    )


def load_folder(folder: Path) -> Dataset:
    """All photos below a folder as an unlabelled dataset with the split `train`, named after the folder."""
    folder = folder.resolve()
    name = re.sub(r"[^\w.-]", "-", folder.name).strip(".-") or "photos"
    return Dataset(
        name=name,
        labels=LabelSpace(name=name, classes=()),
        splits={"train": None},
        train=("train",),
        val=None,
        home=f"photos below {folder}",
        source=str(folder),
        samples=lambda root, split: _unlabelled(name, folder),
        read=_read_unlabelled,
    )


# Reading the description


def _refuse_unknown(values: Mapping[Any, Any], known: Sequence[str], prefix: str, path: Path) -> None:
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            raise RecipeError(f"{path}: unknown key {prefix}{key}; {hint}")


def _mapping(values: Mapping[Any, Any], key: str, path: Path) -> Mapping[Any, Any]:
    value = values.get(key)
    if not isinstance(value, Mapping) or not value:
        raise RecipeError(f"{path}: {key}: expected `key: value` lines, got {value!r}")
    return value


def _split(value: Any, where: str, path: Path, labelled: bool) -> Split:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{path}: {where}: expected {{images: FOLDER, labels: FOLDER}}, got {value!r}")
    _refuse_unknown(value, _SPLIT_KEYS, f"{where}.", path)
    count = value.get("count")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise RecipeError(f"{path}: {where}.count: expected a whole number of 1 or more, got {count!r}")
    for key, item in value.items():
        if key != "count" and not isinstance(item, str):
            raise RecipeError(f"{path}: {where}.{key}: expected text, got {item!r}")
    if not labelled:
        if set(value) - {"count"} != {"images"}:
            raise RecipeError(
                f"{path}: {where}: without `classes` the photos are unlabelled, and a split is {{images: FOLDER}}; "
                f"got {', '.join(value)}"
            )
        return Split(value["images"], "", None, None, count)
    if "list" not in value and not {"images", "labels"} <= set(value):
        raise RecipeError(f"{path}: {where}: expected images and labels (folders), or list (a file)")
    label = value.get("label")
    if label is not None and "{stem}" not in label:
        raise RecipeError(f'{path}: {where}.label: expected a template such as "{{stem}}_gt.png", got {label!r}')
    return Split(value.get("images", "."), value.get("labels", "."), label, value.get("list"), count)


def _label_space(name: str, values: Mapping[str, Any], path: Path) -> tuple[LabelSpace, dict[RGB, int] | None]:
    """The label space, and the raw values that stand for the colours of a colour-coded one."""
    ignored = _listed(values.get("ignore", []), "ignore", path)
    never = {_raw(item, "ignore", path) for item in ignored if not isinstance(item, str)}
    never_colors = {_color(item, "ignore", path) for item in ignored if isinstance(item, str)}
    listed = [_class(key, value, path) for key, value in _mapping(values, "classes", path).items()]
    kept = [entry for entry in listed if set(entry.values) - never or set(entry.colors) - never_colors]
    lookup = dict.fromkeys(never, IGNORE)
    colors = dict.fromkeys(never_colors, _IGNORED_COLOR)
    if never_colors:
        lookup[_IGNORED_COLOR] = IGNORE
    for label, entry in enumerate(kept):
        where = f"classes.{entry.key}"
        for raw in [raw for raw in entry.values if raw not in never]:
            _put(lookup, raw, label, where, path)
        for color in [color for color in entry.colors if color not in never_colors]:
            _put(colors, color, _COLORED + label, where, path)
        if entry.colors:
            _put(lookup, _COLORED + label, label, where, path)
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
        raise RecipeError(f"{path}: {where}: expected a name or {{name: ..., values: [...]}}, got {value!r}")
    _refuse_unknown(entry, _CLASS_KEYS, f"{where}.", path)
    colors = [
        _color(item, f"{where}.colors", path) for item in _listed(entry.get("colors", []), f"{where}.colors", path)
    ]
    raws = _listed(entry.get("values", [] if colors else [key]), f"{where}.values", path)
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


def _listed(value: Any, where: str, path: Path) -> list[Any]:
    if not isinstance(value, list):
        raise RecipeError(f"{path}: {where}: expected a list, got {value!r}")
    return value


def _put(table: dict[Any, int], key: Any, label: int, where: str, path: Path) -> None:
    if key in table:
        raise RecipeError(f"{path}: {where}: {key} is already taken by another class or by ignore")
    table[key] = label


def _raw(value: Any, where: str, path: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _IGNORED_COLOR:
        raise RecipeError(f"{path}: {where}: expected a whole number 0..65535, got {value!r}")
    return value


def _color(value: Any, where: str, path: Path) -> RGB:
    if not (isinstance(value, str) and re.fullmatch(r"#[0-9A-Fa-f]{6}", value)):
        raise RecipeError(f'{path}: {where}: expected a colour such as "#804080", got {value!r}')
    return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)


# Finding the files


def _samples(
    root: Path,
    split: str,
    *,
    name: str,
    splits: Mapping[str, Split],
    folder: str | None,
    yaml: Path,
    home: str,
    labelled: bool,
) -> list[Sample]:
    base = yaml.parent if folder is None else root / folder
    if not base.is_dir():
        hint = "" if folder is None else f" ({yaml.name} says root: {folder}, under --root {root})"
        raise Absent(f"{name}: the folder {base} is missing{hint}; {home}")
    entry = splits[split]
    if not labelled:
        return _unlabelled(name, base / entry.images)
    if entry.list is None:
        photos, labels = _photos(base, entry), _label_files(base, entry)
        return paired(name, [(photo, _label_of(photo, base, entry, labels)) for photo in photos.values()], home)
    listed = _inside(base, entry.list, yaml)
    lines = lines_of(listed)
    if len(set(lines)) != len(lines):
        twice = next(line for line in lines if lines.count(line) > 1)
        raise DatasetError(f"{listed}: {len(lines) - len(set(lines))} lines are there twice, such as {twice!r}")
    by_stem = any(len(line.split()) == 1 for line in lines)
    photos, labels = (_photos(base, entry), _label_files(base, entry)) if by_stem else ({}, {})
    return paired(name, [_pair(line, base, entry, photos, labels, listed) for line in lines], home)


def _unlabelled(name: str, folder: Path) -> list[Sample]:
    """The photos below a folder, at any depth.  Raises DatasetError when the folder is missing."""
    if not folder.is_dir():
        raise Absent(f"{name}: the folder {folder} is missing")
    found, seen = [], set()
    for place, folders, files in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        # links to folders are followed, as subsets of ImageNet are often made of them, but never in a circle
        folders[:] = [f for f in folders if not f.startswith(".") and os.path.realpath(Path(place) / f) not in seen]
        found += [Path(place) / file for file in files if file.lower().endswith(_PHOTOS) and not file.startswith(".")]
    return [Sample(str(path), "", name) for path in sorted(found)]


def _photos(base: Path, entry: Split) -> dict[str, Path]:
    """The photos of a split by stem.  Raises DatasetError when two share one."""
    photos = _by_stem(files_in(base / entry.images, *_PHOTOS))
    if entry.label is None or base / entry.images != base / entry.labels:
        return photos
    # photos and label maps lie in one folder: what is the label map of another is no photo
    labels = {entry.label.replace("{stem}", stem) for stem in photos}
    return {stem: path for stem, path in photos.items() if path.name not in labels}


def _pair(
    line: str, base: Path, entry: Split, photos: Mapping[str, Path], labels: Mapping[str, Path], listed: Path
) -> tuple[Path, Path]:
    """The files of a line: `image labels`, or an id or image path that names the photo by its stem."""
    words = line.split()
    if len(words) == 2:
        return _inside(base, words[0], listed), _inside(base, words[1], listed)
    if len(words) != 1:
        raise DatasetError(f"{listed}: expected `id`, `image` or `image labels` a line, got {line!r}")
    plain = PurePosixPath(line).name
    # an id may hold dots: only a suffix of a photo is cut off
    stem = _plain(PurePosixPath(plain).stem if PurePosixPath(plain).suffix.lower() in _PHOTOS else plain)
    photo = photos.get(stem, base / entry.images / plain)
    return photo, _label_of(photo, base, entry, labels)


def _label_files(base: Path, entry: Split) -> dict[str, Path]:
    """Label files by stem, where no template names them."""
    return {} if entry.label is not None else _by_stem(files_in(base / entry.labels, *_LABELS))


def _label_of(photo: Path, base: Path, entry: Split, labels: Mapping[str, Path]) -> Path:
    if entry.label is not None:
        return base / entry.labels / entry.label.replace("{stem}", photo.stem)
    return labels.get(_plain(photo.stem), base / entry.labels / f"{photo.stem}.png")


def _by_stem(paths: Sequence[Path]) -> dict[str, Path]:
    """Raises DatasetError when two files share a stem: there is no telling which one is meant."""
    stems: dict[str, Path] = {}
    for path in paths:
        stem = _plain(path.stem)
        if stem in stems:
            raise DatasetError(f"{path} and {stems[stem].name} share a stem; remove one of them")
        stems[stem] = path
    return stems


def _plain(stem: str) -> str:
    """One spelling of accented letters: macOS writes them decomposed, lists have them composed."""
    return unicodedata.normalize("NFC", stem)


def _inside(base: Path, entry: str, source: Path) -> Path:
    """The path, unless it leads out of the dataset's folder."""
    path = base / entry
    if not path.resolve().is_relative_to(base.resolve()):
        raise DatasetError(f"{source}: {entry} leads out of the dataset's folder {base}; paths must stay inside")
    return path


def _read_unlabelled(sample: Sample) -> Pair:
    rgb = read_rgb(sample.image)
    return rgb, np.full(rgb.shape[:2], 255, dtype=np.uint8)


def _read(sample: Sample, *, colors: Mapping[RGB, int] | None) -> Pair:
    return same_size(sample, read_rgb(sample.image), read_labels(sample.labels, colors))
