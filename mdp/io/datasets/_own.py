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

Optional besides: `home`, where to get the data, and `terms`, the licence of photos and labels in a sentence.

Without `classes` and `labels` it is unlabelled photos, all those below the folder `images`, for methods that need no
labels.  A plain folder is the same: `--datasets photos/`.  Every folder may be a zip archive, or lie in one:
`images: photos.zip/train`.

Every path, in the YAML file and in lists, stays inside the dataset's folder, and so does every symbolic link on the
way; a dataset whose files lie elsewhere says `outside: true`.  Paths are written with `/`.
"""

import difflib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from mdp.io.datasets._dataset import Absent, Dataset, Pair, Sample, same_size
from mdp.io.datasets._layouts import files_in, numbered_lines, paired, refuse_controls
from mdp.io.errors import DatasetError, RecipeError, ResourceError
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.images import read_labels, read_rgb
from mdp.io.files.reading import STAY_INSIDE, has_controls, is_dir, listed, printable, shown, stray_entry, way_out
from mdp.io.files.strict_yaml import load_yaml
from mdp.label_space import IGNORE, RGB, LabelSpace

_PHOTOS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_LABELS = (".png", ".bmp", ".tif", ".tiff", ".mat", ".jpg", ".jpeg")  # JPEG is refused when it is read
_KEYS = ("name", "root", "splits", "ignore_index", "ignore", "classes", "home", "terms", "outside")
_SPLIT_KEYS = ("images", "labels", "label", "list", "count")
_CLASS_KEYS = ("name", "values", "colors", "color")
_COUNT = 10**9  # images of a split
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

    Raises RecipeError, naming file and key, for anything that is not as described above, DatasetError for paths that
    lead out of the dataset's folder.
    """
    try:
        path = Path(os.path.realpath(path))
    except ValueError as error:
        raise RecipeError(f"{printable(path)}: not the name of a file: {error}") from error
    values = load_yaml(path)
    _refuse_unknown(values, _KEYS, "", path)
    name = values.get("name", path.stem)
    if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][\w.-]*", name)):
        raise RecipeError(f"{path}: name: expected a word of letters, digits, - and _, got {shown(name)}")
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
        raise RecipeError(f"{path}: root: expected a folder name, got {shown(folder)}")
    outside = values.get("outside", False)
    if not isinstance(outside, bool):
        raise RecipeError(f"{path}: outside: expected true or false, got {shown(outside)}")
    if not outside:
        _refuse_ways_out(folder, splits, path)
    home = " ".join(str(values.get("home", _HOME)).split())
    terms = values.get("terms", "")
    if not isinstance(terms, str):
        raise RecipeError(f"{path}: terms: expected the licence in a sentence, got {shown(terms)}")
    return Dataset(
        name=name,
        labels=labels,
        splits={key: split.expected for key, split in splits.items()},
        train=("train",) if "train" in splits else (next(iter(splits)),),
        val="val" if "val" in splits and labelled else None,
        home=home,
        source=str(path),
        samples=partial(
            _samples,
            name=name,
            splits=splits,
            folder=folder,
            yaml=path,
            home=home,
            labelled=labelled,
            outside=outside,
        ),
        read=partial(_read, colors=colors) if labelled else _read_unlabelled,
        terms=" ".join(terms.split()),
    )


def load_folder(folder: Path) -> Dataset:
    """All photos below a folder or in a zip archive, unlabelled: a dataset named after it, with the split `train`."""
    folder = Path(os.path.realpath(folder))
    plain = re.sub(r"\.zip$", "", folder.name, flags=re.IGNORECASE)
    name = re.sub(r"[^\w.-]", "-", plain).strip(".-") or "photos"
    return Dataset(
        name=name,
        labels=LabelSpace(name=name, classes=()),
        splits={"train": None},
        train=("train",),
        val=None,
        home=f"photos below {folder}",
        source=str(folder),
        # whoever names a folder means what it shows: links are followed wherever they lead
        samples=lambda root, split: _unlabelled(name, folder, os.sep),
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
        raise RecipeError(f"{path}: {key}: expected `key: value` lines, got {shown(value)}")
    return value


def _split(value: Any, where: str, path: Path, labelled: bool) -> Split:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{path}: {where}: expected {{images: FOLDER, labels: FOLDER}}, got {shown(value)}")
    _refuse_unknown(value, _SPLIT_KEYS, f"{where}.", path)
    count = value.get("count")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _COUNT):
        raise RecipeError(f"{path}: {where}.count: expected a whole number of 1 or more, got {shown(count)}")
    for key, item in value.items():
        if key != "count" and not isinstance(item, str):
            raise RecipeError(f"{path}: {where}.{key}: expected text, got {shown(item)}")
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
        raise RecipeError(f'{path}: {where}.label: expected a template such as "{{stem}}_gt.png", got {shown(label)}')
    return Split(value.get("images", "."), value.get("labels", "."), label, value.get("list"), count)


def _label_space(name: str, values: Mapping[str, Any], path: Path) -> tuple[LabelSpace, dict[RGB, int] | None]:
    """The label space, and the raw values that stand for the colours of a colour-coded one."""
    ignored = _listed(values.get("ignore", []), "ignore", path)
    never = {_raw(item, "ignore", path) for item in ignored if not isinstance(item, str)}
    never_colors = {_color(item, "ignore", path) for item in ignored if isinstance(item, str)}
    described = [_class(key, value, path) for key, value in _mapping(values, "classes", path).items()]
    kept = [entry for entry in described if set(entry.values) - never or set(entry.colors) - never_colors]
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
        raise RecipeError(f"{path}: {where}: expected a name or {{name: ..., values: [...]}}, got {shown(value)}")
    if has_controls(entry["name"]):
        raise RecipeError(f"{path}: {where}: expected a name on one line, got {shown(entry['name'])}")
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
        raise RecipeError(f"{path}: {where}: expected a list, got {shown(value)}")
    return value


def _put(table: dict[Any, int], key: Any, label: int, where: str, path: Path) -> None:
    if key in table:
        raise RecipeError(f"{path}: {where}: {key} is already taken by another class or by ignore")
    table[key] = label


def _raw(value: Any, where: str, path: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _IGNORED_COLOR:
        raise RecipeError(f"{path}: {where}: expected a whole number 0..65535, got {shown(value)}")
    return value


def _color(value: Any, where: str, path: Path) -> RGB:
    if not (isinstance(value, str) and re.fullmatch(r"#[0-9A-Fa-f]{6}", value)):
        raise RecipeError(f'{path}: {where}: expected a colour such as "#804080", got {shown(value)}')
    return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)


def _refuse_ways_out(folder: str | None, splits: Mapping[str, Split], path: Path) -> None:
    """Raises DatasetError, naming the key, for a path that would leave the dataset's folder if there were no links."""
    texts = {"root": folder}
    for key, split in splits.items():
        texts |= {f"splits.{key}.{part}": getattr(split, part) for part in ("images", "labels", "label", "list")}
    for where, text in texts.items():
        if text is not None:
            _refuse_way_out(text, f"{path}: {where}")


def _refuse_way_out(text: str, where: str) -> None:
    if "\\" in text or PureWindowsPath(text).drive:
        raise DatasetError(
            f"{where}: {shown(text)} is a path of Windows; write it with / and inside the dataset's folder"
        )
    if text.startswith("/") or ".." in PurePosixPath(text).parts:
        raise DatasetError(f"{where}: {shown(text)} leads out of the dataset's folder; {STAY_INSIDE}")


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
    outside: bool,
) -> list[Sample]:
    base = yaml.parent if folder is None else root / folder
    if not is_dir(base):
        hint = "" if folder is None else f" ({yaml.name} says root: {folder}, under --root {root})"
        raise Absent(f"{name}: the folder {base} is missing{hint}; {home}")
    entry, border = splits[split], os.sep if outside else os.path.realpath(base)
    if not labelled:
        return _unlabelled(name, base / entry.images, border)
    if entry.list is None:
        photos, labels = _photos(base, entry), _label_files(base, entry)
        pairs = [(photo, _label_of(photo, base, entry, labels)) for photo in photos.values()]
        _refuse_strays([(path, "") for pair in pairs for path in pair], border)
        return paired(name, pairs, home)
    order = base / entry.list
    _refuse_strays([(order, f"{yaml}: splits.{split}.list: ")], border)
    lines = numbered_lines(order)
    texts = Counter(line for _, line in lines)
    if len(texts) != len(lines):
        twice = next(line for line, count in texts.items() if count > 1)
        raise DatasetError(f"{order}: {len(lines) - len(texts)} lines are there twice, such as {shown(twice)}")
    by_stem = any(len(line.split()) == 1 for line in texts)
    photos, labels = (_photos(base, entry), _label_files(base, entry)) if by_stem else ({}, {})
    pairs, placed = [], []
    for number, line in lines:
        where = f"{printable(order)}: line {number}: "
        pair = _pair(line, base, entry, photos, labels, where, outside)
        pairs.append(pair)
        placed += [(path, where) for path in pair]
    _refuse_strays(placed, border)
    return paired(name, pairs, home)


def _refuse_strays(placed: Sequence[tuple[Path, str]], border: str) -> None:
    """Raises DatasetError, naming where it says so, for what leads out of the border or is no file; opens nothing."""
    odd: dict[Path, set[str]] = {}
    for path, where in placed:
        folder = path.parent
        if folder not in odd:
            _refuse(way_out(folder, border), f"{where}{printable(folder)}")
            odd[folder] = _odd_entries(folder)
        if path.name in odd[folder]:
            _refuse(stray_entry(path, border), f"{where}{printable(path)}")


def _refuse(reason: str, where: str) -> None:
    if reason:
        raise DatasetError(f"{where}: {reason}")


def _odd_entries(folder: Path) -> set[str]:
    """The names of links, folders, pipes and devices in a folder: one listing, no look at each file."""
    try:
        return {name for name, odd in listed(folder) if odd}
    except (OSError, ValueError):
        return set()  # what is missing there is for `paired` to say


def _unlabelled(name: str, folder: Path, border: str) -> list[Sample]:
    """The photos below a folder, at any depth.

    Links are followed, as subsets of ImageNet are often made of them, but never in a circle nor past the border.
    Raises DatasetError when the folder is missing, or for what is no file or outside.
    """
    if not is_dir(folder):
        raise Absent(f"{name}: the folder {printable(folder)} is missing")
    paths: list[Path] = []
    visited: set[str] = set()  # real paths: two links may lead to one folder, or back to one above
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        _refuse(way_out(current, border), printable(current))
        real = os.path.realpath(current)
        if real not in visited:
            visited.add(real)
            folders, photos = _within(current, border)
            waiting += folders
            paths += photos
    return [Sample(str(path), "", name) for path in sorted(paths)]


def _within(folder: Path, border: str) -> tuple[list[Path], list[Path]]:
    """The folders and the photos in a folder, hidden ones left out."""
    folders, photos = [], []
    try:
        entries = [(folder / name, odd) for name, odd in listed(folder)]
    except OSError as error:
        raise ResourceError(f"{printable(folder)}: the folder cannot be read: {error.strerror}") from error
    for path, odd in entries:
        if path.name.startswith("."):
            continue
        refuse_controls(path)
        if odd and is_dir(path):
            folders.append(path)
        elif path.suffix.lower() in _PHOTOS:
            _refuse(stray_entry(path, border) if odd else "", printable(path))
            photos.append(path)
    return folders, photos


def _photos(base: Path, entry: Split) -> dict[str, Path]:
    """The photos of a split by stem.  Raises DatasetError when two share one."""
    photos = _by_stem(files_in(base / entry.images, *_PHOTOS))
    if entry.label is None or base / entry.images != base / entry.labels:
        return photos
    # photos and label maps lie in one folder: what is the label map of another is no photo
    labels = {entry.label.replace("{stem}", stem) for stem in photos}
    return {stem: path for stem, path in photos.items() if path.name not in labels}


def _pair(
    line: str,
    base: Path,
    entry: Split,
    photos: Mapping[str, Path],
    labels: Mapping[str, Path],
    where: str,
    outside: bool,
) -> tuple[Path, Path]:
    """The files of a line: `image labels`, or an id or image path that names the photo by its stem."""
    words = line.split()
    if len(words) == 2:
        if not outside:
            for word in words:
                _refuse_way_out(word, where.removesuffix(": "))
        return base / words[0], base / words[1]
    plain = PurePosixPath(line).name
    if len(words) != 1 or plain in ("", ".", "..") or "\\" in line:
        raise DatasetError(f"{where}expected `id`, `image` or `image labels`, written with /, got {shown(line)}")
    # the folders of a path are not looked at: lists often come with those of another machine
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
            raise DatasetError(f"{printable(path)} and {printable(stems[stem].name)} share a stem; remove one of them")
        stems[stem] = path
    return stems


def _plain(stem: str) -> str:
    """One spelling of accented letters: macOS writes them decomposed, lists have them composed."""
    return unicodedata.normalize("NFC", stem)


def _read_unlabelled(sample: Sample) -> Pair:
    rgb = read_rgb(sample.image)
    return rgb, np.full(rgb.shape[:2], 255, dtype=np.uint8)


def _read(sample: Sample, *, colors: Mapping[RGB, int] | None) -> Pair:
    return same_size(sample, read_rgb(sample.image), read_labels(sample.labels, colors))
