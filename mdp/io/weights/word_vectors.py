"""Vectors of class names, from a file that somebody made with a text model: a name and its vector, many times.

safetensors, or NumPy's npz.  No model comes with mdp, and none is fetched; docs/objective.md has a script that writes
such a file.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mdp.core.classifier_init import plain_name
from mdp.core.labels import LabelUnion
from mdp.io.errors import MdpError, RecipeError
from mdp.io.files.reading import UNREADABLE_ARRAYS, printable, read_bytes
from mdp.io.run.checkpoint import read_tensors

_LIMIT = 2**30  # bytes
_ENDINGS = ("-merged", "-other", "-stuff")  # of COCO's names
_LISTED = 5  # names in a line


def class_vectors(path: Path, union: LabelUnion, key: str = "method.class_embeddings") -> Tensor:
    """The vector of every class's name, (C, E) float32.

    A class is looked for as `dataset/class`, by its own name, and by its name as people say it, whatever the case and
    what stands between words.  Raises RecipeError, naming the `key` by which the file was given, where it cannot be
    read, where vectors differ in length, are zero or not finite, and where classes have none.
    """
    where, table = f"{key}: {printable(path)}", _read(path, key)
    by_sound = {plain_name(name): vector for name, vector in table.items() if "/" not in name}
    rows = [_find(table, by_sound, name) for name in union.names]
    missing = [name for name, row in zip(union.names, rows, strict=True) if row is None]
    if missing:
        some = ", ".join(map(printable, missing[:_LISTED])) + (", ..." if len(missing) > _LISTED else "")
        raise RecipeError(
            f"{where}: no vectors for {len(missing)} of {union.size} classes: {some}; add them by these names"
        )
    vectors = [row.float() for row in rows if row is not None]
    shapes = sorted({tuple(vector.shape) for vector in vectors})
    if len(shapes) > 1 or len(shapes[0]) != 1:
        raise RecipeError(
            f"{where}: expected vectors of one length, got shapes {', '.join(map(str, shapes[:_LISTED]))}"
        )
    found = torch.stack(vectors)  # (C, E)
    unusable = ~(found.isfinite().all(1) & found.any(1))
    if bool(unusable.any()):
        raise RecipeError(f"{where}: the vector of {union.names[int(unusable.int().argmax())]} is zero or not finite")
    return found


def spoken(name: str) -> str:
    """A class name as people say it: the first of several, without what only a list of classes needs.

    >>> spoken("nature--vegetation"), spoken("person, individual"), spoken("wall-other-merged"), spoken("road_block")
    ('vegetation', 'person', 'wall', 'road_block')
    """
    text = name.rpartition("--")[2].partition(",")[0].strip()
    for ending in _ENDINGS:
        text = text.removesuffix(ending)
    return text


def _find(table: Mapping[str, Tensor], by_sound: Mapping[str, Tensor], full: str) -> Tensor | None:
    name = full.partition("/")[2]
    exact = next((table[key] for key in (full, name) if key in table), None)
    return by_sound.get(plain_name(spoken(name))) if exact is None else exact


def _read(path: Path, key: str) -> dict[str, Tensor]:
    try:
        if path.suffix != ".npz":
            return dict(read_tensors(path)[0])
        with np.load(io.BytesIO(read_bytes(str(path), "file of word vectors", _LIMIT)), allow_pickle=False) as held:
            return {name: torch.from_numpy(np.ascontiguousarray(held[name], dtype=np.float32)) for name in held.files}
    except (MdpError, *UNREADABLE_ARRAYS) as error:
        reason = str(error) if isinstance(error, MdpError) else f"{printable(path)}: {error}"
        raise RecipeError(f"{key}: {reason.splitlines()[0]}") from error
