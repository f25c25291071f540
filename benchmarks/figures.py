"""Figures of measurements: medians, ratios to ours, and whether a gate is met; functions of numbers only."""

from dataclasses import dataclass
from statistics import median

from benchmarks.measure import Gate, Kind

_LEAST = 2**17  # bytes: less is noise of the measurement, and no ratio


@dataclass(frozen=True)
class Measured:
    """An entry and its figures; it has no seconds where it is missing."""

    name: str
    kind: Kind
    seconds: tuple[float, ...] = ()  # of a call, by round
    memory: int | None = None  # bytes at the peak of a call
    error: float | None = None  # against the expected numbers
    missing: str = ""


@dataclass(frozen=True)
class Figures:
    """A case and its figures, ours first; `failure` says what went wrong, if something did."""

    spot: str
    size: str
    entries: tuple[Measured, ...] = ()
    gates: tuple[Gate, ...] = ()
    failure: str = ""


@dataclass(frozen=True)
class Verdict:
    """A gate, the ratio that was found and whether it is enough; None where there was nothing to compare with."""

    gate: Gate
    ratio: float | None
    met: bool | None


def time_of(entry: Measured) -> float | None:
    """The median over rounds, in seconds."""
    return median(entry.seconds) if entry.seconds else None


def time_ratio(entry: Measured, ours: Measured) -> float | None:
    """The median of the ratios round by round: a busy moment of the machine meets both."""
    if not entry.seconds or not ours.seconds:
        return None
    return median(theirs / own for theirs, own in zip(entry.seconds, ours.seconds, strict=True))


def memory_ratio(entry: Measured, ours: Measured) -> float | None:
    """Peak memory as a multiple of ours."""
    if entry.memory is None or ours.memory is None:
        return None
    return max(entry.memory, _LEAST) / max(ours.memory, _LEAST)


def judged(figures: Figures) -> list[Verdict]:
    """A verdict for each gate of a case.  Raises ValueError for a gate against an entry that does not exist."""
    return [_verdict(gate, figures) for gate in figures.gates]


def _verdict(gate: Gate, figures: Figures) -> Verdict:
    ours = next(entry for entry in figures.entries if not gate.of or entry.name == gate.of)
    ratio_of = time_ratio if gate.what == "time" else memory_ratio
    ratios = [ratio for entry in _opponents(gate, figures) if (ratio := ratio_of(entry, ours)) is not None]
    if not ratios:
        return Verdict(gate, None, None)
    theirs = min(ratios)
    if gate.at_least is not None:
        return Verdict(gate, theirs, theirs >= gate.at_least)
    return Verdict(gate, 1 / theirs, gate.at_most is not None and 1 / theirs <= gate.at_most)


def _opponents(gate: Gate, figures: Figures) -> list[Measured]:
    others = figures.entries[1:]
    kind = {"best peer": "peer", "plain": "plain", "floor": "floor"}.get(gate.against)
    chosen = [entry for entry in others if (entry.kind == kind if kind else entry.name == gate.against)]
    if not chosen:
        raise ValueError(f"{figures.spot}, {figures.size}: the gate against {gate.against!r} finds no such entry")
    return chosen
