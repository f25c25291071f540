"""Mean cosines of pixels' features within and between classes, of fine-tuned runs on a split of their target.

    python examples/study/cosines.py SPLIT RUN... > cosines.json

Of each run: `last` is the backbone's last map, `features` what the classifier sees, `embedding` the extra head of pixel
contrast where there is one.  Means over pairs of pixels of all images, then over classes, or pairs of classes, alike.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.labels import IGNORE
from mdp.core.photometry import IMAGENET, normalise
from mdp.io.data.selection import named, pool_of
from mdp.io.datasets._dataset import open_split
from mdp.io.recipe.criteria import find_criterion
from mdp.io.run.opened import open_segmentor, trained_segmentor
from mdp.io.run.restore import restore_, section


def cosines(sums: Tensor, counts: Tensor) -> tuple[float, float]:
    """Within and between classes, of the sums (C, D) of unit vectors and how many (C,) they are.

    >>> cosines(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([2, 2]))
    (1.0, 0.0)
    """
    there = counts > 1
    sums, counts = sums[there].double(), counts[there].double()
    products = sums @ sums.T  # (C, C)
    within = (products.diagonal() - counts) / (counts * (counts - 1))
    between = products / counts[:, None] / counts
    apart = ~torch.eye(len(counts), dtype=torch.bool)
    return float(within.mean()), float(between[apart].mean())


def of_run(run: str, split: str) -> dict[str, Any]:
    """The cosines of all kinds of features of one run."""
    opened = open_segmentor(run, "last")
    recipe, classes = opened.recipe, opened.union.size
    network = trained_segmentor(opened, recipe, torch.device("cpu"))
    head = None
    if any(name.startswith("criterion.") for name in opened.tensors):
        criterion = find_criterion(recipe.criterion.name)
        head = criterion.build(
            recipe.criterion.settings, recipe.model, recipe.model.last_channels, classes, torch.Generator()
        )
        restore_(head, section(opened.tensors, "criterion.pixel_contrast"), run)
        head.eval()
    dataset = named(recipe.finetune.target).dataset
    pool = pool_of([(dataset, open_split(dataset, Path(recipe.data.root), split)[0])])
    long, short = recipe.eval.scale or (240, 180)
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for index in range(len(pool.samples)):
        image, labels = pool.read(index)
        size = (short, long) if image.shape[1] <= image.shape[2] else (long, short)
        pixels = F.interpolate(image[None].float() / 255, size=size, mode="bilinear", antialias=True)
        with torch.inference_mode():
            look = network.look(normalise(pixels, IMAGENET))
            maps = {"last": look.last, "features": look.features}
            if head is not None:
                maps["embedding"] = head(look)
        for name, features in maps.items():
            grid = F.interpolate(labels[None, None].float(), size=features.shape[2:]).long().flatten()  # (P,)
            rows = F.normalize(features[0].flatten(1).T, dim=1)[grid != IGNORE]  # (P, D)
            own = grid[grid != IGNORE]
            sums, counts = found.get(
                name, (torch.zeros(classes, rows.shape[1]), torch.zeros(classes, dtype=torch.int64))
            )
            found[name] = sums.index_add(0, own, rows), counts + torch.bincount(own, minlength=classes)
    return {name: dict(zip(("within", "between"), cosines(*both), strict=True)) for name, both in found.items()}


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    print(json.dumps({run: of_run(run, sys.argv[1]) for run in sys.argv[2:]}, indent=1))
