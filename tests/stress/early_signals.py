"""Sends signals in the first seconds of commands, imports included: `python -m tests.stress.early_signals`.

A command must end with exit code 75 or 130 and one line that says why, and never with a traceback or as if nothing had
been; only before the interpreter has come to its first line of ours may the system's own way be seen (ended by the
signal, without a word).  SIGINT goes to the whole group, as from a terminal.  Exit code 1 if anything else is seen.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.stress.workers_killed import SMALL

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
TRAIN = [word for setting in SMALL for word in ("--set", setting)]
COMMANDS = {
    "pretrain": ["pretrain", "--datasets", "shapes-coarse,shapes-fine", "--backbone", "resnet18", *TRAIN],
    "finetune": ["finetune", "--target", "shapes-target", "--init", "scratch", *TRAIN],
    "eval": ["eval", "../tuned", "--mode", "slide", "--scales", "1,2,3", "--workers", "1", "-q"],
    "check": ["check", "shapes-coarse", "shapes-fine", "shapes-target"],
}
PARALLEL = ("pretrain", "finetune", "eval")  # which have --processes


def python(words: list[str], folder: Path) -> "subprocess.Popen[str]":
    """`python -m mdp WORDS` in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "mdp", *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def attempt(folder: Path, words: list[str], number: signal.Signals, delay: float) -> tuple[str, str]:
    """How a command ended that got a signal after so many seconds, and what is wrong with that."""
    with python(words, folder) as run:
        time.sleep(delay)
        ended = run.poll() is not None
        if number == signal.SIGINT:
            os.killpg(run.pid, number)
        else:
            run.send_signal(number)
        began = time.monotonic()
        try:
            out, err = run.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            return "went on", "the signal was swallowed"
    took, code = time.monotonic() - began, run.returncode
    if ended:
        return "ended before", ""
    of_python = "Failed to import the site module" in err  # its own words, before it knows of ours
    if (of_python or (code == -number and not out and not err)) and delay < 0.5:
        return "before the interpreter began", ""
    if code not in (75, 130) or "Traceback" in err or not err.strip():
        return f"exit code {code}", f"exit code {code} after {took:.1f} s: {err[-1500:]}"
    left = [
        path.name for path in Path(os.environ["TMPDIR"]).iterdir() if path.name.startswith(("mdp-", "torchelastic"))
    ]
    return f"exit code {code}", f"left behind: {left}" if left else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=3.0, help="after the start, at most")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng, codes, wrong = random.Random(asked.seed), Counter[str](), 0
    kinds = [(name, []) for name in COMMANDS] + [(name, ["--processes", "2"]) for name in PARALLEL]
    with tempfile.TemporaryDirectory() as home:
        os.environ["TMPDIR"] = str(Path(home, "tmp"))
        Path(home, "tmp").mkdir()
        few = [*COMMANDS["finetune"], "--set", "finetune.steps=1", "--out", "tuned", "-q"]
        with python(few, Path(home)) as tuned:
            _, err = tuned.communicate()
            if tuned.returncode:
                raise RuntimeError(err)
        for turn in range(asked.signals):
            name, more = kinds[turn % len(kinds)]
            number, delay = rng.choice(NUMBERS), asked.seconds * (turn + rng.random()) / asked.signals
            folder = Path(home, f"{turn}")
            folder.mkdir()
            how, problem = attempt(folder, [*COMMANDS[name], *more], number, delay)
            print(f"{name} {' '.join(more)}: {number.name} after {delay:.2f} s: {how}", problem, sep="\n  ", flush=True)
            codes[how] += 1
            wrong += bool(problem)
    print(f"{asked.signals} signals, {wrong} faults: {dict(codes)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
