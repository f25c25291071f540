"""Photos as 8-bit RGB, or as any channels.  Which bands, and what is black and white of more bits, is declared.

Shape legend: H x W image, S samples a pixel (bands).
"""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from mdp.io.errors import DatasetError, ResourceError
from mdp.io.files import jpeg, tiff
from mdp.io.files.decoding import DAMAGE, TURNED_TIFF, one_line, open_header, open_image, refuse_size, refused
from mdp.io.files.formats import ORIENTATION, refuse_claims, refuse_stand_ins
from mdp.io.files.reading import printable, read_bytes
from mdp.photo_rule import PLAIN, PhotoRule

_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM")
_BAND = 2**22  # samples that are brought to 8 bits at a time


def read_photo(path: str, rule: PhotoRule = PLAIN) -> NDArray[np.uint8] | NDArray[np.float32]:
    """A photo as a network's image: RGB (H, W, 3) uint8, or the rule's channels (H, W, K) float32 in [0, 1].

    Raises what `read_rgb` and `read_samples` raise.
    """
    if rule.channels is None:
        return read_rgb(path, rule)
    return to_unit(read_samples(path, rule), *rule.limits)


def read_samples(path: str, rule: PhotoRule) -> NDArray[np.generic]:
    """The samples of the rule's bands (H, W, K) as they are stored, upright where the rule says so.

    Raises DatasetError naming the file when it is missing, damaged or of another format, has other bands than the rule
    says, or values of which nothing says what is black and white.
    """
    data = read_bytes(path, "photo")
    stored = _samples(path, data, rule)
    path = printable(path)
    with refused(path, data, _FORMATS, "photo"):
        samples, own = stored or _pillow_samples(path, data, rule)
        chosen = _channels(path, samples, rule) if rule.channels else _rgb_samples(path, samples, own, rule)
        _refuse_range(path, samples, rule)
    return np.ascontiguousarray(upright(chosen, _turn(data))) if rule.exif else chosen


def read_rgb(path: str, rule: PhotoRule = PLAIN) -> NDArray[np.uint8]:
    """A photo as (H, W, 3) uint8.

    Grey becomes three equal channels, transparency is dropped, CMYK is converted.  Samples of other than 8 bits, and
    more bands than RGB and transparency, need a rule: round((clip(v, low, high) - low) * 255 / (high - low)), and 0
    for what is no number.

    Raises DatasetError naming the file when it is missing, damaged or of another format, and, where the rule is
    missing, with the values seen and the line to write.
    """
    data = read_bytes(path, "photo")
    rgb = _stored_rgb(path, data, rule._replace(exif=""))
    return np.ascontiguousarray(upright(rgb, _turn(data))) if rule.exif else rgb


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Pixels (H, W, ...) as EXIF's orientation, 1 (none) to 8, wants them to be seen.

    >>> upright(np.array([[1, 2], [3, 4]]), 6).tolist()
    [[3, 1], [4, 2]]
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    down, right = -1 if orientation in (3, 4, 7, 8) else 1, -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[::down, ::right]


def _turn(data: bytes) -> int:
    """The EXIF orientation of a photo that was read, 1 to 8."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return _orientation(Image.open(io.BytesIO(data), formats=_FORMATS))
    except DAMAGE:
        return 1


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except DAMAGE:
        return 1  # damaged metadata say nothing
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _stored_rgb(path: str, data: bytes, rule: PhotoRule) -> NDArray[np.uint8]:
    """The photo as it is stored."""
    if rule == PLAIN:
        quick = _quick_rgb(path, data)
        if quick is not None:
            return quick
    stored = _samples(path, data, rule)
    path = printable(path)
    if stored is None:
        return _chosen(path, _pillow_rgb(path, data), rule)
    with refused(path, data, _FORMATS, "photo"):
        return _by_rule(path, _rgb_samples(path, *stored, rule), rule)


def _quick_rgb(path: str, data: bytes) -> NDArray[np.uint8] | None:
    """The pixels of a JPEG photo that passed the same checks; None where `open_image` is to decode or refuse it."""
    if not data.startswith(b"\xff\xd8") or not jpeg.simplejpeg():
        return None
    path = printable(path)
    with refused(path, data, _FORMATS, "photo"):
        return jpeg.quick_rgb(data, open_header(path, data, _FORMATS, "photo"))


def _pillow_rgb(path: str, data: bytes) -> NDArray[np.uint8]:
    image = open_image(path, data, _FORMATS, "photo")
    try:
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA")  # Pillow warns of the step to RGB where a palette has transparency
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except MemoryError as error:
        raise ResourceError(f"{path}: memory is short for its {image.width} x {image.height} pixels") from error
    except ValueError as error:
        raise DatasetError(f"{path}: a photo of mode {image.mode}; expected RGB, grey, palette or CMYK") from error


def _pillow_samples(path: str, data: bytes, rule: PhotoRule) -> tuple[NDArray[np.uint8], int]:
    """What Pillow gives of a file, with its transparency as a band where bands are asked for; see `_samples`."""
    if rule.channels:
        image = open_image(path, data, _FORMATS, "photo")
        if image.mode in ("L", "LA", "RGBA"):
            samples = np.array(image)
            return samples.reshape(*samples.shape[:2], -1), 0
    return _pillow_rgb(path, data), 3


# More than 8 bits, more than three bands


def _samples(path: str, data: bytes, rule: PhotoRule) -> tuple[NDArray[np.generic], int] | None:
    """The samples (H, W, S) as they are stored and how many are a picture's own; None where Pillow gives 8-bit RGB.

    The own ones are 1 (grey), 3 (RGB), or 0 where the file does not say which bands are a picture.
    """
    if tiff.is_tiff(data):
        name = printable(path)
        with refused(name, data, _FORMATS, "photo"):
            refuse_claims(data)
            return _tiff_samples(name, data, rule)
    if data.startswith(b"\x89PNG") and data[24:25] == b"\x10":
        deep = _deep_png(path, data)  # (H, W, S)
        return deep, 1 if deep.shape[2] == 1 else 3
    if data[:2] in (b"P5", b"P6", b"P2", b"P3"):
        image = open_image(path, data, _FORMATS, "photo")
        return (np.array(image)[..., None], 1) if image.mode.startswith("I") else None
    return None


def _tiff_samples(path: str, data: bytes, rule: PhotoRule) -> tuple[NDArray[np.generic], int] | None:
    kind = tiff.read_tiff(data)
    own = 3 if kind.photometric == 2 and kind.samples >= 3 else int(kind.samples == 1)
    plain = kind.bits <= 8 and kind.format == "u" and (own or kind.samples == 2)
    plain = plain and rule.channels is None and (rule.bands is None or kind.samples < 3)
    jpeg_inside = kind.compression in (6, 7) and (rule.channels is None or kind.samples in (1, 3))
    if kind.photometric > 2 or jpeg_inside or plain:
        return None  # Pillow knows palettes, CMYK, YCbCr and Lab
    refuse_size(path, kind.width, kind.height)
    if kind.turned:
        raise DatasetError(f"{path}: {TURNED_TIFF}")
    if kind.photometric == 0:
        raise ValueError(f"{kind.stored} in which 0 is white; save it with 0 as black")
    try:
        if rule.channels and kind.samples == 1 and kind.pages > 1:
            return tiff.stacked(data), 0  # microscopes write a page a channel
        return tiff.pixels(data, kind), own
    except tiff.NotRead as error:
        raise DatasetError(f"{path}: {error}") from error


def _deep_png(path: str, data: bytes) -> NDArray[np.uint16]:
    """The samples (H, W, S) of a PNG with 16 bits, of which Pillow keeps all in grey, and the upper 8 in colour."""
    if data[25] == 4:
        raise DatasetError(f"{printable(path)}: grey of 16 bits with transparency; save the photo without transparency")
    upper = open_image(path, data, _FORMATS, "photo")
    if upper.mode.startswith("I"):
        return np.array(upper).astype(np.uint16)[..., None]
    with refused(printable(path), data, _FORMATS, "photo"):
        lower = open_header(printable(path), data, _FORMATS, "photo")
        # as if the lower byte of each sample came last: the other of two bytes is kept
        assert isinstance(lower, ImageFile.ImageFile)
        lower.tile = [part._replace(args=f"{upper.mode};16L") for part in lower.tile]
        lower.load()
        high, low = (np.array(image).astype(np.uint16) for image in (upper, lower))
        return (high << np.uint16(8)) | low


def _channels(path: str, stored: NDArray[np.generic], rule: PhotoRule) -> NDArray[np.generic]:
    """The samples (H, W, K) of the rule's bands."""
    count = stored.shape[2]
    if rule.range is None and stored.dtype != np.uint8:
        raise _undeclared(path, stored, rule, bands=rule.bands is None and count != rule.channels)
    if rule.bands:
        if max(rule.bands) > count:
            raise DatasetError(f"{path}: {_bands(count)}, where image.bands names {list(rule.bands)}")
        return stored[..., [band - 1 for band in rule.bands]]
    if count != rule.channels:
        raise DatasetError(f"{path}: {_bands(count)}, where image.mean has {rule.channels}; name them by image.bands")
    return stored


def _bands(count: int) -> str:
    return f"{count} band{'s' * (count != 1)}"


def _rgb_samples(path: str, stored: NDArray[np.generic], own: int, rule: PhotoRule) -> NDArray[np.generic]:
    """The samples (H, W, 3) that are to be red, green and blue.

    Raises DatasetError with what the file holds and the line to write where it is not certain.
    """
    count = stored.shape[2]
    if rule.bands is None and own == 0:
        raise _undeclared(path, stored, rule, bands=True)
    if rule.range is None and stored.dtype != np.uint8:
        raise _undeclared(path, stored, rule, bands=False)
    chosen = rule.bands or (1, 2, 3)[:own]
    return stored[..., _indices(path, count, chosen)]


def _indices(path: str, count: int, bands: Sequence[int]) -> list[int]:
    if max(bands) > count:
        raise DatasetError(f"{path}: {_bands(count)}, where image.bands names {list(bands)}")
    return [band - 1 for band in (bands if len(bands) == 3 else [*bands] * 3)]


def _undeclared(path: str, stored: NDArray[np.generic], rule: PhotoRule, bands: bool) -> DatasetError:
    """The refusal of samples that nothing says how to show, with the line that would."""
    count, bits = stored.shape[2], 8 * stored.dtype.itemsize
    parts, seen = [], ""
    if stored.dtype != np.uint8 and rule.range is None:
        low, high = (f"{value:.6g}" for value in value_range(stored))
        seen = f", values {low}..{high}"
        parts.append(f"range: [{low}, {high}]")
    if bands:
        parts.append("bands: [3, 2, 1]" if count >= 3 else "bands: [1]")
    else:
        parts += [f"{key}: {list(values)}" for key in ("bands", "mean", "std") if (values := getattr(rule, key))]
    what = "floats" if stored.dtype.kind == "f" else f"{bits} bits"
    asked = (("what is black and white", seen), ("which are red, green and blue", bands))
    meant = [text for text, missing in asked if missing]
    return DatasetError(
        f"{path}: a photo of {_bands(count)} of {what}{seen}; say in the dataset's YAML "
        f"{' and '.join(meant)}, such as `image: {{{', '.join(parts)}}}`"
    )


def value_range(samples: NDArray[np.generic]) -> tuple[float, float]:
    """The smallest and the largest number; 0 and 0 where there is none."""
    finite = samples[np.isfinite(samples)] if samples.dtype.kind == "f" else samples
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _chosen(path: str, rgb: NDArray[np.uint8], rule: PhotoRule) -> NDArray[np.uint8]:
    """An 8-bit picture with the bands and the range of the rule."""
    if rule.bands:
        rgb = rgb[..., _indices(path, 3, rule.bands)]
    return _by_rule(path, rgb, rule)


def _by_rule(path: str, samples: NDArray[np.generic], rule: PhotoRule) -> NDArray[np.uint8]:
    """Samples (H, W, 3) as 8 bits.  Raises DatasetError where the rule is of more bits than they have."""
    if samples.dtype == np.uint8 and rule.range is None:
        return np.ascontiguousarray(samples, dtype=np.uint8)
    assert rule.range is not None
    _refuse_range(path, samples, rule)
    rows = max(1, _BAND // (3 * samples.shape[1]))
    parts = [to_8_bits(samples[start : start + rows], *rule.range) for start in range(0, len(samples), rows)]
    return np.concatenate(parts)


def _refuse_range(path: str, samples: NDArray[np.generic], rule: PhotoRule) -> None:
    """Raises DatasetError where the rule is of more bits than a photo has."""
    low, high = rule.limits
    if samples.dtype == np.uint8 and high > 255:
        raise DatasetError(
            f"{path}: a photo of 8 bits, where image.range says {low:g}..{high:g}; give photos of one kind to a dataset"
        )


def to_unit(samples: NDArray[np.generic], low: float, high: float) -> NDArray[np.float32]:
    """Samples (H, W, K) in [0, 1]: `low` and what is below become 0, `high` and what is above 1, linear between.

    What is no number becomes 0.

    >>> to_unit(np.array([[[-5], [0], [750], [3000], [9000]]], dtype=np.int16), 0, 3000).ravel().tolist()
    [0.0, 0.0, 0.25, 1.0, 1.0]
    """
    image = np.empty(samples.shape, dtype=np.float32)
    rows = max(1, _BAND // max(1, samples[0].size))
    for start in range(0, len(samples), rows):  # in float64 a few at a time: 32-bit numbers beyond 2^24 keep all digits
        part = (samples[start : start + rows].astype(np.float64) - low) / (high - low)
        image[start : start + rows] = np.nan_to_num(part.clip(0, 1), nan=0.0)
    return image


def to_8_bits(samples: NDArray[np.generic], low: float, high: float) -> NDArray[np.uint8]:
    """`low` and what is below become 0, `high` and what is above 255, linear between; what is no number becomes 0.

    >>> to_8_bits(np.array([-5, 0, 1500, 3000, 9000], dtype=np.int16), 0, 3000).tolist()
    [0, 0, 128, 255, 255]
    """
    scaled = (samples.astype(np.float64) - low) * 255 / (high - low)
    rounded: NDArray[np.float64] = np.nan_to_num(np.rint(scaled.clip(0, 255)), nan=0.0)
    return rounded.astype(np.uint8)


# What a header says


def read_orientation(path: str) -> int:
    """The EXIF orientation of a photo, 1 (upright) to 8.  It is never applied: a check compares it with the labels.

    Raises DatasetError when the file cannot be read.
    """
    return _orientation(open_image(path, read_bytes(path, "photo"), _FORMATS, "photo"))


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
        claims = _tiff_claims(data)  # bands and numbers that Pillow has no mode for
        if claims is None:
            raise DatasetError(f"{path}: damaged or not a photo ({one_line(error)}); replace or remove it") from error
        return claims
    return image.height, image.width, _orientation(image)


def _tiff_claims(data: bytes) -> tuple[int, int, int] | None:
    """What `read_claims` gives, for a TIFF; it is upright, since one with an orientation tag is not read."""
    try:
        found = tiff.read_tiff(data) if tiff.is_tiff(data) else None
    except DAMAGE:
        return None
    return (found.height, found.width, 1) if found else None
