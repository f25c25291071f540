"""Waiting for something without being quick: the limits are for what hangs, not for what is slow on a busy machine."""

import time
from collections.abc import Callable

LONG = 600.0  # seconds that only a hang takes, whatever else the machine does


def wait_until(happened: Callable[[], object], what: str) -> None:
    """Returns as soon as it has happened; fails, naming it, when it does not."""
    deadline = time.monotonic() + LONG
    while not happened():
        assert time.monotonic() < deadline, f"{what}: not in {LONG:.0f} seconds"
        time.sleep(0.02)
