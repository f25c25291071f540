"""The only place that opens image files: Pillow's decoders, and what they raise on damaged files in one line.

What a file claims about itself is checked before Pillow allocates for it: the largest photo takes about 1.5 GB of
memory, the largest label map 0.8 GB.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageFile

from mdp.io.errors import DatasetError, ResourceError
from mdp.io.files.formats import ORIENTATION, check_png, refuse_claims, refuse_stand_ins, too_large
from mdp.io.files.reading import most_pixels, printable

_METADATA = 2**25  # bytes of a file beyond what its pixels can take: EXIF, thumbnails, a phone's short film
TURNED_TIFF = "a TIFF with an orientation tag; save it upright, without the tag"
# what Pillow's decoders were seen to raise on damaged files
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    BufferError,
    RuntimeError,
    Warning,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def open_image(path: str, data: bytes, formats: tuple[str, ...], what: str) -> Image.Image:
    """The decoded image.  Raises DatasetError with one line, ResourceError when memory is short."""
    path = printable(path)
    with refused(path, data, formats, what):
        image = open_header(path, data, formats, what)
        image.load()
    if image.format == "PNG":
        check_png(path, data)
    return image


@contextmanager
def refused(path: str, data: bytes, formats: tuple[str, ...], what: str) -> Iterator[None]:
    """Turns what Pillow raises on damaged files into DatasetError, and MemoryError into ResourceError."""
    try:
        yield
    except MemoryError as error:
        raise ResourceError(f"{path}: memory is short for the {what} ({len(data)} bytes)") from error
    except DAMAGE as error:
        allowed = ", ".join(formats)
        raise DatasetError(
            f"{path}: damaged or not a {what} ({one_line(error)}); replace or remove it (formats read: {allowed})"
        ) from error


def open_header(path: str, data: bytes, formats: tuple[str, ...], what: str) -> Image.Image:
    """The image before it is decoded.  Raises DatasetError for what is no image, or one that takes too much."""
    refuse_stand_ins(path, data, what)
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # other libraries switch it on; half a mask would turn into labels
    refuse_claims(data)
    with warnings.catch_warnings():  # above what Pillow finds suspicious, ours is the limit
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(data), formats=formats)
    refuse_size(path, image.width, image.height)
    pixels = image.width * image.height
    if len(data) > _METADATA + 8 * pixels:
        raise DatasetError(f"{path}: {len(data)} bytes are too many for {image.width} x {image.height} pixels")
    if image.format == "TIFF" and image.tag_v2.get(ORIENTATION, 1) != 1:  # type: ignore[attr-defined]
        # Pillow would turn it, and so away from its partner
        raise DatasetError(f"{path}: {TURNED_TIFF}")
    return image


def refuse_size(path: str, width: int, height: int) -> None:
    """Raises DatasetError for more pixels than are read."""
    if width * height > most_pixels():
        raise DatasetError(f"{path}: {too_large(width, height)}")


def one_line(error: Exception) -> str:
    text = printable(" ".join(str(error).split()))[:200]
    return "not an image" if "cannot identify" in text else text
