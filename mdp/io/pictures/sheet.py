"""Parts of pictures for people: text that fits, legends, and images and label maps in panels.

Shape legend: H x W image.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mdp.core.labels import IGNORE, RGB

GAP, MARGIN, LINE = 10, 16, 24  # between pictures, around a page, a line of text
PAPER, INK, FAINT = (255, 255, 255), (25, 25, 25), (110, 110, 110)
IGNORED, STRIPE = (168, 168, 168), (205, 205, 205)  # pixels without a label

Size = tuple[int, int]  # width and height


# Text


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font."""
    return ImageFont.load_default(size)


def cut(text: str, face: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, or as much of its beginning and end as fits: names of files differ at their end."""
    if face.getlength(text) <= width:
        return text
    low, high = 0, min(len(text), width)  # characters that fit, and that do not
    while high - low > 1:
        length = (low + high) // 2
        low, high = (length, high) if face.getlength(shortened(text, length)) <= width else (low, length)
    return shortened(text, low)


def shortened(text: str, length: int) -> str:
    """So many characters of the text, and dots in place of its middle."""
    return f"{text[: length // 2]}...{text[len(text) - (length + 1) // 2 :]}"


# Legends


def swatch(draw: ImageDraw.ImageDraw, left: int, top: int, color: RGB, text: str) -> int:
    """A colour and what it means; returns the width."""
    draw.rectangle((left, top + 3, left + 18, top + 17), color, FAINT)
    draw.text((left + 26, top), text, INK, font(15))
    return int(font(15).getlength(text)) + 50


def legend(entries: Sequence[tuple[RGB, str]], width: int) -> list[tuple[int, int, RGB, str]]:
    """Line, column in pixels, colour and name of each entry, in as many columns as the longest name leaves room for."""
    names = [cut(name, font(15), 360) for _, name in entries]
    column = max((int(font(15).getlength(name)) for name in names), default=0) + 44
    columns = max(1, width // column)
    return [
        (i // columns, i % columns * column, color, name)
        for i, ((color, _), name) in enumerate(zip(entries, names, strict=True))
    ]


# Images in panels


def fitted(width: int, height: int, panel: Size) -> Size:
    """The size of a picture that fills a panel as far as its aspect allows."""
    factor = min(panel[0] / width, panel[1] / height)
    return max(1, round(width * factor)), max(1, round(height * factor))


def resized(picture: NDArray[np.uint8], size: Size) -> Image.Image:
    """Smaller by averages, so that thin errors still show; larger as blocks, which are the pixels there are."""
    smaller = size[0] < picture.shape[1]
    return Image.fromarray(picture).resize(size, Image.Resampling.BOX if smaller else Image.Resampling.NEAREST)


def class_picture(classes: NDArray[np.integer], colors: Sequence[RGB], panel: Size) -> NDArray[np.uint8]:
    """Label map (H, W) in the colours of its classes; ignored pixels are striped, since any colour may be a class's."""
    picture: NDArray[np.uint8] = np.array([*colors, IGNORED], dtype=np.uint8)[classes]
    rows, columns = np.ogrid[: classes.shape[0], : classes.shape[1]]
    band = max(1, round(4 * max(classes.shape[1] / panel[0], classes.shape[0] / panel[1])))
    stripes = (rows + columns) // band % 2 == 0
    picture[(classes == IGNORE) & stripes] = STRIPE
    return picture
