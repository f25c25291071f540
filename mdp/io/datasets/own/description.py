"""A dataset's YAML file, read and checked: everything it says, before any of its files is looked for."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mdp.io.annotations.class_tables import class_table
from mdp.io.annotations.drawing import Drawing
from mdp.io.datasets.own import borders, drawn_labels, pixels
from mdp.io.datasets.own.label_space import label_space
from mdp.io.datasets.own.place import Source
from mdp.io.datasets.own.sources import SOURCES
from mdp.io.datasets.own.sources.drawn import Drawn, share_of
from mdp.io.datasets.own.sources.unlabelled import Unlabelled
from mdp.io.datasets.own.yaml_values import as_mapping, refuse_unknown
from mdp.io.errors import RecipeError
from mdp.io.files.label_maps import LabelRule
from mdp.io.files.reading import printable, shown
from mdp.io.files.strict_yaml import load_yaml
from mdp.label_space import RGB, LabelSpace
from mdp.photo_rule import PhotoRule

KEYS = (
    "name", "root", "splits", "ignore_index", "ignore", "classes", *drawn_labels.KEYS, *pixels.KEYS, "home", "terms",
    "outside",
)  # fmt: skip
SPLIT_KEYS = tuple(dict.fromkeys(("images", *(key for module in SOURCES for key in module.KEYS), "count")))
_COUNT = 10**9  # images of a split
_HOME = "see the paths in its YAML file"


class Split(NamedTuple):
    """A split as it is described."""

    source: Source
    expected: int | None  # how many images there should be


@dataclass(frozen=True, kw_only=True)
class Description:
    """A dataset as its YAML file describes it."""

    path: Path  # of the YAML file
    name: str
    labels: LabelSpace
    labelled: bool
    photos: PhotoRule  # how photos become 8-bit RGB
    label_files: LabelRule  # how the files of label maps are read
    drawing: Drawing | None  # how label maps are drawn, where they are
    splits: Mapping[str, Split]
    root: str | None  # the folder under --root; None: that of the YAML file
    outside: bool  # whether files may lie outside the dataset's folder
    home: str
    terms: str


def describe(path: Path) -> Description:
    """What the YAML file says.

    Raises RecipeError, naming file and key, for anything that is not as described above, DatasetError for paths that
    lead out of the dataset's folder.
    """
    try:
        path = Path(os.path.realpath(path))
    except ValueError as error:
        raise RecipeError(f"{printable(path)}: not the name of a file: {error}") from error
    values = load_yaml(path)
    refuse_unknown(values, KEYS, "", path)
    name = values.get("name", path.stem)
    if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][\w.-]*", name)):
        raise RecipeError(f"{path}: name: expected a word of letters, digits, - and _, got {shown(name)}")
    labelled = "classes" in values
    if not labelled and {"ignore", "ignore_index", "edges"} & set(values):
        raise RecipeError(
            f"{path}: classes: expected `key: value` lines beside ignore, ignore_index and edges, found none"
        )
    splits = _splits(as_mapping(values, "splits", path), path, labelled)
    labels, colors, codes, drawing = _labels(name, values, path)
    root = values.get("root")
    if root is not None and not isinstance(root, str):
        raise RecipeError(f"{path}: root: expected a folder name, got {shown(root)}")
    outside = values.get("outside", False)
    if not isinstance(outside, bool):
        raise RecipeError(f"{path}: outside: expected true or false, got {shown(outside)}")
    if not outside:
        texts = {"root": root}
        for key, split in splits.items():
            texts |= {f"splits.{key}.{part}": text for part, text in split.source.paths.items()}
        borders.refuse_ways_out(texts, path)
    terms = values.get("terms", "")
    if not isinstance(terms, str):
        raise RecipeError(f"{path}: terms: expected the licence in a sentence, got {shown(terms)}")
    return Description(
        path=path, name=name, labels=labels, labelled=labelled, photos=pixels.photo_rule(values, path),
        label_files=pixels.label_rule(values, labels, colors, codes, path), drawing=drawing, splits=splits,
        root=root, outside=outside, home=" ".join(str(values.get("home", _HOME)).split()),
        terms=" ".join(terms.split()),
    )  # fmt: skip


def _labels(
    name: str, values: Mapping[str, Any], path: Path
) -> tuple[LabelSpace, dict[RGB, int] | None, tuple[tuple[int, int, int], ...], Drawing | None]:
    """The label space, what stands for colours and wide values, and how label maps are drawn, where they are."""
    if "classes" not in values:
        return LabelSpace(name=name, classes=()), None, (), None
    listed = isinstance(values["classes"], str | list)
    if isinstance(values["classes"], list):
        values = {**values, "classes": dict(enumerate(values["classes"]))}
    elif listed:
        borders.refuse_ways_out({} if values.get("outside") else {"classes": values["classes"]}, path)
        values = {**values, "classes": class_table(path.parent / values["classes"])}
    if any("annotations" in split for split in values["splits"].values()):
        return drawn_labels.drawn_labels(name, values, path, listed)
    for key in drawn_labels.KEYS:
        if key in values:
            raise RecipeError(f"{path}: {key}: is for splits with `annotations`, and there are none")
    return *label_space(name, values, path), None


def description_values(path: Path) -> dict[Any, Any]:
    """The values of a YAML file that was described before, with the class table that it names in place of the name."""
    values = dict(load_yaml(path))
    if isinstance(values.get("classes"), str):
        values["classes"] = class_table(path.parent / values["classes"])
    return values


def _splits(values: Mapping[Any, Any], path: Path, labelled: bool) -> dict[str, Split]:
    """All splits; those that are shares are drawn from the one that is trained on."""
    shares = {str(key): share_of(str(key), value, f"splits.{key}", path) for key, value in values.items()}
    splits = {
        str(key): _split(value, f"splits.{key}", path, labelled)
        for key, value in values.items()
        if shares[str(key)] is None
    }
    drawn = tuple(share for share in shares.values() if share)
    if not drawn:
        return splits
    if not splits or not labelled:
        why = "there is no other split" if labelled else "unlabelled photos are not scored"
        raise RecipeError(f"{path}: splits.{drawn[0].split}: a share of the training images, but {why}")
    base = "train" if "train" in splits else next(iter(splits))
    parts = {key: Drawn(splits[base].source, drawn, base, key) for key in (base, *(share.split for share in drawn))}
    made = {key: Split(part, part.expected(splits[base].expected)) for key, part in parts.items()}
    return {key: made.get(key) or splits[key] for key in shares}


def _split(value: Any, where: str, path: Path, labelled: bool) -> Split:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{path}: {where}: expected {{images: FOLDER, labels: FOLDER}}, got {shown(value)}")
    refuse_unknown(value, SPLIT_KEYS, f"{where}.", path)
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
        return Split(Unlabelled(value["images"]), count)
    if not {"list", "annotations"} & set(value) and not {"images", "labels"} <= set(value):
        raise RecipeError(f"{path}: {where}: expected images and labels (folders), annotations, or list (a file)")
    module = next(module for module in SOURCES if module.KEYS[-1] in value)
    return Split(module.source(value, f"{path}: {where}"), count)
