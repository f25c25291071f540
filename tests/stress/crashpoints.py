"""Disturbs a save at every file operation in turn and looks at what is left: `python -m tests.stress.crashpoints`.

A child process saves a checkpoint while its 1st, 2nd, 3rd ... operation (open, write, fsync, replace, unlink) kills it
or fails, until one save gets through.  After each, a whole checkpoint with the right bits must be found, an error must
be a ResourceError that names the file, nothing but dot-files may lie about, and the next save must succeed.
Killing a process never loses what the system has in memory, so the order of the operations is checked from a trace.
"""

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mdp.io.errors import CheckpointError, ResourceError
from mdp.io.run.checkpoint import save
from mdp.io.run.checkpoints import newest_whole, remove_leftovers
from tests.stress.disturbed import KILLED, Event, Hook, failing, watched

KILLS = ("killed before", "killed after", "killed half-way")
ERRORS = ("ENOSPC", "EIO", "EACCES", "EDQUOT")
SCENES = ("first save", "over the old one", "keeping the old one")
ERROR, BUG = 6, 1


class Row(NamedTuple):
    """What was seen of one way to fail in one scene."""

    scene: str
    fault: str
    points: int
    problems: list[str]


def tensors_of(step: int) -> dict[str, Tensor]:
    """What the checkpoint of that step holds."""
    rng = torch.Generator().manual_seed(step)
    return {"query.a": torch.randn(40, 25, generator=rng), "state.b": torch.full((3,), step), "c": torch.zeros(0)}


def save_step(folder: Path, step: int, scene: str) -> None:
    """Saves the checkpoint of that step as runs do."""
    home = folder / "checkpoints"
    previous = home / "previous.safetensors" if scene == "keeping the old one" else None
    save(home / "last.safetensors", tensors_of(step), {"kind": "pretrain", "step": step, "recipe": {}}, previous)


# Failing at will


def killed_at_byte(place: int) -> Hook:
    """A hook that ends the process when so many bytes are written."""
    left = place

    def hook(_: int, event: Event, do_it: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        nonlocal left
        if event.name == "write":
            if left < len(arguments[1]):
                os.pwrite(arguments[0], bytes(arguments[1][:left]), place - left)
                os._exit(KILLED)
            left -= len(arguments[1])
        return do_it()

    return hook


def child(folder: Path, scene: str, hook: Hook) -> int:
    """Saves step 2 in a forked process and returns its exit code: 0, KILLED, ERROR, or BUG after a traceback."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    code = BUG
    try:
        with watched(hook):
            save_step(folder, 2, scene)
        code = 0
    except ResourceError as error:
        code = ERROR if str(folder / "checkpoints" / "last.safetensors") in str(error) else BUG
    except BaseException:
        traceback.print_exc()
    os._exit(code)


# Looking at what is left


def problems_after(folder: Path, scene: str, fault: str, code: int) -> list[str]:
    """What is wrong with a run folder in which saving step 2 ended with that exit code."""
    if code == BUG:
        return ["an error of another kind, or one that does not name the file"]
    problems = []
    try:
        _, found, _ = newest_whole(folder)
        step = found.about["step"]
        if step not in ((2,) if code == 0 else (1, 2)):
            problems.append(f"step {step} is found")
        if any(not torch.equal(found.tensors[name], tensor) for name, tensor in tensors_of(step).items()):
            problems.append("other bits")
    except CheckpointError as error:
        if scene != "first save" or code == 0:
            problems.append(str(error))
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    dots = {name for name in names if name.startswith(".")}
    if dots and code != KILLED and not fault.endswith("for good"):
        problems.append(f"left behind: {dots}")
    if names - dots - {"last.safetensors", "previous.safetensors"}:
        problems.append(f"odd files: {names}")
    remove_leftovers(folder)
    save_step(folder, 3, scene)
    if newest_whole(folder)[1].about["step"] != 3:
        problems.append("the next save does not count")
    if any(path.name.startswith(".") for path in (folder / "checkpoints").iterdir()):
        problems.append("leftovers stay")
    return problems


def attempt(base: Path, scene: str, fault: str, hook: Callable[..., Any]) -> tuple[int, list[str]]:
    """One disturbed save in a fresh folder: its exit code and what is wrong afterwards."""
    with tempfile.TemporaryDirectory(dir=base) as place:
        folder = Path(place)
        (folder / "checkpoints").mkdir()
        if scene != "first save":
            save_step(folder, 0, scene)
            save_step(folder, 1, scene)
        code = child(folder, scene, hook)
        return code, problems_after(folder, scene, fault, code)


def row_of(base: Path, scene: str, fault: str) -> Row:
    """Lets each operation fail in turn until a save gets through."""
    problems: list[str] = []
    for point in range(1, 100):
        code, found = attempt(base, scene, fault, failing(point, fault))
        problems += [f"operation {point}: {problem}" for problem in found]
        if code == 0:
            return Row(scene, fault, point - 1, problems)
    return Row(scene, fault, 99, [*problems, "no save got through"])


def bytes_row(base: Path, scene: str, count: int) -> Row:
    """Ends the process after so many bytes, at `count` places."""
    problems: list[str] = []
    (base / "checkpoints").mkdir(exist_ok=True)
    save_step(base, 2, "first save")
    size = (base / "checkpoints" / "last.safetensors").stat().st_size
    for place in range(0, size, size // count + 1):
        code, found = attempt(base, scene, "killed", killed_at_byte(place))
        problems += [f"byte {place}: {problem}" for problem in found]
        if code != KILLED:
            problems.append(f"byte {place}: got through")
    return Row(scene, "killed at a byte", count, problems)


def order_problems(base: Path, scene: str) -> list[str]:
    """What is wrong with the order of a save: all writes, then sync, then renames, then sync of the folder."""
    with tempfile.TemporaryDirectory(dir=base) as place:
        folder = Path(place)
        (folder / "checkpoints").mkdir()
        save_step(folder, 1, scene)
        with watched(lambda number, event, do_it, arguments: do_it()) as events:
            save_step(folder, 2, scene)
    temporary = f".last.safetensors.{os.getpid()}.tmp"
    renames = [Event("replace", f"{temporary} last.safetensors")]
    if scene == "keeping the old one":
        renames.insert(0, Event("replace", "last.safetensors previous.safetensors"))
    expected = [
        Event("open", temporary),
        *[event for event in events if event == Event("write", temporary)],
        Event("fsync", temporary),
        *renames,
        Event("open", "checkpoints"),
        Event("fsync", "checkpoints"),
    ]
    return [] if events == expected else [f"the order is {events}"]


def main(arguments: list[str]) -> int:
    """Prints the table; the exit code is 1 when anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--short", action="store_true", help="fewer ways to fail: a few seconds")
    short = parser.parse_args(arguments).short
    faults = [*KILLS, *ERRORS, *(f"{name} for good" for name in ERRORS)]
    if short:
        faults = ["killed before", "killed half-way", "ENOSPC", "EIO for good"]
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        rows = [row_of(base, scene, fault) for scene in SCENES for fault in faults]
        rows += [bytes_row(base, scene, 8 if short else 64) for scene in SCENES]
        rows += [Row(scene, "order of operations", 1, order_problems(base, scene)) for scene in SCENES]
    for row in rows:
        print(f"{row.scene:20} {row.fault:20} {row.points:4} points {len(row.problems):3} problems")
    problems = [f"{row.scene}, {row.fault}: {problem}" for row in rows for problem in row.problems]
    print(*problems, sep="\n")
    print(f"{sum(row.points for row in rows)} points, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
