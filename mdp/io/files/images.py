"""Images that mdp makes: label maps as palette PNGs, photos, overlays.

Shape legend: H x W image, K channels.
"""

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


_CUT = (2, 98)  # percentiles that become black and white: QGIS' cumulative cut
_LOOKED_AT = 2**16  # pixels, for the percentiles


def as_picture(image: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.uint8]:
    """A network's image (H, W, K) for people, (H, W, 3): 8-bit RGB as it is.

    Of others the first three channels are red, green and blue, or the first one is grey; each is stretched between
    percentiles of its own, as viewers of satellite images do.
    """
    if image.dtype == np.uint8:
        return image.astype(np.uint8, copy=False)
    shown = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    step = max(1, int((image.shape[0] * image.shape[1] / _LOOKED_AT) ** 0.5))
    low, high = np.nanpercentile(shown[::step, ::step], _CUT, axis=(0, 1))
    scaled = (shown - low) / np.where(high > low, high - low, 1)
    picture = (255 * np.nan_to_num(scaled).clip(0, 1)).round().astype(np.uint8)
    return np.broadcast_to(picture, (*picture.shape[:2], 3))


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
