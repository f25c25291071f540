"""The pictures of docs/pixel-contrast.md, for `docs/figures.py`: a generated dataset, with contrast and without."""

import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from drawing import COLORS, FAINT, INK, Sheet, colored, diverging
from torch import Tensor
from torch.nn import functional as F

from mdp.core import LabelUnion, anchor_groups, anchor_views, draw_anchors, generator, normalise
from mdp.core.networks import Segmentor
from mdp.core.photometry import IMAGENET
from mdp.io.datasets import load
from mdp.io.datasets._dataset import labels_of, open_split
from mdp.io.recipe.layers import config_layer, merge
from mdp.io.recipe.request import Request
from mdp.io.run.opened import open_segmentor, trained_segmentor
from mdp.io.run.restore import section
from mdp.io.training.job import run_finetuning

RECIPE = config_layer(Path(__file__).resolve().parents[1] / "examples" / "recipes" / "shapes.yaml")
TARGET = load("shapes-target")
SPACE = LabelUnion([TARGET.labels])
CLASSES = TARGET.labels.classes
WIDTH, VIEWS, STRIDE = 640, 6, 8


class Trained(NamedTuple):
    """A fine-tuned network, and the memory's rows of regions and pixels with their classes."""

    network: Segmentor
    memory: dict[str, tuple[Tensor, Tensor]]  # (R, D) of unit length, (R,)


@cache
def trained(weight: float, steps: int) -> Trained:
    """A run on `shapes-target` from random weights, with that weight of the contrast."""
    asked = {
        "criterion": {
            "name": "pixel_contrast",
            "weight": weight,
            "max_views": VIEWS,
            "capacity": 60,
            "warmup_steps": 10,
        },
        "finetune": {"steps": steps, "batch_size": 8},
    }
    with tempfile.TemporaryDirectory() as folder:
        request = Request(
            layers=(merge(RECIPE, asked),), init="scratch", out=Path(folder) / "run", quiet=True, report=False
        )
        opened = open_segmentor(str(run_finetuning(request)), "last")
        network = trained_segmentor(opened, opened.recipe, torch.device("cpu"))
    state = section(opened.tensors, "state.pixel_contrast")
    names = ("regions", "pixels") if state else ()  # with weight 0 there is no memory
    return Trained(network, {name: _filled(state[f"{name}.rows"], state[f"{name}.pushed"]) for name in names})


def _filled(rows: Tensor, pushed: Tensor) -> tuple[Tensor, Tensor]:
    """What there is in the rings (C, Q, D) into which so many rows were pushed."""
    there = torch.arange(rows.shape[1]) < pushed[:, None]  # (C, Q)
    return rows[there], there.nonzero()[:, 0]


def scene(split: str, index: int) -> tuple[Tensor, Tensor]:
    """A photo (3, H, W) uint8 and its classes (H, W)."""
    samples, _ = open_split(TARGET, Path(), split)
    rgb, raw = TARGET.read(samples[index])
    return torch.from_numpy(rgb).permute(2, 0, 1), labels_of(SPACE, samples[index], raw, TARGET.source).long()


def _legend(sheet: Sheet, x: float, y: float) -> None:
    for row, name in enumerate(CLASSES):
        sheet.dot(x, y + 24 * row, 7, COLORS[row])
        sheet.words(x + 16, y + 24 * row, name, 16, INK, "lm")


def anchors(steps: int = 60) -> Sheet:
    """A photo, where a network is wrong, and the pixels that are drawn as anchors."""
    image, labels = scene("train", 4)
    network = trained(0.0, steps).network
    with torch.inference_mode():
        logits = network(normalise(image[None].float() / 255, IMAGENET))
    grid = labels[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]  # (h, w)
    wrong = F.interpolate(logits, size=grid.shape, mode="bilinear").argmax(1)[0] != grid
    groups = anchor_groups(grid[None], len(CLASSES), VIEWS)
    views = anchor_views(int(groups.sum()), 1024, VIEWS)
    drawn = draw_anchors(grid, wrong, groups[0], views, generator(0, "anchors")).tolist()
    sheet, times = Sheet(WIDTH, 372), 3
    for x, picture, words in ((8, np.ascontiguousarray(image.permute(1, 2, 0).numpy()), "photo"),
                              (320, colored(labels.numpy()), "labels, and the anchors")):  # fmt: skip
        sheet.words(x, 6, words, 19)
        sheet.place(picture, x, 34, times)
    for place in range(grid.numel()):
        row, column = divmod(place, grid.shape[1])
        right, down = 320 + STRIDE * (column + 0.5) * times, 34 + STRIDE * (row + 0.5) * times
        if place in drawn:
            sheet.dot(right, down, 6, (180, 0, 0) if bool(wrong[row, column]) else INK)
        elif bool(wrong[row, column]):
            sheet.words(right, down, "x", 16, (180, 0, 0), "mm")
    told = f"dots: anchors, {views} a class; red: the network is wrong there; x: wrong, not drawn"
    sheet.words(8, 334, told, 16, FAINT)
    return sheet


def memory(steps: int = 150) -> Sheet:
    """The rows of the memory after training, by the two directions in which they differ most."""
    found = trained(1.0, steps).memory
    every = torch.cat([rows for rows, _ in found.values()])
    centre = every.mean(0)
    axes = torch.linalg.svd(every - centre, full_matrices=False).Vh[:2]  # (2, D)
    axes = axes * axes.sum(1, keepdim=True).sign()  # the same way round on every machine
    sheet, size = Sheet(WIDTH, 420), 360
    flat = (every - centre) @ axes.T  # (R, 2)
    low, spread = flat.amin(0), flat.amax(0) - flat.amin(0)
    for name, radius in (("pixels", 2.5), ("regions", 5.5)):
        rows, classes = found[name]
        places = ((rows - centre) @ axes.T - low) / spread  # (., 2) in [0, 1]
        for (x, y), label in zip(places.tolist(), classes.tolist(), strict=True):
            sheet.dot(20 + size * x, 20 + size * y, radius, COLORS[label])
    _legend(sheet, 430, 40)
    counts = ", ".join(f"{len(found[name][0])} {name}" for name in ("regions", "pixels"))
    sheet.words(8, 392, f"large: regions, the mean of a class in an image; small: pixels ({counts})", 16, FAINT)
    return sheet


def contrast(steps: int = 150) -> Sheet:
    """Mean cosines of pixels within and between classes, by a network trained without and with the contrast."""
    sheet = Sheet(WIDTH, 370)
    for column, (weight, words) in enumerate(((0.0, "cross-entropy"), (1.0, "and pixel contrast"))):
        table = class_cosines(trained(weight, steps).network)
        count = len(table)
        same = float(table.diagonal().mean())
        other = float((table.sum() - table.diagonal().sum()) / (count * (count - 1)))
        x = 130 + 258 * column
        sheet.words(x, 8, words, 18)
        for row, values in enumerate(table.tolist()):
            for place, value in enumerate(values):
                sheet.fill(x + 30 * place, 36 + 30 * row, 29, 29, diverging(value))
        sheet.words(x, 44 + 30 * count, f"within {same:.2f}, between {other:.2f}", 16)
    for row, name in enumerate(CLASSES):
        sheet.words(122, 51 + 30 * row, name, 16, INK, "rm")
    for step, value in enumerate(np.linspace(-1, 1, 41)):
        sheet.fill(130 + 8 * step, 318, 8, 14, diverging(float(value)))
    for place, text in ((130, "-1"), (294, "0"), (458, "1")):
        sheet.words(place, 338, text, 16, INK, "ma")
    return sheet


def class_cosines(network: Segmentor, images: int = 40) -> Tensor:
    """The mean cosine of the backbone's last maps at two pixels of each two classes, (C, C), over validation photos."""
    sums, counts = torch.zeros(len(CLASSES), 1), torch.zeros(len(CLASSES))
    for index in range(images):
        image, labels = scene("val", index)
        with torch.inference_mode():
            last = network.look(normalise(image[None].float() / 255, IMAGENET)).last[0]  # (D, h, w)
        own = F.interpolate(labels[None, None].float(), size=last.shape[1:]).long().flatten()
        rows = F.normalize(last.flatten(1).T, dim=1)[own >= 0]
        hot = F.one_hot(own[own >= 0], len(CLASSES)).float()  # (P, C)
        sums, counts = sums + hot.T @ rows, counts + hot.sum(0)
    products = sums @ sums.T
    pairs = counts[:, None] * counts
    cosines: Tensor = (products - torch.diag(counts)) / (pairs - torch.diag(counts))
    return cosines
