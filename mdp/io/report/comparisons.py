"""The comparisons of a report: means of each start, paired differences, which orders can be claimed, convergence."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from mdp.io.pictures.charts import Chart, Line, figure
from mdp.io.pictures.html import bar, table, text
from mdp.io.report import compared as comparison

_RULE = "mean ± standard deviation over seeds (how many)"
_PAIRED = "paired by seed, with the 95 % bootstrap interval over seeds and blocks of test images"


def comparisons_section(wholes: Sequence[Mapping[str, Any]]) -> str:
    """All comparisons (HTML); "" without one."""
    parts = []
    for number, whole in enumerate(wholes):
        drawn = "".join(figure(chart, f"comparison-{number}-{i}") for i, chart in enumerate(_charts(whole)))
        parts.append(f'<h3>{_title(whole)}</h3>{_tables(whole)}<div class="charts">{drawn}</div>')
    return "".join(parts)


def _title(whole: Mapping[str, Any]) -> str:
    settings = whole["recipe"]["finetune"]
    return (
        f"{text(whole['target'])} {text(whole['split'])}, {whole['cells'][0]['images']:,} images, after "
        f"{settings['steps']:,} steps of {settings['batch_size']:,} crops, against {text(', '.join(whole['against']))}"
    )


def _tables(whole: Mapping[str, Any]) -> str:
    there, contrasts = comparison.shares(whole), list(comparison.contrasts(whole))
    heads = ("start", *(text(head) for head in comparison.share_heads(whole)))
    rows = [(text(start), *(_score(whole, start, share) for share in there)) for start in comparison.starts(whole)]
    always = whole["cells"][0]["majority_miou"]
    rows.append(("always the same class", *(bar(always, f"{100 * always:.2f}") for _ in there)))
    parts = [table(f"mIoU %, {_RULE}", heads, rows)]
    parts += [f'<p class="note">warning: {text(line, 600)}</p>' for line in comparison.seen(whole)]
    for against in whole["against"]:
        own = [contrast for contrast in contrasts if contrast.against == against]
        by_start = {(contrast.start, contrast.share): contrast for contrast in own}
        rows = [
            (text(start), *(text(comparison.gap(by_start.get((start, share)))) for share in there))
            for start in dict.fromkeys(contrast.start for contrast in own)
        ]
        if rows:
            parts.append(table(f"mIoU minus that of {text(against)}, {_PAIRED}", heads, rows))
            parts += [f"<p>{text(sentence, 2000)}</p>" for sentence in comparison.sentences(own, there)]
    return "".join(parts)


def _score(whole: Mapping[str, Any], start: str, share: Fraction) -> str:
    cells = list(comparison.scores_of(whole, start, share).values())
    return bar(sum(cell["miou"] for cell in cells) / len(cells), text(comparison.mean(cells))) if cells else "-"


def _charts(whole: Mapping[str, Any]) -> list[Chart]:
    """A chart for each share of the labels."""
    return [
        Chart(
            f"{whole['target']}, {head}: validation mIoU while fine-tuning",
            "%, mean over seeds",
            [
                _line(start, style, comparison.curve_of(whole, start, share))
                for style, start in enumerate(comparison.starts(whole))
            ],
        )
        for share, head in zip(comparison.shares(whole), comparison.share_heads(whole), strict=True)
    ]


def _line(start: str, style: int, curve: Sequence[tuple[int, Sequence[float]]]) -> Line:
    """The means over seeds."""
    steps, means = [step for step, _ in curve], [sum(seeds) / len(seeds) for _, seeds in curve]
    return Line(start, style, np.array(steps, dtype=np.float64), np.array(means, dtype=np.float64))
