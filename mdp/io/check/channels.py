"""What photos with a declared range or declared channels hold: values beyond it, mean and deviation of each channel."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdp.io.check.problem import LISTED, Observed, Problem, counted
from mdp.io.check.scan import Spread
from mdp.io.datasets._dataset import Dataset
from mdp.photo_rule import PhotoRule

_MANY = 0.01  # of the values: chosen; clouds and reflections are less, another unit or sensor is more
_FAR = 1.0  # deviations: a declared mean that is so far off is that of other data
_WIDE = 3.0  # and so is a deviation so many times as large or as small


def figures_of(good: Sequence[Observed], rule: PhotoRule) -> Mapping[str, Any]:
    """Figures of all photos, as JSON; {} where nothing is declared of them."""
    spreads = [image.spread for _, image in good if image.spread]
    if not spreads:
        return {}
    whole = reduce(_sum, spreads)
    low, high = rule.limits
    mean, std = _moments(whole)
    return {
        "channels": rule.channels or 3,
        "range": [low, high],
        "values": int(whole.values.sum()) + whole.missing,
        "outside": whole.outside,
        "outside_photos": sum(spread.outside > 0 for spread in spreads),
        "missing": whole.missing,
        "mean": _rounded(low + mean * (high - low)),
        "std": _rounded(std * (high - low)),
    }


def _sum(first: Spread, second: Spread) -> Spread:
    return Spread(
        first.values + second.values,
        first.sums + second.sums,
        first.squares + second.squares,
        first.missing + second.missing,
        first.outside + second.outside,
    )


def _moments(spread: Spread) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of each channel, in [0, 1]."""
    values = spread.values.clip(min=1)
    mean = spread.sums / values
    return mean, np.sqrt((spread.squares / values - mean**2).clip(min=0))


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]


def problems_of(
    dataset: Dataset, good: Sequence[Observed], figures: Mapping[str, Any], training: bool
) -> tuple[list[Problem], tuple[str, ...]]:
    """What is wrong with the values of the channels, and the line to write."""
    if not figures:
        return [], ()
    rule = dataset.photos
    problems = []
    if figures["outside"] > _MANY * figures["values"]:
        files = [sample.image for sample, image in good if image.spread and image.spread.outside]
        low, high = rule.limits
        text = (
            f"{counted(len(files))} with values beyond image.range, {low:g}..{high:g}: they are clipped, "
            f"{figures['outside'] / figures['values']:.1%} of all; is it the range of other data?"
        )
        problems.append(Problem("clipped", False, text, len(files), tuple(files[:LISTED])))
    if not training or rule.channels is None:
        return problems, ()
    line = _line(rule, figures)
    if rule.mean is None:
        text = f"its {rule.channels} channels need `mean` and `std`, a number for each; as measured, they are below"
        return [*problems, Problem("statistics", True, text)], (line,)
    strange = _strange(rule, figures)
    if strange:
        text = f"image.mean and image.std of channels {', '.join(map(str, strange))} are far from those measured"
        return [*problems, Problem("statistics", False, text)], (line,)
    return problems, ()


def _strange(rule: PhotoRule, figures: Mapping[str, Any]) -> list[int]:
    """The channels, from 1, whose declared mean or deviation is not that of the photos."""
    rows = zip(rule.mean or (), rule.std or (), figures["mean"], figures["std"], strict=True)
    return [
        number
        for number, (mean, std, measured, spread) in enumerate(rows, 1)
        if abs(mean - measured) > _FAR * max(std, spread) or not std / _WIDE <= spread <= _WIDE * std
    ]


def _line(rule: PhotoRule, figures: Mapping[str, Any]) -> str:
    """The line of a YAML file with what was measured."""
    declared = rule._replace(mean=tuple(figures["mean"]), std=tuple(figures["std"]))
    texts = [f"{key}: {_text(value)}" for key, value in declared.as_json().items()]
    return f"image: {{{', '.join(texts)}}}"


def _text(value: Any) -> str:
    return f"[{', '.join(f'{number:g}' for number in value)}]" if isinstance(value, list) else str(value)


def lines_of(figures: Mapping[str, Any]) -> list[str]:
    """The figures for people."""
    if not figures:
        return []
    share = figures["outside"] / max(1, figures["values"])
    some = f"{figures['outside']:,} values in {figures['outside_photos']:,} photos, {share:.2%}"
    clipped = f"clipped: {some if figures['outside'] else 'no value'}"
    missing = f"; no number, read as black: {figures['missing']:,} values" if figures["missing"] else ""
    low, high = figures["range"]
    return [
        f"range {low:g}..{high:g}, {clipped}{missing}",
        *(f"{key} of each channel: {_text(figures[key])}" for key in ("mean", "std")),
    ]
