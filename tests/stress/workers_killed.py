"""Kills one of a run's workers at a random moment, again and again: `python -m tests.stress.workers_killed --kills 20`.

Whatever the main process is at (a step, a validation, a checkpoint, waiting for data), the run must end within a minute
with exit code 6 and one line that says so, leave no process and no file behind, and a whole checkpoint.  Exit code 1 if
not.  With --stop workers are stopped for good instead, and the run must answer SIGTERM with exit code 75.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from mdp.io.errors import MdpError
from mdp.io.run.checkpoints import newest_whole
from tests import preloaded

SMALL = (
    "run.threads=1", "model.width=8", "model.channels=8", "model.dilations=[1,2]", "model.output_stride=16",
    "method.embedding=8", "method.hidden=8", "pretrain.crop=32", "pretrain.batch_size=16", "pretrain.validate_epochs=1",
    "pretrain.validate_images=40", "pretrain.steps=100000", "finetune.crop=[32,32]", "finetune.batch_size=4",
    "finetune.validate_steps=20", "finetune.steps=100000", "run.checkpoint_minutes=0.005",
)  # fmt: skip
COMMANDS = (
    "pretrain --datasets shapes-coarse,shapes-fine --backbone resnet18 --no-check",
    "finetune --target shapes-target --init scratch --no-check",
)


def workers_of(process: int) -> list[int]:
    """The children of a process."""
    try:
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def left_behind(folder: Path, shared: set[str]) -> list[str]:
    """Files that should be gone."""
    return [
        *(str(path) for path in folder.rglob("*.tmp")),
        *(str(path) for path in (folder / "tmp").iterdir()),
        *(name for name in set(os.listdir("/dev/shm")) - shared if "torch" in name),
    ]


def attempt(folder: Path, rng: random.Random, stop: bool) -> tuple[str, list[str]]:
    """One run with one blow: what it was at, and what is wrong."""
    (folder / "tmp").mkdir()
    shared = set(os.listdir("/dev/shm"))
    settings = [word for setting in SMALL for word in ("--set", setting)]
    command = ["-m", "mdp", *rng.choice(COMMANDS).split(), "--workers", "2", "--out", "run", *settings]
    problems = []
    with preloaded.Started(command, folder, TMPDIR=str(folder / "tmp")) as run:
        log = folder / "run" / "metrics.jsonl"
        while run.returncode is None and not (len(workers_of(run.pid)) >= 2 and log.exists()):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 2.5))
        crew = workers_of(run.pid)
        for victim in crew if stop else [rng.choice(crew)]:
            os.kill(victim, signal.SIGSTOP if stop else signal.SIGKILL)
        began = time.monotonic()
        if stop:
            time.sleep(rng.uniform(0, 5))
            began = time.monotonic()
            run.send_signal(signal.SIGTERM)
        _, err = run.communicate(120)
        took = time.monotonic() - began
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    expected = 75 if stop else 6
    if run.returncode != expected or len(errors) != (not stop) or "Traceback" in err:
        problems.append(f"exit code {run.returncode}: {err[-1500:]}")
    if took > 60:
        problems.append(f"took {took:.0f} s")
    alive = [pid for pid in crew if Path(f"/proc/{pid}").exists()]
    if alive:
        problems.append(f"{len(alive)} processes left")
    problems += [f"left behind: {name}" for name in left_behind(folder, shared)]
    try:
        newest_whole(folder / "run")
    except MdpError as error:
        problems.append(str(error))
    return f"exit code {run.returncode}, {took:.1f} s", problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stop", action="store_true", help="stop the workers and end the run by SIGTERM")
    asked = parser.parse_args()
    rng, codes, wrong = random.Random(asked.seed), Counter[str](), 0
    for number in range(1, asked.kills + 1):
        with tempfile.TemporaryDirectory() as folder:
            what, problems = attempt(Path(folder), rng, asked.stop)
        print(f"{number}: {what}", *problems, sep="\n  ", flush=True)
        codes[what.partition(",")[0]] += 1
        wrong += bool(problems)
    print(f"{asked.kills} blows, {wrong} faults: {dict(codes)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
