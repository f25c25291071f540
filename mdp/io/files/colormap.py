"""The colours of classes: for display only."""

from functools import cache

from mdp.label_space import RGB


def voc_colormap(count: int) -> tuple[RGB, ...]:
    """VOC's colours: the bits of the index go to red, green and blue, most significant first.

    >>> voc_colormap(3)
    ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    """
    return tuple(map(_color, range(count)))


@cache  # most datasets ask for the first hundred when they are listed
def _color(index: int) -> RGB:
    red = green = blue = 0
    for bit in range(8):
        red |= (index >> (3 * bit) & 1) << (7 - bit)
        green |= (index >> (3 * bit + 1) & 1) << (7 - bit)
        blue |= (index >> (3 * bit + 2) & 1) << (7 - bit)
    return red, green, blue
