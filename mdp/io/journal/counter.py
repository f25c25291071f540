"""A running count on stderr, and numbers in words."""

import sys

from mdp.io.journal.stderr import say


class Counter:
    """Images done, out of so many, on stderr: redrawn on a terminal, silent otherwise but for lines of `say`."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet, self.terminal = quiet, sys.stderr.isatty()
        self.line_open = False

    def say(self, text: str) -> None:
        """One line."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """One line, printed even when quiet."""
        if self.line_open:
            say("")
            self.line_open = False
        say(text)

    def tell(self, done: int, count: int) -> None:
        """The running count."""
        if self.terminal and not self.quiet:
            self.line_open = done < count
            say(f"\r{done}/{count} images", end="\n" if done == count else "")


def number_of(count: int, what: str) -> str:
    """A count in words: `1 photo`, `2 photos`."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")
