"""Stopping cleanly: a signal asks for a checkpoint at the next step, a second Ctrl-C leaves at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stop:
    """Which signal, if any, has asked the run to stop."""

    def __init__(self) -> None:
        self.name = ""

    def __bool__(self) -> bool:
        return bool(self.name)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """While inside, SIGINT, SIGTERM and SIGUSR1 set the flag that is yielded; a second SIGINT interrupts."""
    stop = Stop()

    def ask(number: int, _: FrameType | None) -> None:
        if stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.name = signal.Signals(number).name

    before = {number: signal.signal(number, ask) for number in STOPPING}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
