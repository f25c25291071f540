"""The parts one after the other, each in a process of its own with a limit of time: results as JSON and as a table.

    python -m tests.gpu.first_contact                     # what `make gpu` runs: all parts, under nine minutes
    python -m tests.gpu.first_contact --device cpu --quick --parts core,methods --out x   # whether it runs at all

Writes gpu.json and gpu.md after every part, to --out, else to $OUT, else to benchmarks/.  Exit code 1 when a check
fails or a part was left out for want of time.  A part that breaks the device harms no other.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from tests.gpu.findings import Finding, read
from tests.gpu.parts import SECONDS
from tests.gpu.table import table

ROOT = Path(__file__).parents[2]
LIMIT = 525.0  # seconds for everything
LEAST = 15.0  # seconds a part needs to say anything


class Outcome(NamedTuple):
    """How a part went."""

    part: str
    ended: str  # done | out of time | left out | exit code N
    seconds: float
    findings: list[Finding]

    def failures(self) -> list[str]:
        """What failed, a line each; an end of the part before its last line is a failure too."""
        failed = [finding.line() for finding in self.findings if finding.passed is False]
        return failed if self.ended in ("done", "left out") else [*failed, f"{self.part}: {self.ended}"]


def main(words: list[str] | None = None) -> int:
    """Runs the parts that are asked for."""
    given = _parsed(words)
    gpu = given.device != "cpu"
    if gpu and not torch.cuda.is_available():
        print(f"--device {given.device}: torch finds no CUDA device; --device cpu --quick shows that the parts run")
        return 1
    given.out.mkdir(parents=True, exist_ok=True)
    left = given.limit or (LIMIT if gpu else float("inf"))
    outcomes: list[Outcome] = []
    for part in given.parts:
        outcomes.append(run_part(part, given.device, given.quick, min(left, SECONDS[part]) if gpu else left))
        left -= outcomes[-1].seconds
        _write(given.out, outcomes)
    failures = [line for outcome in outcomes for line in outcome.failures()]
    left_out = [outcome.part for outcome in outcomes if outcome.ended == "left out"]
    print("\n".join(failures))
    print(f"{len(failures)} failures" + (f", left out: {', '.join(left_out)}" if left_out else ""))
    return 1 if failures or left_out else 0


def _parsed(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu")
    parser.add_argument("--parts", default=",".join(SECONDS), help="some of %(default)s")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or ROOT / "benchmarks"))
    parser.add_argument("--limit", type=float, help=f"seconds for everything; {LIMIT:g} on a GPU, none on a CPU")
    parser.add_argument("--quick", action="store_true", help="sizes that only show that a part runs")
    given = parser.parse_args(words)
    given.parts = given.parts.split(",")
    unknown = [part for part in given.parts if part not in SECONDS]
    if unknown:
        parser.error(f"--parts: expected some of {', '.join(SECONDS)}, got {', '.join(unknown)}")
    return given


def run_part(part: str, device: str, quick: bool, seconds: float) -> Outcome:
    """One part in its own process, which ends, with all it has started, when its time is over."""
    if seconds < LEAST:
        print(f"{part}: left out, no time")
        return Outcome(part, "left out", 0.0, [])
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "findings.jsonl"
        words = [sys.executable, "-m", "tests.gpu.parts", part, "--device", device, "--findings", str(path)]
        environment = {**os.environ, "TMPDIR": scratch, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        ended = run_within(words + (["--quick"] if quick else []), environment, seconds)
        return Outcome(part, ended, round(time.perf_counter() - began, 1), read(path))


def run_within(words: list[str], environment: dict[str, str], seconds: float) -> str:
    """Runs a command for so many seconds at most; how it ended."""
    process = subprocess.Popen(words, env=environment, start_new_session=True)
    try:
        code = process.wait(None if seconds == float("inf") else seconds)
    except subprocess.TimeoutExpired:
        return f"out of time after {seconds:.0f} s"
    finally:
        _end(process)
    return f"exit code {code}" if code else "done"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a part and the commands that it has started, which are a group of their own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _write(folder: Path, outcomes: list[Outcome]) -> None:
    """What is known so far, for machines and for people."""
    known = next((f.figures for outcome in outcomes for f in outcome.findings if f.name == "environment"), {})
    parts = [{**outcome._asdict(), "findings": [f._asdict() for f in outcome.findings]} for outcome in outcomes]
    (folder / "gpu.json").write_text(json.dumps({"environment": known, "parts": parts}, indent=1) + "\n", "utf-8")
    rows = [(outcome.part, outcome.ended, outcome.seconds, outcome.findings) for outcome in outcomes]
    (folder / "gpu.md").write_text(table(known, rows), "utf-8")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the part that runs is ended too
    sys.exit(main())
