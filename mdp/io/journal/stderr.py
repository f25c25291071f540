"""Lines on stderr for people: where they cannot be written, work goes on without them."""

import sys
from contextlib import suppress


def say(text: str, end: str = "\n") -> None:
    """One line; nothing where stderr is a file on a full disk, or is gone."""
    with suppress(OSError, ValueError):  # ValueError: it was closed
        print(text, end=end, file=sys.stderr, flush=True)
