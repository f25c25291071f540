"""The results of a comparison: compare.json -> means, paired differences, sentences, curves.

Everything here is computed from the raw file, so that a table can be made again without the runs.
"""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mdp.core.chance import generator
from mdp.core.comparison import Difference, difference
from mdp.io.errors import RecipeError
from mdp.io.files.writing import write_text
from mdp.io.pictures.charts import Line, Panel, line_chart

SEEDS_TO_CLAIM = 3  # an order is never claimed from fewer
_BANDS = 6  # starts; the bands of more hide each other


class Contrast(NamedTuple):
    """A start against another at one share of the labels."""

    start: str
    against: str
    share: Fraction
    seeds: int
    difference: Difference
    spread: float  # the larger standard deviation over seeds of the two
    order: int  # 1: above, -1: below, 0: no order can be claimed


def comparisons(path: Path) -> list[Path]:
    """The file itself; of a folder its compare.json, or else all JSON files in it, by name.

    Raises RecipeError when there is none.
    """
    if not path.is_dir():
        return [path]
    if (path / "compare.json").is_file():
        return [path / "compare.json"]
    files = sorted(path.glob("*.json"))
    if not files:
        raise RecipeError(f"{path}: expected a compare.json, or other results of `mdp compare`, found no JSON file")
    return files


def read_comparison(file: Path) -> dict[str, Any]:
    """The results in a compare.json, whatever it is called now.  Raises RecipeError when it is none."""
    try:
        whole: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {**whole, "cells": list(whole["cells"]), "against": list(whole["against"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{file}: expected a compare.json of `mdp compare` ({error})") from error


def write_report(whole: Mapping[str, Any], folder: Path) -> None:
    """compare.txt, curves.svg and, where hours of training are known, hours.svg."""
    write_text(folder / "compare.txt", report(whole) + "\n")
    if any(cell["curve"] for cell in whole["cells"]):
        write_text(folder / "curves.svg", curves(whole))
    drawn = hours_chart(whole)
    if drawn:
        write_text(folder / "hours.svg", drawn)


def share_label(share: Fraction | str) -> str:
    """A share for people: `1/8`, `all`."""
    return "all" if Fraction(share) == 1 else str(share)


# Tables


def scores_of(whole: Mapping[str, Any], start: str, share: Fraction) -> dict[int, dict[str, Any]]:
    """The cells of a start at a share, by seed."""
    cells = [cell for cell in whole["cells"] if cell["start"] == start and Fraction(cell["share"]) == share]
    return {cell["seed"]: cell for cell in cells}


def shares(whole: Mapping[str, Any]) -> list[Fraction]:
    """The shares of the labels, in order."""
    return sorted({Fraction(cell["share"]) for cell in whole["cells"]})


def starts(whole: Mapping[str, Any]) -> list[str]:
    """The starts that have a cell, in the order they were given in."""
    there = {cell["start"] for cell in whole["cells"]}
    return [name for name in whole["starts"] if name in there]


def contrasts(whole: Mapping[str, Any]) -> Iterator[Contrast]:
    """Every start against those it is to be compared with, on the seeds that both have."""
    for share in shares(whole):
        for against in whole["against"]:
            for start in starts(whole):
                a, b = scores_of(whole, start, share), scores_of(whole, against, share)
                seeds = sorted(a.keys() & b.keys())
                if start == against or not seeds:
                    continue
                ours, theirs = (torch.tensor([cells[seed]["blocks"] for seed in seeds]) for cells in (a, b))
                delta = difference(ours, theirs, generator(0, "bootstrap", start, against, str(share)))
                spread = max(_deviation([cells[seed]["miou"] for seed in seeds]) for cells in (a, b))
                yield Contrast(start, against, share, len(seeds), delta, spread, _order(delta, spread, len(seeds)))


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _order(delta: Difference, spread: float, seeds: int) -> int:
    """An order is claimed when the interval leaves out 0 and the difference exceeds the spread over the seeds."""
    if seeds < SEEDS_TO_CLAIM or abs(delta.mean) <= spread:
        return 0
    return 1 if delta.low > 0 else -1 if delta.high < 0 else 0


def reports(wholes: Sequence[Mapping[str, Any]]) -> str:
    """The reports of some comparisons, one below the other."""
    return "\n\n".join(map(report, wholes))


def as_json(wholes: Sequence[Mapping[str, Any]]) -> Any:
    """Some comparisons as JSON: a list, but for one alone."""
    return wholes if len(wholes) > 1 else wholes[0]


def report(whole: Mapping[str, Any]) -> str:
    """The tables and the sentences, for people."""
    there, names, settings = shares(whole), starts(whole), whole["recipe"]["finetune"]
    width = max(len(name) for name in [*names, "always the same class"]) + 2
    first = whole["cells"][0]
    lines = [
        f"{whole['target']} {whole['split']} ({first['images']} images): mIoU in percent after {settings['steps']} "
        f"steps of {settings['batch_size']} crops, mean ± standard deviation over seeds",
        f"{'start':<{width}}" + "".join(f"{head:>22}" for head in share_heads(whole)),
    ]
    for start in names:
        cells = [mean(list(scores_of(whole, start, share).values())) for share in there]
        lines.append(f"{start:<{width}}" + "".join(f"{cell:>22}" for cell in cells))
    lines.append(f"{'always the same class':<{width}}{100 * first['majority_miou']:>22.2f}")
    lines += [f"warning: {line}" for line in seen(whole)]
    compared = list(contrasts(whole))
    for against in whole["against"]:
        lines += [
            "",
            f"minus {against}, paired by seed [95 % bootstrap interval over seeds and blocks of test images]",
        ]
        for start in names:
            own = {c.share: c for c in compared if c.start == start and c.against == against}
            if own:
                lines.append(f"{start:<{width}}" + "".join(f"{gap(own.get(share)):>22}" for share in there))
        lines += ["", *sentences([c for c in compared if c.against == against], there)]
    lines += hours_lines(whole, width)
    return "\n".join(lines)


def seen(whole: Mapping[str, Any]) -> list[str]:
    """Which starts were scored with photos that their networks were trained on; one line for those with the same."""
    told: dict[str, list[str]] = {}
    for cell in whole["cells"]:
        if cell.get("seen"):
            told.setdefault(cell["start"], []).append(cell["seen"])
    lines: dict[str, list[str]] = {}
    for start, texts in told.items():
        lines.setdefault(max(texts, key=texts.count), []).append(start)
    return [f"{', '.join(names)}: {line}" for line, names in lines.items()]


def share_heads(whole: Mapping[str, Any]) -> list[str]:
    """Each share, and how many images that is."""
    return [_head(whole, share) for share in shares(whole)]


def _head(whole: Mapping[str, Any], share: Fraction) -> str:
    images = next(cell["train_images"] for cell in whole["cells"] if Fraction(cell["share"]) == share)
    return f"{share_label(share)} ({images} images)"


def mean(cells: Sequence[Mapping[str, Any]]) -> str:
    """The mean mIoU of cells that differ in their seeds, in percent."""
    values = [100 * cell["miou"] for cell in cells]
    if len(values) < 2:
        return f"{values[0]:.2f} (1 seed)" if values else "-"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f} ({len(values)})"


def gap(contrast: Contrast | None) -> str:
    """A difference with its interval, in points of mIoU."""
    if contrast is None:
        return "-"
    mean, low, high = (100 * value for value in contrast.difference)
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def sentences(chosen: Sequence[Contrast], there: Sequence[Fraction]) -> Iterator[str]:
    """One sentence a share: which starts are above, which below, of which no order can be claimed."""
    for share in there:
        own = [c for c in chosen if c.share == share]
        if not own:
            continue
        groups = {1: "above", -1: "below", 0: "not to be told from"}
        parts = [
            f"{', '.join(c.start for c in own if c.order == order)} {word} {own[0].against}"
            for order, word in groups.items()
            if any(c.order == order for c in own)
        ]
        where = "With all labels" if share == 1 else f"With {share} of the labels"
        few = min(c.seeds for c in own)
        note = f" (fewer than {SEEDS_TO_CLAIM} seeds: no order is claimed)" if few < SEEDS_TO_CLAIM else ""
        yield f"{where}: {'; '.join(parts)}{note}."


# Hours of training, beside which scores stand in Fig. 5 of arXiv 2106.05967


def hours_lines(whole: Mapping[str, Any], width: int) -> list[str]:
    """A table of the hours of each start and share; none where no cell says how long it trained."""
    there = shares(whole)
    rows = [(start, [_words(_timed(whole, start, share)) for share in there]) for start in starts(whole)]
    if all(words == "-" for _, row in rows for words in row):
        return []
    head = "hours of training, mean over seeds: those of the run that it starts from + fine-tuning"
    return ["", head, *(f"{start:<{width}}" + "".join(f"{words:>22}" for words in row) for start, row in rows)]


def hours_chart(whole: Mapping[str, Any]) -> str:
    """mIoU over all hours of training, a point a start with the lowest and highest seed, a panel a share, as SVG.

    "" where no start's hours are known.
    """
    panels = []
    for share, head in zip(shares(whole), share_heads(whole), strict=True):
        lines = [_point(whole, start, style, share) for style, start in enumerate(starts(whole))]
        panels.append(Panel(head, [line for line in lines if line is not None]))
    if not any(panel.lines for panel in panels):
        return ""
    title = f"{whole['target']}: mIoU and hours of training (mean over seeds; bar: lowest and highest seed)"
    return line_chart(panels, title, "hours of training, pretraining included", "mIoU, %")


def _timed(whole: Mapping[str, Any], start: str, share: Fraction) -> list[Mapping[str, Any]]:
    """The cells of which all hours are known."""
    cells = scores_of(whole, start, share).values()
    return [cell for cell in cells if None not in (cell.get("hours") or {"unknown": None}).values()]


def _words(cells: Sequence[Mapping[str, Any]]) -> str:
    if not cells:
        return "-"
    before, tuning = (statistics.mean(cell["hours"][key] for cell in cells) for key in ("pretraining", "finetuning"))
    return f"{before:.3g} + {tuning:.3g}"


def _point(whole: Mapping[str, Any], start: str, style: int, share: Fraction) -> Line | None:
    cells = _timed(whole, start, share)
    if not cells:
        return None
    scores = [100 * cell["miou"] for cell in cells]
    hours = statistics.mean(sum(cell["hours"].values()) for cell in cells)
    return Line(
        start,
        style,
        np.array([hours]),
        np.array([statistics.mean(scores)]),
        band=np.array([(min(scores), max(scores))]),
    )


# Curves


def curve_of(whole: Mapping[str, Any], start: str, share: Fraction) -> list[tuple[int, list[float]]]:
    """The steps that all seeds have, each with every seed's validation mIoU in percent."""
    curves = [dict(map(tuple, cell["curve"])) for cell in scores_of(whole, start, share).values()]
    steps = [step for step in (curves[0] if curves else {}) if all(step in curve for curve in curves)]
    return [(step, [100 * curve[step] for curve in curves]) for step in steps]


def curves(whole: Mapping[str, Any]) -> str:
    """Validation mIoU over fine-tuning steps, a panel a share (the paper's Fig. 3), as SVG; bands span the seeds."""
    panels = []
    for share in shares(whole):
        lines = []
        for style, start in enumerate(starts(whole)):
            values = curve_of(whole, start, share)
            steps, means = np.array([step for step, _ in values]), [statistics.mean(seeds) for _, seeds in values]
            band = np.array([(min(seeds), max(seeds)) for _, seeds in values]) if len(starts(whole)) <= _BANDS else None
            lines += [Line(start, style, steps, np.array(means), band=band)] if values else []
        panels.append(Panel(_head(whole, share), lines))
    spread = "; band: lowest and highest seed" if len(starts(whole)) <= _BANDS else ""
    title = f"{whole['target']}: validation mIoU while fine-tuning (mean over seeds{spread})"
    return line_chart(panels, title, "fine-tuning step", "mIoU, %")
