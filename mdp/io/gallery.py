"""A gallery of the images that a network does worst on: photo, ground truth, prediction and errors side by side.

Images are ordered by their own mIoU, over the classes that are labelled or predicted in them.  While a split is scored
only the worst are kept, each as a small picture, so that memory does not depend on the number of images.

Shape legend: H x W image.
"""

import heapq
import io
import json
import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mdp.core.labels import IGNORE, RGB, LabelSpace
from mdp.core.metrics import mean_iou, pixel_accuracy
from mdp.io.checkpoint import write_atomically
from mdp.io.distributed import World
from mdp.io.errors import ResourceError
from mdp.io.files import printable
from mdp.io.images import png_bytes, voc_colormap
from mdp.io.runs import make, write_text

PER_PAGE = 12
RULE = (
    "worst first by the image's own mIoU: the mean IoU, on its labelled pixels, of the classes labelled or predicted "
    "there; images without a labelled pixel are left out"
)
HEADINGS = ("photo", "ground truth", "prediction", "errors")
_PANEL = (300, 260)  # the largest width and height of one picture
_GAP, _MARGIN, _LINE = 10, 16, 24  # between pictures, around the page, a line of text
_WIDTH = 2 * _MARGIN + len(HEADINGS) * _PANEL[0] + (len(HEADINGS) - 1) * _GAP
_PAPER, _INK, _FAINT = (255, 255, 255), (25, 25, 25), (110, 110, 110)
_RIGHT, _WRONG, _IGNORED, _STRIPE = (238, 238, 232), (214, 32, 48), (168, 168, 168), (205, 205, 205)


class Shown(NamedTuple):
    """An image of the gallery."""

    miou: float
    place: int  # in the split
    name: str
    accuracy: float  # share of its labelled pixels that is right
    classes: tuple[int, ...]  # labelled or predicted in it
    picture: bytes  # a PNG of the four panels


class Worst:
    """The `count` worst images that this process has seen."""

    def __init__(self, count: int, space: LabelSpace) -> None:
        self.count, self.space = count, space
        self.heap: list[tuple[float, int, Shown]] = []  # the best of the worst first

    def see_(self, place: int, name: str, counts: Tensor, image: Tensor, guess: Tensor, labels: Tensor) -> None:
        """Takes an image (3, H, W) in, with its confusion matrix, if it is among the worst; labels are (H, W)."""
        miou = mean_iou(counts)
        if not math.isfinite(miou):
            return
        rank = (-miou, -place)
        if len(self.heap) == self.count and rank < self.heap[0][:2]:
            return
        seen = ((counts.sum(0) + counts.sum(1)) > 0).nonzero().flatten().tolist()
        picture = png_bytes(panels(image, guess, labels, self.space))
        shown = Shown(miou, place, name, pixel_accuracy(counts), tuple(seen), picture)
        keep = heapq.heappush if len(self.heap) < self.count else heapq.heappushpop
        keep(self.heap, (*rank, shown))

    def of_all(self, world: World) -> list[Shown]:
        """The worst of all processes, worst first."""
        found = [item for own in world.told([shown for *_, shown in self.heap]) for item in own]
        return sorted(found)[: self.count]


# The four panels of an image


def panels(image: Tensor, guess: Tensor, labels: Tensor, space: LabelSpace) -> Image.Image:
    """Photo, ground truth, prediction and errors (wrong pixels red, ignored ones grey), side by side."""
    truth, said = labels.numpy().astype(np.int64), guess.numpy().astype(np.int64)  # (H, W)
    colors = space.colors or voc_colormap(len(space.classes))
    pictures = (image.permute(1, 2, 0).numpy(), _classes(truth, colors), _classes(said, colors), errors(said, truth))
    height, width = truth.shape
    size = _fitted(width, height)
    row = Image.new("RGB", (len(pictures) * (_PANEL[0] + _GAP) - _GAP, size[1]), _PAPER)
    for i, picture in enumerate(pictures):
        row.paste(_resized(picture, size), (i * (_PANEL[0] + _GAP), 0))
    return row


def errors(guess: NDArray[np.integer], labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Where a prediction (H, W) is wrong, as a picture (H, W, 3)."""
    picture = np.empty((*labels.shape, 3), dtype=np.uint8)
    picture[:] = _RIGHT
    picture[guess != labels] = _WRONG
    picture[labels == IGNORE] = _IGNORED
    return picture


def _classes(classes: NDArray[np.integer], colors: tuple[RGB, ...]) -> NDArray[np.uint8]:
    """The classes in their colours; ignored pixels are striped, since any one colour may be that of a class."""
    picture: NDArray[np.uint8] = np.array([*colors, _IGNORED], dtype=np.uint8)[classes]
    rows, columns = np.ogrid[: classes.shape[0], : classes.shape[1]]
    band = max(1, round(4 * max(classes.shape[1] / _PANEL[0], classes.shape[0] / _PANEL[1])))
    stripes = (rows + columns) // band % 2 == 0
    picture[(classes == IGNORE) & stripes] = _STRIPE
    return picture


def _fitted(width: int, height: int) -> tuple[int, int]:
    """The size, width first, of a picture that fills a panel as far as its aspect allows."""
    factor = min(_PANEL[0] / width, _PANEL[1] / height)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _resized(picture: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    """Smaller by averages, so that thin errors still show; larger as blocks, which are the pixels there are."""
    smaller = size[0] < picture.shape[1]
    return Image.fromarray(picture).resize(size, Image.Resampling.BOX if smaller else Image.Resampling.NEAREST)


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
        write_atomically(path, [png_bytes(page(part, first, space, heading))])
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


def page(shown: Sequence[Shown], first: int, space: LabelSpace, heading: str) -> Image.Image:
    """One page: a heading, the classes that occur on it, and a row for each image, of which the first has rank `first`.

    What all names begin with stands in the heading.
    """
    rows = [Image.open(io.BytesIO(item.picture), formats=("PNG",)).convert("RGB") for item in shown]
    legend = list(_legend(sorted({label for item in shown for label in item.classes}), space))
    meaning_top = _MARGIN + _LINE + 8 + _LINE * (1 + max((line for line, *_ in legend), default=-1))
    headings_top = meaning_top + _LINE + 12
    tops, bottom = [], headings_top + _LINE
    for row in rows:
        tops.append(bottom)
        bottom += _LINE + row.height + _GAP + 4
    sheet = Image.new("RGB", (_WIDTH, bottom + _MARGIN - _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    common = _common_folder([item.name for item in shown])
    draw.text((_MARGIN, _MARGIN - 4), _cut(f"{heading}   {printable(common)}", _font(18)), _INK, _font(18))
    for line, column, color, text in legend:
        _swatch(draw, _MARGIN + column, _MARGIN + _LINE + 8 + line * _LINE, color, text)
    left = _MARGIN
    for color, text in ((_WRONG, "wrong"), (_RIGHT, "right"), (_IGNORED, "ignored: striped in the ground truth")):
        left += _swatch(draw, left, meaning_top, color, text)
    for i, text in enumerate(HEADINGS):
        draw.text((_MARGIN + i * (_PANEL[0] + _GAP), headings_top), text, _FAINT, _font(15))
    for i, (item, row, top) in enumerate(zip(shown, rows, tops, strict=True)):
        score = f"{first + i}.   mIoU {100 * item.miou:.1f}   right pixels {100 * item.accuracy:.1f} %   "
        draw.text((_MARGIN, top + 2), _cut(score + printable(item.name[len(common) :]), _font(15)), _INK, _font(15))
        sheet.paste(row, (_MARGIN, top + _LINE))
    return sheet


def _common_folder(names: Sequence[str]) -> str:
    """The folders that all names begin with, and the / after them.

    >>> _common_folder(["a/b/c.png", "a/bb/d.png"]), _common_folder(["x.png"])
    ('a/', '')
    """
    levels = zip(*(name.split("/")[:-1] for name in names), strict=False)
    return "".join(f"{level[0]}/" for level in takewhile(lambda level: len(set(level)) == 1, levels))


def _legend(classes: Sequence[int], space: LabelSpace) -> Iterator[tuple[int, int, RGB, str]]:
    """Line, column in pixels, colour and name of each class, in as many columns as the longest name leaves room for."""
    colors = space.colors or voc_colormap(len(space.classes))
    names = [_cut(printable(space.classes[label]), _font(15), 360) for label in classes]
    width = max((int(_font(15).getlength(name)) for name in names), default=0) + 44
    columns = max(1, (_WIDTH - 2 * _MARGIN) // width)
    for i, (label, name) in enumerate(zip(classes, names, strict=True)):
        yield i // columns, i % columns * width, colors[label], name


def _swatch(draw: ImageDraw.ImageDraw, left: int, top: int, color: RGB, text: str) -> int:
    """A colour and what it means; returns the width."""
    draw.rectangle((left, top + 3, left + 18, top + 17), color, _FAINT)
    draw.text((left + 26, top), text, _INK, _font(15))
    return int(_font(15).getlength(text)) + 50


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int = _WIDTH - 2 * _MARGIN) -> str:
    """The text, or as much of its beginning and end as fits: names of files differ at their end."""
    if font.getlength(text) <= width:
        return text
    low, high = 0, min(len(text), width)  # characters that fit, and that do not
    while high - low > 1:
        length = (low + high) // 2
        low, high = (length, high) if font.getlength(_shortened(text, length)) <= width else (low, length)
    return _shortened(text, low)


def _shortened(text: str, length: int) -> str:
    """So many characters of the text, and dots in place of its middle."""
    return f"{text[: length // 2]}...{text[len(text) - (length + 1) // 2 :]}"
