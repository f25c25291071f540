"""Whole runs from Python: pretraining, fine-tuning, scoring and predicting, with a dataset and a transform of your own.

The same jobs and run folders as those of `mdp pretrain`, `finetune`, `eval` and `predict`, in the folder `runs`.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mdp.io import Dataset, LabelSpace, Sample, evaluate, finetune, predict, pretrain

CLASSES = ("sky", "ground", "box")
COLORS = np.array([[150, 190, 230], [110, 90, 60], [200, 40, 40]])


# A dataset is an object: what there is, and how a sample is read.  This one draws its photos; yours reads files
def samples(root: Path, split: str) -> list[Sample]:
    numbers = range(12) if split == "train" else range(12, 18)
    return [Sample(f"scene {number}", f"scene {number} (labels)", "mine") for number in numbers]


def read(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """The photo (H, W, 3) uint8 and the values of its label map (H, W); 255 is ignored."""
    rng = np.random.default_rng(int(sample.image.split()[1]))
    labels = np.repeat(np.arange(48)[:, None] > rng.integers(15, 30), 64, axis=1).astype(np.uint8)
    top, left = rng.integers(5, 30, 2)
    labels[top : top + 14, left : left + 14] = 2
    photo = COLORS[labels] + rng.normal(0, 15, (48, 64, 3))
    labels[:1] = 255
    return photo.clip(0, 255).astype(np.uint8), labels


mine = Dataset(
    name="mine",
    labels=LabelSpace(name="mine", classes=CLASSES),
    splits={"train": None, "val": None},
    train=("train",),
    val="val",
    samples=samples,
    read=read,
)


# A transform changes training images before they are cut; all chance comes from the generator that it gets
def dimmed(image: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    share = 0.6 + 0.4 * float(torch.rand((), generator=rng))
    return (image * share).to(torch.uint8), labels


recipe = {
    "run": {"workers": 0, "threads": 1},
    "model": {"backbone": "resnet18", "width": 8, "output_stride": 8, "channels": 16, "dilations": [1, 2, 3]},
    "method": {"embedding": 16, "hidden": 16},
    "pretrain": {"steps": 6, "batch_size": 6, "crop": 32, "validate_epochs": 0},
    "finetune": {"steps": 40, "batch_size": 6, "crop": [32, 32], "lr": 0.05, "validate_steps": 0},
}

started = pretrain(recipe, [mine, "shapes-coarse"], transform=dimmed)
print("pretrained:", started.name.split("_")[-1])

tuned = finetune(recipe, mine, init=started, transform=dimmed)
scores = evaluate(tuned, mine)
print(f"mIoU {scores['miou']:.2f} on {scores['images']} images;", ", ".join(
    f"{row['name']} {row['iou']:.2f}" for row in scores["classes"]
))  # fmt: skip

Image.fromarray(read(Sample("scene 20", "", "mine"))[0]).save("photo.png")
done = predict(tuned, ["photo.png"], out="predicted")
print("predicted:", done["predicted"], "photo,", sorted(path.name for path in Path("predicted").iterdir()))
