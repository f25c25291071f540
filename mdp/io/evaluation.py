"""Scoring a segmentor: one int64 confusion matrix over a split, scores from the matrix, at the labels' resolution."""

import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mdp.core.labels import LabelSpace
from mdp.core.metrics import (
    class_accuracy,
    class_iou,
    confusion_matrix,
    majority,
    mean_accuracy,
    mean_iou,
    pixel_accuracy,
)
from mdp.core.networks import Segmentor
from mdp.io.distributed import ALONE, World
from mdp.io.errors import DatasetError, MdpError
from mdp.io.gallery import Worst
from mdp.io.images import overlay, write_labels, write_rgb
from mdp.io.inference import predict
from mdp.io.loading import Pool, WholeItems, load
from mdp.io.recipe import EvalSettings
from mdp.io.signals import Stop

BLOCKS = 20  # of consecutive images, which bootstrap intervals resample as a whole
RULE = (
    "mIoU: mean IoU over classes whose union of labelled and predicted pixels is not empty, from one confusion matrix "
    "over all images at the label maps' own resolution, ignored pixels left out (MMSegmentation's rule)"
)


def score(
    network: Segmentor,
    pool: Pool,
    settings: EvalSettings,
    device: torch.device,
    workers: int,
    stop: Stop | None = None,
    tell: Callable[[int, int], None] | None = None,
    keep: Path | None = None,
    world: World = ALONE,
    skipped: Callable[[MdpError], None] | None = None,
    worst: Worst | None = None,
) -> Tensor:
    """Confusion matrices (K, C, C) of the network over K blocks of consecutive images of the pool.

    They add up to that of all images; apart they tell how much the score depends on the choice of images.  The network
    is left in evaluation mode.  The images are dealt out to all processes.  `tell` hears (images done, images in all);
    `keep` is a folder for label PNGs and overlays.  A `stop` that is set ends it early.  `skipped` hears of files that
    cannot be read and are left out; without it the first of them is raised.  `worst` sees every image.
    """
    (space,) = pool.union.spaces
    count = min(len(pool.samples), settings.images or len(pool.samples))
    blocks = min(BLOCKS, count)
    confusion = torch.zeros(blocks, pool.union.size, pool.union.size, dtype=torch.int64)
    network.eval()
    own = range(world.rank, count, world.size)
    with closing(load(WholeItems(pool), iter([[(0, index)] for index in own]), workers, skipped)) as items:
        for done, found in enumerate(items, 1):
            for item in found:
                guess = predict(network, item.image, settings, device)
                counts = confusion_matrix(guess, item.labels, pool.union.size)
                confusion[item.place * blocks // count] += counts
                if worst:
                    worst.see_(item.place, pool.samples[item.place].image, counts, item.image, guess, item.labels)
                if keep:
                    _keep(keep, pool.samples[item.place].image, item.image, guess, item.labels, space)
            if tell:
                tell(min(done * world.size, count), count)
            if stop:
                break
    return world.all_sum(confusion)


def _keep(folder: Path, name: str, image: Tensor, guess: Tensor, labels: Tensor, space: LabelSpace) -> None:
    """Writes the predicted classes as a palette PNG, and the photo tinted by prediction and by label side by side."""
    stem = Path(name).stem
    write_labels(folder / "predictions" / f"{stem}.png", guess.numpy(), space.colors)
    rgb = image.permute(1, 2, 0).numpy()
    pair = [overlay(rgb, classes.numpy().astype(int), space.colors) for classes in (guess, labels)]
    write_rgb(folder / "overlays" / f"{stem}.png", np.hstack(pair))


def prepare_keep(folder: Path, pool: Pool) -> Path:
    """Makes the folders that `keep` needs.  Raises DatasetError when two images would share a file."""
    stems = [Path(sample.image).stem for sample in pool.samples]
    if len(set(stems)) != len(stems):
        raise DatasetError(f"{len(stems) - len(set(stems))} images share their file's stem; predictions would collide")
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    (folder / "overlays").mkdir(parents=True, exist_ok=True)
    return folder


def summary(confusion: Tensor, space: LabelSpace) -> dict[str, Any]:
    """All scores of a confusion matrix as JSON: means in 0..1, a row for each class, null where undefined."""
    iou, accuracy = class_iou(confusion).tolist(), class_accuracy(confusion).tolist()
    labelled, predicted = confusion.sum(1).tolist(), confusion.sum(0).tolist()
    frequent = int(confusion.sum(1).argmax())
    rows = [
        {
            "name": name,
            "iou": _number(iou[i]),
            "acc": _number(accuracy[i]),
            "labelled_pixels": labelled[i],
            "predicted_pixels": predicted[i],
        }
        for i, name in enumerate(space.classes)
    ]
    return {
        "rule": RULE,
        "miou": _number(mean_iou(confusion)),
        "macc": _number(mean_accuracy(confusion)),
        "aacc": _number(pixel_accuracy(confusion)),
        "classes_counted": sum(row["iou"] is not None for row in rows),
        "majority": {"class": space.classes[frequent], "miou": _number(mean_iou(majority(confusion)))},
        "classes": rows,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def table(scores: dict[str, Any]) -> str:
    """The scores for people: a row for each class, the means last, in percent."""
    width = max(len(row["name"]) for row in scores["classes"]) + 2
    lines = [f"{'class':<{width}}{'IoU':>8}{'Acc':>8}{'pixels':>14}"]
    for row in scores["classes"]:
        cells = f"{_percent(row['iou']):>8}{_percent(row['acc']):>8}{row['labelled_pixels']:>14,}"
        lines.append(f"{row['name']:<{width}}{cells}")
    counted, majority = scores["classes_counted"], scores["majority"]
    lines.append(
        f"\nmIoU {_percent(scores['miou'])}   mAcc {_percent(scores['macc'])}   aAcc {_percent(scores['aacc'])}   "
        f"({counted} of {len(scores['classes'])} classes counted; always saying {majority['class']!r}: "
        f"mIoU {_percent(majority['miou'])})"
    )
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
