"""How much of a run's training data each class takes, from some images of each dataset, for its report.

`mdp check` counts all images; this is a look that costs a second, evenly spaced so that it is the same every time.
"""

import json
from collections.abc import Container
from pathlib import Path
from typing import Any

import torch

from mdp.core.labels import IGNORE
from mdp.io.data.pool import Pool
from mdp.io.errors import MdpError
from mdp.io.files.writing import write_text

IMAGES = 32  # of each dataset


def class_shares(pool: Pool, hidden: Container[int] = (), images: int = IMAGES) -> list[dict[str, Any]]:
    """For each labelled dataset: how many images were looked at, pixels of each of its classes, ignored pixels.

    Samples whose labels are `hidden` from training, and images that cannot be read, are left out.
    """
    labelled = {sample.dataset for sample in pool.samples if sample.labels}
    names = [name for name in pool.datasets if name in labelled and pool.datasets[name].labels.classes]
    return [_shares(pool, name, hidden, images) for name in names]


def _shares(pool: Pool, name: str, hidden: Container[int], images: int) -> dict[str, Any]:
    among = pool.union.classes_of(name)
    own = [index for index, sample in enumerate(pool.samples) if sample.dataset == name and index not in hidden]
    count = min(len(own), images)
    pixels, readable = torch.zeros(among.stop - among.start + 1, dtype=torch.int64), 0
    for index in (own[i * len(own) // count] for i in range(count)):
        try:
            _, labels = pool.read(index)
        except MdpError:
            continue
        readable += 1
        # the last of the counts is of ignored pixels
        classes = torch.where(labels == IGNORE, len(pixels) - 1, labels.long() - among.start)
        pixels += torch.bincount(classes.flatten(), minlength=len(pixels))
    return {"name": name, "images": readable, "pixels": pixels[:-1].tolist(), "ignored": int(pixels[-1])}


def write_class_shares(folder: Path, pool: Pool, hidden: Container[int] = ()) -> None:
    """class_shares.json, unless an earlier start of the run has written it."""
    path = folder / "class_shares.json"
    if not path.exists():
        write_text(path, json.dumps(class_shares(pool, hidden)) + "\n")
