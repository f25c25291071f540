"""What objects there are in images, where a dataset tells them from "other": how many, how large, and where they lie.

The statistics that ImageNet-S was published with (2106.03149, table II, figures 4 to 6).
Shape legend: H x W image, G x G blocks of it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdp.core.labels import IGNORE
from mdp.core.luss import SIZE_BOUNDS, SIZES
from mdp.label_space import LabelSpace

BLOCKS = 5  # each way
_OTHER = "other"


def objects_table(space: LabelSpace) -> NDArray[np.int8] | None:
    """For each raw value (65536) 1 where it is an object's, 0 of "other", -1 ignored; None without "other"."""
    if len(space.classes) < 2 or space.classes[0] != _OTHER:
        return None
    return np.sign(space.table).clip(-1, 1).astype(np.int8)


def places_of(kinds: NDArray[np.int8]) -> NDArray[np.int64]:
    """The pixels of objects and all valid ones (2, G, G) in blocks of a map (H, W) as `objects_table` gives values.

    >>> places_of(np.eye(5, dtype=np.int8))[0].tolist()[0]
    [1, 0, 0, 0, 0]
    """
    if min(kinds.shape) < BLOCKS:
        return np.zeros((2, BLOCKS, BLOCKS), dtype=np.int64)
    rows, columns = (np.arange(BLOCKS) * length // BLOCKS for length in kinds.shape)
    chosen = [(kinds > 0).astype(np.int64), (kinds >= 0).astype(np.int64)]
    return np.stack([np.add.reduceat(np.add.reduceat(each, rows, axis=0), columns, axis=1) for each in chosen])


def figures_of(
    space: LabelSpace, images: Sequence[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]
) -> dict[str, Any]:
    """The statistics of images, each given by its raw values, their pixels and its places; empty without objects.

    Sizes are those of the benchmark: an object is a category in an image, in percent of its valid pixels, rounded up.
    """
    if objects_table(space) is None or not images:
        return {}
    numbers: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    for values, counts, _ in images:
        labels = space.table[values]
        pixels = np.bincount(labels[labels > IGNORE], counts[labels > IGNORE]).astype(np.int64)
        own = pixels[1:][pixels[1:] > 0]
        numbers[len(own)] += 1
        percent = -(-100 * own // max(1, int(pixels.sum())))
        sizes.update(np.searchsorted(SIZE_BOUNDS, percent).tolist())
    places = np.sum([each for _, _, each in images], axis=0)  # (2, G, G)
    shares = places[0] / np.maximum(places[1], 1)
    return {
        "categories_per_image": {str(number): numbers[number] for number in sorted(numbers)},
        "sizes": {name: sizes[number] for number, name in enumerate(SIZES)},
        "places": shares.round(4).tolist(),
    }


def lines_of(figures: Mapping[str, Any]) -> list[str]:
    """The statistics for people."""
    if not figures:
        return []
    numbers, sizes = figures["categories_per_image"], figures["sizes"]
    images, objects = sum(numbers.values()), max(1, sum(sizes.values()))
    bounds = (f"up to {bound} %" for bound in (*SIZE_BOUNDS, 100))
    counted = ", ".join(f"{number} in {count / images:.1%}" for number, count in numbers.items())
    sized = ", ".join(
        f"{name.replace('_', ' ')} ({bound}) {count:,} ({count / objects:.1%})"
        for (name, count), bound in zip(sizes.items(), bounds, strict=True)
    )
    rows = ["   ".join(f"{100 * share:3.0f}" for share in row) for row in figures["places"]]
    return [
        f"categories an image: {counted} of the images",
        f"objects by their share of the image: {sized}",
        f"where they lie, percent of the pixels in each of {BLOCKS} x {BLOCKS} parts of the images:",
        *(f"  {row}" for row in rows),
    ]
