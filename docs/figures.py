"""Draws the pictures of the pages from the generated datasets: `python docs/figures.py [FOLDER] [NAME...]`.

Everything that is shown is computed by the functions that training uses.  Pictures that train take a minute:
`prototypes.png`, and those of docs/pixel-contrast.md; the others a second.  Without names all are drawn.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import contrast_pictures
import numpy as np
import torch
from drawing import COLORS, FAINT, INK, Sheet, colored, diverging, inside
from numpy.typing import NDArray

from mdp.core import (
    Batch,
    LabelUnion,
    MixSettings,
    PhotometrySettings,
    Prototypes,
    apply_photometry,
    centred_cosines,
    class_logits,
    cut_image,
    cut_labels,
    downsample_labels,
    draw_photometry,
    draw_plan,
    draw_view,
    generator,
    hard_targets,
    mix,
    mixed_targets,
    stack_draws,
)
from mdp.io.datasets import load
from mdp.io.datasets._dataset import labels_of, open_split
from mdp.io.recipe.layers import config_layer, merge
from mdp.io.recipe.request import Request
from mdp.io.studies.taxonomy import read_source
from mdp.io.training.job import run_pretraining

HERE = Path(__file__).resolve().parent / "figures"
RECIPE = config_layer(HERE.parents[1] / "examples" / "recipes" / "shapes.yaml")
DATASETS = [load("shapes-coarse"), load("shapes-fine")]
UNION = LabelUnion([dataset.labels for dataset in DATASETS])
WIDTH = 640


def scene(dataset: int, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A training photo (3, 96, 96) uint8 of one of the two datasets, and its classes of the union (96, 96)."""
    samples, _ = open_split(DATASETS[dataset], Path(), "train")
    rgb, raw = DATASETS[dataset].read(samples[index])
    labels = labels_of(UNION, samples[index], raw, DATASETS[dataset].source)
    return torch.from_numpy(rgb).permute(2, 0, 1), labels.long()


def as_picture(image: torch.Tensor) -> NDArray[np.uint8]:
    """(3, H, W) in 0..255, or in 0..1, as (H, W, 3) bytes."""
    values = image if image.dtype == torch.uint8 else (image * 255).round().clamp(0, 255).byte()
    return np.ascontiguousarray(values.permute(1, 2, 0).numpy())


def name_regions(sheet: Sheet, labels: torch.Tensor, x: int, y: int, times: float, size: int = 15) -> None:
    """Writes the name of each class, without its dataset, into its region of a label map."""
    for label in np.unique(labels.numpy()).tolist():
        mask = labels.numpy() == label
        if label >= 0 and mask.mean() > 0.01:
            name, (row, column) = UNION.names[label].partition("/")[2], inside(mask)
            half = len(name) * size * 0.27 / times  # so that it stays on the picture
            middle = min(max(column, half), labels.shape[1] - half)
            sheet.tag(x + (middle + 0.5) * times, y + (row + 0.5) * times, name, size)


# The pictures


def conflict() -> Sheet:
    """Two photos of two datasets, and what each dataset calls the same things."""
    sheet = Sheet(WIDTH, 660)
    for column, (dataset, index) in enumerate(((0, 29), (1, 2))):
        image, labels = scene(dataset, index)
        x = 8 + 320 * column
        sheet.words(x, 6, f"{DATASETS[dataset].name}: {len(DATASETS[dataset].labels.classes)} classes", 19)
        sheet.place(as_picture(image), x, 36, 3)
        sheet.place(colored(labels.numpy()), x, 348, 3)
        name_regions(sheet, labels, x, 348, 3, 19)
    return sheet


def views() -> Sheet:
    """An image, two views of it with the same geometry for photo and labels, and the pixels that the loss compares."""
    crop, stride, times = 64, 8, 3
    image, labels = scene(1, 2)
    rng = generator(36, "views")
    drawn = [draw_view(rng, 96, 96, (0.3, 0.8)) for _ in range(2)]
    sheet = Sheet(WIDTH, 500)
    sheet.words(8, 6, "image and labels", 19)
    for y, picture in ((36, as_picture(image)), (272, colored(labels.numpy()))):
        sheet.place(picture, 8, y, 2)
        for view, color in zip(drawn, ((0, 0, 0), (255, 255, 255)), strict=True):
            box = view.box
            sheet.frame(8 + 2 * box.left, y + 2 * box.top, 2 * box.width, 2 * box.height, color, 3)
    for number, view in enumerate(drawn):
        x = 226 + 208 * number
        words = f"view {number + 1}" + (", mirrored" if view.flip else "")
        sheet.words(x, 6, words + (" (black)" if number == 0 else " (white)"), 19)
        piece = cut_image(image, view, (crop, crop)).float()[None] / 255
        changed = apply_photometry(piece, stack_draws([draw_photometry(rng, PhotometrySettings())]))
        classes = cut_labels(labels, view, (crop, crop))
        sheet.place(as_picture(changed[0]), x, 36, times)
        sheet.place(colored(classes.numpy()), x, 272, times)
        grid = downsample_labels(classes[None], stride)[0]  # (8, 8): one label for each cell of the feature grid
        for row in range(grid.shape[0]):
            for column in range(grid.shape[1]):
                at = (stride * column + 0.5) * times, (stride * row + 0.5) * times
                sheet.dot(x + at[0], 272 + at[1], 3.5, COLORS[int(grid[row, column])])
    sheet.words(226, 472, "dots: the 8 x 8 pixels whose labels the loss sees", 17, FAINT)
    return sheet


def mixing() -> Sheet:
    """Region and pixel mixing of two images, and the targets of a pixel of each."""
    found = [scene(0, 29), scene(1, 2)]
    batch = Batch(torch.stack([i.float() / 255 for i, _ in found]), torch.stack([labels for _, labels in found]))
    sheet = Sheet(WIDTH, 688)
    kinds = (("region", MixSettings(region=True, probability=1)), ("pixel", MixSettings(pixel=True, probability=1)))
    for column, (kind, settings) in enumerate(kinds):
        plan = draw_plan(generator(36, "mixing", kind), settings, 2, 96, 96)
        plan = plan._replace(partner=torch.tensor([1, 0]))
        blend = mix(batch, plan)
        x, share = 8 + 320 * column, float(blend.share[0])
        sheet.words(x, 6, f"{kind} mixing" + (f", share {share:.2f}" if kind == "pixel" else ""), 19)
        sheet.place(as_picture(blend.images[0]), x, 36, 3)
        first, second = (colored(labels[0].numpy()).astype(float) for labels in (blend.first, blend.second))
        sheet.place((share * first + (1 - share) * second).round().astype(np.uint8), x, 340, 3)
        targets = (
            hard_targets(blend.first[:1])
            if kind == "region"
            else mixed_targets(blend.first[:1], blend.second[:1], blend.share[:1])
        )
        for number, (row, at) in enumerate(((20, 30), (84, 62))):
            sheet.tag(x + 3 * at + 1, 340 + 3 * row - 17, "AB"[number], 24)
            sheet.dot(x + 3 * at + 1, 340 + 3 * row + 1, 3)
            classes, weights = (part[96 * row + at].tolist() for part in targets[:2])
            terms = [f"{w:.2f} {UNION.names[c].removeprefix('shapes-')}" for c, w in zip(classes, weights, strict=True)]
            sheet.words(x, 636 + 24 * number, f"{'AB'[number]}: {' + '.join(terms)}", 14)
    return sheet


def temperature() -> Sheet:
    """The same similarities at four temperatures: how the target's share among the classes depends on it."""
    names = ("own class", "its twin", "related", "unrelated", "unrelated", "opposite")
    cosines = torch.tensor([0.8, 0.7, 0.5, 0.1, 0.0, -0.3])
    known = Prototypes(cosines[:, None], torch.ones(len(cosines), dtype=torch.bool))  # (C, 1)
    sheet = Sheet(WIDTH, 330)
    sheet.words(8, 8, "temperature", 17, FAINT)
    for row, (name, cosine) in enumerate(zip(names, cosines.tolist(), strict=True)):
        sheet.words(8, 44 + 44 * row, name, 17)
        sheet.words(8, 64 + 44 * row, f"{cosine:.1f}", 15, FAINT)
    for column, tau in enumerate((0.03, 0.07, 0.2, 0.5)):
        x = 118 + 132 * column
        shares = class_logits(torch.ones(1, 1), known, tau).softmax(1)[0].tolist()
        sheet.words(x, 8, f"{tau}", 17)
        for row, share in enumerate(shares):
            sheet.fill(x, 46 + 44 * row, 72, 26, (235, 235, 235))
            sheet.fill(x, 46 + 44 * row, max(1, 72 * share), 26, COLORS[6] if row == 0 else COLORS[8])
            sheet.words(x + 77, 50 + 44 * row, f"{share:.0%}" if share >= 0.01 else "<1%", 15)
    return sheet


def prototypes(before: int = 12, after: int = 300) -> Sheet:
    """Cosines of all prototypes, less what is usual, of a random network and after some steps.

    The random network's are those of a run whose weights stay where they are, once its bank is full.
    """
    sheet = Sheet(WIDTH, 480)
    for column, (words, steps, rate) in enumerate(
        (("random network", before, 1e-30), (f"after {after} steps", after, 0.2))
    ):
        with tempfile.TemporaryDirectory() as folder:
            asked = {"pretrain": {"steps": steps, "lr": rate, "validate_epochs": 0}}
            run = run_pretraining(Request(layers=(merge(RECIPE, asked),), out=Path(folder) / "run", quiet=True))
            source = read_source(run)
        table = centred_cosines(source.known).tolist()
        x = 180 + 230 * column
        sheet.words(x, 8, words, 19)
        for row, values in enumerate(table):
            for place, value in enumerate(values):
                sheet.fill(x + 15 * place, 40 + 24 * row, 14, 23, diverging(value))
    for row, name in enumerate(UNION.names):
        sheet.words(172, 52 + 24 * row, name.removeprefix("shapes-"), 16, INK, "rm")
    for step, value in enumerate(np.linspace(-1, 1, 41)):
        sheet.fill(180 + 8 * step, 400, 8, 18, diverging(float(value)))
    for place, text in ((180, "-1"), (344, "0"), (508, "1")):
        sheet.words(place, 424, text, 16, INK, "ma")
    sheet.words(180, 446, "cosine of two prototypes less the mean of all", 16, FAINT)
    return sheet


FIGURES: dict[str, Callable[[], Sheet]] = {
    "conflict": conflict,
    "views": views,
    "mixing": mixing,
    "temperature": temperature,
    "prototypes": prototypes,
    "contrast_anchors": contrast_pictures.anchors,
    "contrast_memory": contrast_pictures.memory,
    "contrast_cosines": contrast_pictures.contrast,
}

if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    place.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or FIGURES:
        FIGURES[name]().image.save(place / f"{name}.png", optimize=True)
        print(f"wrote {place / name}.png")
