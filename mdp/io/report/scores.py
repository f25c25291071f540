"""The evaluations on a report: means beside each other, a bar for the IoU of each class, the pairs most confused.

Shape legend: C classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdp.io.pictures.html import bar, folded, table, text

_CLASSES = 200  # that a table shows; of more the halves with the lowest and the highest IoU
_PAIRS = 15  # that are listed

Scores = Mapping[str, Any]  # what scores.json holds


class Pair(NamedTuple):
    """Pixels of one class that were given to another."""

    labelled: int
    predicted: int
    pixels: float
    share: float  # of the labelled class's pixels


def most_confused(confusion: Sequence[Sequence[int]], most: int = _PAIRS) -> list[Pair]:
    """The pairs of classes with the most wrong pixels in a confusion matrix (C, C), rows labelled.

    >>> [(pair.labelled, pair.predicted, pair.share) for pair in most_confused([[6, 2], [0, 5]])]
    [(0, 1, 0.25)]
    """
    counts = np.array(confusion, dtype=np.float64)  # (C, C)
    wrong = np.where(np.eye(len(counts), dtype=bool), 0.0, counts)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    rows, columns = (indices.tolist() for indices in np.unravel_index(order, counts.shape))
    sums: NDArray[np.float64] = counts.sum(1)
    return [
        Pair(row, column, float(wrong[row, column]), float(wrong[row, column] / sums[row]))
        for row, column in zip(rows, columns, strict=True)
        if wrong[row, column] > 0
    ]


def scores_section(evaluations: Sequence[tuple[str, Scores]]) -> str:
    """All evaluations of all runs, each with its run's name (HTML); "" without one."""
    if not evaluations:
        return ""
    groups: dict[tuple[str, str, tuple[str, ...]], list[tuple[str, Scores]]] = {}
    for run, scores in evaluations:
        names = tuple(row["name"] for row in scores["classes"])
        groups.setdefault((str(scores.get("dataset")), str(scores.get("split")), names), []).append((run, scores))
    parts = [_group(f"{text(key[0])} {text(key[1])}", group) for key, group in groups.items()]
    return _means(evaluations) + "".join(parts)


def percent(value: object) -> str:
    """A score in 0..1 in percent; a dash for anything else.

    >>> percent(0.4321), percent(None)
    ('43.2', '-')
    """
    return f"{100 * value:.1f}" if isinstance(value, int | float) and 0 <= value <= 1 else "-"


def _means(evaluations: Sequence[tuple[str, Scores]]) -> str:
    heads = ("run", "data", "images", "checkpoint's step", "how", "mIoU %", "95 % interval", "mAcc %", "aAcc %",
             "boundary mIoU %", "always the most frequent class %")  # fmt: skip
    rows = []
    for run, scores in evaluations:
        spread = scores.get("miou_interval")
        always = scores.get("majority")
        rows.append((
            run,
            f"{text(scores.get('dataset'))} {text(scores.get('split'))}",
            text(scores.get("images")),
            text(scores.get("step")),
            text(_how(scores)),
            f"<b>{percent(scores.get('miou'))}</b>",
            f"{percent(spread.get('low'))} to {percent(spread.get('high'))}" if isinstance(spread, dict) else "-",
            percent(scores.get("macc")),
            percent(scores.get("aacc")),
            percent(scores.get("boundary_miou")),
            percent(always.get("miou") if isinstance(always, dict) else None),
        ))  # fmt: skip
    rules = dict.fromkeys(text(scores.get("rule"), 600) for _, scores in evaluations if scores.get("rule"))
    notes = [*(f"warning: {run}: {text(warning, 600)}" for run, warning in _warnings(evaluations)), *rules]
    return table("Means of each evaluation", heads, rows) + "".join(f'<p class="note">{note}</p>' for note in notes)


def _warnings(evaluations: Sequence[tuple[str, Scores]]) -> Iterator[tuple[str, str]]:
    """What an evaluation warned of, with its run: photos that were trained on, files that have changed."""
    for run, scores in evaluations:
        seen, changed = scores.get("seen"), scores.get("changed")
        if isinstance(seen, dict) and seen.get("text"):
            yield run, str(seen["text"])
        for line in changed if isinstance(changed, list) else ():
            yield run, str(line)


def _how(scores: Scores) -> str:
    parts = [str(scores.get("mode") or "-")]
    if scores.get("scales"):
        parts.append(f"scales {scores['scales']}")
    if scores.get("flip"):
        parts.append("mirrored too")
    return ", ".join(parts)


def _group(title: str, group: Sequence[tuple[str, Scores]]) -> str:
    """The classes of one split, with all runs that were scored on it."""
    pairs = "".join(_confusions(f"{title}, {run}" if len(group) > 1 else title, scores) for run, scores in group)
    return f"<h3>{title}</h3>{_classes(title, group)}{folded('Most confused pairs', pairs, len(group) == 1)}"


def _classes(title: str, group: Sequence[tuple[str, Scores]]) -> str:
    """A row for each class, highest IoU of the first run first, with a bar for each run."""
    first = group[0][1]["classes"]
    order = sorted(range(len(first)), key=lambda label: (-_share(first[label].get("iou")), label))
    shown = order if len(order) <= _CLASSES else order[: _CLASSES // 2] + order[-_CLASSES // 2 :]
    pixels = [_count(row.get("labelled_pixels")) for row in first]
    total = max(1.0, sum(pixels))
    rows = [
        (
            text(first[label]["name"], 60),
            f"{100 * pixels[label] / total:.2f}",
            *(_bar(scores["classes"][label].get("iou")) for _, scores in group),
            *((percent(first[label].get("acc")), _taken_for(group[0][1], label)) if len(group) == 1 else ()),
        )
        for label in shown
    ]
    left = len(order) - len(shown)
    more = f'<p class="note">{left:,} classes between the two halves are left out.</p>' if left else ""
    alone = ("accuracy %", "otherwise mostly taken for") if len(group) == 1 else ()
    heads = ("class", "% of the pixels", *(f"IoU %, {run}" for run, _ in group), *alone)
    return table(f"IoU of each class, {title}", heads, rows) + more


def _share(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else -1.0


def _count(value: object) -> float:
    return float(value) if type(value) is int and 0 <= value < 2**63 else 0.0


def _bar(value: object) -> str:
    return bar(max(0.0, _share(value)), percent(value))


def _taken_for(scores: Scores, label: int) -> str:
    """The class that most of the wrong pixels of a class were given to."""
    row = np.array(scores["confusion"][label], dtype=np.float64)  # (C,)
    wrong = np.where(np.arange(len(row)) == label, 0.0, row)
    other = int(wrong.argmax())
    if not wrong[other]:
        return "-"
    return f"{text(scores['classes'][other]['name'], 60)} ({100 * wrong[other] / row.sum():.1f} %)"


def _confusions(title: str, scores: Scores) -> str:
    names = [text(row["name"], 60) for row in scores["classes"]]
    rows = [
        (names[pair.labelled], names[pair.predicted], f"{pair.pixels:,.0f}", f"{100 * pair.share:.1f}")
        for pair in most_confused(scores["confusion"])
    ]
    if not rows:
        return f'<p class="note">{title}: no pixel is wrong.</p>'
    return table(f"The pairs with the most wrong pixels, {title}",
                 ("labelled as", "predicted as", "pixels", "% of the labelled class"), rows)  # fmt: skip
