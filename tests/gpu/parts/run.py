"""`mdp pretrain` on photos from files as users start it, with few workers and with many: does the loader keep up?"""

import json
import os
import tempfile
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from tests.gpu.commands import mdp, write_photos
from tests.gpu.findings import Findings

QUICK = [
    "--set", "model.backbone=resnet18", "--set", "model.width=16", "--set", "model.channels=32",
    "--set", "pretrain.crop=64", "--batch-size", "8",
]  # fmt: skip


class Way(NamedTuple):
    """How a run is started."""

    name: str
    workers: int | None  # None: what the recipe takes for this machine
    words: tuple[str, ...]
    steps: int


def check(findings: Findings, device: torch.device, quick: bool) -> None:
    """Two datasets of made photos of VOC's and ADE20K's sizes."""
    many, count = max(2, (os.cpu_count() or 2) - 4), 64 if quick else 2560
    bf16 = ("--precision", "bf16")
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        datasets = [
            write_photos(home / "a", count, (500, 375), 21, seed=0),
            write_photos(home / "b", count, (683, 512), 150, seed=1),
        ]
        findings.figure("photos made", count=2 * count)
        ways = (
            Way("bf16, 2 workers", 2, bf16, 80),
            Way(f"bf16, {many} workers", many, bf16, 320),
            Way("as the README has it", None, (), 50),
        )
        for number, way in enumerate(ways):
            _pretrain(findings, way, datasets, home / f"run-{number}", device, quick)


def _pretrain(findings: Findings, way: Way, datasets: list[Path], out: Path, device: torch.device, quick: bool) -> None:
    """One run; its rate and its waiting for data are those of its last two thirds."""
    ended = mdp(
        "pretrain", "--datasets", ",".join(map(str, datasets)), "--mix", "both", "--no-check",
        "--steps", str(6 if quick else way.steps), "--device", str(device), "--out", str(out),
        *(() if way.workers is None else ("--workers", str(way.workers))), *(QUICK if quick else ()), *way.words,
    )  # fmt: skip
    if ended.code:
        findings.check(way.name, False, code=ended.code, words=ended.tail())
        return
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [record for record in records if record["kind"] == "train"]
    rows = rows[len(rows) // 3 :]
    findings.figure(
        way.name,
        seconds=ended.seconds,
        images_per_second=median(row["images_per_second"] for row in rows),
        data_wait=sum(row["data_wait"] for row in rows) / len(rows),
        loss=rows[-1]["loss"],
    )
