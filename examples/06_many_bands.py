"""Photos of five bands and 16 bits, from the check of the data to a file that somebody else can load.

What the classes are shows in the fourth and fifth band only, as plants and water do in the infrared.  Works in a folder
`many_bands` under the working folder, which must not exist yet.
"""

import json
import struct
from pathlib import Path

import numpy as np

from mdp.io.check.job import run_check
from mdp.io.check.report import lines_of_report
from mdp.io.evaluation.job import run_evaluation
from mdp.io.export.asked import ExportQuestion
from mdp.io.export.job import run_export
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.images import write_labels
from mdp.io.inference.asked import Wanted
from mdp.io.inference.job import run_predictions
from mdp.io.recipe.request import Request
from mdp.io.training.job import run_finetuning, run_pretraining

here = Path("many_bands")
BANDS, SIDE = 5, 48
SPECTRA = np.array([[900, 900, 900, 1000, 800], [900, 900, 900, 3200, 700], [900, 900, 900, 900, 3000]])  # of classes


def write_tiff(path: Path, bands: np.ndarray) -> None:
    """Bands (S, H, W) uint16, one after the other (planar), uncompressed: what rasterio or tifffile would write."""
    count, height, width = bands.shape
    pixels = np.ascontiguousarray(bands, dtype="<u2").tobytes()
    size = len(pixels) // count  # of a plane
    lists = [struct.pack(f"<{count}H", *[16] * count),  # bits, places and sizes of the bands
             struct.pack(f"<{count}I", *range(8, 8 + count * size, size)),
             struct.pack(f"<{count}I", *[size] * count)]  # fmt: skip
    bits, places, sizes = (8 + len(pixels) + sum(map(len, lists[:number])) for number in range(3))
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, count, bits), (259, 3, 1, 1), (262, 3, 1, 1),
            (273, 4, count, places), (277, 3, 1, count), (278, 4, 1, height), (279, 4, count, sizes),
            (284, 3, 1, 2)]  # fmt: skip
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    content = pixels + b"".join(lists)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(content)) + content + directory)


rng = np.random.default_rng(0)
for split, count in (("train", 24), ("val", 8)):
    for kind in ("photos", "masks"):
        (here / split / kind).mkdir(parents=True)
    for index in range(count):
        classes = np.zeros((SIDE, SIDE), dtype=np.int64)
        for label in (1, 2, 1, 2):
            top, left = rng.integers(0, SIDE - 16, 2)
            classes[top : top + 16, left : left + 16] = label
        photo = SPECTRA[classes] * rng.uniform(0.8, 1.2) + rng.normal(0, 150, (SIDE, SIDE, BANDS))
        write_tiff(here / split / "photos" / f"{index:02d}.tif", photo.clip(0, 65535).round().transpose(2, 0, 1))
        write_labels(here / split / "masks" / f"{index:02d}.png", classes, voc_colormap(3))

site = here / "site.yaml"
described = """\
name: site
splits:
  train: {images: train/photos, labels: train/masks}
  val: {images: val/photos, labels: val/masks}
classes: {0: soil, 1: plants, 2: water}
"""
site.write_text(described + "image: {bands: [3, 2, 1, 4, 5], range: [0, 5000]}\n")

# The check measures mean and deviation of the channels, and prints the line to write
reports = run_check([str(site)], Path("."), workers=0, images=None, quiet=True)
print("\n".join(lines_of_report(reports[0])))
site.write_text(described + "\n".join(reports[0].yaml) + "\n")

layer = {
    "run": {"workers": 0},
    "model": {"backbone": "resnet18", "width": 8, "output_stride": 8, "head": "fcn", "channels": 8},
    "method": {"embedding": 8, "hidden": 8},
    "pretrain": {"datasets": [str(site)], "steps": 4, "batch_size": 8, "crop": 32},
    "finetune": {"target": str(site), "steps": 60, "batch_size": 8, "crop": [32, 32], "lr": 0.1, "validate_steps": 60},
}
quiet = {"layers": (layer,), "quiet": True}
pretrained = run_pretraining(Request(**quiet, out=here / "pretrained"))
tuned = run_finetuning(Request(**quiet, init=str(pretrained), out=here / "tuned"))
scores, _ = run_evaluation(Request(quiet=True, init=str(tuned)), "last", keep=False)
print(f"mIoU {100 * scores['miou']:.1f}, one class everywhere {100 * scores['majority']['miou']:.1f}")

# Photos that stand in no YAML file are read by the run's own rule
done = run_predictions(
    Request(quiet=True, init=str(tuned), out=here / "predicted"), Wanted(photos=(str(here / "val" / "photos"),))
)
print(f"predicted {done['predicted']} photos")

export = run_export(ExportQuestion(run=tuned, library="safetensors", out=here / "export", segmentor=True))
expects = json.loads(export.sidecar.read_text())["input"]
print(f"exported for {expects['channels']}, {expects['photos']['site']}")
