"""The lines at the bottom of a terminal that are drawn over each other; the last message stands right above them.

The cursor is never hidden and stands below the lines, so that whatever ends the program leaves a clean terminal.
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

from mdp.io.journal.progress_text import Line, width_of

_UNWRAPPED, _WRAPPED = "\x1b[?7l", "\x1b[?7h"  # a line that turns out wider than was thought is cut, not wrapped
_REST_OF_LINE, _BELOW = "\x1b[K", "\x1b[J"
LINES = 7  # that stand at most, the cursor's among them


class Screen:
    """A block of lines, redrawn in place by one write: no flicker."""

    def __init__(self, stream: TextIO, color: bool) -> None:
        self.stream, self.color = stream, color
        self.lines: Sequence[Line] = ()  # that stand

    def size(self) -> tuple[int, int]:
        """Columns and rows, now."""
        try:
            columns, rows = os.get_terminal_size(self.stream.fileno())
        except (OSError, ValueError):
            columns, rows = shutil.get_terminal_size()
        return columns or 80, rows or 24  # one that does not know its size says 0

    def draw(self, lines: Sequence[Line]) -> None:
        """Puts these lines over those that stand."""
        self._write(self._back() + self._drawn(lines))
        self.lines = lines

    def say(self, text: str) -> None:
        """A line above the block, which scrolls away as any other."""
        self._write(f"{self._back()}{_BELOW}{text}\n{self._drawn(self.lines)}")

    def close(self) -> None:
        """Leaves the lines where they are; what is drawn later stands below."""
        if self.lines:
            self._write(f"{_WRAPPED}\x1b[0m" if self.color else _WRAPPED)
            self.lines = ()

    def _drawn(self, lines: Sequence[Line]) -> str:
        if not lines:
            return ""
        return _UNWRAPPED + "".join(f"{self._painted(line)}{_REST_OF_LINE}\n" for line in lines) + _BELOW + _WRAPPED

    def _painted(self, line: Line) -> str:
        return f"\x1b[{line.style}m{line.text}\x1b[0m" if self.color and line.style else line.text

    def _back(self) -> str:
        """To the first line that stands; a terminal that became narrower has wrapped some."""
        columns = max(1, self.size()[0])
        rows = sum(max(1, -(-width_of(line.text) // columns)) for line in self.lines)
        return f"\r\x1b[{rows}A" if rows else ""

    def _write(self, text: str) -> None:
        with suppress(OSError):  # training goes on when its terminal is gone
            self.stream.write(text)
            self.stream.flush()


class PlainScreen(Screen):
    """A terminal that obeys nothing but a carriage return: it has room for one line, redrawn."""

    def size(self) -> tuple[int, int]:
        return super().size()[0], 1

    def draw(self, lines: Sequence[Line]) -> None:
        (line,) = lines
        before = max((width_of(line.text) for line in self.lines), default=0)
        self._write("\r" + line.text + " " * (before - width_of(line.text)))
        self.lines = lines

    def say(self, text: str) -> None:
        self.close()
        self._write(text + "\n")

    def close(self) -> None:
        if self.lines:
            self._write("\n")
            self.lines = ()


def screen_on(stream: TextIO) -> Screen | None:
    """The screen of a stream that is a terminal, as the environment describes it; None for any other."""
    if not stream.isatty():
        return None
    kind = PlainScreen if os.environ.get("TERM", "dumb") in ("dumb", "") else Screen
    return kind(stream, color=not os.environ.get("NO_COLOR"))
