"""Backbones of ten families of timm's, end to end by the command line: pretrained, fine-tuned, scored and exported.

    python -m tests.stress.exports [--names vit_tiny_patch16_224,...] [--targets timm,onnx]

Prints the table of docs/backbones.md: the losses of the last of two steps of pretraining, and of two of fine-tuning
from that run, the mIoU of four images after these, and of each file the largest difference of the features, as `mdp
export` measured it by loading the file back, as a part of the largest value.  Minutes, most of them ONNX's.  Exit
code 1 when anything fails.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from benchmarks.peers import load
from mdp.cli import cli

FAMILIES = (  # the smallest of each; stride 16 of transformers whose maps all have one stride
    "vit_tiny_patch16_224", "vit_small_patch14_dinov2", "swin_tiny_patch4_window7_224", "pvt_v2_b0", "convnext_atto",
    "convnextv2_atto", "efficientnet_lite0", "mobilenetv3_small_100", "resnet18", "regnetx_002",
)  # fmt: skip
TARGETS = ("timm", "hub", "safetensors", "onnx", "torch_export")
_STRIDES = {"vit_tiny_patch16_224": 16, "vit_small_patch14_dinov2": 14}
_SETTINGS = {
    "model.channels": 8, "model.dilations": "[1,2]", "run.workers": 0, "run.threads": 1, "run.check": "false",
}  # fmt: skip
_PRETRAIN = {"pretrain.crop": 64, "pretrain.batch_size": 4, "pretrain.validate_images": 2}
_FINETUNE = {"finetune.crop": "[64,64]", "finetune.batch_size": 4, "finetune.validate_steps": 0}


def trained(name: str, folder: Path) -> tuple[Path, list[str]]:
    """A fine-tuning run of two steps, from a pretraining run of two; and the losses and the score, as cells."""
    first, second = folder / f"{name}-pretrained", folder / name
    model = {**_SETTINGS, "model.output_stride": _STRIDES.get(name, 32), "model.backbone": f"timm:{name}"}
    command("pretrain", "--datasets", "shapes-coarse,shapes-fine", "--steps", "2", "--out", str(first), "-q",
            *_sets({**model, **_PRETRAIN}))  # fmt: skip
    command("finetune", "--target", "shapes-target", "--init", str(first), "--steps", "2", "--out", str(second), "-q",
            *_sets({**_SETTINGS, **_FINETUNE, "eval.images": 4}))  # fmt: skip
    score = json.loads(command("eval", str(second), "--json"))["miou"]
    return second, [f"{_last_loss(first):.2f}", f"{_last_loss(second):.2f}", f"{100 * score:.1f}"]


def _sets(settings: dict[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def _last_loss(run: Path) -> float:
    """Raises RuntimeError where it is not finite."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    loss = [record["loss"] for record in records if record["kind"] == "train"][-1]
    if not math.isfinite(loss):
        raise RuntimeError(f"{run.name}: the loss is {loss}")
    return float(loss)


def command(*words: str) -> str:
    """What it prints.  Raises RuntimeError with its error where it fails."""
    done = CliRunner().invoke(cli, words)
    if done.exit_code or done.exception:
        raise RuntimeError(str(done.exception or done.stderr).strip()) from done.exception
    return done.stdout


def cell(run: Path, target: str) -> tuple[str, bool]:
    """The cell of a table, and whether the export went as it should."""
    began = time.perf_counter()
    try:
        found: dict[str, Any] = json.loads(command("export", str(run), "--to", target, "--overwrite", "--json"))
    except RuntimeError as error:
        refused = "what can hold it" in str(error)
        print(f"{target}: {error}", file=sys.stderr)
        return ("refused" if refused else "failed"), refused
    checked = found["checked"]
    sizes = ", ".join("x".join(map(str, size)) for size in checked["sizes"])
    seconds = time.perf_counter() - began
    print(f"{target}: {checked['reader']}, {sizes}, {checked['difference']:.1e}, {seconds:.0f} s", file=sys.stderr)
    return ("0" if checked["difference"] == 0 else f"{checked['difference']:.1e}"), not checked["instead"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", default=",".join(FAMILIES))
    parser.add_argument("--targets", default=",".join(TARGETS))
    asked = parser.parse_args()
    load("timm")  # beside a torchvision from another source too
    targets, fine = asked.targets.split(","), True
    columns = ["`timm:`", "pretrain", "finetune", "eval", *(f"`{target}`" for target in targets)]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.names.split(","):
            print(name, file=sys.stderr)
            run, done = trained(name, Path(folder))
            cells = [cell(run, target) for target in targets]
            fine = fine and all(good for _, good in cells)
            print(f"| {' | '.join([f'`{name}`', *done, *(text for text, _ in cells)])} |", flush=True)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
