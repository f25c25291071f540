"""What was asked of a CUDA device that is not there: waits, copies, launches, and operations with a catch."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import mdp

_PACKAGE = Path(mdp.__file__).parent
_OURS = (str(_PACKAGE) + "/", str(_PACKAGE.parent / "benchmarks") + "/")

WAIT = "wait"  # the host waits for the device: a number is read, a result's size depends on values, a copy back
COPY = "blocking copy"  # host to device, without non_blocking
NOT_DETERMINISTIC = "not deterministic"  # raises on CUDA under torch.use_deterministic_algorithms
ATOMIC = "atomic additions"  # in no fixed order unless deterministic algorithms are asked for
FLOAT64 = "float64"  # slow on most devices
UNEVEN = "uneven foreach"  # tensors of different kinds: a launch each


class Note(NamedTuple):
    """Something worth knowing about an operation."""

    kind: str
    phase: str
    operation: str
    line: str  # of mdp


class Report:
    """Notes and launches by phase; `with report.in_phase("step 2")` names what follows."""

    def __init__(self) -> None:
        self.notes: Counter[Note] = Counter()
        self.launches: Counter[tuple[str, str]] = Counter()  # (phase, operation)
        self.bytes_to_device: Counter[str] = Counter()  # by phase
        self.phase = "setting up"

    @contextmanager
    def in_phase(self, name: str) -> Iterator[None]:
        """Whatever is noted inside belongs to this phase."""
        before, self.phase = self.phase, name
        try:
            yield
        finally:
            self.phase = before

    def note(self, kind: str, operation: str) -> None:
        """Notes an operation, and the line of mdp that asked for it."""
        self.notes[Note(kind, self.phase, operation, line_of_ours())] += 1

    def launch(self, operation: str, count: int = 1) -> None:
        """Counts launches of kernels."""
        self.launches[self.phase, operation] += count

    def count(self, kind: str, phase: str) -> int:
        """How often something was noted in a phase."""
        return sum(number for note, number in self.notes.items() if (note.kind, note.phase) == (kind, phase))

    def launches_in(self, phase: str) -> int:
        """Kernels launched in a phase."""
        return sum(number for (name, _), number in self.launches.items() if name == phase)

    def lines(self, phase: str) -> Iterator[str]:
        """A phase in words."""
        yield f"{phase}: {self.launches_in(phase)} launches, {self.bytes_to_device[phase]} bytes to the device"
        for note, number in self.notes.items():
            if note.phase == phase:
                yield f"    {note.kind} x{number}: {note.operation} at {note.line}"


def line_of_ours() -> str:
    """The innermost line of mdp or of a benchmark that is being run; "" outside of them."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_OURS):
            return f"{Path(name).relative_to(_PACKAGE.parent)}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""
