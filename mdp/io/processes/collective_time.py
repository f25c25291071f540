"""How long this process is in collectives, which is to wait for the others and to send.

On CUDA it is the time that the device's stream stands still for a collective, between two events that are read once
they are past: nothing waits for them.  What DistributedDataParallel sends by itself, while the backward pass goes on,
is not seen here and counts as computing.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


class Collectives:
    """The seconds in collectives since they were last asked for."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.marks: list[tuple[Any, Any]] = []  # before and after, on the device

    @contextmanager
    def timed(self, device: torch.device) -> Iterator[None]:
        """Counts what is inside, a collective of tensors on that device."""
        if device.type == "cuda":
            before, after = _event(), _event()
            before.record()
            yield
            after.record()
            self.marks.append((before, after))
            return
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began

    def take(self) -> float:
        """The seconds since the last call; what a device has not come to yet counts next time."""
        while self.marks and self.marks[0][1].query():
            before, after = self.marks.pop(0)
            self.seconds += before.elapsed_time(after) / 1000
        taken, self.seconds = self.seconds, 0.0
        return taken
