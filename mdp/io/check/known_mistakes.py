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

_MASK = 0.75  # of the pixels are 0 or 255 in a mask with smooth edges,
_SHADES = 3  # and at least so many values lie between
_STRAY = 0.001  # of the pixels, and
_STRAY_FILES = 0.1  # of the files: with less, a value is a mishap and says nothing of the others


def is_own(dataset: Dataset) -> bool:
    """Whether a YAML file describes it, which its owner can change."""
    return dataset.source.endswith((".yaml", ".yml"))


def mistake_in(dataset: Dataset, pixels: NDArray[np.int64], samples: Sequence[Sample], files: int) -> Mistake:
    """Advice about values outside the label space: what fits, with its share of the pixels; the likeliest first.

    `pixels` are those of every raw value (65536), `files` the label maps with such a value.
    """
    maps = _label_maps(dataset, pixels, samples)
    published = _published(dataset, maps)
    if published:
        return published
    if maps.values <= {0, 255}:
        return binary(dataset)
    unknown = sorted(maps.unknown)
    share = float(pixels[unknown].sum() / pixels.sum())
    guesses = [
        _smooth_mask(dataset, pixels),
        _shifted(dataset, maps.values, maps.unknown, share, files / max(1, len(samples))),
        _objects(dataset, unknown),
        _unnamed(dataset, pixels, unknown),
    ]
    first, *others = [guess for guess in guesses if guess]
    advice = "; or ".join([first.advice, *(other.advice for other in others)])
    also = [f"# {line}" for other in others for line in ("or:", *other.yaml) if other.yaml]
    return Mistake(first.kind, f"{advice} ({share:.2%} of the pixels)", (*first.yaml, *also))


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


def _smooth_mask(dataset: Dataset, pixels: NDArray[np.int64]) -> Mistake | None:
    """Nearly all pixels are 0 or 255, and the others anything between: a mask with smooth edges, or from a JPEG."""
    others = int(np.count_nonzero(pixels[1:255]))
    ends = float(pixels[[0, 255]].sum() / pixels.sum())
    if not is_own(dataset) or ends < _MASK or not pixels[0] or not pixels[255] or others < _SHADES:
        return None
    if len(dataset.labels.classes) > 2:
        return None
    names = (*dataset.labels.classes, "background", "object")[:2]
    lines = ("ignore_index: null", "classes:", *_range_lines(names))
    text = f"0 and 255 are on {ends:.2%} of the pixels and {others} values between on the rest: a smooth mask"
    return Mistake("binary_mask", f"{text}; give each class a range of values", lines)


def _range_lines(names: Sequence[str]) -> tuple[str, str]:
    return f"  0: {{name: {_quoted(names[0])}, values: 0-127}}", f"  1: {{name: {_quoted(names[1])}, values: 128-255}}"


def _shifted(dataset: Dataset, values: Set[int], unknown: Set[int], share: float, files: float) -> Mistake | None:
    """Values one above, or one below, those that are named: not where only a stray pixel says so."""
    space = dataset.labels
    named = {int(value): int(space.table[value]) for value in np.flatnonzero(space.table > IGNORE)}
    low, high = min(named), max(named)
    if len(named) != high - low + 1 or len(named) < 2 or len(named) != len(space.classes):
        return None
    if unknown == {high + 1} and (low not in values or share >= _STRAY or files >= _STRAY_FILES):
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


def _objects(dataset: Dataset, unknown: Sequence[int]) -> Mistake | None:
    """Two classes by the values 0 and 1, and larger values: each object may have a number of its own."""
    table = dataset.labels.table
    if not is_own(dataset) or np.flatnonzero(table > IGNORE).tolist() != [0, 1] or unknown[0] < 2 or len(unknown) < 2:
        return None
    names = dataset.labels.classes
    top = 65535 if dataset.labels.ignore_index is None else dataset.labels.ignore_index - 1
    if unknown[-1] > top:
        return None
    lines = ("classes:", f"  0: {_quoted(names[0])}", f"  1: {{name: {_quoted(names[1])}, values: 1-{top}}}")
    text = f"each object has a number of its own (up to {unknown[-1]}): all of a range are {names[1]}"
    return Mistake("instance_ids", text, lines)


def _unnamed(dataset: Dataset, pixels: NDArray[np.int64], unknown: list[int]) -> Mistake:
    if not is_own(dataset):
        text = "the official files have no such values: is it another edition, or were the files converted?"
        return Mistake("unknown_values", f"{text} A YAML file can describe an edition of your own")
    if len(unknown) > 40:
        text = "so many values are no classes: are these instance ids, depths or photos?"
        return Mistake("unknown_values", f"{text} Give label maps with one value a class")
    shares = {value: f"{pixels[value] / pixels.sum():.2%} of pixels" for value in unknown}
    named = {entry[:2] for entry in dataset.labels.entries if entry[2] == IGNORE} | {
        (value, value) for value in unknown
    }
    ignore = ", ".join(str(first) if first == last else f"{first}..{last}" for first, last in sorted(named))
    lines = (
        "# either, where they are classes, under `classes:`",
        *(f"  {value}: NAME  # {share}" for value, share in shares.items()),
        "# or, where they never are",
        f"ignore: [{ignore}]",
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
