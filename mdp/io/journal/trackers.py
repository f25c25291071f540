"""The records of a run for trackers of experiments, each an extra in a file of its own; a run that loses one goes on.

A tracked run is remembered in the run folder, so that a run that goes on goes on there, too.  What was told before it
was stopped is not told again: a run that goes on has the same numbers.
"""

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from mdp.io.errors import MdpError, RecipeError
from mdp.io.files.reading import printable
from mdp.io.files.strict_yaml import load_yaml
from mdp.io.files.writing import write_text
from mdp.io.journal.history import numbers

NAMES = ("wandb", "mlflow")  # the library, the extra, and the setting run.NAME
_FILE = "tracked.json"  # tracker -> what it calls the run
Sent = Mapping[str, int]  # kind of record -> the last step that was told of it


class Tracked(Protocol):
    """A run as a tracker has it; whatever its methods raise, the run goes on without it."""

    name: str  # by which the tracker finds it again
    place: str  # for people: where it is to be seen

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by their names, such as train/loss."""

    def picture(self, step: int, tag: str, path: Path) -> None:
        """A PNG file."""

    def close(self, exit_code: int) -> None:
        """Sends what is left, and says how the run ended."""


class Tracker(Protocol):
    """A file of this folder that knows a tracker."""

    def refusal(self) -> str:
        """Why it cannot be used as things are, with what to do; "" where it can."""

    def start(self, folder: Path, name: str | None, settings: Mapping[str, Any]) -> Tracked:
        """A new tracked run with these settings, or the one of that name again."""


def expect_tracker(name: str) -> None:
    """Raises RecipeError, naming the extra, unless the library is there and can be used."""
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise RecipeError(
            f"--{name}: the library cannot be imported ({printable(error)}); install the extra: "
            f"pip install 'mdp-segmentation[{name}]'"
        ) from error
    refusal = _tracker(name).refusal()
    if refusal:
        raise RecipeError(f"--{name}: {refusal}")


def _tracker(name: str) -> Tracker:
    found: Any = importlib.import_module(f"mdp.io.journal.{name}_run")
    module: Tracker = found
    return module


class Telling:
    """What tells one tracker of a run, until it fails, which is one line."""

    def __init__(self, name: str, folder: Path, sent: Sent, say: Callable[[str], None]) -> None:
        self.name, self.say = name, say
        self.run: Tracked | None = None
        known = _remembered(folder)
        self.sent = sent if name in known else {}
        self._try(lambda: self._start(folder, known))

    def _start(self, folder: Path, known: Mapping[str, str]) -> None:
        file = folder / "config.yaml"
        settings = load_yaml(file) if file.is_file() else {}
        self.run = _tracker(self.name).start(folder, known.get(self.name), settings)
        write_text(folder / _FILE, json.dumps({**known, self.name: self.run.name}) + "\n")
        self.say(f"{self.name}: {self.run.place}")

    def record(self, record: Mapping[str, Any]) -> None:
        """The finite numbers of a record of metrics.jsonl that was not told before."""
        run, kind, step = self.run, record["kind"], record["step"]
        if run is None or step <= self.sent.get(kind, 0):
            return
        values = {"/".join(name): value for name, value in numbers(record, (kind,)) if value is not None}
        self._try(lambda: run.record(step, values))

    def picture(self, step: int, tag: str, path: Path) -> None:
        """A PNG that was written."""
        run = self.run
        if run:
            self._try(lambda: run.picture(step, tag, path))

    def close(self, exit_code: int) -> None:
        """The last that is told."""
        run = self.run
        if run:
            self._try(lambda: run.close(exit_code))
        self.run = None

    def _try(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except MdpError:
            raise
        except Exception as error:  # a server that is gone, a full quota: nothing that training needs
            self.run = None
            words = printable(" ".join(str(error).split()))[:300]
            self.say(f"warning: {self.name}: {type(error).__name__}: {words}; the run goes on without it")


def _remembered(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
