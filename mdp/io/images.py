"""The only place that opens image files: photos as RGB, label maps as the numbers they mean.

A label map is never converted by luminance, resampled, or guessed at: palette files are read as indices, grey files as
ids, colour files through a table or not at all.  EXIF orientation is applied to neither of a pair.
"""

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mdp.core.labels import IGNORE, RGB
from mdp.io.errors import DatasetError, ResourceError
from mdp.io.matlab import read_label_mat

_PHOTOS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM")
_LOSSLESS = ("PNG", "BMP", "TIFF", "GIF", "PPM")
_PIXELS = 2**28  # a 16k x 16k photo; larger claims are refused before anything is allocated


def read_rgb(path: str) -> NDArray[np.uint8]:
    """A photo as (H, W, 3) uint8.

    Grey becomes three equal channels, transparency is dropped, CMYK is converted.  Raises DatasetError naming the
    file when it is missing, damaged or of another format.
    """
    with _open(path, _PHOTOS, "photo") as image:
        if image.mode.startswith(("I", "F")):
            raise DatasetError(f"{path}: {image.mode} pixels; photos must have 8 bits a channel")
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA")  # noqa: PLW2901
        return np.array(image.convert("RGB"))


def read_labels(path: str, colors: Mapping[RGB, int] | None = None) -> NDArray[np.integer]:
    """A label map as (H, W) raw values: palette indices, grey ids (8 or 16 bit), or colours through `colors`.

    Raises DatasetError naming the file, and for colours the YAML lines that would read it.
    """
    if path.lower().endswith(".mat"):
        return read_label_mat(path)
    with _open(path, _LOSSLESS, "label map") as image:
        if image.format == "PNG":
            _check_png(path)
        tile = image.tile[0][3] if image.tile else None
        packed = tile[0] if isinstance(tile, tuple) else tile
        if image.mode == "L" and isinstance(packed, str) and packed in ("L;2", "L;4"):
            # Pillow stretches 2 and 4 bit grey to 0..255: undo it, the ids are what was stored
            return np.array(image) // (85 if packed == "L;2" else 17)
        if image.mode in ("P", "L"):
            values = np.array(image)
        elif image.mode == "1":
            values = np.array(image).astype(np.uint8)
        elif image.mode.startswith("I"):
            values = np.array(image)
            if values.min() < 0 or values.max() > 65535:
                raise DatasetError(f"{path}: label values {values.min()}..{values.max()}; expected 0..65535")
            values = values.astype(np.uint16)
        elif image.mode in ("RGB", "RGBA"):
            values = _from_colors(path, np.array(image)[..., :3], colors)
        else:
            raise DatasetError(f"{path}: label map of mode {image.mode}; expected palette, grey or RGB")
        return values


def _from_colors(path: str, pixels: NDArray[np.uint8], table: Mapping[RGB, int] | None) -> NDArray[np.integer]:
    """Raw values of a colour-coded label map.  Raises DatasetError for colours outside the table, or without one."""
    code = pixels.astype(np.int32) @ np.array([65536, 256, 1], dtype=np.int32)  # (H, W)
    found, inverse, counts = np.unique(code, return_inverse=True, return_counts=True)
    known = {(r << 16) + (g << 8) + b: value for (r, g, b), value in (table or {}).items()}
    unknown = [(int(color), int(count)) for color, count in zip(found, counts, strict=True) if int(color) not in known]
    if unknown:
        names = [f'{{name: class_{i}, colors: ["#{color:06x}"]}}' for i, (color, _) in enumerate(unknown[:12])]
        lines = "".join(f"\n  {i}: {name}  # {unknown[i][1]} pixels" for i, name in enumerate(names))
        what = "an RGB label map needs a colour table" if not table else f"{len(unknown)} colours are in no class"
        more = f"\n  # and {len(unknown) - 12} colours more" if len(unknown) > 12 else ""
        raise DatasetError(f"{path}: {what}; add to the dataset's YAML, with your names:\nclasses:{lines}{more}")
    values = np.array([known[int(color)] for color in found], dtype=np.uint16)
    return values[inverse].reshape(code.shape)


def _open(path: str, formats: tuple[str, ...], what: str) -> Image.Image:
    """The decoded image.  Raises DatasetError with one line, ResourceError when permission or memory is short."""
    try:
        image = Image.open(path, formats=formats)
        if image.width * image.height > _PIXELS:
            image.close()
            raise DatasetError(f"{path}: {image.width} x {image.height} pixels; at most {_PIXELS} are read")
        try:
            image.load()
        except BaseException:
            image.close()
            raise
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: the {what} is missing") from error
    except IsADirectoryError as error:
        raise DatasetError(f"{path}: expected a {what}, found a folder") from error
    except (PermissionError, MemoryError) as error:
        raise ResourceError(f"{path}: cannot be read: {error}") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
    ) as error:
        allowed = ", ".join(formats)
        raise DatasetError(
            f"{path}: damaged or not a {what} ({_one_line(error)}); replace or remove it (formats read: {allowed})"
        ) from error
    return image


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return "not an image" if "cannot identify" in text else text


def _check_png(path: str) -> None:
    """Checks every chunk's CRC, which decoding skips: a flipped bit would be a legal but wrong label."""
    data = memoryview(Path(path).read_bytes())
    place = 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4])
        end = place + 8 + length
        if zlib.crc32(data[place + 4 : end]) != int.from_bytes(data[end : end + 4]):
            kind = bytes(data[place + 4 : place + 8]).decode("latin-1")
            raise DatasetError(f"{path}: damaged: the checksum of its {kind} chunk is wrong; replace the file")
        place = end + 4


# Writing


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


def write_labels(path: Path, classes: NDArray[np.integer], colors: tuple[RGB, ...]) -> None:
    """A palette PNG whose indices are the classes, 255 where ignored; 16-bit grey above 255 classes."""
    if len(colors) > 255:
        image = Image.fromarray(np.where(classes == IGNORE, 65535, classes).astype(np.uint16))
    else:
        image = Image.fromarray(np.where(classes == IGNORE, 255, classes).astype(np.uint8))
        image.putpalette([channel for color in colors for channel in color])
    _save(image, path)


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
