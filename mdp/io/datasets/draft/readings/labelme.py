"""LabelMe's JSON, a file for each photo."""

from mdp.io.annotations import labelme
from mdp.io.annotations.json_file import parsed
from mdp.io.datasets.draft.label_values import name_list
from mdp.io.datasets.draft.readings.class_lines import drawn_classes
from mdp.io.datasets.draft.text import Draft
from mdp.io.datasets.draft.tree import Tree, ordered, parent, split_of, stem
from mdp.io.datasets.own.endings import PHOTOS
from mdp.io.errors import DatasetError


def drafts(tree: Tree) -> list[Draft]:
    """A split for each folder of JSON files, with the photos there or in the folder that has their stems."""
    folders: dict[str, list[str]] = {}
    for file in tree.ending(".json"):
        folders.setdefault(parent(file), []).append(file)
    found = {folder: files for folder, files in folders.items() if _is_labelme(tree, files[0])}
    if not found:
        return []
    splits: dict[str, dict[str, str]] = {}
    notes, labels = [], set[str]()
    for folder, files in found.items():
        images = _images(tree, files)
        split = split_of(folder) or ("train" if len(found) == 1 else folder.replace("/", "_") or "train")
        if images is None or split in splits:
            reason = "its photos are not here" if images is None else f"there is one for the split {split} already"
            notes.append(f"The folder {folder or '.'} is left out: {reason}.")
            continue
        splits[split] = {"images": images, "annotations": folder or "."}
        labels.update(labelme.class_names(tree.folder / folder))
    if not splits:
        return []
    listed, names = name_list(tree)
    if not labels <= set(names):
        notes += [f"{listed} lacks labels that are in the files."] if listed else []
        names = sorted(labels)
    else:
        notes.append(f"Classes are those of {listed}.")
    classes, more = drawn_classes(names)
    return [Draft("annotations in LabelMe's JSON", {key: splits[key] for key in ordered(splits)}, classes, more, notes)]


def _is_labelme(tree: Tree, file: str) -> bool:
    try:
        return labelme.is_labelme(parsed(tree.path(file)))
    except DatasetError:
        return False


def _images(tree: Tree, files: list[str]) -> str | None:
    """The folder in which most stems of the files are those of photos, their own before others."""
    stems = {stem(file) for file in files}
    hits: dict[str, int] = {}
    for photo in tree.ending(*PHOTOS):
        if stem(photo) in stems:
            hits[parent(photo)] = hits.get(parent(photo), 0) + 1
    own = parent(files[0])
    best = max(hits, key=lambda folder: (hits[folder], folder == own, -len(folder)), default=None)
    return None if best is None else best or "."
