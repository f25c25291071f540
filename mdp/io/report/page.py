"""The page of `mdp report`: runs beside each other, with their curves, scores, data and settings.

Pictures are inline SVG, or PNGs in the page itself.  A run has one colour and dash in all charts.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdp.io.journal.history import Curve, Name
from mdp.io.pictures.charts import REFERENCE, Chart, Line, figure, swatch
from mdp.io.pictures.html import document, folded, lines, section, table, text, text_of
from mdp.io.report.class_shares import data_section
from mdp.io.report.comparisons import comparisons_section
from mdp.io.report.endings import ending, made_at, state_of, steps_done
from mdp.io.report.pictures import fitting, pictures_section
from mdp.io.report.run_facts import RunFacts
from mdp.io.report.scores import scores_section
from mdp.io.report.view_overlaps import overlaps_section

MARK = '<meta name="generator" content="mdp report">'  # pages with it may be replaced
_TRAINING = {  # by recorded name: title, unit, factor, whether 0 is on the axis
    "loss": ("Loss", "mean over valid pixels or images", 1.0, False),
    "lr": ("Learning rate", "of the step", 1.0, True),
    "images_per_second": ("Throughput", "images/s", 1.0, True),
    "data_wait": ("Waiting for data", "% of the step's time", 100.0, True),
    "communication": ("Communication between processes", "% of the step's time", 100.0, True),
}
_COLLAPSE = {
    "prototype_cosine": ("Mean cosine between prototypes", "near 1: collapse", 1.0, True),
    "prototype_rank": ("Effective rank of the prototypes", "near 1: collapse", 1.0, True),
    "classes_unseen": ("Classes never seen", "classes", 1.0, True),
    "aacc": ("Pixel accuracy in validation", "%", 100.0, True),
}
_SAME = "<p>All settings of config.yaml are the same; what the runs started from is in their commands.</p>"
_OTHERS = 40  # charts of numbers that are not known here
_CLASS_SCORES = (
    "On the feature grid, of a subset of the validation images: not to be compared with a fine-tuned network's scores."
)


def page(runs: Sequence[RunFacts], now: float, comparisons: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page about the runs and comparisons, made at `now` (seconds since 1970)."""
    pictures = [(_named(runs, index), run.pictures) for index, run in enumerate(runs)]
    named = [(_named(runs, index), run) for index, run in enumerate(runs)]
    room = fitting([picture for _, own in pictures for picture in own])
    parts = {
        "comparisons": ("Comparisons", comparisons_section(comparisons)),
        "runs": ("Runs", _runs_section(runs) if runs else ""),
        "endings": ("How they ended" if len(runs) > 1 else "How it ended", _endings_section(runs, now)),
        "curves": ("Curves", _curves_section(runs) if runs else ""),
        "scores": ("Scores", scores_section(_evaluations(runs))),
        "confusion": ("Confusion matrices", pictures_section("confusion", pictures, room)),
        "samples": ("Samples", pictures_section("samples", pictures, room)),
        "predictions": ("Predictions", pictures_section("predictions", pictures, room)),
        "activations": ("Class activation maps", pictures_section("activations", pictures, room)),
        "gallery": ("Worst images", pictures_section("gallery", pictures, room)),
        "data": ("Data", data_section(named) + overlaps_section(named)),
        "settings": ("Settings", _settings_section(runs) if runs else ""),
        "notes": ("What could not be read", _notes_section(runs)),
    }
    shown = {name: part for name, part in parts.items() if part[1]}
    links = "".join(f'<a href="#{name}">{title}</a>' for name, (title, _) in shown.items())
    titles = [*(f"{whole['target']} {whole['split']}" for whole in comparisons), *(run.name for run in runs)]
    names = ", ".join(text(title, 80) for title in titles[:3]) + (" and others" if len(titles) > 3 else "")
    body = (
        f"<header><h1>{names}</h1>\n"
        f'<p class="note">Made by mdp report on {made_at(now)}; it shows what the files said then.</p>\n'
        f'<nav aria-label="Parts of the page">{links}</nav></header>\n<main>\n'
        f"{''.join(section(name, title, body) for name, (title, body) in shown.items())}</main>\n"
    )
    return document(f"{names}: mdp report", body, text_of(Path(__file__).parent / "report.js"), mark=MARK)


def _named(runs: Sequence[RunFacts], index: int) -> str:
    return f'<span class="run">{swatch(index)} {text(runs[index].name, 80)}</span>'


# Runs


def _runs_section(runs: Sequence[RunFacts]) -> str:
    heads = (
        "run",
        "state",
        "steps",
        "last loss",
        "last validation mIoU %",
        "images/s, median",
        "data wait, mean",
    )
    rows = [
        (
            _named(runs, index),
            text(state_of(run)),
            steps_done(run),
            _last(run, ("train", "loss")),
            _last_miou(run),
            _middle(run, "images_per_second", 1, ""),
            _middle(run, "data_wait", 100, " %"),
        )
        for index, run in enumerate(runs)
    ]
    commands = [(_named(runs, index), f"<code>{text(run.command, 2000)}</code>") for index, run in enumerate(runs)]
    return table("Where each run stands", heads, rows) + table("Commands", ("run", "command"), commands)


def _last(run: RunFacts, name: Name) -> str:
    curve = run.history.curves.get(name)
    return f"{curve.values[-1]:.4g}" if curve is not None and len(curve.values) else "-"


def _last_miou(run: RunFacts) -> str:
    curves = [(name, curve) for name, curve in _mious(run) if len(curve.values)]
    if len(curves) == 1:
        return f"{100 * curves[0][1].values[-1]:.1f}"
    return ", ".join(f"{text(name, 40)} {100 * curve.values[-1]:.1f}" for name, curve in curves) or "-"


def _mious(run: RunFacts) -> Iterator[tuple[str, Curve]]:
    """The mIoU curves of a run, each with its dataset."""
    for name, curve in run.history.curves.items():
        if name[:2] == ("validate", "miou"):
            yield name[2] if len(name) == 3 else _target(run), curve


def _target(run: RunFacts) -> str:
    """The dataset of a fine-tuning run."""
    return str(run.datasets[0].get("name")) if len(run.datasets) == 1 else "validation"


def _middle(run: RunFacts, name: str, factor: float, unit: str) -> str:
    curve = run.history.curves.get(("train", name))
    if curve is None or not len(curve.values):
        return "-"
    middle = np.median(curve.values) if factor == 1 else curve.values.mean()
    return f"{factor * middle:.3g}{unit}"


def _endings_section(runs: Sequence[RunFacts], now: float) -> str:
    """The endings of runs, those that went well folded up: they keep neither others nor the curves from being seen."""
    parts = [f"<h3>{_named(runs, index)}</h3>{ending(run, now)}" for index, run in enumerate(runs)]
    well = [state_of(run) == "done" for run in runs]
    first = "".join(part for part, good in zip(parts, well, strict=True) if not good or len(runs) == 1)
    rest = "".join(part for part, good in zip(parts, well, strict=True) if good and len(runs) > 1)
    return first + (folded(f"Runs that are done: {sum(well):,}", rest) if rest else "")


# Curves


def _curves_section(runs: Sequence[RunFacts]) -> str:
    charts = [chart for chart in (*_known_charts(runs), *_miou_charts(runs)) if chart.lines]
    others = [chart for chart in _other_charts(runs) if chart.lines][:_OTHERS]
    drawn = [figure(chart, number) for number, chart in enumerate([*charts, *others])]
    first, rest = "".join(drawn[: len(charts)]), "".join(drawn[len(charts) :])
    if not first and not rest:
        return '<p class="note">No step is recorded yet.</p>'
    hint = (
        '<p class="note">Values are read under the pointer, or with the arrow keys once a chart is chosen. Where there '
        "are many, the thin line has what was recorded, extremes included, and the thick one means of a sixtieth of "
        "the steps.</p>"
    )
    more = folded("Other numbers that were recorded", f'<div class="charts">{rest}</div>') if rest else ""
    return f'{hint}<div class="charts">{first}</div>{more}'


def _known_charts(runs: Sequence[RunFacts]) -> Iterator[Chart]:
    for kind, known in (("train", _TRAINING), ("validate", _COLLAPSE)):
        for name, (title, unit, factor, from_zero) in known.items():
            yield Chart(title, unit, _lines(runs, (kind, name), factor), from_zero)


def _lines(runs: Sequence[RunFacts], name: Name, factor: float) -> list[Line]:
    """The curve of that name of each run that has it."""
    curves = [(index, run.name, run.history.curves.get(name)) for index, run in enumerate(runs)]
    return [
        Line(words, index, curve.steps, factor * curve.values, curve.missing)
        for index, words, curve in curves
        if curve is not None and len(curve.steps)
    ]


def _miou_charts(runs: Sequence[RunFacts]) -> Iterator[Chart]:
    """A chart for each dataset; scores while pretraining and while fine-tuning are never in one."""
    own = list(dict.fromkeys(_target(run) for run in runs if ("validate", "miou") in run.history.curves))
    for dataset in own:
        scored = [(index, run) for index, run in enumerate(runs) if _target(run) == dataset]
        lines = [line for index, run in scored for line in _of(index, run, ("validate", "miou"))]
        yield Chart(f"{dataset}: validation mIoU", "%", lines)
    names = dict.fromkeys(name for run in runs for name in run.history.curves if name[:2] == ("validate", "miou"))
    for dataset in (name[2] for name in names if len(name) == 3):
        scored = [(index, run) for index, run in enumerate(runs) if ("validate", "miou", dataset) in run.history.curves]
        lines = [line for index, run in scored for line in _of(index, run, ("validate", "miou", dataset))]
        nearest = all(("validate", "prototype_cosine") in run.history.curves for _, run in scored)
        what = "nearest-prototype mIoU" if nearest else "mIoU of the class scores"
        yield Chart(f"{dataset}: {what}", "%", [*lines, *_majority([run for _, run in scored], dataset)],
                    note=_CLASS_SCORES)  # fmt: skip


def _of(style: int, run: RunFacts, name: Name) -> list[Line]:
    curve = run.history.curves.get(name)
    if curve is None or not len(curve.steps):
        return []
    return [Line(run.name, style, curve.steps, 100 * curve.values, curve.missing)]


def _majority(runs: Sequence[RunFacts], dataset: str) -> list[Line]:
    """The score of always naming the most frequent class: once for all runs for which it is the same."""
    by_value: dict[float, Line] = {}
    for run in runs:
        for line in _of(REFERENCE, run, ("validate", "majority_miou", dataset)):
            value = round(float(line.y[-1]), 6)
            longest = max(by_value.get(value, line), line, key=lambda kept: len(kept.x))
            by_value[value] = longest._replace(name="always the most frequent class")
    return list(by_value.values())


def _other_charts(runs: Sequence[RunFacts]) -> Iterator[Chart]:
    names = dict.fromkeys(name for run in runs for name in run.history.curves)
    for name in names:
        known = name[-1] in (_TRAINING if name[0] == "train" else _COLLAPSE) and len(name) == 2
        if not known and name[:2] not in (("validate", "miou"), ("validate", "majority_miou")):
            yield Chart(": ".join(name), "as recorded", _lines(runs, name, 1.0))


# Scores, settings, notes


def _evaluations(runs: Sequence[RunFacts]) -> list[tuple[str, dict[str, object]]]:
    return [
        (_named(runs, index), dict(scores)) for index, run in enumerate(runs) for scores in run.evaluations.values()
    ]


def _settings_section(runs: Sequence[RunFacts]) -> str:
    heads = [_named(runs, index) for index in range(len(runs))]
    body = ""
    if len(runs) > 1:
        keys = dict.fromkeys(key for run in runs for key in run.settings)
        differing = [key for key in keys if len({run.settings.get(key) for run in runs}) > 1]
        rows = [(text(key), *(text(run.settings.get(key, "-")) for run in runs)) for key in differing]
        body = table("Settings that differ", ("setting", *heads), rows) if rows else _SAME
    names = dict.fromkeys(key for run in runs for key in run.environment)
    rows = [(text(key), *(text(run.environment.get(key, "-")) for run in runs)) for key in names]
    body += "".join(
        folded(f"config.yaml of {_named(runs, index)}", f'<pre tabindex="0">{lines(run.config, 1000)}</pre>')
        for index, run in enumerate(runs)
        if run.config
    )
    return body + (folded("Environment", table("Where each run ran", ("", *heads), rows)) if rows else "")


def _notes_section(runs: Sequence[RunFacts]) -> str:
    rows = [f"<li>{_named(runs, index)}: {text(note)}</li>" for index, run in enumerate(runs) for note in run.notes]
    return f"<ul>{''.join(rows)}</ul>" if rows else ""
