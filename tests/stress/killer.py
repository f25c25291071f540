"""Kills runs at random instants until they are done, and compares what came out with a run that was left alone.

    python tests/stress/killer.py --kills 200 --processes 1

A kill is SIGKILL of the main process, of one of several ranks, or of the whole tree; at a random time after the start,
after a random step, or the moment a checkpoint is being written.  After each, every checkpoint must be whole; at the
end weights, bank, momentum, losses and scores must be those of the undisturbed run, bit for bit.  Exit code 1 if not.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import zip_longest
from pathlib import Path

import torch

from mdp.io.errors import MdpError
from mdp.io.run.checkpoint import load
from mdp.io.run.checkpoints import checkpoints_in

SETTINGS = (
    "model.width=16", "model.channels=16", "model.dilations=[1,2]", "model.output_stride=16", "method.embedding=32",
    "method.hidden=32", "pretrain.crop=32", "pretrain.validate_epochs=1", "pretrain.validate_images=4",
    "run.threads=1", "run.checkpoint_minutes=0.005", "run.keep_steps=40",
)  # fmt: skip


def command(out: Path, steps: int, processes: int, workers: int) -> list[str]:
    """One command that starts a run or goes on with it."""
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return [
        sys.executable, "-m", "mdp", "pretrain", "--datasets", "shapes-coarse,shapes-fine", "--backbone", "resnet18",
        "--batch-size", "16", "--steps", str(steps), "--mix", "both", "--sparse", "csc2", "--workers", str(workers),
        "--processes", str(processes), "--out", str(out), "--resume", "--quiet", *settings,
    ]  # fmt: skip


def children(process: int) -> list[int]:
    """All processes below one, as far as they are still linked to it."""
    below: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        below.setdefault(int(fields[1]), []).append(int(status.parent.name))
    found, queue = [], [process]
    while queue:
        found.extend(below.get(queue[0], []))
        queue.extend(below.get(queue.pop(0), []))
    return found


def ranks(process: int) -> list[int]:
    """The processes that train: those that a launcher has started, or the process itself."""
    found = []
    for child in children(process):
        try:
            environment = Path(f"/proc/{child}/environ").read_bytes()
            parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == process and b"LOCAL_RANK=" in environment:
            found.append(child)
    return found or [process]


def wait_for(how: str, folder: Path, process: subprocess.Popen[bytes], rng: random.Random) -> None:
    """Returns at the instant of the kill, or when the run has ended."""
    began, log = time.monotonic(), folder / "metrics.jsonl"
    if how == "any time":
        delay = rng.uniform(0, 12)
        while process.poll() is None and time.monotonic() - began < delay:
            time.sleep(0.01)
        return
    before = log.stat().st_size if log.is_file() else 0
    while process.poll() is None and (not log.is_file() or log.stat().st_size <= before):
        time.sleep(0.005)
    if how == "step":
        time.sleep(rng.uniform(0, 2))
        return
    pause = time.monotonic() + rng.uniform(0, 1.5)
    while process.poll() is None and (time.monotonic() < pause or not any((folder / "checkpoints").glob(".*.tmp"))):
        pass  # busy: a write takes some milliseconds
    time.sleep(rng.uniform(0, 0.01))


def kill(process: subprocess.Popen[bytes], whom: str, rng: random.Random) -> None:
    """SIGKILL to one process, or to all; nothing is left when it returns."""
    everyone = [*children(process.pid), process.pid]
    victims = {
        "one rank": lambda: [rng.choice(ranks(process.pid))],
        "tree": lambda: everyone,
        "main": lambda: [process.pid],
    }
    for victim in victims[whom]():
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait(timeout=120)
    deadline = time.monotonic() + 120
    while any(Path(f"/proc/{other}").exists() for other in everyone) and time.monotonic() < deadline:
        time.sleep(0.02)  # ranks that lost their launcher stop by themselves at the next step


def damaged(folder: Path) -> list[str]:
    """What is wrong with the checkpoints of a run folder."""
    found = []
    for path in checkpoints_in(folder):
        try:
            load(path)
        except MdpError as error:
            found.append(str(error))
    return found


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, object]]]:
    """The last checkpoint, and the numbers of all steps, validations and rows without what depends on the clock."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    records += csv.DictReader((folder / "results.csv").read_text().splitlines())
    for record in records:
        for name in ("images_per_second", "data_wait", "communication"):
            record.pop(name, None)
    return load(folder / "checkpoints" / "last.safetensors").tensors, records


def same(first: Path, second: Path) -> str:
    """What differs between two runs; nothing when they are the same."""
    (tensors, records), (others, theirs) = outcome(first), outcome(second)
    if tensors.keys() != others.keys():
        return "names of tensors"
    unlike = [name for name, tensor in tensors.items() if not torch.equal(tensor, others[name])]
    if unlike:
        return f"{len(unlike)} tensors, {unlike[0]} first"
    pairs = zip_longest(records, theirs)
    return next((f"of records, {one} is not {other}" for one, other in pairs if one != other), "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--each", type=int, default=8, help="kills of one run before it is left to end")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng, counts, wrong, done, runs = random.Random(asked.seed), Counter[str](), [], 0, 0
    with tempfile.TemporaryDirectory() as place:
        reference = Path(place, "reference")
        subprocess.run(
            command(reference, asked.steps, asked.processes, asked.workers), check=True, stdout=subprocess.DEVNULL
        )
        while done < asked.kills:
            run = Path(place, f"run{runs}")
            kills = 0
            while True:
                process = subprocess.Popen(
                    command(run, asked.steps, asked.processes, asked.workers),
                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                )  # fmt: skip
                if kills < asked.each and done < asked.kills:
                    how = rng.choices(["any time", "step", "write"], [0.25, 0.35, 0.4])[0]
                    whom = rng.choice(["main", "tree"] if asked.processes == 1 else ["one rank", "main", "tree"])
                    wait_for(how, run, process, rng)
                    if process.poll() is None:
                        writing = any((run / "checkpoints").glob(".*.tmp"))
                        kill(process, whom, rng)
                        kills, done = kills + 1, done + 1
                        counts[f"{how}, {whom}"] += 1
                        counts["with a file half written"] += writing
                        wrong += damaged(run)
                        process.stderr.close()  # type: ignore[union-attr]
                        continue
                _, error = process.communicate()
                if process.returncode != 0:
                    wrong.append(f"exit code {process.returncode}: {error.decode(errors='replace')[-2000:]}")
                break
            runs += 1
            difference = same(reference, run) if process.returncode == 0 else "did not end"
            if difference:
                wrong.append(f"run {runs} after {kills} kills differs: {difference}")
            print(
                f"run {runs}: {kills} kills, {done} in all, {'differs' if difference else 'the same bits'}", flush=True
            )
            shutil.rmtree(run)
    for kind, count in sorted(counts.items()):
        print(f"{count:5} {kind}")
    print(f"{done} kills, {runs} runs, {asked.processes} process(es), {len(wrong)} faults")
    print("\n".join(wrong))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
