"""Known ways for label maps to be another thing than their label space says, each with what to do about it.

All is guessed from which values occur and what the files are called; nothing here reads a file.  What may be wrong with
one public dataset stands in its own file; here is what asks them, and what may be wrong with any dataset.
"""

from collections.abc import Sequence, Set
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mdp.core.labels import IGNORE
from mdp.io.datasets import load, names
from mdp.io.datasets._dataset import Dataset, Sample
from mdp.io.datasets._mistakes import LabelMaps, Mistake, Mistakes


def is_own(dataset: Dataset) -> bool:
    """Whether a YAML file describes it, which its owner can change."""
    return dataset.source.endswith((".yaml", ".yml"))


def mistake_in(dataset: Dataset, pixels: NDArray[np.int64], samples: Sequence[Sample]) -> Mistake:
    """Advice about values outside the label space, given the pixels of every raw value (65536)."""
    maps = _label_maps(dataset, pixels, samples)
    published = _published(dataset, maps)
    if published:
        return published
    if maps.values <= {0, 255}:
        return binary(dataset)
    return _shifted(dataset, maps.values, maps.unknown) or _unnamed(dataset, pixels, sorted(maps.unknown))


def _label_maps(
    dataset: Dataset, pixels: NDArray[np.int64], samples: Sequence[Sample], training: bool = False
) -> LabelMaps:
    values, table = np.flatnonzero(pixels).tolist(), dataset.labels.table
    unknown = frozenset(value for value in values if table[value] < IGNORE)
    files = tuple(sample.labels for sample in samples)
    return LabelMaps(dataset.name in names(), len(dataset.labels.classes), frozenset(values), unknown, files, training)


def _published(dataset: Dataset, maps: LabelMaps) -> Mistake | None:
    """Another edition of a public dataset: of this one, or of any that it may be a description of."""
    own = _of(dataset).unknown(maps)
    others = (load(name).mistakes.unknown(maps._replace(official=False)) for name in names())
    return own or next((mistake for mistake in others if mistake), None)


def _of(dataset: Dataset) -> Mistakes:
    """The known mistakes of the dataset of that name, whichever way it is read."""
    return load(dataset.name).mistakes if dataset.name in names() else Mistakes()


def binary(dataset: Dataset) -> Mistake:
    """0 and 255 are all there is."""
    classes = (*dataset.labels.classes, "background", "object")[:2]
    lines = ("ignore_index: null", "classes:", f"  0: {classes[0]}", f"  1: {{name: {classes[1]}, values: [255]}}")
    text = "only 0 and 255 occur: a binary mask, in which 255 is the object and not an ignored rim"
    return Mistake("binary_mask", f"{text}; name 255 as a class", lines if is_own(dataset) else ())


def _shifted(dataset: Dataset, values: Set[int], unknown: Set[int]) -> Mistake | None:
    """Values one above, or one below, those that are named."""
    space = dataset.labels
    named = {int(value): int(space.table[value]) for value in np.flatnonzero(space.table > IGNORE)}
    low, high = min(named), max(named)
    if len(named) != high - low + 1 or len(named) < 2 or len(named) != len(space.classes):
        return None
    if unknown == {high + 1}:
        shift, rest = 1, "" if low not in values else f", with {low} for unlabelled pixels"
    elif unknown == {low - 1} and high not in values:
        shift, rest = -1, ""
    else:
        return None
    text = (
        f"off by one: the values are {low + shift}..{high + shift}{rest}, where {low}..{high} are named; "
        "number the classes as in the files"
    )
    lines = [f"  {value + shift}: {_quoted(space.classes[label])}" for value, label in sorted(named.items())]
    ignored = [f"ignore_index: {low}"] if rest else []
    return Mistake("off_by_one", text, (*ignored, "classes:", *lines) if is_own(dataset) else ())


def _unnamed(dataset: Dataset, pixels: NDArray[np.int64], unknown: list[int]) -> Mistake:
    if not is_own(dataset):
        text = "the official files have no such values: is it another edition, or were the files converted?"
        return Mistake("unknown_values", f"{text} A YAML file can describe an edition of your own")
    if len(unknown) > 40:
        text = "so many values are no classes: are these instance ids, depths or photos?"
        return Mistake("unknown_values", f"{text} Give label maps with one value a class")
    shares = {value: f"{pixels[value] / pixels.sum():.2%} of pixels" for value in unknown}
    ignore = sorted({value for value, label in (dataset.labels.lookup or {}).items() if label == IGNORE} | set(unknown))
    lines = (
        "# either, where they are classes, under `classes:`",
        *(f"  {value}: NAME  # {share}" for value, share in shares.items()),
        "# or, where they never are",
        f"ignore: {ignore}",
    )
    return Mistake("unknown_values", "name them under classes, or list them under ignore", lines)


def _quoted(name: str) -> str:
    return f'"{name}"'


# Of public datasets


def suspicious(
    dataset: Dataset, pixels: NDArray[np.int64], samples: Sequence[Sample], training: bool
) -> Mistake | None:
    """A mistake in a public dataset though every value is a class."""
    return _of(dataset).suspicious(_label_maps(dataset, pixels, samples, training))


def colored(dataset: Dataset) -> str:
    """Advice about label maps in colour, for a public dataset that has none."""
    return _of(dataset).colored or "a colour label map needs a table: name the colours in the dataset's YAML file"


def other_edition(dataset: Dataset, root: Path) -> str:
    """Another edition under the root, in place of a dataset that was not found; "" without one."""
    pattern, text = _of(dataset).edition
    paths = [path for glob in (pattern, f"*/{pattern}") if pattern for path in sorted(root.glob(glob))]
    return f"{paths[0]}: {text}" if paths else ""
