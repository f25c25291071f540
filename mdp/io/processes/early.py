"""Signals from the first moment on: none is lost in an import, and each ends the process cleanly.  Imports no torch.

Python runs a signal's handler wherever the program happens to be.  An exception that is raised there within an import
is caught by a library that tries whether another one can be had, and is gone.  So within imports it waits, and where it
is caught nevertheless it comes again.
"""

import signal
from types import FrameType

from mdp.io.errors import Stopped
from mdp.io.processes.ending import signal_name

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # Slurm sends SIGUSR1 some time before a job's time is up
_SOON, _AGAIN = 0.05, 5.0  # seconds until a signal is looked at again: within an import, after it was answered

asked: list[str] = []  # the signals that came before a job took over


def take_signals() -> None:
    """From now on signals end the process by Stopped, SIGINT by KeyboardInterrupt; those that are ignored stay so."""
    for number in STOPPING:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _ask)
    signal.signal(signal.SIGALRM, _ask)


def heed() -> None:
    """Answers a signal that came within an import which is over."""
    if asked:
        _ask(signal.SIGALRM, None)


def _ask(number: int, frame: FrameType | None) -> None:
    if number != signal.SIGALRM:
        asked.append(signal_name(number))
    if asked and may_raise(frame):
        if asked[0] == "SIGINT":
            raise KeyboardInterrupt
        raise Stopped(f"stopped by {asked[0]}; run the same command again")


def may_raise(frame: FrameType | None) -> bool:
    """Whether an exception gets through from here.  SIGALRM asks again: soon if not, later in case it was caught."""
    inside = importing(frame)
    signal.setitimer(signal.ITIMER_REAL, _SOON if inside else _AGAIN)
    return not inside


def importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported."""
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False
