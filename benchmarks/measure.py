"""Measuring entries that do the same work, in turn, by the clock and by the memory that they take.

A spot is a module of this folder with `cases()`, a function for each label that makes a `Case`, the smallest one
first.  Inputs are made when the case is made; an entry's `run` is one call of the hot spot.
"""

import ctypes
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

Kind = Literal["ours", "peer", "plain", "floor"]
Run = Callable[[], object]
Clock = Callable[[], float]

TOLERANCE = 1e-5  # of the largest number; integers have to be equal
_ENOUGH = 0.02  # seconds: shorter calls are timed several at a time
_SELF = Path("/proc/self")


@dataclass(frozen=True)
class Entry:
    """One way to do the work; without `run` where the library that it needs is not there, and `missing` says so."""

    name: str
    kind: Kind
    run: Run | None
    exact: bool = True  # whether it gives the case's `expected`; a floor never does
    missing: str = ""


@dataclass(frozen=True)
class Gate:
    """A demand on a ratio: another entry's time or memory to ours, or with `at_most` ours to it.

    `against` is the name of an entry, or "best peer", "plain" or "floor" (of several the cheapest).
    """

    against: str
    at_least: float | None = None  # theirs / ours
    at_most: float | None = None  # ours / theirs
    what: Literal["time", "memory"] = "time"
    of: str = ""  # the entry that is judged in place of ours

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"a gate against {self.against}: expected at_least or at_most, one of them")


@dataclass(frozen=True)
class Case:
    """A hot spot at one size; the first entry is ours.

    `expected` are the right numbers, where they are compared: what each exact entry's first call returns, as tensors
    in nested tuples.
    """

    spot: str
    size: str
    entries: tuple[Entry, ...]
    gates: tuple[Gate, ...] = ()
    expected: Callable[[], Sequence[Tensor]] | None = None


def error_of(result: object, expected: Sequence[Tensor]) -> float:
    """The largest difference, as a share of the largest expected number of its tensor.

    Raises ValueError when shapes differ, or when integers do.
    """
    found = list(_tensors(result))
    if [item.shape for item in found] != [item.shape for item in expected]:
        raise ValueError(f"shapes {[tuple(t.shape) for t in found]}, not {[tuple(t.shape) for t in expected]}")
    errors = [_error(one, other) for one, other in zip(found, expected, strict=True)]
    return max(errors, default=0.0)


def _error(found: Tensor, expected: Tensor) -> float:
    if not expected.is_floating_point():
        wrong = int((found.long() != expected.long()).sum())
        if wrong:
            raise ValueError(f"{wrong} of {expected.numel()} integers differ")
        return 0.0
    exact = expected.double()
    difference = (found.detach().double() - exact).abs()
    return float(difference.max() / exact.abs().max().clamp(min=1e-30)) if exact.numel() else 0.0


def _tensors(result: object) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, tuple | list):
        for item in result:
            yield from _tensors(item)


def time_in_turn(runs: Sequence[Run], rounds: int, clock: Clock) -> list[list[float]]:
    """Seconds a call, by run and round: A B C, then C B A, so that a drift of the machine meets all alike."""
    calls = [_calls(run, clock) for run in runs]
    seconds: list[list[float]] = [[] for _ in runs]
    for number in range(rounds):
        order = list(range(len(runs)))
        for i in order if number % 2 == 0 else reversed(order):
            began = clock()
            for _ in range(calls[i]):
                runs[i]()
            seconds[i].append((clock() - began) / calls[i])
    return seconds


def _calls(run: Run, clock: Clock) -> int:
    """How many calls are timed together, after one to warm up."""
    run()
    began = clock()
    run()
    return max(1, min(50, round(_ENOUGH / max(clock() - began, 1e-9))))


def peak_memory(run: Run) -> int | None:
    """Bytes that a call takes at its peak beyond what was there before, its result included; None but on Linux.

    What libraries keep from their first call is not counted, so there is one before.
    """
    if sys.platform != "linux" or not _reset_peak():
        return None
    run()
    gc.collect()
    _give_back()
    before = _status("VmRSS")
    _reset_peak()
    kept = run()
    peak = _status("VmHWM")
    del kept
    return max(0, peak - before)


def _reset_peak() -> bool:
    try:
        (_SELF / "clear_refs").write_text("5")
    except OSError:
        return False  # no such file, or no permission
    return True


def _give_back() -> None:
    """Freed memory that the C library still holds would hide what the next call takes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and keeps little
    if trim is not None:
        trim(0)


def _status(name: str) -> int:
    lines = (_SELF / "status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
