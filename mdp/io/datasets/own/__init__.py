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

import os
import re
from functools import partial
from pathlib import Path

from mdp.io.datasets._dataset import Absent, Dataset, Sample
from mdp.io.datasets.own import reading
from mdp.io.datasets.own.description import Description, describe
from mdp.io.datasets.own.place import Place
from mdp.io.datasets.own.sources.unlabelled import photos_below
from mdp.io.files.reading import is_dir
from mdp.label_space import LabelSpace


def load_own(path: Path) -> Dataset:
    """The dataset that the YAML file describes.

    Raises RecipeError, naming file and key, for anything that is not as described above, DatasetError for paths that
    lead out of the dataset's folder.
    """
    described = describe(path)
    splits = described.splits
    return Dataset(
        name=described.name,
        labels=described.labels,
        splits={key: split.expected for key, split in splits.items()},
        train=("train",) if "train" in splits else (next(iter(splits)),),
        val="val" if "val" in splits and described.labelled else None,
        home=described.home,
        source=str(described.path),
        samples=partial(_samples, described=described),
        read=partial(reading.read, colors=described.colors, drawing=described.drawing)
        if described.labelled
        else reading.read_unlabelled,
        terms=described.terms,
    )


def _samples(root: Path, split: str, *, described: Description) -> list[Sample]:
    name, yaml, home = described.name, described.path, described.home
    folder = yaml.parent if described.root is None else root / described.root
    if not is_dir(folder):
        hint = "" if described.root is None else f" ({yaml.name} says root: {described.root}, under --root {root})"
        raise Absent(f"{name}: the folder {folder} is missing{hint}; {home}")
    border = os.sep if described.outside else os.path.realpath(folder)
    place = Place(name, folder, border, described.outside, f"{yaml}: splits.{split}", home)
    return described.splits[split].source.samples(place)


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
        samples=lambda root, split: photos_below(name, folder, os.sep),
        read=reading.read_unlabelled,
    )
