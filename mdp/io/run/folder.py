"""Run folders: where a run keeps what it was, what it did and what came out.

`runs/pretrain/2026-11-20_1432_voc+ade20k/` holds config.yaml (resolved), command.txt, env.json, labels.json,
metrics.jsonl, results.csv, status.json, log.txt and checkpoints/.  A folder that is not empty is never written into
silently.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any

from mdp.io.errors import CheckpointError, RecipeError, ResourceError
from mdp.io.files.reading import printable
from mdp.io.run import lock
from mdp.io.run.checkpoints import checkpoints_in
from mdp.io.run.header import read_about

BASE = Path("runs")


def create(kind: str, name: str, out: Path | None, overwrite: bool) -> Path:
    """A fresh folder for a run, `runs/KIND/DATE_NAME` unless `out` says otherwise.

    Raises RecipeError when `out` is not empty and may not be overwritten, ResourceError when it cannot be made.
    """
    try:
        if out is not None:
            _clear(out, overwrite)
            (out / "checkpoints").mkdir(parents=True, exist_ok=True)
            return out
        stem = f"{time.strftime('%Y-%m-%d_%H%M')}_{name}"
        for number in range(1, 1000):
            folder = BASE / kind / (stem if number == 1 else f"{stem}-{number}")
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                folder.mkdir()  # atomic: of two runs started at once, one takes the next number
            except FileExistsError:
                continue
            (folder / "checkpoints").mkdir()
            return folder
    except OSError as error:
        raise ResourceError(f"{error.filename or out}: cannot make the run folder: {error.strerror}") from error
    raise ResourceError(f"{BASE / kind}: a thousand runs in one minute; use --out")


def _clear(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise RecipeError(f"--out {out}: expected a folder, found a file")
    if not out.exists() or not any(_something(path) for path in out.iterdir()):
        return
    if not overwrite:
        raise RecipeError(f"--out {out}: the folder is not empty; choose another or add --overwrite")
    if not (out / "status.json").is_file():
        raise RecipeError(f"--out {out}: --overwrite replaces runs of mdp only, and this folder holds something else")
    with lock.locked(out):  # a run that is alive is not replaced
        for path in out.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != lock.NAME:  # which is held here
                path.unlink()


def _something(path: Path) -> bool:
    """Whether it is more than what a run leaves that was killed while it made its folder."""
    return not (path.name.startswith(".") or (path.name == "checkpoints" and path.is_dir() and not any(path.iterdir())))


def keep_name(step: int) -> str:
    """The name of a checkpoint that is kept for good, such as `step_00001000`; names sort as their steps do."""
    return f"step_{step:08d}"


def newest(kind: str) -> Path | None:
    """The most recently started run of that kind that has a checkpoint, in ./runs/KIND or ./runs; None without one.

    `--out runs/x` puts a run into ./runs itself; deeper ones are parts of something, such as the cells of a comparison.
    """
    with_checkpoint = [folder for folder in BASE.glob(f"{kind}/*") if checkpoints_in(folder)]
    with_checkpoint += [folder for folder in BASE.glob("*") if kind in map(_kind, checkpoints_in(folder))]
    return max(with_checkpoint, key=_started, default=None)


def _kind(checkpoint: Path) -> str | None:
    """The kind of run that a checkpoint is of; None where that cannot be read."""
    try:
        return str(read_about(checkpoint).get("kind"))
    except (CheckpointError, ResourceError):
        return None


def known() -> list[Path]:
    """The folders in ./runs, and one level below, that look like runs, without reading a checkpoint; sorted."""
    return sorted(path.parent for depth in ("*", "*/*") for path in BASE.glob(f"{depth}/checkpoints"))


def _started(folder: Path) -> float:
    """When the run was started: the time of command.txt, or of the folder where that is missing.

    command.txt is written once; the time of the folder changes with every file that is made in it.
    """
    for path in (folder / "command.txt", folder):
        try:
            return path.stat().st_mtime
        except OSError:
            continue
    return 0.0


def checkpoint_of(path: Path, which: str = "last") -> Path:
    """The checkpoint file that a run folder, or a path to the file itself, stands for.

    Without the one asked for it is the last one, then what a run that was killed may have left instead.
    Raises CheckpointError naming what was looked for, or when `last` is older than `best`: no run that is left alone
    leaves it so, and its weights would be taken for the final ones.
    """
    if path.is_dir():
        home = path / "checkpoints"
        for name in (which, "last", "previous", "best"):
            file = home / f"{name}.safetensors"
            if file.is_file():
                if file.stem == "last":
                    _expect_newest(file, home / "best.safetensors")
                return file
        raise CheckpointError(f"{path}: no checkpoints/{which}.safetensors in it; is it a run folder of mdp?")
    if not path.exists():
        raise CheckpointError(f"{path}: expected a run folder or a weights file, found nothing")
    return path


def _expect_newest(last: Path, best: Path) -> None:
    if not best.is_file():
        return
    try:
        ours, theirs = read_about(last).get("step"), read_about(best).get("step")
    except CheckpointError:  # whoever opens it says what is wrong with it
        return
    if isinstance(ours, int) and isinstance(theirs, int) and ours < theirs:
        raise CheckpointError(
            f"{last}: of step {ours}, older than best.safetensors of step {theirs}: the run was stopped between the "
            "two; go on with it by --resume, or name the file to take"
        )


def unfinished(checkpoint: Path) -> str:
    """A warning where a run's last checkpoint is not that of its end; "" for a run that is done, and for other files.

    A checkpoint that was named by its step, or as the best, was chosen.
    """
    if checkpoint.stem not in ("last", "previous"):
        return ""
    folder = home_of(checkpoint)
    try:
        ending = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        state, steps, step = ending["state"], ending["steps"], read_about(checkpoint)["step"]
        if state == "done" and step >= min(steps, ending.get("step", steps)):  # it may have ended early, and be done
            return ""
    except (OSError, ValueError, KeyError, TypeError, CheckpointError):
        return ""
    return (
        f"warning: {printable(folder)}: this run is not finished ({printable(str(state))}); its weights are those of "
        f"step {step} of {steps}"
    )


def of_launch(kind: str, out: Path | None, launch: str | None) -> Path | None:
    """The run with a checkpoint that a launch has begun, in `out` if that was asked for; None without one."""
    for folder in [out] if out else sorted(BASE.glob(f"{kind}/*"), reverse=True):
        if begun_by(folder, launch) and checkpoints_in(folder):
            return folder
    return None


def begun_by(folder: Path, launch: str | None) -> bool:
    """Whether the run in a folder was begun by that launch."""
    try:
        begun = json.loads((folder / "env.json").read_text(encoding="utf-8")).get("launch")
    except (OSError, ValueError, AttributeError):
        return False
    return launch is not None and bool(begun == launch)


def ending_of(folder: Path) -> dict[str, Any]:
    """Where a run is and how it ended, for whoever started it."""
    return {"run": str(folder), **json.loads((folder / "status.json").read_text(encoding="utf-8"))}


def home_of(path: Path) -> Path:
    """The run folder of a checkpoint, or the folder of a checkpoint that lies by itself."""
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent
