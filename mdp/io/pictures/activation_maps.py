"""Class activation maps for people: a photo beside where in it a linear classifier finds each of some classes.

Shape legend: H x W photo, D features, h x w feature grid, C classes.
"""

from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from mdp.core.activation_maps import activation_shares, class_activation_maps
from mdp.core.geometry import Grid
from mdp.core.regions import cells_under
from mdp.io.files.reading import printable
from mdp.io.pictures.sheet import GAP, INK, LINE, MARGIN, PAPER, cut, font

CLASSES = 3  # of a photo, at most
_SIDE = 200  # of a picture
_HOT = np.array([214, 32, 48], dtype=np.float32)
_OPACITY = 0.7

Panels = list[tuple[str, NDArray[np.uint8]]]  # a caption, a picture (H, W, 3)


class Classified(NamedTuple):
    """A photo as a network saw it, and the linear classifier that reads its features."""

    photo: NDArray[np.uint8]  # (H, W, 3)
    features: Tensor  # (D, h, w)
    grid: Grid  # where its cells look
    weight: Tensor  # (C, D)
    bias: Tensor  # (C,)


def class_panels(seen: Classified, there: Tensor, classes: tuple[str, ...]) -> Panels:
    """The photo, and the maps of the classes that are there (C,), those with the best scores first.

    The class with the best score of all has its map too, if it is not among them.
    """
    maps = class_activation_maps(seen.features[None], seen.weight.to(seen.features.device))[0]  # (C, h, w)
    scores = maps.mean((1, 2)).cpu() + seen.bias.cpu().float()  # (C,)
    shown = [label for label in scores.argsort(descending=True).tolist() if there[label]][:CLASSES]
    guess, heat = int(scores.argmax()), activation_shares(maps).cpu()
    panels: Panels = [("photo", seen.photo)]
    panels += [(printable(classes[label]), _heated(seen.photo, heat[label], seen.grid)) for label in shown]
    if guess not in shown:
        panels.append((f"best score: {printable(classes[guess])}", _heated(seen.photo, heat[guess], seen.grid)))
    return panels


def _heated(photo: NDArray[np.uint8], heat: Tensor, grid: Grid) -> NDArray[np.uint8]:
    """The photo (H, W, 3) in grey, red where the map (h, w) is high."""
    down, across = (cells_under(length, length, grid) for length in photo.shape[:2])
    smooth = _smoothed(heat[down[:, None], across], grid.stride).numpy()[..., None]  # (H, W, 1)
    grey = photo.astype(np.float32).mean(2, keepdims=True)
    mixed: NDArray[np.uint8] = (grey + _OPACITY * smooth * (_HOT - grey)).round().astype(np.uint8)
    return mixed


def _smoothed(heat: Tensor, stride: int) -> Tensor:
    """A map (H, W) of blocks, each pixel the mean of those within half a block: bilinear between their middles."""
    reach = stride // 2
    padded = F.pad(heat[None, None], (reach,) * 4, mode="replicate")
    return F.avg_pool2d(padded, 2 * reach + 1, 1)[0, 0] if reach else heat


def activation_sheet(rows: list[tuple[str, Panels]], title: str) -> Image.Image:
    """A row for each photo, with its name."""
    across = max(len(panels) for _, panels in rows)
    width = 2 * MARGIN + across * (_SIDE + GAP) - GAP
    tall = [2 * LINE + GAP + max(_fitting(picture.shape)[1] for _, picture in panels) for _, panels in rows]
    height = 2 * MARGIN + LINE + GAP + sum(tall)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 4), cut(title, font(18), width - 2 * MARGIN), INK, font(18))
    for (name, panels), top in zip(rows, accumulate(tall, initial=MARGIN + LINE + GAP), strict=False):
        draw.text((MARGIN, top + 2), cut(printable(name), font(15), width - 2 * MARGIN), INK, font(15))
        for column, (caption, picture) in enumerate(panels):
            left = MARGIN + column * (_SIDE + GAP)
            draw.text((left, top + LINE + 2), cut(caption, font(15), _SIDE), INK, font(15))
            sheet.paste(Image.fromarray(picture).resize(_fitting(picture.shape)), (left, top + 2 * LINE))
    return sheet


def _fitting(shape: tuple[int, ...]) -> tuple[int, int]:
    """Width and height of a picture (H, W, 3) whose long side is that of a panel."""
    height, width = shape[:2]
    return max(1, round(_SIDE * width / max(height, width))), max(1, round(_SIDE * height / max(height, width)))
