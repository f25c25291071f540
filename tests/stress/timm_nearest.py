"""`mdp luss nearest` on a backbone of each of timm's families, with random weights: which can be scored, and why not.

    python -m tests.stress.timm_nearest [NAME ...]

Prints a row for each, as the table of docs/unsupervised.md has it.  Exit code 1 when one that was to be scored is not,
or one ends in anything but a line of its own.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.peers import declare_operators
from mdp.io.datasets import load
from mdp.io.datasets._dataset import open_split
from mdp.io.errors import MdpError
from mdp.io.recipe.request import Request
from mdp.io.unsupervised.asked import Nearest
from mdp.io.unsupervised.nearest import run_nearest

FITS = (
    "resnet18", "resnext50_32x4d", "regnety_004", "densenet121", "efficientnet_b0", "mobilenetv3_large_100",
    "tf_efficientnet_lite0", "convnext_tiny", "convnextv2_atto", "hrnet_w18_small", "vgg11_bn", "ghostnet_100",
    "vit_tiny_patch16_224", "vit_small_patch14_dinov2", "deit_tiny_patch16_224", "dla34",
    "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "pvt_v2_b0", "xcit_nano_12_p16_224", "res2net50_14w_8s",
)  # fmt: skip
REFUSED = ("beit_base_patch16_224", "mixer_b16_224", "maxvit_tiny_tf_224")
_YAML = """\
classes: {0: other, 1: disc, 2: square, 3: triangle, 4: cross, 5: ring, 6: star}
splits:
  train: {images: train, labels: train_labels}
  val: {images: val, labels: val_labels}
"""


def small_set(folder: Path) -> Path:
    """Six generated photos to match with and four to score, 256 x 256."""
    dataset = load("shapes-objects")
    for split, own, count in (("train-semi", "train", 6), ("validation", "val", 4)):
        for sample in open_split(dataset, folder, split)[0][:count]:
            photo, labels = dataset.read(sample)
            pair = (
                (own, photo, Image.Resampling.BILINEAR),
                (f"{own}_labels", labels.astype(np.uint8), Image.Resampling.NEAREST),
            )
            for name, pixels, how in pair:
                (folder / name).mkdir(exist_ok=True)
                picture = Image.fromarray(pixels).resize((256, 256), how)
                picture.save(folder / name / f"{Path(sample.image).stem}.png")
    (folder / "small.yaml").write_text(_YAML)
    return folder / "small.yaml"


def row_of(name: str, target: Path) -> tuple[str, bool]:
    """A row of the table, and whether the backbone was scored."""
    layers = ({"model": {"backbone": f"timm:{name}"}, "run": {"workers": 0}},)
    began = time.process_time()
    try:
        found = run_nearest(Nearest(source="scratch", target=str(target)), Request(layers=layers, quiet=True))
    except MdpError as error:
        return f"| `{name}` | no | {str(error).removeprefix('scratch: ')} | |", False
    words = found["network"].removeprefix(f"timm:{name} at ")
    return f"| `{name}` | yes | {words} | {time.process_time() - began:.1f} s |", True


def main() -> int:
    declare_operators()
    torch.set_num_threads(1)
    asked, wrong = sys.argv[1:] or [*FITS, *REFUSED], 0
    print("| backbone | scored | its last map, or why not | CPU |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        target = small_set(Path(folder))
        for name in asked:
            row, scored = row_of(name, target)
            wrong += name in FITS and not scored
            print(row, flush=True)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
