"""Predictions as files: palette PNGs, overlays, and what benchmarks' servers take.

They are written to a hidden folder beside their place and moved there when all are done, so that an evaluation that is
interrupted leaves those of the last one as they were.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mdp.core.labels import LabelSpace
from mdp.core.protocols import Counted
from mdp.io.data.pool import Pool
from mdp.io.errors import DatasetError, ResourceError
from mdp.io.evaluation.server_formats import Format, format_of, relative_paths
from mdp.io.files.images import as_picture, overlay, write_labels, write_rgb
from mdp.io.files.reading import printable
from mdp.io.processes.world import World

_UNFINISHED = ".unfinished"
Encode = Callable[[NDArray[np.integer]], Image.Image]


class Saved(NamedTuple):
    """Where the predictions of a pool's photos go."""

    folder: Path  # while they are not all there
    paths: Mapping[str, Sequence[PurePath]]  # kind -> the file of each photo below the kind's folder
    formats: Mapping[str, Encode]  # kinds for servers
    space: LabelSpace

    def observe_(self, counted: Counted) -> None:
        """Saves the prediction for an image."""
        save(self, counted.index, counted.image, counted.prediction.labels, counted.labels)


def kinds_of(pictures: bool, names: Sequence[str], space: LabelSpace) -> list[Format]:
    """The kinds of files to save, nothing yet written.  Raises RecipeError for formats that the classes do not fit."""
    own = [Format(kind, _png, Image.fromarray) for kind in ("predictions", "overlays") if pictures]
    return own + [format_of(name, space) for name in dict.fromkeys(names)]


def _png(photo: PurePath) -> PurePath:
    return photo.with_suffix(".png")


@contextmanager
def saved(folder: Path, pool: Pool, kinds: Sequence[Format], world: World) -> Iterator[Saved | None]:
    """Where to save the kinds inside; they are under `folder` once all is done, and on no account a part of them.

    Raises DatasetError when two photos would share a file.
    """
    if not kinds:
        yield None
        return
    photos = relative_paths([sample.image for sample in pool.samples])
    paths = {kind.name: _apart(kind.name, [kind.path(photo) for photo in photos], pool) for kind in kinds}
    unfinished = folder / _UNFINISHED
    world.broadcast_main(lambda: _cleared(unfinished, paths))  # one process, while the others wait
    (space,) = pool.union.spaces
    formats = {kind.name: kind.encode for kind in kinds if kind.name not in ("predictions", "overlays")}
    try:
        yield Saved(unfinished, paths, formats, space)
        world.broadcast_main(lambda: _moved(unfinished, folder))
    finally:
        if world.main:
            shutil.rmtree(unfinished, ignore_errors=True)


def _apart(kind: str, paths: list[PurePath], pool: Pool) -> list[PurePath]:
    first: dict[PurePath, int] = {}
    for index, path in enumerate(paths):
        if first.setdefault(path, index) != index:
            pair = " and ".join(printable(pool.samples[i].image) for i in (first[path], index))
            raise DatasetError(f"{pair} would share the file {kind}/{printable(path)}; rename one of them")
    return paths


def _cleared(unfinished: Path, paths: Mapping[str, Sequence[PurePath]]) -> str:
    try:
        shutil.rmtree(unfinished, ignore_errors=True)  # of an evaluation that was killed
        for kind, files in paths.items():
            for parent in {file.parent for file in files}:
                (unfinished / kind / parent).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{error.filename}: cannot make the folder: {error.strerror}") from error
    return ""


def _moved(unfinished: Path, folder: Path) -> str:
    """Every file to its place, over one of that name."""
    try:
        for path in sorted(unfinished.rglob("*")):  # a folder comes before what is in it
            target = folder / path.relative_to(unfinished)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            else:
                os.replace(path, target)
    except OSError as error:
        raise ResourceError(f"{error.filename}: cannot be written: {error.strerror}") from error
    return ""


def save(to: Saved, index: int, image: Tensor, guess: Tensor, labels: Tensor) -> None:
    """Writes what was asked for of one photo (3, H, W), its prediction (H, W) and its labels (H, W)."""
    files = {kind: to.folder / kind / paths[index] for kind, paths in to.paths.items()}
    classes = guess.numpy()
    for kind, encode in to.formats.items():
        try:
            encode(classes).save(files[kind])
        except OSError as error:
            raise ResourceError(f"{files[kind]}: cannot be written: {error}") from error
    if "predictions" in files:
        write_labels(files["predictions"], classes, to.space.colors)
        rgb = as_picture(image.permute(1, 2, 0).numpy())
        pair = [overlay(rgb, label_map.numpy().astype(int), to.space.colors) for label_map in (guess, labels)]
        write_rgb(files["overlays"], np.hstack(pair))
