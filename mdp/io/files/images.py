"""Images that mdp makes: label maps as palette PNGs, photos, overlays."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mdp.core.labels import IGNORE, RGB
from mdp.io.errors import ResourceError
from mdp.io.files.colormap import voc_colormap


def write_labels(path: Path, classes: NDArray[np.integer], colors: tuple[RGB, ...]) -> None:
    """A palette PNG whose indices are the classes, 255 where ignored; 16-bit grey above 255 classes."""
    _save(label_image(classes, colors), path)


def label_image(classes: NDArray[np.integer], colors: tuple[RGB, ...]) -> Image.Image:
    """The image whose file `write_labels` writes."""
    if len(colors) > 255:
        return Image.fromarray(np.where(classes == IGNORE, 65535, classes).astype(np.uint16))
    image = Image.fromarray(np.where(classes == IGNORE, 255, classes).astype(np.uint8))
    # all 256 entries: with a short palette Pillow packs indices into 1, 2 or 4 bits, and 255 becomes a class
    palette = (*colors, *voc_colormap(256)[len(colors) :])
    image.putpalette([channel for color in palette for channel in color])
    return image


def png_bytes(image: Image.Image) -> bytes:
    """The image as a PNG file's content.  Quick rather than small: overlays take most of a prediction's time else."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=3)
    return file.getvalue()


def write_rgb(path: Path, rgb: NDArray[np.uint8]) -> None:
    """A PNG."""
    _save(Image.fromarray(rgb), path)


def _save(image: Image.Image, path: Path) -> None:
    try:
        image.save(path)
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written: {error}") from error


def overlay(
    rgb: NDArray[np.uint8], classes: NDArray[np.integer], colors: tuple[RGB, ...], opacity: float = 0.5
) -> NDArray[np.uint8]:
    """The photo with every labelled pixel tinted in its class's colour; ignored pixels stay as they are."""
    table = np.array([*colors, (0, 0, 0)], dtype=np.float32)  # the last row serves IGNORE
    tinted = (1 - opacity) * rgb + opacity * table[classes]
    return np.where((classes == IGNORE)[..., None], rgb, tinted).astype(np.uint8)
