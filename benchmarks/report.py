"""The table: lines of text for a terminal, one an entry, and Markdown, one row a case."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import peers
from benchmarks.figures import Figures, Measured, Verdict, judged, memory_ratio, time_of, time_ratio

_WIDTH = 72
_NAMES = {"ours": "mdp", "peer": "peer", "plain": "plain", "floor": "floor"}


def machine(threads: int) -> str:
    """The machine that it was measured on, in a line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    clock = "process CPU time" if threads == 1 else "wall time"
    cores = f"{os.cpu_count()} cores of {model or platform.machine()}"
    return f"CPU only, no GPU was used: {cores}, torch {torch.__version__}, threads: {threads}, {clock}"


def peers_line() -> str:
    """Every peer with its version, or that it is missing."""
    return "Peers: " + ", ".join(f"{name} {at or '(not installed)'}" for name, at in peers.installed().items())


def heading() -> str:
    """The columns of `text`."""
    return f"{'':{_WIDTH}}{'time':>11}{'x ours':>8}{'memory':>12}{'x ours':>8}"


def text(figures: Figures) -> str:
    """A case as lines: each entry, then each gate."""
    lines = [f"{figures.spot}: {figures.size}"]
    lines += [_line(entry, figures.entries[0]) for entry in figures.entries]
    if figures.failure:
        lines.append(f"  FAILED {figures.failure}")
    else:
        lines += [f"  gate   {sentence(verdict)}" for verdict in judged(figures)]
    return "\n".join(lines)


def _line(entry: Measured, ours: Measured) -> str:
    name = f"  {_NAMES[entry.kind]:<6} {entry.name}"
    if entry.missing:
        return f"{name}: {entry.missing}"
    ratios = [_ratio(ratio_of(entry, ours)) for ratio_of in (time_ratio, memory_ratio)]
    return f"{name:{_WIDTH}}{_time(time_of(entry)):>11}{ratios[0]:>8}{_memory(entry.memory):>12}{ratios[1]:>8}"


def sentence(verdict: Verdict) -> str:
    """A gate and what it came to."""
    gate = verdict.gate
    demand = (
        f"{gate.against} / {gate.of or 'ours'} >= {gate.at_least:g}"
        if gate.at_least is not None
        else f"{gate.of or 'ours'} / {gate.against} <= {gate.at_most:g}"
    )
    outcome = {None: "nothing to compare with", True: "met", False: "MISSED"}[verdict.met]
    return f"{gate.what} {demand}: " + (f"{verdict.ratio:.2f}, {outcome}" if verdict.ratio is not None else outcome)


def summary(all_figures: Sequence[Figures]) -> str:
    """How many gates are met, and which are not."""
    failed = [figures for figures in all_figures if figures.failure]
    verdicts = [(figures, verdict) for figures in all_figures if not figures.failure for verdict in judged(figures)]
    counts = {met: sum(verdict.met is met for _, verdict in verdicts) for met in (True, False, None)}
    lines = [f"gates: {counts[True]} met, {counts[False]} missed, {counts[None]} with nothing to compare with"]
    lines += [f"  missed  {f.spot}: {f.size}: {sentence(v)}" for f, v in verdicts if v.met is False]
    lines += [f"  FAILED  {f.spot}: {f.size}: {f.failure}" for f in failed]
    return "\n".join(lines)


def markdown(all_figures: Sequence[Figures]) -> str:
    """The table in Markdown: a row a case, cells with time (x ours) and memory (x ours)."""
    rows = ["| hot spot, size | ours | peers | plain | floor | gates |", "|---|---|---|---|---|---|"]
    return "\n".join(rows + [_row(figures) for figures in all_figures]) + "\n"


def _row(figures: Figures) -> str:
    if figures.failure:
        return f"| {figures.spot}: {figures.size} | failed: {figures.failure} | | | | |"
    ours, others = figures.entries[0], figures.entries[1:]
    cells = [f"{figures.spot}: {figures.size}", f"{_time(time_of(ours))}, {_memory(ours.memory)}"]
    cells += [
        "<br>".join(_cell(entry, ours, len(kinds) > 1) for entry in others if entry.kind in kinds)
        for kinds in (("ours", "peer"), ("plain",), ("floor",))
    ]
    cells.append("<br>".join(sentence(verdict) for verdict in judged(figures)))
    return f"| {' | '.join(cells)} |"


def _cell(entry: Measured, ours: Measured, named: bool) -> str:
    if entry.missing:
        return f"{entry.name}: {entry.missing}"
    figures = f"{_ratio(time_ratio(entry, ours))} ({_ratio(memory_ratio(entry, ours))})"
    return f"{entry.name} {figures}" if named else figures


def as_json(figures: Figures) -> dict[str, object]:
    """Everything that was measured, with the ratios and verdicts that the table shows."""
    ours = figures.entries[0] if figures.entries else None
    return {
        "spot": figures.spot,
        "size": figures.size,
        "failure": figures.failure,
        "entries": [
            {
                **vars(entry),
                "median_seconds": time_of(entry),
                "time_ratio": time_ratio(entry, ours) if ours else None,
                "memory_ratio": memory_ratio(entry, ours) if ours else None,
            }
            for entry in figures.entries
        ],
        "gates": [
            {**vars(verdict.gate), "ratio": verdict.ratio, "met": verdict.met}
            for verdict in ([] if figures.failure else judged(figures))
        ],
    }


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{1000 * seconds:.0f} ms"


def _memory(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:.1f} MiB"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
