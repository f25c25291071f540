"""The only place that opens image files: photos as RGB, label maps as the numbers they mean.

A label map is never converted by luminance, resampled, or guessed at: palette files are read as indices, grey files as
ids, colour files through a table or not at all.  EXIF orientation is applied to neither of a pair.  What a file claims
about itself is checked before Pillow allocates for it: the largest photo takes about 1.5 GB of memory, the largest
label map 0.8 GB.
"""

import io
import re
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from mdp.core.labels import IGNORE, RGB
from mdp.io.errors import DatasetError, ResourceError
from mdp.io.files import jpeg
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.matlab import read_label_mat
from mdp.io.files.reading import printable, read_bytes

_PHOTOS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM")
_LOSSLESS = ("PNG", "BMP", "TIFF", "PPM")  # no GIF: whoever writes one may renumber its palette
_PIXELS = 2**26  # an 8k x 8k photo; larger claims are refused before anything is allocated
_BYTE_KINDS = (1, 2, 6, 7)  # types of TIFF tags that stay bytes
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # of JPEG; the others stand inside a scan
_PNG = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 274  # of EXIF and TIFF
_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC = 258, 259, 262  # of TIFF
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_TAG_VALUES = 2**18  # in a TIFF tag; 8192 rows of 3 planes, a strip each, are 24,576
_SCANS = 100  # of a progressive JPEG; encoders write about 10, and each costs a pass over all coefficients
_METADATA = 2**25  # bytes of a file beyond what its pixels can take: EXIF, thumbnails, a phone's short film
_COLORS = 2**16  # strange colours that are counted before a file is given up
_SLOW = 2**24  # bytes of the two formats that Pillow decodes in Python, at 4 MB a second
_BAND = 2**22  # pixels of a colour-coded label map that are looked up at a time
# what Pillow's decoders were seen to raise on damaged files
_DAMAGE = (
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
    image = _open(path, data, _PHOTOS, "photo")
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


def read_labels(path: str, colors: Mapping[RGB, int] | None = None) -> NDArray[np.integer]:
    """A label map as (H, W) raw values: palette indices, grey ids (8 or 16 bit), or colours through `colors`.

    Raises DatasetError naming the file, and for colours the YAML lines that would read it.
    """
    if path.lower().endswith(".mat"):
        return read_label_mat(path)
    data = read_bytes(path, "label map")
    path = printable(path)
    if data.startswith(b"\xff\xd8\xff"):
        raise DatasetError(f"{path}: a JPEG file: lossy, so its values are not labels; use the original PNG")
    image = _open(path, data, _LOSSLESS, "label map")
    try:
        return _raw_values(path, image, data, colors)
    except MemoryError as error:
        raise ResourceError(f"{path}: memory is short for its {image.width} x {image.height} pixels") from error


def read_packed_labels(path: str) -> NDArray[np.uint16]:
    """A label map (H, W) whose ids are red + 256 * green of an RGB image, as ImageNet-S has them.

    Raises DatasetError naming the file, also where blue is used.
    """
    data = read_bytes(path, "label map")
    path = printable(path)
    image = _open(path, data, _LOSSLESS, "label map")
    if image.mode != "RGB" or _stored(path, image, data)[0] != 8:
        raise DatasetError(f"{path}: a label map of mode {image.mode}; expected RGB with ids of red + 256 * green")
    pixels = np.array(image).astype(np.uint16)  # (H, W, 3); 256 * green does not fit into its own 8 bits
    if pixels[..., 2].any():
        raise DatasetError(f"{path}: blue is used, where ids are red + 256 * green: is it a picture of the labels?")
    return pixels[..., 0] + 256 * pixels[..., 1]


def _raw_values(path: str, image: Image.Image, data: bytes, colors: Mapping[RGB, int] | None) -> NDArray[np.integer]:
    """The numbers that a label map means, by how it is stored.  Raises DatasetError where they are not certain."""
    depth, grey = _stored(path, image, data)
    if image.mode == "L" and grey and depth < 8:
        # Pillow stretches 2 and 4 bit grey to 0..255: undo it, the ids are what was stored
        return np.array(image) // np.uint8(255 // (2**depth - 1))
    if image.mode in ("P", "L"):
        return np.array(image)
    if image.mode in ("PA", "LA") and depth == 8:
        return np.array(image)[..., 0]
    if image.mode == "1":
        return np.array(image).astype(np.uint8)
    if image.mode.startswith("I"):
        values = np.array(image)
        if values.min() < 0 or values.max() > 65535:
            raise DatasetError(f"{path}: label values {values.min()}..{values.max()}; expected 0..65535")
        return values.astype(np.uint16)
    if image.mode in ("RGB", "RGBA"):  # of 16 bits a channel Pillow keeps the upper 8: the same colour
        return _from_colors(path, np.array(image)[..., :3], colors)
    raise DatasetError(f"{path}: label map of mode {image.mode}, {depth} bits; expected palette, grey or RGB")


def read_orientation(path: str) -> int:
    """The EXIF orientation of a photo, 1 (upright) to 8.  It is never applied: a check compares it with the labels.

    Raises DatasetError when the file cannot be read.
    """
    image = _open(path, read_bytes(path, "photo"), _PHOTOS, "photo")
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:
        return 1  # damaged metadata say nothing
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def read_claims(path: str) -> tuple[int, int, int]:
    """Height, width and EXIF orientation that a photo's header claims; the pixels are not looked at.

    Raises DatasetError when the header cannot be read.
    """
    data = read_bytes(path, "photo")
    path = printable(path)
    _refuse_stand_ins(path, data, "photo")
    try:
        _refuse_claims(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_PHOTOS)
    except _DAMAGE as error:
        raise DatasetError(f"{path}: damaged or not a photo ({_one_line(error)}); replace or remove it") from error
    try:
        turn = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:
        turn = 1
    return image.height, image.width, turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


def _stored(path: str, image: Image.Image, data: bytes) -> tuple[int, bool]:
    """Bits a channel in the file, and whether the file is grey: Pillow's modes no longer tell.

    Raises DatasetError for kinds of TIFF whose numbers Pillow does not give as they are stored.
    """
    if image.format == "PNG":
        return data[24], data[25] in (0, 4)  # IHDR, which comes first
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits = tags.get(_BITS_PER_SAMPLE, 1)
        depth = max(bits) if isinstance(bits, tuple) else bits
        # grey below 8 bits is stretched, white-is-zero inverted
        if depth not in (8, 16) or tags.get(_PHOTOMETRIC) == 0 or tags.get(_COMPRESSION) in (6, 7):
            raise DatasetError(f"{path}: a TIFF label map must have 8 or 16 bits, black as 0 and no JPEG inside")
        return depth, image.mode == "L"
    return 8, False


def _from_colors(path: str, pixels: NDArray[np.uint8], table: Mapping[RGB, int] | None) -> NDArray[np.uint16]:
    """Raw values of a colour-coded label map.  Raises DatasetError for colours outside the table, or without one."""
    known = {(r << 16) + (g << 8) + b: value for (r, g, b), value in (table or {}).items()}
    keys = np.array(sorted(known), dtype=np.int32)
    values = np.array([known[key] for key in keys.tolist()], dtype=np.uint16)
    raw = np.empty(pixels.shape[:2], dtype=np.uint16)
    strange: Counter[int] = Counter()
    rows = max(1, _BAND // pixels.shape[1])
    for start in range(0, len(pixels), rows):  # in bands: the numbers on the way take ten times the memory of labels
        code = pixels[start : start + rows].astype(np.int32) @ np.array([65536, 256, 1], dtype=np.int32)
        # a search in the short table: sorting all pixels takes ten times as long
        nearest = np.searchsorted(keys, code).clip(max=max(len(keys) - 1, 0))
        outside = keys[nearest] != code if len(keys) else np.ones(code.shape, dtype=bool)
        if outside.any():
            codes, counts = np.unique(code[outside], return_counts=True)
            strange.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))
        elif not strange:
            raw[start : start + rows] = values[nearest]
        if len(strange) > _COLORS:
            break
    if strange:
        _refuse_colors(path, strange, bool(table))
    return raw


def _refuse_colors(path: str, strange: Counter[int], has_table: bool) -> None:
    count = f"{len(strange)}" if len(strange) <= _COLORS else f"more than {_COLORS}"
    entries = [
        f'\n  {i}: {{name: class_{i}, colors: ["#{color:06x}"]}}  # {pixels} pixels'
        for i, (color, pixels) in enumerate(sorted(strange.items(), key=lambda item: (-item[1], item[0]))[:12])
    ]
    what = f"{count} colours are in no class" if has_table else "an RGB label map needs a colour table"
    rest = len(strange) - 12
    more = f"\n  # and {rest} colours more: was it resized or saved as JPEG?" if rest > 0 else ""
    raise DatasetError(
        f"{path}: {what}; add to the dataset's YAML, with your names (or to its `ignore:` list):"
        f"\nclasses:{''.join(entries)}{more}"
    )


def _open(path: str, data: bytes, formats: tuple[str, ...], what: str) -> Image.Image:
    """The decoded image.  Raises DatasetError with one line, ResourceError when memory is short."""
    path = printable(path)
    with _refused(path, data, formats, what):
        image = _header(path, data, formats, what)
        image.load()
    if image.format == "PNG":
        _check_png(path, data)
    return image


def _quick_rgb(path: str, data: bytes) -> NDArray[np.uint8] | None:
    """The pixels of a JPEG photo that passed the same checks; None where it is for `_open` to decode or refuse it."""
    if not data.startswith(b"\xff\xd8") or not jpeg.simplejpeg():
        return None
    path = printable(path)
    with _refused(path, data, _PHOTOS, "photo"):
        return jpeg.quick_rgb(data, _header(path, data, _PHOTOS, "photo"))


@contextmanager
def _refused(path: str, data: bytes, formats: tuple[str, ...], what: str) -> Iterator[None]:
    """Turns what Pillow raises on damaged files into DatasetError, and MemoryError into ResourceError."""
    try:
        yield
    except MemoryError as error:
        raise ResourceError(f"{path}: memory is short for the {what} ({len(data)} bytes)") from error
    except _DAMAGE as error:
        allowed = ", ".join(formats)
        raise DatasetError(
            f"{path}: damaged or not a {what} ({_one_line(error)}); replace or remove it (formats read: {allowed})"
        ) from error


def _header(path: str, data: bytes, formats: tuple[str, ...], what: str) -> Image.Image:
    """The image before it is decoded.  Raises DatasetError for what is no image, or one that takes too much."""
    _refuse_stand_ins(path, data, what)
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # other libraries switch it on; half a mask would turn into labels
    _refuse_claims(data)
    with warnings.catch_warnings():  # above what Pillow finds suspicious, ours is the limit
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(data), formats=formats)
    pixels = image.width * image.height
    if pixels > _PIXELS:
        raise DatasetError(f"{path}: {image.width} x {image.height} pixels; at most {_PIXELS} are read")
    if len(data) > _METADATA + 8 * pixels:
        raise DatasetError(f"{path}: {len(data)} bytes are too many for {image.width} x {image.height} pixels")
    if image.format == "TIFF" and image.tag_v2.get(_ORIENTATION, 1) != 1:  # type: ignore[attr-defined]
        # Pillow would turn it, and so away from its partner
        raise DatasetError(f"{path}: a TIFF with an orientation tag; save it upright, without the tag")
    return image


def _refuse_claims(data: bytes) -> None:
    """Raises ValueError for headers that make Pillow allocate, or work, long before it looks at the pixels."""
    if data[:4] == b"RIFF" and data[12:16] == b"VP8X":
        width, height = (1 + int.from_bytes(data[start : start + 3], "little") for start in (24, 27))
        if width * height > _PIXELS:
            raise ValueError(f"{width} x {height} pixels; at most {_PIXELS} are read")
    run_length = data[:2] == b"BM" and data[30:34] in (b"\1\0\0\0", b"\2\0\0\0")
    if (run_length or data[:2] in (b"P1", b"P2", b"P3")) and len(data) > _SLOW:
        raise ValueError(f"{len(data)} bytes; of run-length BMP and text PPM at most {_SLOW} are read")
    if data[:2] in (b"II", b"MM"):
        _refuse_tiff_claims(data, "<" if data[:2] == b"II" else ">")
    if data[:2] == b"\xff\xd8" and data.count(b"\xff\xda") > _SCANS and _jpeg_scans(data) > _SCANS:
        raise ValueError(f"more than {_SCANS} scans")


def _refuse_tiff_claims(data: bytes, order: str) -> None:
    """Raises ValueError for a tag with absurdly many values, each of which becomes a Python object, or a giant tile."""
    if struct.unpack_from(order + "H", data, 2)[0] == 43:
        raise ValueError("a BigTIFF; save it as a TIFF")
    start = struct.unpack_from(order + "I", data, 4)[0]
    sides = {}
    for i in range(struct.unpack_from(order + "H", data, start)[0]):
        tag, kind, count = struct.unpack_from(order + "HHI", data, start + 2 + 12 * i)
        if count > _TAG_VALUES and kind not in _BYTE_KINDS:
            raise ValueError(f"tag {tag} has {count} values")
        if tag in (_TILE_WIDTH, _TILE_LENGTH):
            sides[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, start + 10 + 12 * i)[0]
    if sides.get(_TILE_WIDTH, 0) * sides.get(_TILE_LENGTH, 0) > _PIXELS // 4:
        raise ValueError(f"tiles of {sides[_TILE_WIDTH]} x {sides[_TILE_LENGTH]} pixels")


def _jpeg_scans(data: bytes) -> int:
    """The scans of the first picture in a JPEG file, found as libjpeg finds them: what is no marker is passed over.

    What else may follow the picture, such as a film, has none.
    """
    position, scans = 2, 0
    while scans <= _SCANS and (match := _MARKER.search(data, position)):
        marker, position = data[match.end() - 1], match.end()
        if marker == 0xD9:  # end of the picture
            break
        scans += marker == 0xDA
        if marker not in (0x01, 0xD8):  # all others have a length
            position += int.from_bytes(data[position : position + 2])
    return scans


def _refuse_stand_ins(path: str, data: bytes, what: str) -> None:
    """Raises DatasetError for what stands in for an image after a copy or download went wrong."""
    if not data:
        raise DatasetError(f"{path}: the {what} is empty; replace it")
    if data.startswith(b"version https://git-lfs"):
        raise DatasetError(f"{path}: a Git LFS pointer, not the {what} itself; run `git lfs pull`")
    if data[:64].lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise DatasetError(f"{path}: a web page, not a {what}: the download failed; fetch it again")
    if data.endswith(bytes(16)) and data.startswith(b"\xff\xd8") and not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        # libjpeg paints the missing rows grey without an error
        raise DatasetError(f"{path}: damaged: the end of the {what} is zeros; copy it again")


def _one_line(error: Exception) -> str:
    text = printable(" ".join(str(error).split()))[:200]
    return "not an image" if "cannot identify" in text else text


def _check_png(path: str, data: bytes) -> None:
    """Checks every chunk's CRC, which decoding skips: a flipped bit would be a legal but wrong label.

    One header, at the start: Pillow would take the last one, whose depth would not be that of the first.
    """
    if data[12:16] != b"IHDR" or data[8:12] != b"\0\0\0\r":
        raise DatasetError(f"{path}: damaged: it does not begin with its header; replace the file")
    start = len(_PNG)
    while start + 12 <= len(data):
        end = start + 8 + int.from_bytes(data[start : start + 4])
        kind = data[start + 4 : start + 8]
        if zlib.crc32(memoryview(data)[start + 4 : end]) != int.from_bytes(data[end : end + 4]):
            name = printable(kind.decode("ascii", "replace"))
            raise DatasetError(f"{path}: damaged: the checksum of its {name} chunk is wrong; replace the file")
        if kind == b"IHDR" and start > len(_PNG):
            raise DatasetError(f"{path}: damaged: it has two headers; replace the file")
        if kind == b"IEND":
            return
        start = end + 4
    raise DatasetError(f"{path}: damaged: the file ends before its IEND chunk; replace the file")


# Writing


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
