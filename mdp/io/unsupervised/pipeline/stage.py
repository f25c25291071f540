"""A stage: a folder and in it `stage.json`, which says what went in, where it stands, how long it took, what came out.

A stage that is done is not done again, one that was stopped goes on, and what was made of other things is not added to.
All else in the folder is a function of what went in, so that a stage that was stopped ends with the same bytes.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mdp
from mdp.io.data.pool import Pool
from mdp.io.datasets._dataset import Sample
from mdp.io.errors import Preempted, RecipeError
from mdp.io.files.reading import printable, read_bytes, stamp
from mdp.io.files.writing import make, write_text
from mdp.io.journal.counter import Counter
from mdp.io.processes.signals import Stop
from mdp.io.processes.world import ALONE, World
from mdp.io.recipe.layers import changed_keys
from mdp.io.run.checkpoints import remove_leftovers
from mdp.io.run.lock import NAME as LOCK
from mdp.io.run.lock import locked

FILE = "stage.json"
_EVERY = 5.0  # seconds between notes of how far it is


class Stage:
    """A stage that this process is at work on, or finds done; of several processes the main one writes its record."""

    def __init__(self, folder: Path, record: dict[str, Any], stop: Stop, world: World = ALONE) -> None:
        self.folder, self.record, self.stop, self.world = folder, record, stop, world
        self._before, self._began = float(record["seconds"]), time.monotonic()
        self._noted = self._began

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return bool(self.record["state"] == "done")

    @property
    def position(self) -> int:
        """How far it had come, in whatever it counts."""
        return int(self.record["position"])

    @property
    def due(self) -> bool:
        """Whether it is time to note how far it is; all processes ask alike often."""
        late = self.world.main and time.monotonic() - self._noted > _EVERY
        return any(self.world.any_true(bool(self.stop) or late))

    def note(self, position: int) -> None:
        """Keeps how far it is, once what belongs to it is on the disk.

        Raises Preempted when a signal has come.
        """
        self._write(position=position)
        self._noted = time.monotonic()
        self.expect_no_stop()

    def expect_no_stop(self) -> None:
        """Raises Preempted when a signal has come: what was noted is kept."""
        if self.stop.agree(self.world):
            raise Preempted(f"stopped by {self.stop.name} in {self.folder}; the same command goes on from there")

    def finish(self, outputs: Sequence[str], facts: Mapping[str, Any] | None = None) -> None:
        """All is on the disk: keeps what came out, and what is to be told of it; the others wait for that."""

        def keep() -> str:
            digests = {name: digest_of_file(self.folder / name) for name in outputs}
            self._write(state="done", position=0, outputs=digests, facts=dict(facts or {}))
            return ""

        self.world.broadcast_main(keep)

    def _write(self, **changed: Any) -> None:
        if not self.world.main:
            return
        seconds = round(self._before + time.monotonic() - self._began, 1)
        self.record.update(changed, seconds=seconds)
        write_text(self.folder / FILE, json.dumps(self.record, indent=1) + "\n")


@contextmanager
def stage(
    folder: Path,
    kind: str,
    inputs: Mapping[str, str],
    settings: Mapping[str, Any],
    stop: Stop,
    progress: Counter,
    overwrite: bool = False,
    world: World = ALONE,
) -> Iterator[Stage]:
    """The stage in a folder, which is this process's alone meanwhile: begun, gone on with, or done already.

    `inputs` are SHA-256 by names.  Raises RecipeError, in one line, where the folder was made of others or with other
    settings, or holds something else; with `overwrite` it is begun anew.  Of several processes the main one opens it,
    and all have to ask for the same.
    """
    asked: dict[str, Any] = {"stage": kind, "inputs": dict(inputs), "settings": json.loads(json.dumps(settings))}
    world.require_equal(**{f"what goes into {folder}": json.dumps(asked)})
    if not world.main:
        yield Stage(folder, json.loads(world.broadcast_main(str)), stop, world)
        return
    with locked(make(folder)):
        begun = _begun(folder, asked, stop, progress, overwrite)
        begun.world = world
        world.broadcast_main(lambda: json.dumps(begun.record))
        yield begun


def _begun(folder: Path, asked: dict[str, Any], stop: Stop, progress: Counter, overwrite: bool) -> Stage:
    """The stage in a folder that is locked."""
    if overwrite and is_file_of(folder):
        _empty(folder)
    before = _record_of(folder)
    if before is None:
        _expect_empty(folder)
        record = {"mdp": mdp.__version__, **asked, "state": "unfinished", "position": 0, "seconds": 0.0}
    else:
        _expect_same(folder, before, asked)
        record = before
        if record["state"] != "done":
            remove_leftovers(folder)
    begun = Stage(folder, record, stop)
    if begun.done and not all((folder / name).is_file() for name in record["outputs"]):
        progress.say(f"{folder}: files of it are gone; it is done again")
        record.update(state="unfinished", position=0)
    if begun.done:
        progress.say(f"{folder}: done already ({record['seconds']:.0f} s)")
    else:
        if begun.position:
            progress.say(f"{folder}: going on from {begun.position:,}")
        begun._write()
    return begun


def is_file_of(folder: Path) -> bool:
    """Whether a folder is a stage's."""
    return (folder / FILE).is_file()


def read_stage(folder: Path, command: str) -> dict[str, Any]:
    """The record of a stage that is done; `command` does it.  Raises RecipeError where there is none."""
    record = _record_of(folder)
    if record is None or record["state"] != "done":
        what = "is not done yet" if record else "is not there"
        raise RecipeError(f"{printable(folder)}: this stage {what}; run `{command}` first")
    return record


def _record_of(folder: Path) -> dict[str, Any] | None:
    """What stage.json says.  Raises RecipeError where it is none."""
    if not is_file_of(folder):
        return None
    try:
        record = json.loads(read_bytes(str(folder / FILE), "stage"))
        if {"stage", "inputs", "settings", "state", "position", "seconds"} <= record.keys():
            return dict(record)
    except (ValueError, AttributeError, RecursionError):
        pass
    raise RecipeError(
        f"{printable(folder / FILE)}: not the record of a stage; remove the folder, or give another --out"
    )


def _expect_same(folder: Path, before: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raises RecipeError for a stage that was made of something else."""
    changed = [*changed_keys(before, asked), *changed_keys(asked, {key: before[key] for key in asked})]
    if not changed:
        return
    key = changed[0]
    was, now = (_at(record, key) for record in (before, asked))
    raise RecipeError(
        f"{printable(folder)}: made with {key} {_short(was)}, and {_short(now)} is asked for; give another --out, or "
        "--overwrite to do it again"
    )


def _at(record: Any, key: str) -> Any:
    """What a record has at a full key; parts of it may have points."""
    if not isinstance(record, Mapping):
        return record
    name = next((name for name in record if key == name or key.startswith(f"{name}.")), None)
    return None if name is None else _at(record[name], key.removeprefix(name).removeprefix("."))


def _short(value: Any) -> str:
    words = str(value)
    return words if len(words) <= 40 else f"{words[:12]}..."


def _expect_empty(folder: Path) -> None:
    others = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    if others:
        raise RecipeError(
            f"{printable(folder)}: holds something else, such as {printable(others[0].name)}; give another --out"
        )


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


# What goes in


def digest_of_file(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_photos(pool: Pool) -> str:
    """A SHA-256 of the photos of a pool: their paths below the folder of all of them, and their sizes."""
    return _digest_of([(sample.image, stamp(sample.image).size) for sample in pool.samples])


def digest_of_labels(samples: Sequence[Sample]) -> str:
    """The same of label maps."""
    return _digest_of([(sample.labels, stamp(sample.labels).size) for sample in samples])


def _digest_of(files: Sequence[tuple[str, int]]) -> str:
    common = os.path.commonpath([os.path.abspath(os.path.dirname(name)) for name, _ in files])
    lines = [f"{os.path.relpath(name, common)} {size}\n" for name, size in files]
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
