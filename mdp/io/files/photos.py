"""Photos as RGB.  EXIF orientation is not applied, as it is not to the label map."""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mdp.io.errors import DatasetError, ResourceError
from mdp.io.files import jpeg
from mdp.io.files.decoding import DAMAGE, one_line, open_header, open_image, refused
from mdp.io.files.formats import ORIENTATION, refuse_claims, refuse_stand_ins
from mdp.io.files.reading import printable, read_bytes

_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM")


def read_rgb(path: str) -> NDArray[np.uint8]:
    """A photo as (H, W, 3) uint8.

    Grey becomes three equal channels, transparency is dropped, CMYK is converted; of 16 bits a channel the upper 8
    are kept in colour, grey is refused (its white point is unknown).  Raises DatasetError naming the file when it is
    missing, damaged or of another format.
    """
    data = read_bytes(path, "photo")
    pixels = _quick_rgb(path, data)
    if pixels is not None:
        return pixels
    image = open_image(path, data, _FORMATS, "photo")
    path = printable(path)
    if image.mode.startswith(("I", "F")):
        raise DatasetError(f"{path}: {image.mode} pixels; photos must have 8 bits a channel")
    try:
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA")  # Pillow warns of the step to RGB where a palette has transparency
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except MemoryError as error:
        raise ResourceError(f"{path}: memory is short for its {image.width} x {image.height} pixels") from error
    except ValueError as error:
        raise DatasetError(f"{path}: a photo of mode {image.mode}; expected RGB, grey, palette or CMYK") from error


def _quick_rgb(path: str, data: bytes) -> NDArray[np.uint8] | None:
    """The pixels of a JPEG photo that passed the same checks; None where `open_image` is to decode or refuse it."""
    if not data.startswith(b"\xff\xd8") or not jpeg.simplejpeg():
        return None
    path = printable(path)
    with refused(path, data, _FORMATS, "photo"):
        return jpeg.quick_rgb(data, open_header(path, data, _FORMATS, "photo"))


def read_orientation(path: str) -> int:
    """The EXIF orientation of a photo, 1 (upright) to 8.  It is never applied: a check compares it with the labels.

    Raises DatasetError when the file cannot be read.
    """
    image = open_image(path, read_bytes(path, "photo"), _FORMATS, "photo")
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except DAMAGE:
        return 1  # damaged metadata say nothing
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def read_claims(path: str) -> tuple[int, int, int]:
    """Height, width and EXIF orientation that a photo's header claims; the pixels are not looked at.

    Raises DatasetError when the header cannot be read.
    """
    data = read_bytes(path, "photo")
    path = printable(path)
    refuse_stand_ins(path, data, "photo")
    try:
        refuse_claims(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except DAMAGE as error:
        raise DatasetError(f"{path}: damaged or not a photo ({one_line(error)}); replace or remove it") from error
    try:
        turn = image.getexif().get(ORIENTATION, 1)
    except DAMAGE:
        turn = 1
    return image.height, image.width, turn if isinstance(turn, int) and 1 <= turn <= 8 else 1
