"""`mdp demo`: the whole path on generated datasets, in minutes on two cores, and an honest comparison at the end.

Pretraining sees shapes-coarse and shapes-fine; fine-tuning sees 48 images of shapes-target, whose taxonomy and light
are different, once from random weights and once from the pretrained ones, with the same budget and the same crops.
"""

import time
from pathlib import Path
from typing import Any

from mdp.io.evaluation.job import run_evaluation
from mdp.io.journal.stderr import say
from mdp.io.recipe.layers import Layer, merge
from mdp.io.recipe.request import Request
from mdp.io.report.job import run_report
from mdp.io.run import folder as run_folder
from mdp.io.training.job import run_finetuning, run_pretraining

RECIPE: Layer = {
    "run": {"workers": 0},  # the pictures are drawn once and kept: a worker would only take a core
    "model": {  # a coarse backbone is cheap; the head's finer grid has four times the pixels to learn from
        "backbone": "resnet18",
        "width": 16,
        "output_stride": 16,
        "head": "deeplabv3plus",
        "channels": 32,
        "dilations": [1, 3, 6],
    },
    # 600 steps are few: the key encoder and the bank must not lag behind by more than some of them
    "method": {"embedding": 64, "hidden": 128, "key_momentum": 0.95, "bank_batches": 10},
    "pretrain": {
        "datasets": ["shapes-coarse", "shapes-fine"],
        "epochs": 6,
        "batch_size": 8,
        "crop": 64,
        "crop_area": [0.3, 0.7],  # 53 to 80 pixels of 96 become 64: objects stay as large as the target has them
        "lr": 0.2,
        "photometry": {"blur": 0.0},  # it takes away the textures that surfaces are told apart by
        "validate_epochs": 3,
        "validate_images": 32,
    },
    "finetune": {
        "target": "shapes-target",
        "steps": 100,
        "batch_size": 8,
        "crop": [64, 64],
        "ratio": [0.75, 1.33],
        "lr": 0.1,
        "validate_steps": 0,
    },
}


def run_demo(seed: int, out: Path | None) -> dict[str, Any]:
    """Pretrains, fine-tunes twice, scores twice; returns the two mIoUs, the folder and the seconds taken."""
    began = time.monotonic()
    folder = run_folder.create("demo", f"seed{seed}", out, overwrite=False)
    (folder / "checkpoints").rmdir()  # the three runs inside have their own
    layers = (merge(RECIPE, {"run": {"seed": seed}}),)
    _tell("1 of 3: pretraining on two generated datasets that name the same things differently")
    pretrained = run_pretraining(Request(layers=layers, out=folder / "pretrain", hints=False))
    scores = {}
    starts = (("scratch", "scratch", "random weights"), ("pretrained", str(pretrained), "the pretrained weights"))
    for part, (name, init, words) in enumerate(starts, 2):
        _tell(f"{part} of 3: fine-tuning a third dataset from {words}, then scoring it")
        run = run_finetuning(Request(layers=layers, out=folder / name, init=init, hints=False))
        scores[name], _ = run_evaluation(Request(init=str(run), quiet=True), which="last", keep=False)
    run_report([folder / name for name in ("pretrained", "scratch", "pretrain")], folder / "report.html")
    return {
        "seed": seed,
        "scratch_miou": scores["scratch"]["miou"],
        "pretrained_miou": scores["pretrained"]["miou"],
        "majority_miou": scores["scratch"]["majority"]["miou"],
        "images": {"train": 48, "scored": scores["scratch"]["images"]},
        "steps": RECIPE["finetune"]["steps"],
        "run": str(folder),
        "seconds": round(time.monotonic() - began, 1),
    }


def _tell(text: str) -> None:
    """A line on stderr that says what the lines after it belong to."""
    say(f"\n{text}")


def sentence(result: dict[str, Any]) -> str:
    """The comparison for people."""
    scratch, pretrained, majority = (100 * result[f"{name}_miou"] for name in ("scratch", "pretrained", "majority"))
    return (
        f"shapes-target, {result['steps']} fine-tuning steps on {result['images']['train']} images, mIoU on "
        f"{result['images']['scored']} others (seed {result['seed']}):\n"
        f"  from random weights      {scratch:6.2f}\n"
        f"  from multi-dataset runs  {pretrained:6.2f}   ({pretrained - scratch:+.2f})\n"
        f"  always 'background'      {majority:6.2f}\n"
        f"{result['seconds']:.0f} s in all; the three runs are in {result['run']}, and side by side in its report.html"
    )
