"""Whole runs that take a second or two, and what they leave."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mdp.io.errors import Preempted
from mdp.io.journal.journal import Journal
from mdp.io.recipe.layers import Layer, merge, nest
from mdp.io.recipe.request import Request
from mdp.io.run.checkpoint import load
from mdp.io.training.job import run_pretraining

PlainRuns = Callable[[str, Path], Path]  # the fixture plain_runs of tests/conftest.py

TINY: Layer = {
    "run": {"workers": 0, "threads": 1},
    "model": {"backbone": "resnet18", "width": 8, "output_stride": 16, "channels": 8, "dilations": [1, 2]},
    "method": {"embedding": 8, "hidden": 8},
    "pretrain": {
        "datasets": ["shapes-coarse", "shapes-fine"],
        "steps": 7,
        "batch_size": 4,
        "crop": 32,
        "validate_epochs": 0,
        "validate_images": 3,
    },
    "finetune": {"target": "shapes-target", "steps": 6, "batch_size": 4, "crop": [32, 32], "validate_steps": 4},
    "eval": {"images": 5},
}


def request(*changes: tuple[str, Any], **others: Any) -> Request:
    layer = merge(TINY, *(nest(key, value) for key, value in changes))
    return Request(**{"layers": (layer,), "quiet": True, **others})


def tensors_of(folder: Path, name: str = "last") -> dict[str, Tensor]:
    return load(folder / "checkpoints" / f"{name}.safetensors").tensors


def losses(folder: Path) -> list[tuple[int, float]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(record["step"], record["loss"]) for record in records if record["kind"] == "train"]


def signal_after(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> None:
    """Sends this process a signal once `step` steps are done."""
    original = Journal.progress

    def progress(self: Journal, done: int, *rest: Any) -> None:
        original(self, done, *rest)
        if done == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Journal, "progress", progress)


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def assert_resumes_exactly(monkeypatch: pytest.MonkeyPatch, layer: Layer, whole: Path = Path("whole")) -> Path:
    """Pretrains whole, and stopped after three steps and resumed: the same bits.  Returns the folder of the first."""
    run_pretraining(Request(layers=(layer,), quiet=True, out=whole))
    with monkeypatch.context() as patch:
        signal_after(patch, 3)
        with pytest.raises(Preempted):
            run_pretraining(Request(layers=(layer,), quiet=True, out=Path("stopped")))
    torch.rand(7)  # whatever the global generator has come to
    resumed = run_pretraining(Request(resume="stopped", quiet=True))
    assert_same(tensors_of(whole), tensors_of(resumed))
    assert losses(whole) == losses(resumed)
    return whole
