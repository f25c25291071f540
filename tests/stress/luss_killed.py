"""Kills `mdp luss run` at random moments of every stage until it is done: `python -m tests.stress.luss_killed`.

A kill is SIGKILL, at a random time after a stage was entered; the same command then goes on.  At the end every file has
to have the bytes of a run that was left alone; what tells times is compared by what else it tells.  Exit code 1 if not,
or if a stage was met by no kill.
"""

import argparse
import csv
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.coloured_squares import write_site
from tests.preloaded import Started

STAGES = (
    "representation", "attention", "features", "clusters", "labels-val", "scores-val", "labels-train", "finetune",
    "predictions-val", "scores-finetuned",
)  # fmt: skip
SETTINGS = (
    "run.threads=1", "run.check=false", "run.checkpoint_minutes=0.005", "model.backbone=resnet18", "model.width=8",
    "model.head=linear", "method.prototypes=8", "method.embedding=8", "method.hidden=8", "method.frozen_steps=2",
    "method.queue=null", "method.size=32", "pretrain.epochs=5", "pretrain.batch_size=16", "pretrain.validate_epochs=0",
    "finetune.steps=40", "finetune.batch_size=8", "finetune.crop=[32,32]", "finetune.validate_steps=0",
    "luss.short_side=64", "luss.restarts=20", "luss.iterations=20", "luss.attention_epochs=3",
)  # fmt: skip
CLOCK = {"seconds", "images_per_second", "data_wait", "communication", "time", "started", "ended"}
# of one process and its times; and of checkpoints the one before the last, which is made by the clock
OWN = {".lock", "log.txt", "status.json", "env.json", "command.txt", "report.html", "files.npz", "previous.safetensors"}


def started(target: Path, out: Path, workers: int) -> Started:
    """The command that begins, or goes on."""
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    words = ["-m", "mdp", "luss", "run", "--target", str(target), "--out", str(out), "--workers", str(workers)]
    return Started([*words, *settings], target.parent)


def entered(folder: Path, process: int) -> bool:
    """Whether a process is at work in a stage, or was: it has its lock, or, where there is none, its turn has come."""
    without = folder.name == STAGES[-1]
    before = folder.with_name(STAGES[-2]) if without else folder
    try:
        own = bool(json.loads((before / ".lock").read_text())["process"] == process)
        return own and not (without and json.loads((before / "stage.json").read_text())["state"] != "done")
    except (OSError, ValueError):
        return False


def ended(run: Started, seconds: float) -> bool:
    """Whether a command ends within so long."""
    try:
        run.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def times_of(target: Path, out: Path, workers: int) -> dict[str, float]:
    """The whole way, left alone: how long each stage takes."""
    at: dict[str, float] = {}
    with started(target, out, workers) as run:
        while not ended(run, 0.002):
            at |= {name: time.monotonic() for name in STAGES if name not in at and entered(out / name, run.pid)}
        _, err = run.communicate()
        if run.returncode:
            sys.exit(f"the run that was left alone ended with exit code {run.returncode}: {err[-2000:]}")
    begins = [at[name] for name in STAGES]
    ends = [*begins[1:], time.monotonic()]
    return {name: end - begin for name, begin, end in zip(STAGES, begins, ends, strict=True)}


def killed(target: Path, out: Path, workers: int, stage: str, after: float) -> tuple[str, str]:
    """Goes on until so long after a stage, or a later one, was entered: which was killed, and what is wrong."""
    begun, wanted = "", STAGES[STAGES.index(stage) :]
    with started(target, out, workers) as run:
        while not begun and not ended(run, 0.001):
            begun = next((name for name in reversed(wanted) if entered(out / name, run.pid)), "")
        if not ended(run, after):
            run.kill()
        _, err = run.communicate()
        if run.returncode == -signal.SIGKILL:
            return next((name for name in reversed(STAGES) if entered(out / name, run.pid)), "begin"), ""
        return "", f"exit code {run.returncode}: {err[-2000:]}" if run.returncode else ""


def told(path: Path) -> Any:
    """What a file must have in common with that of another run."""
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
    if path.name == "results.csv":
        return [_timeless(row) for row in csv.DictReader(path.read_text().splitlines())]
    if path.name == "stage.json":
        return _timeless(json.loads(path.read_text()))
    return path.read_bytes()


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in CLOCK}


def differences(first: Path, second: Path) -> list[str]:
    """The files in which two outcomes differ."""
    names = [{str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name not in OWN}
             for folder in (first, second)]  # fmt: skip
    found = [f"{name}: in one of the two" for name in sorted(names[0] ^ names[1])]
    return found + [
        f"{name}: differs" for name in sorted(names[0] & names[1]) if told(first / name) != told(second / name)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=3, help="kills of each stage")
    parser.add_argument("--photos", type=int, default=180)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng, kills, wrong = random.Random(asked.seed), Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as place:
        target, out = write_site(Path(place, "site"), asked.photos), Path(place, "luss")  # records have absolute paths
        times = times_of(target, out, asked.workers)
        alone = out.rename(Path(place, "alone"))
        for stage, seconds in times.items():
            for _ in range(asked.each):
                after = rng.uniform(0, seconds / asked.each)
                met, problem = killed(target, out, asked.workers, stage, after)
                wrong += [f"{stage}: {problem}"] if problem else []
                kills.update([met] if met else [])
            print(f"{stage}: takes {seconds:.1f} s; {kills[stage]} kills", flush=True)
        with started(target, out, asked.workers) as run:
            _, err = run.communicate()
        wrong += [f"at the end: exit code {run.returncode}: {err[-2000:]}"] if run.returncode else []
        wrong += differences(alone, out)
    wrong += [f"{stage}: no kill met it" for stage in STAGES if not kills[stage]]
    print(f"{kills.total()} kills in {len(STAGES)} stages, {len(wrong)} faults")
    print("\n".join(wrong))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
