"""Class activation maps of a run's own classifier, drawn into its folder for its report.

Shape legend: K channels of an image, H x W image, D features, h x w feature grid.
"""

from pathlib import Path

import torch
from torch import Tensor

from mdp.core.geometry import Box, View, cut_image, fitted_size
from mdp.core.labels import IGNORE
from mdp.core.networks import Segmentor
from mdp.core.photometry import as_float, normalise
from mdp.io.data.pool import Pool
from mdp.io.data.selection import named, pool_of
from mdp.io.datasets._dataset import open_split
from mdp.io.errors import MdpError
from mdp.io.files.images import as_picture, png_bytes
from mdp.io.files.writing import write_atomically
from mdp.io.pictures.activation_maps import Classified, Panels, activation_sheet, class_panels
from mdp.io.run.folder import checkpoint_of
from mdp.io.run.opened import OpenedRun, open_run, same_labels, trained_network
from mdp.io.run.record import FINETUNE

FILE = "activations.png"
_ROWS = 8  # images
_LONG = 640  # pixels: larger images are looked at in this size


def draw_activations(folder: Path) -> str:
    """Draws the maps of a run that has a classifier of its own, unless its picture is newer than its checkpoint.

    Returns what stands in the way, in words, such as photos that are gone; "" where nothing does.
    """
    try:
        checkpoint, picture = checkpoint_of(folder), folder / FILE
        if picture.is_file() and picture.stat().st_mtime > checkpoint.stat().st_mtime:
            return ""
        opened = open_run(checkpoint)
        network = trained_network(opened)
        if not isinstance(network, Segmentor):
            return ""  # it knows no classes, or only by prototypes
        pool = _pool(opened)
        rows = _rows(network.eval(), pool)
        write_atomically(picture, [png_bytes(activation_sheet(rows, "Where the run's own classifier finds classes"))])
    except MdpError as error:
        return f"no activation maps: {error}"
    return ""


def _pool(opened: OpenedRun) -> Pool:
    """The images that the run was to be scored on, or those of a dataset without such that it was trained on."""
    recipe = opened.recipe
    names = [recipe.finetune.target] if opened.record.kind == FINETUNE else recipe.pretrain.datasets
    parts = []
    for name in names:
        dataset, _ = named(name)
        samples, _ = open_split(dataset, Path(recipe.data.root), dataset.val or dataset.train[0])
        parts.append((dataset, samples))
    pool = pool_of(parts)
    same_labels(opened.record, pool.union, opened.path)
    return pool


@torch.no_grad()
def _rows(network: Segmentor, pool: Pool) -> list[tuple[str, Panels]]:
    """Name and pictures of a few evenly spaced images."""
    count, rows = len(pool.samples), []
    names = tuple(name for space in pool.union.spaces for name in space.classes)
    weight, bias = network.classifier.weight[:, :, 0, 0], network.classifier.bias  # (C, D), (C,)
    assert bias is not None
    weight, bias = weight - weight.mean(0), bias - bias.mean()  # what all classes share, a softmax does not see
    for number in range(min(_ROWS, count)):
        index = number * count // min(_ROWS, count)
        image, labels = pool.read(index)
        image = _at_most(image)
        features = network.features(normalise(as_float(image[None]), network.statistics))[0]  # (D, h, w)
        there = torch.zeros(len(names), dtype=torch.bool)
        present = torch.unique(labels).long()
        there[present[present != IGNORE]] = True
        photo = as_picture(image.permute(1, 2, 0).numpy())
        seen = Classified(photo, features, network.grid, weight, bias)
        rows.append((pool.samples[index].image, class_panels(seen, there, names)))
    return rows


def _at_most(image: Tensor) -> Tensor:
    """The image (K, H, W), made smaller where it is large."""
    height, width = int(image.shape[1]), int(image.shape[2])
    if max(height, width) <= _LONG:
        return image
    return cut_image(image, View(Box(0, 0, height, width), False), fitted_size(height, width, (_LONG, _LONG)))
