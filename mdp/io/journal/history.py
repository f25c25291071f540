"""The numbers of metrics.jsonl as curves over steps, also of a run that goes on or was killed within a line.

A step that was recorded twice counts as it was recorded last; what is not a finite number is counted and left out.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdp.io.errors import ResourceError
from mdp.io.files.reading import printable

Name = tuple[str, ...]  # ("train", "loss"), ("validate", "miou", "voc")

_LARGEST = 1e100  # beyond it arithmetic on axes fails
_LAST = 12  # records of training that are kept whole


class Curve(NamedTuple):
    """Numbers over steps."""

    steps: NDArray[np.float64]  # (N,), ascending
    values: NDArray[np.float64]  # (N,)
    missing: int = 0  # records whose value is no finite number


class History(NamedTuple):
    """All that a run recorded."""

    curves: Mapping[Name, Curve]
    last: tuple[Mapping[str, Any], ...]  # of training, oldest first
    damaged: int  # lines that are no record


def read_history(path: Path) -> History:
    """The history in a metrics.jsonl.  Raises ResourceError when it may not be read; a missing file is empty."""
    try:
        with path.open("rb") as file:
            return history(file)
    except FileNotFoundError:
        return History({}, (), 0)
    except OSError as error:
        raise ResourceError(f"{printable(path)}: cannot be read: {error.strerror}") from error


def history(rows: Iterable[bytes]) -> History:
    """The history that lines of JSON tell.

    >>> read = history([b'{"kind": "train", "step": 1, "loss": 2.5}', b'{"kind": "train", "st'])
    >>> read.curves["train", "loss"].values.tolist(), read.damaged
    ([2.5], 1)
    """
    points: dict[Name, dict[int, float | None]] = {}
    last: dict[int, Mapping[str, Any]] = {}
    damaged = 0
    for row in rows:
        record = _record(row)
        if record is None:
            damaged += bool(row.strip())
            continue
        step, kind = record["step"], record["kind"]
        for name, value in numbers(record, (kind,)):
            if name[1:] != ("epoch",):
                points.setdefault(name, {})[step] = value
        if kind == "train":
            last[step] = record
            if len(last) > 2 * _LAST:  # now and then: there are as many records as steps
                last = dict(sorted(last.items())[-_LAST:])
    kept = tuple(record for _, record in sorted(last.items())[-_LAST:])
    return History({name: _curve(values) for name, values in points.items()}, kept, damaged)


def _record(row: bytes) -> dict[str, Any] | None:
    """A line as a record; None for anything else, such as half a line."""
    try:
        record = json.loads(row)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    step = record.get("step")
    return record if type(step) is int and 0 <= step < 2**53 else None


def numbers(values: Mapping[str, Any], name: Name) -> Iterator[tuple[Name, float | None]]:
    """The numbers of a record but its step, also of the mappings in it; of a list how long it is."""
    for key, value in values.items():
        if isinstance(value, dict) and len(name) == 1:
            yield from numbers(value, (*name, key))
        elif isinstance(value, list):
            yield (*name, key), float(len(value))
        elif key != "step" and (value is None or type(value) in (int, float)):
            yield (*name, key), _finite(value)


def _finite(value: float | None) -> float | None:
    if value is None or not abs(value) <= _LARGEST:
        return None
    return float(value) if math.isfinite(value) else None


def _curve(points: Mapping[int, float | None]) -> Curve:
    known = sorted((step, value) for step, value in points.items() if value is not None)
    both = np.array(known, dtype=np.float64).reshape(-1, 2)  # (N, 2)
    return Curve(both[:, 0], both[:, 1], len(points) - len(known))
