"""From what a dataset's YAML file says of its pixels to the rules by which photos and label maps are read."""

import math
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from mdp.io.datasets.own.label_space import COLORED, IGNORED_COLOR
from mdp.io.datasets.own.yaml_values import refuse_unknown
from mdp.io.errors import RecipeError
from mdp.io.files.label_maps import LARGEST, LabelRule
from mdp.io.files.reading import shown
from mdp.label_space import RGB, UNKNOWN, LabelSpace
from mdp.photo_rule import PhotoRule

KEYS = ("image", "edges")
_IMAGE_KEYS = ("range", "bands", "mean", "std", "exif")
_MOST_BANDS = 4096  # of a TIFF
_EXIF = ("photo", "both")
_RANGE = 8  # values of a range, on average: JPEG changes a value by a few
_EDGES = ("ignore", "nearest")


def photo_rule(values: Mapping[str, Any], path: Path) -> PhotoRule:
    """What `image:` says.  Raises RecipeError naming file and key."""
    image = values.get("image", {})
    if not isinstance(image, Mapping):
        raise RecipeError(f"{path}: image: expected such as {{range: [0, 3000], bands: [3, 2, 1]}}, got {shown(image)}")
    refuse_unknown(image, _IMAGE_KEYS, "image.", path)
    bands, limits = image.get("bands"), image.get("range")
    if bands is not None and not (_all(bands, int) and min(bands) >= 1 and max(bands) <= _MOST_BANDS):
        raise RecipeError(
            f"{path}: image.bands: expected numbers of bands, counted from 1, such as [3, 2, 1] for red, green and "
            f"blue, one for grey, or as many as there are channels, got {shown(bands)}"
        )
    if limits is not None and not (_all(limits, int | float, 2) and -math.inf < limits[0] < limits[1] < math.inf):
        raise RecipeError(
            f"{path}: image.range: expected the values that are black and white, such as [0, 3000], got {shown(limits)}"
        )
    exif = image.get("exif", "")
    if exif and exif not in _EXIF:
        raise RecipeError(
            f"{path}: image.exif: expected what is turned as the photo's EXIF data ask, {' or '.join(_EXIF)} (with the "
            f"label map), got {shown(exif)}"
        )
    limits = (float(limits[0]), float(limits[1])) if limits else None
    mean, std = _statistics(image, len(bands) if bands else None, path)
    rule = PhotoRule(limits, tuple(bands) if bands else None, exif, mean, std)
    low, high = rule.limits
    for key, numbers, least, most in (("mean", mean, low, high), ("std", std, 1e-9 * (high - low), high - low)):
        outside = [number for number in numbers or () if not least <= number <= most]
        if outside:
            raise RecipeError(
                f"{path}: image.{key}: expected numbers from {least:g} to {most:g} by the range {low:g}..{high:g}, in "
                f"the files' own values, got {outside[0]:g}"
            )
    return rule


def _statistics(
    image: Mapping[str, Any], bands: int | None, path: Path
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """The mean and the deviation of each channel, both or neither."""
    found: list[tuple[float, ...] | None] = []
    for key, other in (("mean", "std"), ("std", "mean")):
        numbers = image.get(key)
        if numbers is None:
            if image.get(other) is not None:
                raise RecipeError(f"{path}: image.{key}: expected beside image.{other}, a number for each channel")
            found.append(None)
            continue
        if not _all(numbers, int | float, bands) or not all(map(math.isfinite, numbers)):
            many = f"{bands} numbers, one for each of image.bands" if bands else "a number for each band"
            raise RecipeError(f"{path}: image.{key}: expected {many}, in the files' own values, got {shown(numbers)}")
        found.append(tuple(map(float, numbers)))
    mean, std = found
    if mean and std and len(mean) != len(std):
        raise RecipeError(
            f"{path}: image.std: expected as many numbers as image.mean has ({len(mean)}), got {len(std)}"
        )
    return mean, std


def label_rule(
    values: Mapping[str, Any],
    labels: LabelSpace,
    colors: Mapping[RGB, int] | None,
    codes: tuple[tuple[int, int, int], ...],
    path: Path,
) -> LabelRule:
    """How the files of label maps are read.  Raises RecipeError naming file and key."""
    edges = values.get("edges", "")
    if edges and edges not in _EDGES:
        raise RecipeError(f"{path}: edges: expected {' or '.join(_EDGES)}, got {shown(edges)}")
    if edges and not colors:
        raise RecipeError(f"{path}: edges: {edges} is for label maps in colour, and no class names its `colors:`")
    return LabelRule(
        colors=colors,
        indices=any(raw < COLORED for raw, _, _ in labels.entries),
        edges=str(edges),
        ignored=IGNORED_COLOR,
        lossy=_by_ranges(labels),
        others=codes,
        largest=COLORED - 1 if codes else LARGEST,
    )


def _by_ranges(labels: LabelSpace) -> bool:
    """Whether classes are ranges of values, so that a value that is a little off is still of the same class."""
    runs = [len(list(run)) for label, run in groupby(labels.table[:256].tolist()) if label != UNKNOWN]
    return bool(runs) and sum(runs) / len(runs) >= _RANGE


def _all(value: Any, kind: Any, length: int | None = None) -> bool:
    """Whether a value is a list of numbers of that kind, one or more, or as many as are asked for."""
    plain = isinstance(value, list) and (len(value) == length if length else bool(value))
    return plain and all(isinstance(item, kind) and not isinstance(item, bool) for item in value)
