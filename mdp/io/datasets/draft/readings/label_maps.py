"""Photos and label maps: in parallel trees, side by side, nested by split or city, or with lists, as VOC has them."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from mdp.io.datasets.draft.label_values import class_lines
from mdp.io.datasets.draft.text import Draft
from mdp.io.datasets.draft.tree import Tree, by_split, common_folder, evenly, ordered, parent, split_of, stem
from mdp.io.datasets.own.endings import LABELS, PHOTOS
from mdp.io.datasets.own.finding.templates import proposal
from mdp.io.errors import DatasetError
from mdp.io.files.decoding import open_image
from mdp.io.files.reading import read_bytes

_LOOKS = 3  # files of a group that are looked at
_GROUPS = 12  # kinds of names in a folder; where there are more, they are no kinds
_CODE = np.array([65536, 256, 1])  # turns a colour into a number
_COLORS = 64  # of a label map; photos have hundreds
_TEXT = 2**24  # bytes of a list
_FORMATS = ("PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "JPEG")
# kinds of label maps, by words in their names: what to take first, and what only where there is nothing else
_FIRST = ("labeltrainids", "trainids", "labelids", "labels", "label", "mask", "masks", "gt", "segmentationclass")
_LAST = (
    "color", "colors", "colour", "instance", "instances", "instanceids", "object", "objects", "overlay", "preview",
    "segmentationclassvisualization", "segmentationobject", "visualisation", "visualization", "viz",
)  # fmt: skip


def drafts(tree: Tree) -> list[Draft]:
    """The layout, with what else it may be in notes; none where there are no photos with label maps."""
    photos, labels = _told_apart(tree)
    if not photos or not labels:
        return []
    kinds = _kinds(labels)
    labels, others = kinds[0], kinds[1:]
    splits, notes = _splits(tree, photos, labels)
    if not splits:
        return []
    if others:
        few = ", ".join(_place(files) for files in others[:4])
        notes.append(f"There are other label maps, which were not taken: {few}.")
    lines = class_lines(tree, labels, common_folder(labels))
    return [Draft("photos and label maps", splits, lines.classes, lines.more, notes + lines.notes)]


# Which files are photos, and which are label maps


def _told_apart(tree: Tree) -> tuple[list[str], list[str]]:
    """Photos and label maps, by what a few files of each kind of name in each folder look like."""
    groups: dict[tuple[str, str], list[str]] = {}
    by_folder: dict[str, list[str]] = {}
    for file in tree.ending(*dict.fromkeys((*PHOTOS, *LABELS))):
        by_folder.setdefault(parent(file), []).append(file)
    for folder, files in by_folder.items():
        words = {_ending(file) for file in files}
        for file in files:
            key = _ending(file) if len(words) <= _GROUPS else PurePosixPath(file).suffix.lower()
            groups.setdefault((folder, key), []).append(file)
    photos: list[str] = []
    labels: list[str] = []
    for files in groups.values():
        looks = [_is_label_map(tree, file) for file in evenly(files, _LOOKS)]
        (labels if sum(looks) * 2 > len(looks) else photos).extend(files)
    photos = [file for file in photos if file.lower().endswith(PHOTOS)]
    real = [file for file in photos if not set(_words(parent(file))) & set(_LAST)]  # not label maps drawn on photos
    return sorted(real or photos), sorted(labels)


def _words(text: str) -> list[str]:
    return [word.lower() for word in re.split(r"[^A-Za-z]+", text) if word]


def _ending(file: str) -> str:
    """What a file's name ends with: its last word, where it has several, and its suffix."""
    found = re.search(r"[_\-. ]([A-Za-z]+)$", stem(file))
    return (found[1].lower() if found else "") + PurePosixPath(file).suffix.lower()


def _is_label_map(tree: Tree, file: str) -> bool:
    """Whether a file has few values or colours, as label maps have and photos do not."""
    if file.lower().endswith((".mat", ".npy")):
        return True
    try:
        image = open_image(file, read_bytes(tree.path(file), "image"), _FORMATS, "image")
    except DatasetError:
        return False
    if image.mode in ("P", "1"):
        return True
    pixels = np.array(image)
    if image.format == "JPEG":  # a mask that was stored as one is nearly all black and white
        grey = pixels if pixels.ndim == 2 else pixels.max(axis=2)
        return bool(np.mean((grey < 16) | (grey > 239)) > 0.97 and np.ptp(pixels.reshape(-1, 1)) > 128)
    codes = (
        pixels[::2, ::2]
        if pixels.ndim == 2
        else pixels[::2, ::2, :3].astype(np.int64) @ np.array([65536, 256, 1][: min(pixels.shape[2], 3)])
    )
    return len(np.unique(codes)) <= _COLORS


def _kinds(labels: Sequence[str]) -> list[list[str]]:
    """Label maps by kind, the one to take first: folders and last words of names say which is which."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for file in labels:
        top = next((part for part in PurePosixPath(parent(file)).parts if not split_of(part)), "")
        kinds.setdefault((top, _ending(file)), []).append(file)
    most = max(map(len, kinds.values()))
    if len(kinds) > _GROUPS:
        return [list(labels)]

    def rank(key: tuple[str, str]) -> tuple[bool, int, int, tuple[str, str]]:
        words = _words("/".join(key))
        last = any(word in _LAST for word in words)
        first = min((_FIRST.index(word) for word in words if word in _FIRST), default=len(_FIRST))
        return last or len(kinds[key]) * 2 < most, first, -len(kinds[key]), key

    order = sorted(kinds, key=rank)
    alike = [key for key in order if key[0] == order[0][0] and key[1] == order[0][1]]
    return [[file for key in alike for file in kinds[key]], *(kinds[key] for key in order if key not in alike)]


def _place(files: Sequence[str]) -> str:
    """Where files of a kind are, in a few words."""
    return f"{len(files):,} such as {files[0]}"


# Splits


def _splits(tree: Tree, photos: list[str], labels: list[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The splits by folders or by lists, and what is not certain about them."""
    notes: list[str] = []
    photo_splits, label_splits = by_split(photos), by_split(labels)
    found: dict[str, dict[str, str]] = {}
    for split in ordered(photo_splits):
        theirs = label_splits.get(split, label_splits.get("", []) if set(label_splits) == {""} else [])
        if not split and len(photo_splits) > 1:
            notes.append(f"{_place(photo_splits[''])} are in no split's folder and left out.")
            continue
        if not theirs:
            notes.append(f"{_place(photo_splits[split])} have no label maps and are left out.")
            continue
        keys = _keys(photo_splits[split], theirs, notes) or _keys_of_a_folder(photo_splits[split], theirs, notes)
        if keys is None:
            notes.append(f"Nothing in their names says what belongs together: {photo_splits[split][0]}, {theirs[0]}.")
            continue
        found[split or "train"] = keys
    if set(photo_splits) == {""} and found:
        lists = _lists(tree, photos)
        if lists:
            return {split: {**found["train"], "list": file} for split, file in lists.items()}, notes
    return found, notes


def _keys(photos: list[str], labels: list[str], notes: list[str]) -> dict[str, str] | None:
    """The keys of a split: folders, and templates where names differ; None where nothing fits."""
    images, maps = common_folder(photos), common_folder(labels)
    inner = [_below(file, images) for file in photos]
    label_inner = [_below(file, maps) for file in labels]
    keys = {"images": images, "labels": maps}
    stems = {file.rpartition(".")[0] for file in label_inner}
    alone = [file for file in inner if file.rpartition(".")[0] not in stems]
    if images != maps and len(alone) * 2 < len(inner):
        if alone:
            notes.append(
                f"{len(alone):,} photos of {images} have no label map, such as {alone[0]}: mdp check will name them."
            )
        return keys
    made = proposal(inner, label_inner)
    return {**keys, "image": made[0], "label": made[1]} if made else None


def _keys_of_a_folder(photos: list[str], labels: list[str], notes: list[str]) -> dict[str, str] | None:
    """The keys of the folder of photos that the label maps belong to, where the other folders have none."""
    folders: dict[str, list[str]] = {}
    for file in photos:
        folders.setdefault(parent(file), []).append(file)
    for folder, files in sorted(folders.items(), key=lambda item: -len(item[1])) if len(folders) > 1 else ():
        keys = _keys(files, labels, notes)
        if keys:
            rest = [file for file in photos if parent(file) != folder]
            notes.append(f"{_place(rest)} have no label maps and are left out.")
            return keys
    return None


def _below(file: str, folder: str) -> str:
    return file if folder == "." else file.removeprefix(f"{folder}/")


def _lists(tree: Tree, photos: list[str]) -> dict[str, str]:
    """Text files that list photos, by the split of their names; the union of two that are there is left out."""
    stems = Counter(stem(file) for file in photos)
    found: dict[str, list[str]] = {}
    for file in tree.ending(".txt", ".csv", ".lst"):
        split = split_of(stem(file))
        if split and _names_photos(tree, file, stems):
            found.setdefault(split, []).append(file)
    return {
        split: min(found[split], key=lambda file: ("egmentation" not in file, len(file), file))
        for split in ordered(found)
    }


def _names_photos(tree: Tree, file: str, stems: Counter[str]) -> bool:
    try:
        text = read_bytes(tree.path(file), "list", _TEXT).decode("utf-8-sig")
    except (DatasetError, UnicodeDecodeError):
        return False
    words = [re.split(r"[\s,]", line.strip())[0] for line in text.splitlines() if line.strip()]
    known = sum(PurePosixPath(word).name in stems or stem(word) in stems for word in words)
    return bool(words) and known * 10 >= len(words) * 9
