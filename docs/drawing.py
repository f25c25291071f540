"""A sheet of paper to put pictures, words and bars on, for `docs/figures.py`.

The paper is white in the dark too, words are large enough for a phone, and classes have colours that the colour-blind
can tell apart (Okabe and Ito's, and Tol's muted ones), with their names written on them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

INK, FAINT, PAPER = (25, 25, 25), (105, 105, 105), (255, 255, 255)
# fmt: off
COLORS = (
    (86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66),
    (136, 204, 238), (0, 114, 178), (221, 204, 119), (213, 94, 0),
    (17, 119, 51), (170, 68, 153), (136, 34, 85), (153, 153, 51), (187, 187, 187),
)
# fmt: on
Color = tuple[int, int, int]
Picture = NDArray[np.uint8]


class Sheet:
    """A picture that is drawn on."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), PAPER)
        self.pen = ImageDraw.Draw(self.image)

    def words(self, x: float, y: float, text: str, size: int = 17, color: Color = INK, anchor: str = "la") -> None:
        """Text with its anchor (Pillow's two letters) at a point."""
        self.pen.text((x, y), text, fill=color, font=ImageFont.load_default(size), anchor=anchor)

    def tag(self, x: float, y: float, text: str, size: int = 15) -> None:
        """Text that can be read on any picture: dark, with a white rim."""
        font = ImageFont.load_default(size)
        self.pen.text((x, y), text, fill=INK, font=font, anchor="mm", stroke_width=3, stroke_fill=PAPER)

    def place(self, picture: Picture, x: int, y: int, times: int = 1) -> None:
        """A picture (H, W, 3), each pixel so many times as large."""
        self.image.paste(Image.fromarray(picture.repeat(times, 0).repeat(times, 1)), (x, y))

    def frame(self, x: float, y: float, width: float, height: float, color: Color = INK, thick: int = 3) -> None:
        """The outline of a box."""
        self.pen.rectangle((x, y, x + width - 1, y + height - 1), outline=color, width=thick)

    def fill(self, x: float, y: float, width: float, height: float, color: Color) -> None:
        """A filled box."""
        self.pen.rectangle((x, y, x + width - 1, y + height - 1), fill=color)

    def dot(self, x: float, y: float, radius: float, color: Color = INK) -> None:
        """A filled circle with a white rim."""
        for size, ink in ((radius + 1.5, PAPER), (radius, color)):
            self.pen.ellipse((x - size, y - size, x + size, y + size), fill=ink)


def colored(labels: NDArray[np.integer], colors: Sequence[Color] = COLORS) -> Picture:
    """A label map (H, W) in the colours of its classes; what is ignored is dark grey."""
    table: Picture = np.array([*colors, (90, 90, 90)], dtype=np.uint8)
    picture: Picture = table[labels]  # -1 is the last
    return picture


def inside(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """A pixel (row, column) well inside a region: what is left last when its border is taken off again and again."""
    left = mask.copy()
    while True:
        padded = np.pad(left, 1)
        smaller = left & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        if not smaller.any():
            rows, columns = left.nonzero()
            middle = len(rows) // 2
            return int(rows[middle]), int(columns[middle])
        left = smaller


def diverging(value: float) -> Color:
    """Blue for -1, white for 0, orange for 1."""
    end, share = ((0, 90, 170), -value) if value < 0 else ((200, 90, 0), value)
    share = min(1.0, share)
    return tuple(round(255 + (channel - 255) * share) for channel in end)  # type: ignore[return-value]
