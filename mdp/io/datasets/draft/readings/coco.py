"""COCO's JSON, one file a split."""

from collections import Counter
from pathlib import PurePosixPath

from mdp.io.annotations import coco
from mdp.io.annotations.class_tables import coco_table
from mdp.io.annotations.json_file import parsed
from mdp.io.datasets.draft.readings.class_lines import drawn_classes
from mdp.io.datasets.draft.text import Draft
from mdp.io.datasets.draft.tree import Tree, evenly, ordered, parent, split_of, stem
from mdp.io.datasets.own.endings import PHOTOS
from mdp.io.errors import DatasetError

_HEAD = 4096  # bytes in which a file of COCO names one of its parts
_FIRST = 20  # photos that are looked for


def drafts(tree: Tree) -> list[Draft]:
    """A split for each file; of several for one split the first is taken, and the others are named."""
    found = [file for file in tree.ending(".json") if _is_coco(tree, file)]
    if not found:
        return []
    splits: dict[str, dict[str, str]] = {}
    notes, counts = [], Counter[str]()
    for file in found:
        read = coco.read(tree.path(file))
        images = _images(tree, file, list(read.photos))
        split = split_of(f"{parent(file)}/{stem(file)}") or ("train" if len(found) == 1 else stem(file).strip("._"))
        if images is None or not any(photo.annotations for photo in read.photos.values()):
            notes.append(f"{file} is left out: {'its photos are not here' if images is None else 'no annotations'}.")
        elif split in splits:
            notes.append(f"{file} is for the split {split} too; annotations: {file} takes it instead.")
        else:
            splits[split] = {"images": images, "annotations": file}
            table = coco_table(read, file).values()
            counts.update(dict.fromkeys((entry if isinstance(entry, str) else entry["name"] for entry in table), 0))
            marked = (entry["category_id"] for photo in read.photos.values() for entry in photo.annotations)
            counts.update(read.categories[key] for key in marked)
    if not splits:
        return []
    comments = {name: f"{count:,} annotation{'s' * (count != 1)}" for name, count in counts.items()}
    classes, more = drawn_classes(list(counts), comments)
    splits = {split: splits[split] for split in ordered(splits)}
    return [Draft("annotations in COCO's JSON", splits, classes, more, notes)]


def _is_coco(tree: Tree, file: str) -> bool:
    """Whether a JSON file is COCO's; only one that begins like it is read."""
    with open(tree.path(file), "rb") as opened:
        head = opened.read(_HEAD)
    if not any(f'"{part}"'.encode() in head for part in ("images", "annotations", "categories", "info", "licenses")):
        return False
    try:
        return coco.is_coco(parsed(tree.path(file)))
    except DatasetError:
        return False


def _images(tree: Tree, file: str, photos: list[str]) -> str | None:
    """The folder that the photos of a file lie in: its own, one beside or below it, or one of the same split."""
    names = [name.replace("\\", "/").removeprefix("./") for name in evenly(photos, _FIRST)]
    there = tree.ending(*PHOTOS)
    folders = {parent(other) for other in there}
    folders |= {str(above) for folder in folders for above in PurePosixPath(folder).parents if str(above) != "."} | {""}
    split = split_of(f"{parent(file)}/{stem(file)}")
    near = sorted(folders, key=lambda folder: (folder != parent(file), split_of(folder) != split, len(folder), folder))
    for folder in near:
        below = [other.removeprefix(f"{folder}/") for other in there if not folder or other.startswith(f"{folder}/")]
        known = {*below, *(PurePosixPath(other).name for other in below)}
        if names and all(name in known or PurePosixPath(name).name in known for name in names):
            return folder or "."
    return None
