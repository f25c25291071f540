"""A long run of tiny steps: its memory, files, threads and time a step must not grow.

    python -m tests.stress.soak --steps 20000

Memory is what the run and its loader processes have of their own: their proportional set size without the pages of
files, which other programs share.  It is compared between the second quarter of the run and the last; exit code 1 when
it grew by more than 1 %.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.stress.killer import children

SETTINGS = (
    "model.width=8", "model.channels=8", "model.dilations=[1,2]", "model.output_stride=16", "method.embedding=8",
    "method.hidden=8", "pretrain.crop=32", "pretrain.validate_epochs=2", "pretrain.validate_images=4",
    "run.threads=1", "run.checkpoint_minutes=0.1",
)  # fmt: skip


class Sample(NamedTuple):
    """The run at one moment."""

    step: int
    seconds: float
    memory: int  # KiB
    files: int
    threads: int


def look(process: int, log: Path, began: float) -> Sample | None:
    """What the run takes now; None while it starts or ends."""
    memory = files = threads = 0
    for one in [process, *children(process)]:
        try:
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
            memory += sum(int(rollup.partition(name)[2].split()[0]) for name in ("Pss_Anon:", "Pss_Shmem:"))
            files += len(list(Path(f"/proc/{one}/fd").iterdir()))
            threads += len(list(Path(f"/proc/{one}/task").iterdir()))
        except (OSError, IndexError):
            return None
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4000))
        lines = [line for line in file.read().splitlines() if b'"train"' in line and line.endswith(b"}")]
    if len(lines) < 2:
        return None
    return Sample(json.loads(lines[-1])["step"], time.monotonic() - began, memory, files, threads)


def quarter(samples: list[Sample], number: int, steps: int) -> list[Sample]:
    """The samples of one quarter of the run."""
    return [sample for sample in samples if (number - 1) * steps <= 4 * sample.step < number * steps]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        run, settings = Path(place, "run"), [word for setting in SETTINGS for word in ("--set", setting)]
        process = subprocess.Popen([
            sys.executable, "-m", "mdp", "pretrain", "--datasets", "shapes-coarse,shapes-fine",
            "--backbone", "resnet18", "--batch-size", "4", "--steps", str(asked.steps), "--mix", "both",
            "--workers", str(asked.workers), "--out", str(run), "--quiet", *settings,
        ])  # fmt: skip
        samples: list[Sample] = []
        began = time.monotonic()
        while process.poll() is None:
            time.sleep(1)
            sample = look(process.pid, run / "metrics.jsonl", began) if (run / "metrics.jsonl").is_file() else None
            samples += [sample] if sample else []
    if process.returncode != 0:
        print(f"the run ended with code {process.returncode}")
        return 1
    print(f"{'quarter':>8}{'memory MiB':>12}{'least':>8}{'most':>8}{'files':>7}{'threads':>9}{'ms a step':>11}")
    parts = [quarter(samples, number, asked.steps) for number in range(1, 5)]
    for number, part in enumerate(parts, 1):
        memory = [sample.memory / 1024 for sample in part]
        pace = 1000 * (part[-1].seconds - part[0].seconds) / (part[-1].step - part[0].step)
        print(
            f"{number:>8}{statistics.median(memory):>12.1f}{min(memory):>8.1f}{max(memory):>8.1f}"
            f"{max(s.files for s in part):>7}{max(s.threads for s in part):>9}{pace:>11.2f}"
        )
    second, last = (statistics.median(sample.memory for sample in parts[i]) for i in (1, 3))
    growth = last / second - 1
    print(f"{asked.steps} steps: memory {growth:+.2%} from the second quarter to the last")
    return growth > 0.01


if __name__ == "__main__":
    sys.exit(main())
