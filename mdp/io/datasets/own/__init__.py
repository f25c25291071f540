"""A dataset of your own, described by a YAML file.

name: site_a
root: site_a                 # optional: under --root; without it paths are relative to the YAML file
splits:
  train: {images: images/train, labels: labels/train}
  val:   {images: images/val, labels: labels/val, label: "{stem}_gt.png"}
  test:  {images: images, labels: labels, list: test.csv}   # a line each: id, image, or image,label
  night: {images: rgb, labels: gt, image: "{id}_rgb.png", label: "{id}_gt.png"}   # templates on both sides
  all:   {images: photos, labels: masks, count: 1200}       # optional: how many images there should be
  few:   10%                 # drawn from the training images, by their names; {share: 10%, seed: 1} draws others
ignore_index: 255
ignore: [0, "#000000"]       # raw values, or colours, that are never a class, even if named below
classes:
  1: road                                      # raw value 1
  2: {name: vehicle, values: [2, 7]}           # several raw values
  3: {name: tree, colors: ["#008000"]}         # a colour-coded label map
  200..254: sky                                # a range; 200.. and ..-1 are open
edges: nearest               # optional: colour maps were drawn with smooth edges; nearest or ignore
image: {range: [0, 3000], bands: [3, 2, 1]}    # optional: photos of more than 8 bits, or more bands than RGB

`edges` is what becomes of pixels whose colour is no class's: `nearest` gives each the class among its neighbours whose
colour is nearest, `ignore` none.  `image.range` are the values that become black and white (clipped outside, linear
between), `image.bands` the bands that are red, green and blue, counted from 1.  With `image: {mean, std}`, a number a
band, or with other than 1 or 3 bands, they are the channels of the network's image.  `image: {exif: photo}` turns
photos as their EXIF data ask, `{exif: both}` their label maps with them; without, neither.

`classes: [road, vehicle]` counts from 0, as does `classes: classes.txt`, a name a line.

Optional besides: `home`, where to get the data, and `terms`, the licence of photos and labels in a sentence.

Without `classes` and `labels` it is unlabelled photos, all those below the folder `images`, for methods that need no
labels.  A plain folder is the same: `--datasets photos/`.  Every folder may be a zip archive, or lie in one:
`images: photos.zip/train`.

A label map lies in the same folder below `labels` as its photo below `images`, at any depth, and has its stem or what
the templates make of it (`finding/templates.py`; lists: `finding/list_lines.py`).

Every path, in the YAML file and in lists, stays inside the dataset's folder, and so does every symbolic link on the
way; a dataset whose files lie elsewhere says `outside: true`.  Paths are written with `/`.
"""

import os
import re
from functools import partial
from pathlib import Path

from mdp.io.datasets._dataset import Absent, Dataset, LeftOut, Sample
from mdp.io.datasets.own import reading
from mdp.io.datasets.own.description import Description, describe
from mdp.io.datasets.own.place import Place
from mdp.io.datasets.own.sources.drawn import Drawn
from mdp.io.datasets.own.sources.unlabelled import label_maps_among, label_maps_left, photos_below
from mdp.io.errors import MdpError
from mdp.io.files.reading import is_dir
from mdp.label_space import LabelSpace
from mdp.photo_rule import PhotoRule


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
        train=(_trained_on(described),),
        val="val" if "val" in splits and described.labelled else None,
        home=described.home,
        source=str(described.path),
        samples=partial(_samples, described=described),
        left_out=partial(_left_out, described=described),
        read=partial(reading.read, photos=described.photos, labels=described.label_files, drawing=described.drawing)
        if described.labelled
        else partial(reading.read_unlabelled, photos=described.photos),
        photo=partial(reading.photo, photos=described.photos),
        terms=described.terms,
        photos=described.photos,
        detail=None if described.labelled else label_maps_left,
        drawn={key: made.source.remark() for key, made in splits.items() if isinstance(made.source, Drawn)},
    )


def _trained_on(described: Description) -> str:
    """The split `train`, or else the first that is not drawn from it."""
    if "train" in described.splits:
        return "train"
    drawn = next((made.source for made in described.splits.values() if isinstance(made.source, Drawn)), None)
    return drawn.split if drawn else next(iter(described.splits))


def _samples(root: Path, split: str, *, described: Description) -> list[Sample]:
    return described.splits[split].source.samples(_place(root, split, described))


def _left_out(root: Path, split: str, *, described: Description) -> list[LeftOut]:
    """What lies in a split's folders and is in no split's samples."""
    used = partial(_used, root, described)
    return described.splits[split].source.left_out(_place(root, split, described), used)


def _used(root: Path, described: Description) -> set[str]:
    """The files of all splits' samples."""
    used: set[str] = set()
    for split in described.splits:
        try:
            samples = _samples(root, split, described=described)
        except MdpError:
            continue  # whoever opens that split is told
        used |= {path for sample in samples for path in (sample.image, sample.labels)}
    return used


def _place(root: Path, split: str, described: Description) -> Place:
    """Where the files of a split lie.  Raises Absent where the dataset's folder is missing."""
    name, yaml, home = described.name, described.path, described.home
    folder = yaml.parent if described.root is None else root / described.root
    if not is_dir(folder):
        hint = "" if described.root is None else f" ({yaml.name} says root: {described.root}, under --root {root})"
        raise Absent(f"{name}: the folder {folder} is missing{hint}; {home}")
    border = os.sep if described.outside else os.path.realpath(folder)
    paths = [other.source.paths for key, other in described.splits.items() if key != split]
    others = frozenset(folder / text for made in paths for key in ("images", "labels") if (text := made.get(key)))
    return Place(name, folder, border, described.outside, f"{yaml}: splits.{split}", home, others)


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
        left_out=lambda root, split: label_maps_among(folder, os.sep),
        read=partial(reading.read_unlabelled, photos=PhotoRule()),
        photo=partial(reading.photo, photos=PhotoRule()),
        detail=label_maps_left,
    )
