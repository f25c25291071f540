"""Backbones of ten families of timm's, trained for two steps by the command line and exported to every target.

    python -m tests.stress.exports [--names vit_tiny_patch16_224,...] [--targets timm,onnx]

Prints the table of docs/interop.md: the largest difference of the features, as `mdp export` measured it by loading the
file back, as a part of the largest value.  Minutes, most of them ONNX's.  Exit code 1 when an export fails.
"""

import argparse
import json
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
    "finetune.crop": "[64,64]", "finetune.batch_size": 2, "finetune.validate_steps": 0, "eval.images": 1,
}  # fmt: skip


def trained(name: str, out: Path) -> None:
    """A run of two steps from random weights."""
    settings = {**_SETTINGS, "model.output_stride": _STRIDES.get(name, 32), "model.backbone": f"timm:{name}"}
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command("finetune", "--target", "shapes-target", "--init", "scratch", "--steps", "2",
            "--out", str(out), "-q", *sets)  # fmt: skip


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
    print(f"| `timm:` | {' | '.join(f'`{target}`' for target in targets)} |\n|{' --- |' * (len(targets) + 1)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.names.split(","):
            print(name, file=sys.stderr)
            trained(name, Path(folder) / name)
            cells = [cell(Path(folder) / name, target) for target in targets]
            fine = fine and all(good for _, good in cells)
            print(f"| `{name}` | {' | '.join(text for text, _ in cells)} |", flush=True)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
