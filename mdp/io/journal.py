"""What a run tells while it goes: lines on stderr and in log.txt, records in metrics.jsonl, status.json.

On a terminal one line is redrawn in place; otherwise a plain line comes every so many seconds.
"""

import json
import math
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdp.io.errors import ResourceError
from mdp.io.runs import write_text


class Journal:
    """The journal of one run folder; of several processes only the main one speaks and writes."""

    def __init__(self, folder: Path, steps: int, seconds: float, quiet: bool = False, main: bool = True) -> None:
        self.folder, self.steps, self.seconds, self.quiet, self.main = folder, steps, seconds, quiet or not main, main
        self.warns = not quiet
        self.terminal = sys.stderr.isatty()
        self.started = self.shown = time.monotonic()
        self.step = 0  # steps done
        self.first_step: int | None = None
        self.line_open = False

    def say(self, text: str) -> None:
        """One line for people: stderr and log.txt."""
        if not self.quiet:
            self._clear()
            print(text, file=sys.stderr, flush=True)
        self._append("log.txt", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")

    def record(self, kind: str, step: int, **values: Any) -> None:
        """One record in metrics.jsonl; numbers that are not finite are written as null."""
        self._append("metrics.jsonl", json.dumps({"kind": kind, "step": step, **finite(values)}))

    def progress(self, step: int, loss: float, lr: float, images_per_second: float, waiting: float) -> None:
        """The running line after `step` steps; `waiting` is the share of time spent waiting for data."""
        now, self.step = time.monotonic(), step
        if self.first_step is None:
            self.first_step, self.started = step - 1, now
        last = step == self.steps
        if self.quiet or not (last or now - self.shown >= (0.2 if self.terminal else self.seconds)):
            return
        self.shown = now
        done = step - self.first_step
        left = (now - self.started) / done * (self.steps - step) if done > 1 else math.nan
        text = (
            f"step {step}/{self.steps}  loss {loss:.4f}  lr {lr:.2g}  {images_per_second:.1f} img/s  "
            f"data wait {waiting:.0%}  {_duration(left)} left"
        )
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{text[:width]:<{width}}", end="", file=sys.stderr, flush=True)
            self.line_open = True
        else:
            print(text, file=sys.stderr, flush=True)

    def status(self, state: str, message: str = "", exit_code: int | None = None) -> None:
        """status.json: running, done, preempted or failed, and why; launchers lose exit codes, files do not."""
        if not self.main:
            return
        self._clear()
        status = {
            "state": state,
            "step": self.step,
            "steps": self.steps,
            "message": message,
            "exit_code": exit_code,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        write_text(self.folder / "status.json", json.dumps(status, indent=2) + "\n")

    def _clear(self) -> None:
        if self.line_open:
            print(file=sys.stderr, flush=True)
            self.line_open = False

    def warn(self, text: str) -> None:
        """One line for people from any process."""
        if self.main:
            self.say(text)
        elif self.warns:
            print(text, file=sys.stderr, flush=True)

    def _append(self, name: str, line: str) -> None:
        if not self.main:
            return
        try:
            with (self.folder / name).open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(line + "\n")
        except OSError as error:
            raise ResourceError(f"{self.folder / name}: cannot be written: {error.strerror}") from error


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
        """One line, said even when quiet."""
        if self.line_open:
            print(file=sys.stderr)
            self.line_open = False
        print(text, file=sys.stderr, flush=True)

    def tell(self, done: int, count: int) -> None:
        """The running count."""
        if self.terminal and not self.quiet:
            self.line_open = done < count
            print(f"\r{done}/{count} images", end="\n" if done == count else "", file=sys.stderr, flush=True)


def rewind(folder: Path, step: int) -> None:
    """Drops the records of metrics.jsonl after `step`, which a resumed run is about to write again."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue  # the last line of a killed run may be cut short
    write_text(path, "".join(kept))


def finite(value: Any) -> Any:
    """The value with numbers that are not finite as None, at any depth: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def number_of(count: int, what: str) -> str:
    """A count in words: `1 photo`, `2 photos`."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"
