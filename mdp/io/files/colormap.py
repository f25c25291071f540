"""The colours of classes: for display only."""

from mdp.label_space import RGB


def voc_colormap(count: int) -> tuple[RGB, ...]:
    """VOC's colours: the bits of the index go to red, green and blue, most significant first.

    >>> voc_colormap(3)
    ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    """
    colors = []
    for index in range(count):
        red = green = blue = 0
        for bit in range(8):
            red |= (index >> (3 * bit) & 1) << (7 - bit)
            green |= (index >> (3 * bit + 1) & 1) << (7 - bit)
            blue |= (index >> (3 * bit + 2) & 1) << (7 - bit)
        colors.append((red, green, blue))
    return tuple(colors)
