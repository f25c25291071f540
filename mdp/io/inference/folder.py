"""A folder of predictions: which file is made of which photo, what must not be there before, and how it is written.

`labels/a/b/x.png` (and `overlays/`, `probabilities/`) is made of the photo `a/b/x.jpg`; `predictions.json` says what
all of it is and `classes.csv` names the classes.  Each file is there whole or not at all.

Shape legend: C classes, H x W image.
"""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin
from torch import Tensor

from mdp.core.labels import LabelSpace
from mdp.io.errors import DatasetError, RecipeError, ResourceError
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.images import label_image, overlay, png_bytes
from mdp.io.files.reading import printable, read_bytes
from mdp.io.files.tiff import georeference
from mdp.io.files.writing import make, write_atomically, write_text
from mdp.io.inference.photos import INDEX, Photo
from mdp.io.journal.counter import number_of
from mdp.io.pictures.class_colors import colors_of_space
from mdp.io.recipe.layers import changed_keys

KINDS = {"labels": ".png", "overlays": ".png", "probabilities": ".npy"}  # folder -> suffix
_BAND = 2**20  # pixels of an overlay that are tinted at a time, in float32
_INDEX_BYTES = 2**31  # a million photos, each in three files, take 400 MB
_COLORED = 60000  # raw values from here on stand for the colours of a colour-coded dataset (datasets/own)


@dataclass(frozen=True, kw_only=True)
class Job:
    """The files to be made, and where."""

    out: Path
    kinds: tuple[str, ...]  # of KINDS
    photos: list[Photo]  # still to be predicted
    done: list[Photo]  # predicted by an earlier call
    earlier: list[dict[str, str]]  # of the index that is there: files that are none of these photos'


def targets(out: Path, photo: Photo, kinds: Sequence[str]) -> dict[str, Path]:
    """The files that are made of a photo, by kind."""
    return {kind: out / kind / photo.name.with_suffix(KINDS[kind]) for kind in kinds}


def entry(out: Path, photo: Photo, kinds: Sequence[str]) -> dict[str, str]:
    """A photo's line of the index: its files relative to the folder, with / between the parts."""
    files = {kind: path.relative_to(out).as_posix() for kind, path in targets(out, photo, kinds).items()}
    return {"photo": os.path.abspath(photo.path), **files}


# Before anything is written


def plan(out: Path, kinds: tuple[str, ...], photos: Sequence[Photo], existing: str, about: Mapping[str, Any]) -> Job:
    """The job that is left to do; `existing` says what becomes of files that are there: stop, skip or overwrite.

    `about` is what decides the predictions: those of another network or other settings are not added to.
    Raises RecipeError naming two photos that would share a file, or a file that is there.
    """
    if out.exists() and not out.is_dir():
        raise RecipeError(f"--out {out}: expected a folder, found a file")
    _refuse_shared(out, kinds, photos)
    _refuse_own_photos(out, kinds, photos)
    if existing == "overwrite":
        return Job(out=out, kinds=kinds, photos=list(photos), done=[], earlier=[])
    wholly = [photo for photo in photos if all(map(os.path.lexists, targets(out, photo, kinds).values()))]
    partly = [path for photo in photos for path in targets(out, photo, kinds).values() if os.path.lexists(path)]
    if existing == "stop":
        _refuse_existing(out, partly)
        return Job(out=out, kinds=kinds, photos=list(photos), done=[], earlier=[])
    index = _index_of(out, bool(partly), about)
    left = set(photos) - set(wholly)
    own = {targets(out, photo, ("labels",))["labels"].relative_to(out).as_posix() for photo in photos}
    earlier = [line for line in index.get("files", []) if line.get("labels") not in own]
    return Job(out=out, kinds=kinds, photos=[p for p in photos if p in left], done=wholly, earlier=earlier)


def _refuse_shared(out: Path, kinds: Sequence[str], photos: Sequence[Photo]) -> None:
    """Raises RecipeError for two photos that would share a file, or of which one's file is the other's folder."""
    made: dict[Path, Photo] = {}
    for photo in photos:
        for path in targets(out, photo, kinds).values():
            other = made.setdefault(path, photo)
            if other is not photo:
                _refuse_pair(out, path, other, photo, "would both be written to")
    folders = {path.parent: photo for path, photo in made.items()}
    for folder, photo in folders.items():
        for above in (folder, *folder.parents):
            if above in made:
                _refuse_pair(out, above, made[above], photo, "need a file and a folder of one name,")


def _refuse_pair(out: Path, path: Path, photo: Photo, other: Photo, why: str) -> None:
    raise RecipeError(
        f"{printable(photo.path)} and {printable(other.path)} {why} {printable(path.relative_to(out))}; rename one, or "
        "predict them apart, each with an --out of its own"
    )


def _refuse_own_photos(out: Path, kinds: Sequence[str], photos: Sequence[Photo]) -> None:
    """Raises RecipeError when what is made of one photo would take the place of another."""
    real = {os.path.realpath(photo.path): photo for photo in photos}  # --out may be a link into the photos' folder
    for photo in photos:
        for path in targets(out, photo, kinds).values():
            if os.path.realpath(path) in real:
                raise RecipeError(f"--out {out}: {printable(path)} is a photo to be predicted; choose another folder")


def _refuse_existing(out: Path, there: Sequence[Path]) -> None:
    if there:
        raise RecipeError(
            f"{printable(there[0])}: {number_of(len(there), 'file')} of these names there already; choose another "
            "--out, or add --skip-existing to go on with what is missing, or --overwrite to replace them"
        )
    if (out / INDEX).exists() and _read_index(out / INDEX)["files"]:
        raise RecipeError(
            f"{out / INDEX}: the folder holds other predictions; choose another --out, or add --skip-existing to put "
            "these beside them, or --overwrite for an index of these alone"
        )


def _index_of(out: Path, needed: bool, about: Mapping[str, Any]) -> dict[str, Any]:
    """The index of a folder that is gone on with, {} in a new one.

    Raises RecipeError when what is there came from another network, other settings or something else than mdp.
    """
    path = out / INDEX
    if not path.exists():
        if needed:
            raise RecipeError(f"--skip-existing: {path} is missing, so nothing says what made the files in {out}")
        return {}
    index = _read_index(path)
    differ = list(changed_keys(index, json.loads(json.dumps(about))))  # as it is read back: tuples are lists there
    if differ and (needed or index["files"]):
        raise RecipeError(
            f"--skip-existing: {path} was made with other {', '.join(differ)}; choose another --out, or --overwrite"
        )
    return index


def _read_index(path: Path) -> dict[str, Any]:
    """Raises RecipeError for what is no index of predictions."""
    try:
        index = json.loads(read_bytes(str(path), "index", _INDEX_BYTES, RecipeError))
        if all(isinstance(line, dict) for line in index["files"]):
            return {**index, "files": list(index["files"])}
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise RecipeError(f"{path}: not an index of predictions; choose another --out")


# What is written


def raw_values(space: LabelSpace) -> tuple[int, ...]:
    """For each class the one value that stands for it in the dataset's own label files.

    Raises DatasetError where there is none, or more than one.
    """
    if space.lookup is None:
        raise DatasetError(f"--raw: the label maps of {space.name} hold class numbers already; leave --raw out")
    values = []
    for label, name in enumerate(space.classes):
        raws = [(raw, last) for raw, last, target in space.entries if target == label and raw != space.ignore_index]
        if len(raws) != 1 or raws[0][0] != raws[0][1]:
            texts = [str(raw) if raw == last else f"{raw}..{last}" for raw, last in raws[:4]]
            listed = ", ".join(texts) or "no value"
            raise DatasetError(f"--raw: class {name!r} of {space.name} stands for {listed}; there is no one way back")
        if raws[0][0] >= _COLORED:
            raise DatasetError(f"--raw: class {name!r} of {space.name} is a colour in its label maps, not a number")
        values.append(raws[0][0])
    return tuple(values)


def labels_png(classes: NDArray[np.integer], space: LabelSpace, raws: tuple[int, ...] | None) -> bytes:
    """A palette PNG of the classes (H, W), or of the raw values that stand for them; 16-bit grey above 255 of them."""
    colors = colors_of_space(space)
    if raws is None:
        return png_bytes(label_image(classes, colors))
    palette = list(voc_colormap(max(raws) + 1))
    for raw, color in zip(raws, colors, strict=True):
        palette[raw] = color
    return png_bytes(label_image(np.array(raws)[classes], tuple(palette)))


def geotiff(labels: bytes, photo: Path) -> bytes:
    """The label map of a PNG as a TIFF that lies where the photo, a GeoTIFF, does; b"" for any other photo."""
    if photo.suffix.lower() not in (".tif", ".tiff"):
        return b""
    tags = georeference(read_bytes(str(photo), "photo"))
    if not tags:
        return b""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, (kind, content) in tags.items():
        info.tagtype[tag] = kind
        info[tag] = content.rstrip(b"\0").decode("latin-1") if isinstance(content, bytes) else content
    file = io.BytesIO()
    with Image.open(io.BytesIO(labels), formats=("PNG",)) as image:
        image.save(file, "TIFF", tiffinfo=info, compression="tiff_adobe_deflate")
    return file.getvalue()


def overlay_png(rgb: NDArray[np.uint8], classes: NDArray[np.integer], space: LabelSpace) -> bytes:
    """The photo (H, W, 3), each pixel tinted in its class's colour, as a PNG."""
    rows = max(1, _BAND // rgb.shape[1])
    bands = [slice(start, start + rows) for start in range(0, len(rgb), rows)]
    tinted = np.concatenate([overlay(rgb[band], classes[band], colors_of_space(space)) for band in bands])
    return png_bytes(Image.fromarray(tinted))


def probability_chunks(probabilities: Tensor) -> list[bytes | memoryview]:
    """The content of an .npy file of float16 (C, H, W)."""
    array = np.ascontiguousarray(probabilities.half().numpy())
    header = io.BytesIO()
    npy.write_array_header_1_0(header, npy.header_data_from_array_1_0(array))
    return [header.getvalue(), array.data.cast("B")]


def probability_bytes(classes: int, sizes: Sequence[tuple[int, int]]) -> int:
    """The bytes on the disk of the probabilities of images of these sizes (H, W), but for their headers."""
    return sum(2 * classes * height * width for height, width in sizes)


def write_new(path: Path, chunks: Sequence[bytes | memoryview], overwrite: bool) -> None:
    """Writes a file, with its folders.

    Raises ResourceError when it cannot be written, or, unless `overwrite`, when it is there by now: another program's,
    or on a disk that takes `A.png` for `a.png` another photo's.
    """
    make(path.parent)
    if not overwrite and os.path.lexists(path):
        raise ResourceError(
            f"{printable(path)}: appeared meanwhile; is another program writing here, or do two photos differ only in "
            "upper and lower case?"
        )
    write_atomically(path, chunks)


def write_index(job: Job, about: Mapping[str, Any], state: str, done: Sequence[Photo], skipped: Sequence[str]) -> None:
    """predictions.json: what made the files, which they are, and whether the call came to its end."""
    files = [*job.earlier, *(entry(job.out, photo, job.kinds) for photo in [*job.done, *done])]
    index = {**about, "state": state, "skipped": list(skipped), "files": files}
    write_text(job.out / INDEX, json.dumps(index, indent=1) + "\n")


def write_classes(out: Path, space: LabelSpace, raws: tuple[int, ...] | None) -> None:
    """classes.csv: the value in the label PNGs, the class's name and its colour."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["value", "name", "red", "green", "blue"])
    for label, (name, color) in enumerate(zip(space.classes, colors_of_space(space), strict=True)):
        writer.writerow([label if raws is None else raws[label], name, *color])
    write_text(out / "classes.csv", file.getvalue())
