"""A gallery of the images that a network does worst on: photo, ground truth, prediction and errors side by side.

Images are ordered by their own mIoU, over the classes that are labelled or predicted in them.  While a split is scored
only the worst are kept, each as a small picture, so that memory does not depend on the number of images.

Shape legend: H x W image.
"""

import heapq
import io
import json
import math
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from mdp.core.labels import IGNORE, LabelSpace
from mdp.core.metrics import mean_iou, pixel_accuracy
from mdp.core.protocols import Counted
from mdp.io.errors import ResourceError
from mdp.io.files.images import as_picture, png_bytes
from mdp.io.files.reading import printable
from mdp.io.files.writing import make, write_atomically, write_text
from mdp.io.pictures.class_colors import colors_of_space
from mdp.io.pictures.sheet import (
    FAINT,
    GAP,
    IGNORED,
    INK,
    LINE,
    MARGIN,
    PAPER,
    class_picture,
    cut,
    fitted,
    font,
    legend,
    resized,
    swatch,
)
from mdp.io.processes.world import World

PER_PAGE = 12
RULE = (
    "worst first by the image's own mIoU: the mean IoU, on its labelled pixels, of the classes labelled or predicted "
    "there; images without a labelled pixel are left out"
)
HEADINGS = ("photo", "ground truth", "prediction", "errors")
_PANEL = (300, 260)  # the largest width and height of one picture
_WIDTH = 2 * MARGIN + len(HEADINGS) * _PANEL[0] + (len(HEADINGS) - 1) * GAP
_RIGHT, _WRONG = (238, 238, 232), (214, 32, 48)


class Shown(NamedTuple):
    """An image of the gallery."""

    miou: float
    sample: int  # its index in the split
    name: str
    accuracy: float  # share of its labelled pixels that is right
    classes: tuple[int, ...]  # labelled or predicted in it
    picture: bytes  # a PNG of the four panels


class Worst:
    """The `count` worst images that this process has seen."""

    def __init__(self, count: int, space: LabelSpace) -> None:
        self.count, self.space = count, space
        self.heap: list[tuple[float, int, Shown]] = []  # the best of the worst first

    def observe_(self, counted: Counted) -> None:
        """Keeps the image if it is among the worst."""
        index, confusion = counted.index, counted.counts.sums["confusion"]
        miou = mean_iou(confusion)
        if not math.isfinite(miou):
            return
        rank = (-miou, -index)  # equal scores by index, so that several processes keep the images that one would
        if len(self.heap) == self.count and rank < self.heap[0][:2]:
            return
        keep = heapq.heappush if len(self.heap) < self.count else heapq.heappushpop
        guess, labels = counted.prediction.labels, counted.labels
        keep(self.heap, (*rank, look(index, counted.name, confusion, counted.image, guess, labels, self.space)))

    def of_all(self, world: World) -> list[Shown]:
        """The worst of all processes, worst first."""
        worst = [item for own in world.gather_objects([shown for *_, shown in self.heap]) for item in own]
        return sorted(worst)[: self.count]


# The four panels of an image


def look(
    sample: int, name: str, counts: Tensor, image: Tensor, guess: Tensor, labels: Tensor, space: LabelSpace
) -> Shown:
    """An image (K, H, W) with its confusion matrix, prediction and labels (H, W), as it will be shown."""
    present = ((counts.sum(0) + counts.sum(1)) > 0).nonzero().flatten().tolist()
    picture = png_bytes(panels(image, guess, labels, space))
    return Shown(mean_iou(counts), sample, name, pixel_accuracy(counts), tuple(present), picture)


def panels(image: Tensor, guess: Tensor, labels: Tensor, space: LabelSpace) -> Image.Image:
    """Photo, ground truth, prediction and errors (wrong pixels red, ignored ones grey), side by side."""
    truth, predicted = labels.numpy().astype(np.int64), guess.numpy().astype(np.int64)  # (H, W)
    colors = colors_of_space(space)
    maps = (class_picture(classes, colors, _PANEL) for classes in (truth, predicted))
    pictures = (as_picture(image.permute(1, 2, 0).numpy()), *maps, errors(predicted, truth))
    height, width = truth.shape
    size = fitted(width, height, _PANEL)
    row = Image.new("RGB", (len(pictures) * (_PANEL[0] + GAP) - GAP, size[1]), PAPER)
    for i, picture in enumerate(pictures):
        row.paste(resized(picture, size), (i * (_PANEL[0] + GAP), 0))
    return row


def errors(guess: NDArray[np.integer], labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Where a prediction (H, W) is wrong, as a picture (H, W, 3)."""
    picture = np.empty((*labels.shape, 3), dtype=np.uint8)
    picture[:] = _RIGHT
    picture[guess != labels] = _WRONG
    picture[labels == IGNORE] = IGNORED
    return picture


# Pages


def write_gallery(folder: Path, shown: Sequence[Shown], space: LabelSpace, title: str) -> list[Path]:
    """Writes the pages and gallery.json, in place of those of an earlier call, and returns the pages.

    Raises ResourceError when they cannot be written.
    """
    make(folder)
    parts = [shown[start : start + PER_PAGE] for start in range(0, len(shown), PER_PAGE)]
    paths = [folder / f"page-{number:02d}.png" for number in range(1, len(parts) + 1)]
    listed = []
    for number, (path, part) in enumerate(zip(paths, parts, strict=True)):
        heading = f"{title}, page {number + 1} of {len(parts)}"
        first = number * PER_PAGE + 1
        ranks = [f"{first + i}." for i in range(len(part))]
        write_atomically(path, [png_bytes(page(part, ranks, space, heading))])
        listed += [_line(first + i, item, path.name) for i, item in enumerate(part)]
    write_text(folder / "gallery.json", json.dumps({"rule": RULE, "title": title, "images": listed}, indent=1) + "\n")
    _remove_others(folder, paths)
    return paths


def _line(rank: int, item: Shown, page_name: str) -> dict[str, Any]:
    return {"rank": rank, "image": item.name, "miou": item.miou, "accuracy": item.accuracy, "page": page_name}


def _remove_others(folder: Path, kept: Sequence[Path]) -> None:
    """Removes the pages of an earlier, longer gallery."""
    try:
        for path in folder.glob("page-[0-9]*.png"):
            if path not in kept:
                path.unlink()
    except OSError as error:
        raise ResourceError(f"{folder}: an earlier page cannot be removed: {error.strerror}") from error


def page(shown: Sequence[Shown], ranks: Sequence[str], space: LabelSpace, heading: str) -> Image.Image:
    """One page: a heading, the classes that occur on it, and a row for each image, which says its rank.

    What all names begin with stands in the heading.
    """
    rows = [Image.open(io.BytesIO(item.picture), formats=("PNG",)).convert("RGB") for item in shown]
    colors = colors_of_space(space)
    classes = sorted({label for item in shown for label in item.classes})
    entries = legend([(colors[label], printable(space.classes[label])) for label in classes], _WIDTH - 2 * MARGIN)
    meaning_top = MARGIN + LINE + 8 + LINE * (1 + max((line for line, *_ in entries), default=-1))
    headings_top = meaning_top + LINE + 12
    tops, bottom = [], headings_top + LINE
    for row in rows:
        tops.append(bottom)
        bottom += LINE + row.height + GAP + 4
    sheet = Image.new("RGB", (_WIDTH, bottom + MARGIN - GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    room = _WIDTH - 2 * MARGIN
    common = _common_folder([item.name for item in shown])
    draw.text((MARGIN, MARGIN - 4), cut(f"{heading}   {printable(common)}", font(18), room), INK, font(18))
    for line, column, color, text in entries:
        swatch(draw, MARGIN + column, MARGIN + LINE + 8 + line * LINE, color, text)
    left = MARGIN
    for color, text in ((_WRONG, "wrong"), (_RIGHT, "right"), (IGNORED, "ignored: striped in the ground truth")):
        left += swatch(draw, left, meaning_top, color, text)
    for i, text in enumerate(HEADINGS):
        draw.text((MARGIN + i * (_PANEL[0] + GAP), headings_top), text, FAINT, font(15))
    for rank, item, row, top in zip(ranks, shown, rows, tops, strict=True):
        score = f"{rank}   mIoU {100 * item.miou:.1f}   right pixels {100 * item.accuracy:.1f} %   "
        draw.text((MARGIN, top + 2), cut(score + printable(item.name[len(common) :]), font(15), room), INK, font(15))
        sheet.paste(row, (MARGIN, top + LINE))
    return sheet


def _common_folder(names: Sequence[str]) -> str:
    """The folders that all names begin with, and the / after them.

    >>> _common_folder(["a/b/c.png", "a/bb/d.png"]), _common_folder(["x.png"])
    ('a/', '')
    """
    levels = zip(*(name.split("/")[:-1] for name in names), strict=False)
    return "".join(f"{level[0]}/" for level in takewhile(lambda level: len(set(level)) == 1, levels))
