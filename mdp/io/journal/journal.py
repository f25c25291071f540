"""The words of a run while it goes: lines on stderr and in log.txt, records in metrics.jsonl, results.csv, status.json.

On a terminal a few lines are redrawn in place; otherwise a plain line comes every so many seconds, as it does in
log.txt and, for the step, in status.json in any case.  With several processes the main one tells of its own time: what
it waits for others counts as communication.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mdp.io.errors import ResourceError
from mdp.io.files.writing import csv_text, write_text
from mdp.io.journal import stderr
from mdp.io.journal.progress import Facts, trained
from mdp.io.journal.progress_text import marks_for, sentence, view
from mdp.io.journal.results_csv import Results
from mdp.io.journal.tensorboard import Events, tag_of
from mdp.io.journal.terminal import LINES, Screen, screen_on
from mdp.io.journal.trackers import Telling

_REDRAWN = 0.2  # seconds between drawings on a terminal
_STATUS = 1.0  # seconds at least between the steps that status.json tells


class Journal:
    """The journal of one run folder; of several processes only the main one speaks and writes."""

    def __init__(
        self,
        folder: Path,
        steps: int,
        seconds: float,
        quiet: bool = False,
        main: bool = True,
        columns: Sequence[str] = (),
        tensorboard: bool = False,
        trackers: Sequence[str] = (),
    ) -> None:
        self.folder, self.steps, self.seconds, self.quiet, self.main = folder, steps, seconds, quiet or not main, main
        self.warns, self.tensorboard = not quiet, tensorboard and main
        self.screen = None if self.quiet else screen_on(sys.stderr)
        self.marks = marks_for(sys.stderr.encoding or "ascii")
        self.opened = self.started = self.drawn = self.logged = self.told = self.stepped = time.monotonic()
        self.step = 0  # steps done
        self.first_step: int | None = None
        self.facts = Facts(str(folder), steps)
        self.results = Results(columns)
        self.events: Events | None = None
        self.trackers, self.told_to = tuple(trackers) if main else (), list[Telling]()

    def begin(self, step: int = 0, validated: int = 0) -> None:
        """Goes on after a step and the validation of a step, from the start unless they are given.

        What was recorded of later ones is dropped: it is about to be recorded again.
        """
        self.step = step
        if not self.main:
            return
        if self.tensorboard:
            # a step whose validation is still to come is written anew, as a whole
            self.events = Events(self.folder / "tensorboard", step + 1 if validated == step else step)
        sent = last_steps(self.folder)
        self.told_to = [Telling(name, self.folder, sent, self.say) for name in self.trackers]
        rewind(self.folder, step, validated, self._again)
        self._write_results()
        if step:
            self.status("running")

    def say(self, text: str) -> None:
        """One line for people: stderr and log.txt."""
        if self.screen:
            self.screen.say(text)
        elif not self.quiet:
            stderr.say(text)
        self._log(text)

    def record(self, kind: str, step: int, **values: Any) -> None:
        """One record in metrics.jsonl, and in what is made of it; numbers that are not finite are written as null."""
        if not self.main:
            return
        record = {"kind": kind, "step": step, **finite(values)}
        self._append("metrics.jsonl", json.dumps(record))
        if self.events:
            self.events.record(record)
        for telling in self.told_to:
            telling.record(record)
        if self._noted(record):
            self._write_results()

    def picture(self, step: int, path: Path) -> None:
        """A PNG that was written into the run folder, for TensorBoard and other trackers."""
        if self.events:
            self.events.picture(step, tag_of(path, self.folder), path)
        for telling in self.told_to:
            telling.picture(step, tag_of(path, self.folder), path)

    def progress(self, step: int) -> None:
        """The running lines after `step` steps, of which the last is recorded."""
        now, self.step = time.monotonic(), step
        if self.first_step is None:
            self.first_step, self.started = step - 1, now
        last = step == self.steps
        draws = self.screen is not None and (last or now - self.drawn >= _REDRAWN)
        logs = self.main and (last or now - self.logged >= self.seconds)
        if not (draws or logs):
            return
        done = step - self.first_step
        left = (now - self.started) / done * (self.steps - step) if done > 1 else math.nan
        self.facts = self.facts._replace(elapsed=now - self.opened, left=left)
        if draws and self.screen:
            self.drawn = now
            self._draw(self.screen)
        if logs:
            self.logged = now
            self._tell_step(now, last)

    def _tell_step(self, now: float, last: bool) -> None:
        """How far the run is, for whoever is not at its terminal."""
        text = sentence(self.facts)
        if not (self.screen or self.quiet):
            stderr.say(text)
        self._log(text)
        if last or now - self.told >= _STATUS:
            self.told = now
            self.status("running")

    def status(self, state: str, message: str = "", exit_code: int | None = None) -> None:
        """status.json: running, done, preempted or failed, and why; launchers lose exit codes, files do not."""
        if not self.main:
            return
        status = {
            "state": state,
            "step": self.step,
            "steps": self.steps,
            "message": message,
            "exit_code": exit_code,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        try:
            if state != "running":
                self._close(1 if exit_code is None else exit_code)
        finally:  # launchers look here, whatever becomes of event files
            _write_status(self.folder / "status.json", json.dumps(status, indent=2) + "\n")

    def warn(self, text: str) -> None:
        """One line for people from any process."""
        if self.main:
            self.say(text)
        elif self.warns:
            room = "\n" * LINES if sys.stderr.isatty() else ""  # which the main process will draw over
            stderr.say(text + room)

    def _draw(self, screen: Screen) -> None:
        screen.draw(view(self.facts, *screen.size(), self.marks))

    def _close(self, exit_code: int) -> None:
        if self.screen:
            if self.screen.lines:
                self._draw(self.screen)  # the last validation came after the last step
            self.screen.close()
        if self.events:
            self.events.close()
            self.events = None
        for telling in self.told_to:
            telling.close(exit_code)
        self.told_to = []

    def _noted(self, record: Mapping[str, Any]) -> bool:
        """Takes a record into what is made of them; whether it has made a row."""
        now = time.monotonic()
        if record["kind"] == "train":
            self.facts, self.stepped = trained(self.facts, record, now - self.stepped), now
        elif record["kind"] == "validate":
            self.facts = self.facts._replace(validated=record)
        return self.results.note(record)

    def _again(self, record: Mapping[str, Any]) -> None:
        """A record of an earlier start of the run."""
        self._noted(record)
        if self.events and record["step"] >= self.events.first:
            self.events.record(record)
        for telling in self.told_to:
            telling.record(record)

    def _write_results(self) -> None:
        if not self.results.names:
            return
        write_text(self.folder / "results.csv", csv_text([self.results.names, *self.results.rows]))

    def _log(self, text: str) -> None:
        self._append("log.txt", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")

    def _append(self, name: str, line: str) -> None:
        if not self.main:
            return
        try:
            with (self.folder / name).open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(line + "\n")
        except OSError as error:
            raise ResourceError(f"{self.folder / name}: cannot be written: {error.strerror}") from error


def _write_status(path: Path, text: str) -> None:
    """Writes it whole or not at all; where the disk has no room for a second file, into the one that is there."""
    try:
        write_text(path, text)
    except ResourceError:
        if not _overwritten(path, text.encode()):
            raise


def _overwritten(path: Path, data: bytes) -> bool:
    """Whether a file that is there could be given other content in its place, which takes no room."""
    try:
        with path.open("r+b", buffering=0) as file:
            return file.write(data) == file.truncate()
    except OSError:
        return False


def last_steps(folder: Path) -> dict[str, int]:
    """The last step of each kind of record in metrics.jsonl."""
    steps: dict[str, int] = {}
    path = folder / "metrics.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            record = json.loads(line)
            steps[record["kind"]] = max(steps.get(record["kind"], 0), record["step"])
        except (ValueError, KeyError, TypeError):
            continue  # as below
    return steps


def rewind(folder: Path, step: int, validated: int, hear: Callable[[Mapping[str, Any]], None]) -> None:
    """Drops the records of metrics.jsonl after `step`, of validations after `validated`; `hear` is given the others."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
            if record["step"] <= (validated if record["kind"] == "validate" else step):
                kept.append(line + "\n")
                hear(record)
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
