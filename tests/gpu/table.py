"""The results as Markdown: where it ran, how each part went, the steps' figures, what failed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.gpu.findings import Finding

Row = tuple[str, str, float, list[Finding]]  # part, how it ended, seconds, what it found
_SHOWN = ("ms", "images_per_second", "busy", "of_bf16_peak", "peak_GiB", "voc_ade_hours", "data_wait")


def table(environment: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """The whole page."""
    facts = ", ".join(f"{key} {value}" for key, value in environment.items() if value is not None)
    lines = ["# First contact with a GPU", "", "Made by `make gpu`; the same as data in `gpu.json`.", "", facts, ""]
    lines += ["| part | ended | seconds | checks passed | failed |", "| --- | --- | --- | --- | --- |"]
    for part, ended, seconds, findings in rows:
        passed, failed = (sum(f.passed is verdict for f in findings) for verdict in (True, False))
        lines.append(f"| {part} | {ended} | {seconds:.0f} | {passed} | {failed} |")
    return "\n".join([*lines, *_figures(rows), *_failures(rows), ""])


def _figures(rows: Sequence[Row]) -> Iterator[str]:
    """A line for everything that has a rate."""
    timed = [f for _, _, _, findings in rows for f in findings if "images_per_second" in f.figures or "ms" in f.figures]
    shown = [key for key in _SHOWN if any(key in finding.figures for finding in timed)]
    if timed:
        yield from ("", f"| part | what | {' | '.join(shown)} |", f"| --- | --- |{' --- |' * len(shown)}")
    for finding in timed:
        cells = (_number(finding.figures.get(key)) for key in shown)
        yield f"| {finding.part} | {finding.name} | {' | '.join(cells)} |"


def _failures(rows: Sequence[Row]) -> Iterator[str]:
    failed = [finding for _, _, _, findings in rows for finding in findings if finding.passed is False]
    if failed:
        yield from ("", "Failed:", "")
    for finding in failed:
        yield f"- {finding.part}: {finding.name}: {_plain(finding.figures)}"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4g}"


def _plain(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in figures.items()).replace("\n", " ")
