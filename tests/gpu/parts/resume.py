"""A run stopped by SIGTERM and resumed ends with the bits of one left alone; fine-tuning and evaluation from it."""

import json
import tempfile
from pathlib import Path
from statistics import mean

import torch

from mdp.io.run.checkpoint import load
from tests.gpu.commands import Ended, mdp
from tests.gpu.findings import Findings

RECIPE = str(Path(__file__).parents[3] / "examples" / "recipes" / "tiny.yaml")
PREEMPTED = 75  # the exit code of a run that was asked to stop


def check(findings: Findings, device: torch.device, quick: bool) -> None:
    """The generated datasets, bf16, deterministic."""
    steps = 12 if quick else 60
    words = [
        "pretrain", "--datasets", "shapes-coarse,shapes-fine", "--config", RECIPE, "--steps", str(steps),
        "--batch-size", "32", "--mix", "both", "--sparse", "csc2", "--precision", "bf16", "--deterministic",
        "--device", str(device), "--workers", "4", "--no-check",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        whole, cut, tuned = (Path(scratch) / name for name in ("whole", "cut", "tuned"))
        ended = mdp(*words, "--out", str(whole))
        _tell(findings, f"a run of {steps} steps", ended)
        if ended.code:
            return
        _falls(findings, _losses(whole), quick)
        _cut(findings, [*words, "--out", str(cut)], cut, 0.6 * ended.seconds)
        findings.check("the same bits", _same(whole, cut))
        _tell(
            findings, "fine-tuning from it",
            mdp("finetune", "--target", "shapes-target", "--init", str(whole), "--config", RECIPE, "--steps", "40",
                "--precision", "bf16", "--device", str(device), "--no-check", "--out", str(tuned)),
        )  # fmt: skip
        _tell(findings, "its evaluation", mdp("eval", str(tuned), "--device", str(device), "--json"))


def _falls(findings: Findings, losses: list[float], quick: bool) -> None:
    """The mean loss of the last third is below that of the first; a quick run is too short for a verdict."""
    third = len(losses) // 3
    first, last = mean(losses[:third]), mean(losses[-third:])
    if quick:
        findings.figure("loss of the first and of the last third", first=first, last=last)
    else:
        findings.check("the loss falls", last < first, first=first, last=last)


def _cut(findings: Findings, words: list[str], folder: Path, seconds: float) -> None:
    """Stops a run and resumes it; one that was quicker than its signal has nothing to be resumed."""
    ended = mdp(*words, stop_after=seconds)
    findings.check("stopped by SIGTERM", ended.code in (PREEMPTED, 0), code=ended.code, seconds=ended.seconds)
    if ended.code == PREEMPTED:
        _tell(findings, "resumed", mdp("pretrain", "--resume", str(folder)))


def _tell(findings: Findings, name: str, ended: Ended) -> None:
    findings.check(name, ended.code == 0, seconds=ended.seconds, **({"words": ended.tail()} if ended.code else {}))


def _losses(folder: Path) -> list[float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [record["loss"] for record in records if record["kind"] == "train"]


def _same(first: Path, second: Path) -> bool:
    one, other = (load(folder / "checkpoints" / "last.safetensors").tensors for folder in (first, second))
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
