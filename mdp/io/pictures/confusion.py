"""A confusion matrix as a picture: each row is a true class, its cells the shares that were given to which class.

Names stand beside rows and columns as long as they can be read; beyond that, every tenth row is numbered.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mdp.io.pictures.sheet import font as font_of

_NAMED = 60  # classes whose names are drawn
_NUMBERED = 24  # classes whose cells hold a number
_SIDE = 1400  # pixels that a large matrix takes
_LETTERS = 28  # of a name that are shown
_TITLE = "rows: true class, columns: prediction, % of the row's pixels"
_WHITE, _INK, _GREY = (255, 255, 255), (30, 30, 30), (225, 225, 225)
# from white to dark blue, lightness falling evenly: what is seen as darker is more
_RAMP = np.array([(255, 255, 255), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107)], dtype=np.float64)


def confusion_picture(confusion: Tensor, names: Sequence[str]) -> NDArray[np.uint8]:
    """RGB (height, width, 3) uint8 of a confusion matrix (C, C), rows divided by their sums; empty rows are grey."""
    classes = len(names)
    cell = 34 if classes <= _NUMBERED else 18 if classes <= _NAMED else max(1, _SIDE // classes)
    shares = row_shares(confusion)
    colors = np.where(np.isnan(shares)[..., None], _GREY, ramp(np.nan_to_num(shares))).astype(np.uint8)
    labels = [_short(name, i) for i, name in enumerate(names)] if classes <= _NAMED else _numbers(classes)
    font = font_of(14 if classes <= _NUMBERED else 12)
    margin = int(max(font.getlength(label) for label in labels)) + 16
    side, top = cell * classes, 40
    wide = margin + max(side + 90, int(font.getlength(_TITLE)) + 16)
    picture = Image.new("RGB", (wide, top + side + margin + 12), _WHITE)
    picture.paste(Image.fromarray(colors.repeat(cell, 0).repeat(cell, 1)), (margin, top))
    draw = ImageDraw.Draw(picture)
    draw.text((margin, 12), _TITLE, _INK, font)
    draw.rectangle((margin - 1, top - 1, margin + side, top + side), outline=_INK)
    for i, label in enumerate(labels):
        middle = i * cell + cell // 2
        draw.text((margin - 6, top + middle), label, _INK, font, anchor="rm")
        _write_down(picture, label, (margin + middle, top + side + 6), font)
    if classes <= _NUMBERED:
        _write_cells(draw, shares, (margin, top), cell)
    _draw_scale(picture, margin + side + 24, top, max(60, min(side, 200)))
    return np.array(picture)


def row_shares(confusion: Tensor) -> NDArray[np.float64]:
    """The confusion matrix with every row divided by its sum; NaN where a row has none.

    >>> import torch
    >>> row_shares(torch.tensor([[3, 1], [0, 0]])).tolist()
    [[0.75, 0.25], [nan, nan]]
    """
    counts = confusion.double()
    shares: NDArray[np.float64] = (counts / counts.sum(1, keepdim=True)).numpy()
    return shares


def ramp(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours (..., 3) in 0..255 of shares (...) in 0..1."""
    stops = np.linspace(0, 1, len(_RAMP))
    return np.stack([np.interp(shares, stops, _RAMP[:, channel]) for channel in range(3)], -1)


def _short(name: str, label: int) -> str:
    if not name.isascii():
        return f"class {label}"  # Pillow's font has no other letters
    return name if len(name) <= _LETTERS else name[: _LETTERS - 3] + "..."


def _numbers(classes: int) -> list[str]:
    return [str(i) if i % 10 == 0 else "" for i in range(classes)]


def _write_down(
    picture: Image.Image, text: str, top: tuple[int, int], font: ImageFont.ImageFont | ImageFont.FreeTypeFont
) -> None:
    """Writes a text downwards, from `top`, which is the middle of its upper end."""
    if not text:
        return
    length, height = int(font.getlength(text)) + 2, 18
    strip = Image.new("RGB", (length, height), _WHITE)
    ImageDraw.Draw(strip).text((length, height // 2), text, _INK, font, anchor="rm")
    picture.paste(strip.rotate(90, expand=True), (top[0] - height // 2, top[1]))


def _write_cells(draw: ImageDraw.ImageDraw, shares: NDArray[np.float64], corner: tuple[int, int], cell: int) -> None:
    for row, column in np.argwhere(shares >= 0.005).tolist():
        share = shares[row, column]
        middle = (corner[0] + column * cell + cell // 2, corner[1] + row * cell + cell // 2)
        draw.text(middle, f"{100 * share:.0f}", _WHITE if share > 0.55 else _INK, font_of(13), anchor="mm")


def _draw_scale(picture: Image.Image, left: int, top: int, height: int) -> None:
    """The key of the colours: a bar from 100 % down to 0."""
    bar = ramp(np.linspace(1, 0, height))[:, None].repeat(16, 1).astype(np.uint8)
    picture.paste(Image.fromarray(bar), (left, top))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left - 1, top - 1, left + 16, top + height), outline=_INK)
    for text, y in (("100", top), ("50", top + height // 2), ("0", top + height)):
        draw.text((left + 22, y), text, _INK, font_of(12), anchor="lm")
