"""Stopping cleanly: a signal asks for a checkpoint at the next step, a second Ctrl-C leaves at once.

Before there is anything to lose, while data are opened and checked, a signal ends the run where it is.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mdp.io.errors import Preempted, Stopped
from mdp.io.processes.early import STOPPING, asked, may_raise
from mdp.io.processes.ending import end_with_launcher, signal_name
from mdp.io.processes.world import World


class Stop:
    """Whether the run was asked to stop, and by what."""

    def __init__(self) -> None:
        self.name = ""
        self.patient = False  # whether there is a next step to wait for
        self.launcher = os.getppid() if "LOCAL_RANK" in os.environ else None

    def __bool__(self) -> bool:
        # a launcher that was killed sends no signal; its children go to another parent
        if not self.name and self.launcher is not None and os.getppid() != self.launcher:
            self.name = "the end of its launcher"
        return bool(self.name)

    def agree(self, world: World) -> bool:
        """Whether any process was asked to stop; then all were."""
        if any(world.any_true(bool(self))) and not self.name:
            self.name = "a signal to another process"
        return bool(self.name)


@contextmanager
def stop_on_signals(before_what: str = "it was done") -> Iterator[Stop]:
    """While inside, SIGINT, SIGTERM and SIGUSR1 stop the run; a second SIGINT interrupts.

    While the stop that is yielded is not patient, they raise Stopped at once, which leaves as Preempted and says
    before what it was stopped.  In any but
    the main thread nothing stops it, as Python has it.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # of a Python program; signals go to its main one
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.name and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number != signal.SIGALRM:
            stop.name = stop.name or signal_name(number)
        if stop.name and not stop.patient and may_raise(frame):
            raise Stopped(_stopped(stop.name, before_what))

    before = {number: signal.signal(number, ask) for number in (*STOPPING, signal.SIGALRM)}
    try:
        end_with_launcher()
        if asked:  # within the last import
            raise Stopped(_stopped(asked[0], before_what))
        yield stop
    except Stopped as error:
        raise Preempted(str(error)) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _stopped(name: str, before_what: str) -> str:
    return f"stopped by {name} before {before_what}; run the same command again"
