"""YOLO's outlines: `labels` beside `images`, a text file for each photo, and a `data.yaml` of names."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mdp.io.annotations import yolo
from mdp.io.datasets.draft.readings.class_lines import drawn_classes
from mdp.io.datasets.draft.text import Draft
from mdp.io.datasets.draft.tree import Tree, ordered, parent, split_of, stem
from mdp.io.datasets.own.endings import PHOTOS
from mdp.io.errors import MdpError
from mdp.io.files.strict_yaml import load_yaml


def drafts(tree: Tree) -> list[Draft]:
    """A split for each folder `labels` whose photos are in the folder `images` in its place."""
    photos = {file.rpartition(".")[0] for file in tree.ending(*PHOTOS)}
    texts = [file for file in tree.ending(".txt") if _photo_of(file) in photos]
    if not any(yolo.is_yolo(tree.path(file)) for file in texts):
        return []
    folders = sorted({parent(file) for file in texts})
    numbers = {number for folder in folders for number in yolo.class_names(tree.folder / folder)}
    splits: dict[str, dict[str, str]] = {}
    notes = []
    for folder in folders:
        split = split_of(folder) or "train"
        images = parent(_photo_of(f"{folder}/x"))
        if split in splits:
            notes.append(f"The folder {folder} is left out: there is one for the split {split} already.")
            continue
        splits[split] = {"images": images or ".", "annotations": folder}
        alone = {file for file in photos if parent(file) == images} - set(map(_photo_of, texts))
        if alone:
            one = f"{min(alone)} and {len(alone) - 1:,} others" if len(alone) > 1 else min(alone)
            notes.append(f"No text file, so left out: {one}; an empty text file says that nothing is outlined.")
    listed, names = _names(tree)
    if not numbers <= set(names):
        notes += [f"{listed} has not a name for every number, so it was not used."] if listed else []
        notes.append("Names are made up.")
        names = {number: f"class_{number}" for number in sorted(numbers, key=int)}
    else:
        notes.append(f"Names are those of {listed}.")
    classes, more = drawn_classes(list(names.values()), labels={name: number for number, name in names.items()})
    return [Draft("outlines in YOLO's text files", {key: splits[key] for key in ordered(splits)}, classes, more, notes)]


def _photo_of(file: str) -> str:
    """The photo of a text file without its ending, by the rule of Ultralytics: the last `labels` becomes `images`.

    >>> _photo_of("labels/train/a.txt"), _photo_of("train/labels/a.txt"), _photo_of("a.txt")
    ('images/train/a', 'train/images/a', '')
    """
    parts = list(PurePosixPath(file).with_suffix("").parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index] == "labels":
            return "/".join([*parts[:index], "images", *parts[index + 1 :]])
    return ""


def _names(tree: Tree) -> tuple[str, dict[str, str]]:
    """The YAML file with names, and the name of each number; nothing where there is none."""
    for file in sorted(tree.ending(".yaml", ".yml"), key=lambda file: (file.count("/"), stem(file) != "data", file)):
        try:
            names = load_yaml(Path(tree.path(file))).get("names")
        except MdpError:
            continue
        table = dict(enumerate(names)) if isinstance(names, list) else names
        if isinstance(table, Mapping) and table and all(type(key) is int for key in table):
            return file, {str(key): str(name) for key, name in table.items()}
    return "", {}
