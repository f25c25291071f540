"""A picture of class activation maps: photos, and where the probe's classifier finds their classes.

Shape legend: D features, h x w feature grid, C classes, s sides of an image as the backbone sees it.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from mdp.core.activation_maps import activation_shares, class_activation_maps
from mdp.core.linear_probe import Linear
from mdp.core.regions import cells_under
from mdp.io.files.images import as_picture, png_bytes
from mdp.io.files.reading import printable
from mdp.io.files.writing import write_atomically
from mdp.io.pictures.sheet import GAP, INK, LINE, MARGIN, PAPER, cut, font
from mdp.io.unsupervised.features import Features
from mdp.io.unsupervised.probe_images import Cut, Probed, ProbeItem, ProbeItems

_ROWS, _CLASSES = 8, 3  # images; classes of each at most
_SIDE = 200  # of a picture
_HOT = np.array([214, 32, 48], dtype=np.float32)
_OPACITY = 0.7


def write_activations(path: Path, features: Features, classifier: Linear, images: Probed, cut_: Cut, unit: bool) -> int:
    """Draws a few evenly spaced images of the test split, and returns how many.

    `unit`: the classifier was fitted to pooled features of length 1.
    """
    count = len(images.test.samples)
    items = ProbeItems(images, images.test, cut_)
    rows = []
    for number in range(min(_ROWS, count)):
        item = items[0, number * count // min(_ROWS, count)]
        if not isinstance(item, ProbeItem):
            raise item
        rows.append((images.test.samples[item.sample].image, _panels(item, features, classifier, images.classes, unit)))
    write_atomically(path, [png_bytes(_sheet(rows, "Where the classifier finds the classes of an image"))])
    return len(rows)


Panels = list[tuple[str, NDArray[np.uint8]]]  # a caption, a picture


def _panels(item: ProbeItem, features: Features, classifier: Linear, classes: tuple[str, ...], unit: bool) -> Panels:
    """The photo, and the maps of its classes, those with the best scores first."""
    maps = features.maps(item.image[None])  # (1, D, h, w)
    if unit:
        maps = maps / maps.mean((2, 3)).norm().clamp(min=1e-12)
    weight = classifier.weight.to(maps.device)
    scores = class_activation_maps(maps, weight)[0].mean((1, 2)).cpu() + classifier.bias.cpu().float()  # (C,)
    shown = [label for label in scores.argsort(descending=True).tolist() if item.positives[label]][:_CLASSES]
    guess = int(scores.argmax())
    heat = activation_shares(class_activation_maps(maps, weight)[0]).cpu()  # (C, h, w)
    photo = as_picture(item.image.permute(1, 2, 0).numpy())
    panels: Panels = [("photo", photo)]
    panels += [(printable(classes[label]), _heated(photo, heat[label], features)) for label in shown]
    if guess not in shown:
        panels.append((f"best score: {printable(classes[guess])}", _heated(photo, heat[guess], features)))
    return panels


def _heated(photo: NDArray[np.uint8], heat: Tensor, features: Features) -> NDArray[np.uint8]:
    """The photo (s, s, 3) in grey, red where the map (h, w) is high."""
    side = photo.shape[0]
    cells = cells_under(side, side, features.grid)
    smooth = _smoothed(heat[cells[:, None], cells], features.stride).numpy()[..., None]  # (s, s, 1)
    grey = photo.astype(np.float32).mean(2, keepdims=True)
    mixed: NDArray[np.uint8] = (grey + _OPACITY * smooth * (_HOT - grey)).round().astype(np.uint8)
    return mixed


def _smoothed(heat: Tensor, stride: int) -> Tensor:
    """A map (s, s) of blocks, each pixel the mean of those within half a block: bilinear between their middles."""
    reach = stride // 2
    padded = F.pad(heat[None, None], (reach,) * 4, mode="replicate")
    return F.avg_pool2d(padded, 2 * reach + 1, 1)[0, 0] if reach else heat


def _sheet(rows: list[tuple[str, Panels]], title: str) -> Image.Image:
    across = max(len(panels) for _, panels in rows)
    width = 2 * MARGIN + across * (_SIDE + GAP) - GAP
    height = 2 * MARGIN + LINE + GAP + len(rows) * (2 * LINE + _SIDE + GAP)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 4), cut(title, font(18), width - 2 * MARGIN), INK, font(18))
    for row, (name, panels) in enumerate(rows):
        top = MARGIN + LINE + GAP + row * (2 * LINE + _SIDE + GAP)
        draw.text((MARGIN, top + 2), cut(printable(name), font(15), width - 2 * MARGIN), INK, font(15))
        for column, (caption, picture) in enumerate(panels):
            left = MARGIN + column * (_SIDE + GAP)
            draw.text((left, top + LINE + 2), cut(caption, font(15), _SIDE), INK, font(15))
            sheet.paste(Image.fromarray(picture).resize((_SIDE, _SIDE)), (left, top + 2 * LINE))
    return sheet
