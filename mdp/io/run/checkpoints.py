"""The checkpoints of a run folder: which there are, and which is the newest that is whole."""

import math
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mdp.io.errors import CheckpointError, ResourceError
from mdp.io.run.header import read_about

if TYPE_CHECKING:
    from mdp.io.run.checkpoint import Checkpoint

_LEFTOVER = re.compile(r"\..+\.([0-9]+)\.tmp")


# The checkpoints of a run


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoint files of a run folder: last, previous, best, then those kept by step, in the order of names."""
    home = folder / "checkpoints"
    named = [home / f"{name}.safetensors" for name in ("last", "previous", "best")]
    return [*(path for path in named if os.path.lexists(path)), *sorted(home.glob("step_*.safetensors"))]


def newest_whole(folder: Path) -> "tuple[Path, Checkpoint, dict[Path, str]]":
    """The checkpoint of a run folder with the highest step that is whole, and what is wrong with those passed over.

    Raises CheckpointError, naming them all, when none is whole, or when there is none.
    """
    from mdp.io.run.checkpoint import load  # noqa: PLC0415 - it takes torch, which a list of checkpoints does not

    files = checkpoints_in(folder)
    if not files:
        raise CheckpointError(f"{folder}: no checkpoint in it ({folder / 'checkpoints' / 'last.safetensors'} is where)")
    skipped: dict[Path, str] = {}
    steps: dict[Path, int | float] = {}
    for path in files:
        try:
            steps[path] = _step(path)
        except (CheckpointError, ResourceError) as error:
            skipped[path] = str(error)
    for path in sorted(steps, key=steps.__getitem__, reverse=True):  # stable: of equal steps, last goes first
        try:
            return path, load(path), skipped
        except (CheckpointError, ResourceError) as error:
            skipped[path] = str(error)
    raise CheckpointError(f"{folder}: none of its {len(files)} checkpoints is whole: {'; '.join(skipped.values())}")


def _step(path: Path) -> int | float:
    step = read_about(path).get("step")
    # JSON may say NaN, which has no order, and true, which Python takes for 1
    if isinstance(step, bool) or not isinstance(step, int | float) or not math.isfinite(step):
        raise CheckpointError(f"{path}: its step is {step!r}, expected a number")
    return step


def remove_leftovers(folder: Path) -> list[Path]:
    """Deletes the unfinished files that dead processes left in a run folder, and says which.

    Call it while holding the folder's lock: then no process, on this machine or another, is writing there.
    """
    removed = []
    for path in sorted(folder.rglob(".*.tmp")):  # of pictures too
        match = _LEFTOVER.fullmatch(path.name)
        if match and path.is_file() and not _runs(int(match[1])):
            with suppress(OSError):
                path.unlink()
                removed.append(path)
    return removed


def _runs(process: int) -> bool:
    """Whether another process of that number is alive; our own number was a dead run's, as in restarted containers."""
    if process in (0, os.getpid()):
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
