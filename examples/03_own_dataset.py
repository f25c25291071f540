"""A dataset of your own, from two folders and a YAML file, pretrained together with a generated one for a few steps.

Works in a folder `own_dataset` under the working folder, which must not exist yet.
"""

import json
from pathlib import Path

import numpy as np

from mdp.io.datasets import load
from mdp.io.datasets._dataset import open_split
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.images import write_labels, write_rgb
from mdp.io.recipe.layers import config_layer
from mdp.io.recipe.request import Request
from mdp.io.training.job import run_pretraining

here = Path("own_dataset")
for kind in ("photos", "masks"):
    (here / kind).mkdir(parents=True)

# Twelve photos with labels: dark below, light above, and a car-coloured square
rng = np.random.default_rng(0)
for index in range(12):
    classes = np.repeat(np.arange(96)[:, None] > rng.integers(30, 60), 128, axis=1).astype(np.int64)
    top, left = rng.integers(10, 60, 2)
    classes[top : top + 24, left : left + 24] = 2
    colors = np.array([[200, 210, 230], [90, 90, 90], [180, 30, 40]])
    photo = colors[classes] + rng.normal(0, 12, (96, 128, 3))
    write_rgb(here / "photos" / f"{index:02d}.png", photo.clip(0, 255).astype(np.uint8))
    write_labels(here / "masks" / f"{index:02d}.png", classes, voc_colormap(3))

(here / "site.yaml").write_text("""\
name: site
splits:
  train: {images: photos, labels: masks}
classes: {0: sky, 1: road, 2: car}
""")

site = load(str(here / "site.yaml"))
samples, line = open_split(site, Path("."), "train")
print(line, "-", ", ".join(site.labels.classes))

layers = (
    config_layer(Path(__file__).parent / "recipes" / "tiny.yaml"),
    {
        "run": {"workers": 0},
        "model": {"width": 8},
        "pretrain": {"datasets": [str(here / "site.yaml"), "shapes-coarse"], "steps": 4, "crop": 64},
    },
)
folder = run_pretraining(Request(layers=layers, out=here / "run"))
records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
print("losses:", [round(record["loss"], 3) for record in records if record["kind"] == "train"])
