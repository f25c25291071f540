"""Whole runs of `mdp pretrain` on made photos, by where these are kept: images a second, and the share of waiting."""

import json
import tempfile
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import torch

from benchmarks.gpu import Sizes
from benchmarks.loader import write_files
from mdp.io.recipe.request import Request
from mdp.io.training.job import run_pretraining

CACHES = ("off", "memory", "device")
_EPOCHS = 3  # the first fills the cache


class RunFigures(NamedTuple):
    """The last epoch of a run."""

    cache: str
    images_per_second: float
    data_wait: float  # share of the time

    @property
    def sentence(self) -> str:
        return (
            f"run, cache {self.cache}: {self.images_per_second:.1f} images/s in its last epoch, "
            f"{self.data_wait:.1%} of it waiting for data"
        )


def run_figures(cache: str, chosen: Sizes, device: torch.device, workers: int, steps: int) -> RunFigures:
    """A run of so many steps an epoch, without validation, pictures of predictions, or a check of its files."""
    recipe = chosen.step
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_files(folder, steps * recipe.images)
        network = recipe.network
        layer = {
            "run": {
                "device": str(device), "workers": workers, "check": False, "cache": cache,
                "precision": "bf16" if device.type == "cuda" else "fp32",
            },
            "model": {
                "backbone": network.backbone, "width": network.width, "channels": network.channels,
                "dilations": list(network.dilations or ()), "output_stride": network.output_stride,
            },
            "method": {"embedding": recipe.embedding, "hidden": recipe.embedding},
            "pretrain": {
                "datasets": [str(folder / "made.yaml")], "epochs": _EPOCHS, "batch_size": recipe.images,
                "crop": recipe.crop, "validate_epochs": 0, "validate_images": 0,
            },
        }  # fmt: skip
        run = run_pretraining(Request(layers=(layer,), quiet=True, report=False, out=folder / "run"))
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [record for record in records if record["kind"] == "train"][-steps:]
    return RunFigures(
        cache, median(record["images_per_second"] for record in last), mean(record["data_wait"] for record in last)
    )
