"""Disturbs whole runs at every file operation in turn: `python -m tests.stress.crashpoints_of_runs`.

The real command, `mdp pretrain` with validations and then `mdp finetune`, runs to its end in a child process, once for
each of its operations on files (open, write, fsync, replace, mkdir, ...), which kills it or fails.  An error must be
one line that names the file, with exit code 6.  Then, as after a crash, a later command takes the run: it must refuse
it, or warn, or get the final weights.  Then the run goes on by --resume, and everything that a later command would read
must be that of a run that was never disturbed: checkpoints bit for bit, metrics, results, pictures, status, report.
"""

import argparse
import csv
import importlib
import json
import os
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mdp import cli
from mdp.io.files.writing import make
from mdp.io.run.checkpoint import load
from mdp.io.run.checkpoints import checkpoints_in
from tests.preloaded import BEFORE
from tests.stress.disturbed import KILLED, Event, Hook, failing, watched
from tests.trees import grey, labels_array, lines, photo

FAULTS = ("killed before", "killed half-way", "ENOSPC", "ENOSPC for good", "EIO")
SETTINGS = (
    "model.width=8", "model.channels=8", "model.dilations=[1,2]", "model.output_stride=16", "method.embedding=8",
    "method.hidden=8", "pretrain.crop=32", "pretrain.validate_epochs=1", "pretrain.validate_images=2",
    "pretrain.batch_size=4", "finetune.crop=[32,32]", "finetune.batch_size=4", "finetune.validate_steps=2",
    "run.threads=1", "run.workers=0", "run.checkpoint_minutes=0.0001", "run.keep_steps=2", "run.check=false",
)  # fmt: skip
CLOCK = ("images_per_second", "data_wait", "communication", "time")  # what depends on the time, not on what is learnt


class Done(NamedTuple):
    """How a command ended."""

    code: int
    err: str


def words(command: str) -> list[str]:
    """The words of a command, with the settings that make it small."""
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return [*command.split(), *settings]


COMMANDS = {
    "pretrain": "pretrain --datasets ../one/one.yaml,../two/two.yaml --backbone resnet18 --steps 3 --out run --resume",
    "finetune": "finetune --target ../two/two.yaml --init ../reference-pretrain/run --steps 3 --out run --resume",
}
LATER = "finetune --target ../two/two.yaml --init run --steps 1 --out later --set finetune.validate_steps=0"


def dataset(folder: Path) -> None:
    """Six photos of 32 x 32 with three classes, two of them to validate on."""
    for number in range(6):
        split = "val" if number > 3 else "train"
        photo(folder / split / f"{number}.png", number, (32, 32))
        grey(folder / f"{split}-labels" / f"{number}.png", labels_array([0, 1, 2], number, (32, 32)))
    splits = [f"  {split}: {{images: {split}, labels: {split}-labels}}" for split in ("train", "val")]
    lines(folder / f"{folder.name}.yaml", ["classes: {0: floor, 1: wall, 2: door}", "splits:", *splits])


def command(place: Path, line: str, hook: Hook | None = None) -> Done:
    """Runs `mdp LINE` in a folder, in a forked process."""
    process = os.fork()
    if process == 0:
        _become(place, line, hook)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return Done(code, (place / "err.txt").read_text())


def _become(place: Path, line: str, hook: Hook | None) -> None:
    code = 1
    try:
        os.chdir(place)
        for variable in ("XDG_CACHE_HOME", "TMPDIR"):
            os.environ[variable] = str(make(place / variable.lower()))
        tempfile.tempdir = None
        for number, name in ((1, "out.txt"), (2, "err.txt")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
        sys.argv = ["mdp", *words(line)]
        with watched(hook) if hook else watched(lambda number, event, do_it, arguments: do_it()):
            cli.main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def operations(place: Path, line: str) -> tuple[Done, list[Event]]:
    """Runs a command undisturbed, and gives its operations on files."""
    trace = place / "operations.jsonl"
    file = os.open(place / "operations.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    real = os.write

    def hook(number: int, event: Event, do_it: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        real(file, (json.dumps(event) + "\n").encode())
        return do_it()

    done = command(place, line, hook)
    os.close(file)
    return done, [Event(*json.loads(text)) for text in trace.read_text().splitlines()]


# All that a later command would read


def content(run: Path) -> dict[str, Any]:
    """What is in a run folder, without what depends on the clock and on when checkpoints were due."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.is_dir() or path.name in (".lock", "log.txt", "previous.safetensors", "env.json", "report.html"):
            continue  # the report's words are of the clock; it is looked for below
        if path.suffix == ".safetensors":
            checkpoint = load(path)
            found[name] = {**{key: value.tolist() for key, value in checkpoint.tensors.items()}, "": checkpoint.about}
        elif path.suffix == ".jsonl":
            found[name] = [_timeless(json.loads(row)) for row in path.read_text().splitlines()]
        elif path.suffix == ".csv":
            found[name] = [_timeless(row) for row in csv.DictReader(path.read_text().splitlines())]
        elif path.name == "status.json":
            found[name] = _timeless(json.loads(path.read_text()))
        else:
            found[name] = path.read_bytes()
    found["report"] = (run / "report.html").is_file()
    for path in checkpoints_in(run):
        load(path)  # whole, the previous one too
    return found


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in CLOCK}


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The names of what differs."""
    names = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
    return [f"{name} differs" if name in found and name in expected else f"{name}: missing or odd" for name in names]


class Reference(NamedTuple):
    """What came of a run that was not disturbed, and of a later one that started from it."""

    run: dict[str, Any]
    later: dict[str, Any]
    events: list[Event]


def reference(base: Path, kind: str) -> Reference:
    """Runs the command of a kind to its end, and the later one."""
    place = base / f"reference-{kind}"
    shutil.rmtree(place, ignore_errors=True)
    make(place)
    done, events = operations(place, COMMANDS[kind])
    later = command(place, LATER)
    if done.code or later.code:
        raise RuntimeError(f"{done.err}{later.err}")
    return Reference(content(place / "run"), content(place / "later"), events)


def later_problems(place: Path, expected: Reference) -> list[str]:
    """What is wrong with a command that takes the weights of a run that was disturbed."""
    done = command(place, LATER)
    if done.code in (2, 5):
        return [] if _one_line(done.err) else [f"later: {done.err}"]
    if done.code:
        return [f"later: exit code {done.code}: {done.err}"]
    weights = "checkpoints/last.safetensors"
    same = content(place / "later")[weights] == expected.later[weights]
    return [] if same or "warning: run: this run is not finished" in done.err else ["later: other weights, not a word"]


def _one_line(err: str) -> bool:
    return "Traceback" not in err and len(re.findall(r"^error: ", err, re.MULTILINE)) == 1


def attempt(base: Path, kind: str, fault: str, point: int, expected: Reference) -> list[str]:
    """What is wrong after one disturbed run."""
    events = expected.events[point - 1 :]
    with tempfile.TemporaryDirectory(dir=base) as home:
        place = Path(home)
        done = command(place, COMMANDS[kind], failing(point, fault))
        problems = [] if fault.startswith("killed") else _error_problems(place / "run", done, events)
        if fault.startswith("killed") and done.code != KILLED:
            problems.append(f"exit code {done.code} instead of a kill")
        if (place / "run" / "checkpoints").is_dir() and done.code == KILLED:
            problems += later_problems(place, expected)
        again = command(place, COMMANDS[kind])
        if again.code:
            return [*problems, f"--resume: exit code {again.code}: {again.err}"]
        problems += differences(content(place / "run"), expected.run)
        left = [str(path) for path in place.rglob("*.tmp")] + [str(path) for path in (place / "tmpdir").iterdir()]
        if left and (fault.startswith("killed") is False or any("run/" in path for path in left)):
            problems.append(f"left behind: {left}")
    return problems


def _error_problems(run: Path, done: Done, events: Sequence[Event]) -> list[str]:
    """What is wrong with how a command ended in which the first of these operations failed, or all from there on."""
    if done.code == 0:  # what is only told or drawn may be missing
        return []
    if done.code != 6 or not _one_line(done.err):
        return [f"exit code {done.code}: {done.err[-2000:]}"]
    error = next(line for line in done.err.splitlines() if line.startswith("error: "))
    # what is only told, such as who holds the lock, may fail without a word, but not what comes next
    names = {re.sub(r"^\.(.*)\.\d+\.tmp.*", r"\1", event.target) for event in events[:20]}
    problems = [] if any(name in error for name in names) else [f"names another file: {error}"]
    status = run / "status.json"
    state = json.loads(status.read_text()).get("state") if status.is_file() else "none"
    if state not in ("failed", "none", "starting"):
        problems.append(f"status.json says {state}")
    return problems


def row(base: Path, kind: str, fault: str, expected: Reference, points: Sequence[int]) -> list[str]:
    """The problems of one way to fail at these operations; prints how many."""
    problems = []
    for point in points:
        event = expected.events[point - 1]
        for problem in attempt(base, kind, fault, point, expected):
            problems.append(f"{kind}, {fault}, operation {point} ({event.name} {event.target}): {problem}")
            print(problems[-1], flush=True)
    print(f"{kind:10} {fault:20} {len(points):4} points {len(problems):3} problems", flush=True)
    return problems


def all_points(events: Sequence[Event], fault: str) -> list[int]:
    """The operations, of writes to one file in a row the first, one in the middle and the last."""
    points: list[int] = []
    for event, row in groupby(range(1, len(events) + 1), lambda number: events[number - 1]):
        same = list(row)
        if event.name == "write" or fault != "killed half-way":
            points += sorted({same[0], same[len(same) // 2], same[-1]})
    return points


def last_points(events: Sequence[Event]) -> list[int]:
    """The operations that put a file into its place, from the checkpoint after the last validation on."""
    places = [number for number, event in enumerate(events, 1) if event.name == "replace"]
    best = max(number for number in places if events[number - 1].target.endswith("best.safetensors"))
    return [number for number in places if number >= best]


def main(arguments: list[str]) -> int:
    """Prints the table; the exit code is 1 when anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--short", action="store_true", help="kills at the end of a pretraining run: a few seconds")
    parser.add_argument("--every", type=int, default=1, help="only every so many operations")
    parser.add_argument("--kinds", default=",".join(COMMANDS), help="which, by comma")
    parser.add_argument("--faults", default=",".join(FAULTS), help="which, by comma")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name in BEFORE:
        importlib.import_module(name)  # once, before the forks
    problems, count = [], 0
    with tempfile.TemporaryDirectory() as home:
        base = Path(home)
        for name in ("one", "two"):
            dataset(base / name)
        reference(base, "pretrain")  # which fine-tuning starts from
        for kind in ("pretrain",) if asked.short else asked.kinds.split(","):
            expected = reference(base, kind)
            for fault in ["killed before"] if asked.short else asked.faults.split(","):
                points = last_points(expected.events) if asked.short else all_points(expected.events, fault)
                points = points[:: asked.every]
                problems += row(base, kind, fault, expected, points)
                count += len(points)
    print(f"{count} points, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
