"""How many pixels of each class every image has: remembered from the check, else counted now."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdp.io.check.remembered import Cache, generated, key_of, stamps_of_samples
from mdp.io.check.scan import Row, check_samples, classes_in
from mdp.io.datasets._dataset import Dataset, Sample


def class_counts(
    dataset: Dataset,
    samples: Sequence[Sample],
    workers: int,
    say: Callable[[str], None],
    stop: Callable[[], object] | None = None,
) -> list[Row]:
    """For each sample of a training split the classes that it shows and their pixels; none of what cannot be read.

    Raises Preempted when `stop` gives true, ResourceError when a worker died.
    """
    if not generated(samples):
        known = Cache(say, True).read(key_of((dataset, list(samples), "train"), stamps_of_samples(samples)))
        rows = [row.get("classes") for row in (known or {}).get("files", [])]
        if len(rows) == len(samples) and None not in rows:
            return rows
    say(f"counting the pixels of each class in {len(samples):,} label maps")
    return [classes_in(dataset.labels, seen) for seen in check_samples(dataset, samples, workers, stop)]


def as_table(rows: Sequence[Sequence[Any]], classes: int) -> NDArray[np.int64]:
    """The pixels of each class in each image, (I, C)."""
    table = np.zeros((len(rows), classes), dtype=np.int64)
    for image, row in enumerate(rows):
        for label, pixels in row:
            table[image, label] = pixels
    return table
