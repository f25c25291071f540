"""The datasets of a report: how many images each run trained on, and how much of the pixels each class takes."""

from collections.abc import Mapping, Sequence
from typing import Any

from mdp.io.pictures.html import bar, folded, table, text
from mdp.io.report.run_facts import RunFacts

_LARGEST = 3  # classes that are named in a dataset's own row


def data_section(runs: Sequence[tuple[str, RunFacts]]) -> str:
    """The datasets of runs that have names (HTML); "" where none is known."""
    rows = []
    classes: dict[tuple[str, tuple[str, ...]], tuple[Mapping[str, float], Mapping[str, Any]]] = {}
    for name, run in runs:
        for entry in run.datasets:
            dataset, names = str(entry.get("name")), _names(entry)
            shares = _shares(run.shares.get(dataset, {}), names)
            count = entry.get("images")
            rows.append((
                name,
                text(dataset),
                f"{count:,}" if type(count) is int else "-",
                f"{len(names):,}",
                ", ".join(f"{text(label, 40)} {share:.0%}" for label, share in _sorted(shares)[:_LARGEST]) or "-",
                f"{_ignored(run.shares[dataset]):.1%}" if shares else "-",
            ))  # fmt: skip
            classes.setdefault((dataset, tuple(names)), (shares, run.shares.get(dataset, {})))
    if not rows:
        return ""
    heads = ("run", "dataset", "images", "classes", "most of the labelled pixels", "ignored")
    listed = "".join(_class_table(dataset, names, *known) for (dataset, names), known in classes.items())
    return table("What each run trained on", heads, rows) + folded("Classes and their shares", listed)


def _names(entry: Mapping[str, Any]) -> list[str]:
    return [str(name) for name in entry["classes"]] if isinstance(entry.get("classes"), list) else []


def _shares(counted: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    """The share of each class in the labelled pixels; nothing where they were not counted."""
    pixels = counted.get("pixels", [])
    total = sum(pixels)
    if len(pixels) != len(names) or not total:
        return {}
    return {name: count / total for name, count in zip(names, pixels, strict=True)}


def _ignored(counted: Mapping[str, Any]) -> float:
    return float(counted["ignored"] / (counted["ignored"] + sum(counted["pixels"])))


def _sorted(shares: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(shares.items(), key=lambda item: -item[1])


def _class_table(dataset: str, names: Sequence[str], shares: Mapping[str, float], counted: Mapping[str, Any]) -> str:
    """All classes of a dataset, the largest first where shares are known."""
    if not shares:
        return f"<h4>{text(dataset)}</h4><p>{', '.join(text(name, 60) for name in names)}</p>"
    rows = [(text(name, 60), bar(share, f"{100 * share:.2f}")) for name, share in _sorted(shares)]
    caption = (
        f"{text(dataset)}: % of the labelled pixels, in {counted['images']:,} images spread over the training split"
    )
    return table(caption, ("class", "share"), rows)
