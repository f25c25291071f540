"""TIFF files whose numbers Pillow does not give as they are stored: whole numbers of any size, floats, many bands.

Strips and tiles, interleaved or plane by plane, either byte order, BigTIFF, with both predictors.  What libtiff can
unpack is unpacked by Pillow, as bytes; what the bytes mean is decided here.

Shape legend: H x W image, S samples a pixel (bands).
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mdp.io.files.reading import most_pixels

MOST_VALUES = 2**18  # in a tag; 8192 rows of 3 planes, a strip each, are 24,576
BYTE_KINDS = (1, 2, 6, 7)  # types of tags that stay bytes
_PIXEL = 16  # bytes as they are stored, for each pixel that may be read
_MOST_PAGES = 10000
_KINDS = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "s", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d",
          13: "I", 16: "Q", 17: "q", 18: "Q"}  # fmt: skip
_NAMES = {2: "CCITT", 3: "CCITT", 4: "CCITT", 5: "LZW", 6: "JPEG", 7: "JPEG", 34712: "JPEG 2000", 34887: "LERC",
          34925: "LZMA", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL"}  # fmt: skip
_BY_LIBTIFF = (5, 32773, 34925, 50000)  # LZW, PackBits, LZMA, Zstandard: bytes in, bytes out
_ZLIB = (8, 32946)
_GEOREFERENCE = {33550, 33922, 34264, 34735, 34736, 34737}  # scale, tie points, matrix; keys of the projection
_DIFFERENCES = (5, 8, 32946, 34925, 50000)  # compressions that heed a predictor


class NotRead(ValueError):
    """A file that is whole, in a form that is not read."""


class Entry(NamedTuple):
    """A tag as it stands in a directory."""

    kind: int
    number: int  # of values
    place: int  # where its values lie in the file


class Tiff(NamedTuple):
    """How the first picture of a file is stored."""

    order: str  # < or >
    width: int
    height: int
    samples: int
    bits: int  # of a sample
    format: str  # u: whole numbers from 0, i: with a sign, f: floats
    photometric: int  # 0: grey, 0 is white; 1: grey, or bands that say nothing of themselves; 2: RGB; 3: palette
    compression: int
    predictor: int
    planes: bool  # whether samples are stored one after the other
    chunk: tuple[int, int]  # height and width of a strip or tile
    tiled: bool
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    turned: bool  # whether an orientation tag asks for it
    pages: int  # pictures in the file, smaller copies and masks aside

    @property
    def stored(self) -> str:
        """The samples, for people: `4 bands of 16 bits`."""
        numbers = {"u": "", "i": " with a sign", "f": " (floats)"}[self.format]
        return f"{self.samples} band{'s' * (self.samples != 1)} of {self.bits} bits{numbers}"


def is_tiff(data: bytes) -> bool:
    return data[:2] in (b"II", b"MM")


def directory(data: bytes, start: int | None = None) -> tuple[dict[int, Entry], int]:
    """The tags at a place of the file (the first directory by default), and the place of the next one, or 0."""
    order, big = _order(data), _is_big(data)
    if start is None:
        start = _unpack(data, order + ("Q" if big else "I"), 8 if big else 4)
    head, size, form, inline = (8, 20, "HHQ", 12) if big else (2, 12, "HHI", 8)
    count = _unpack(data, order + ("Q" if big else "H"), start)
    if count * size > len(data):
        raise ValueError("its directory is longer than the file")
    tags: dict[int, Entry] = {}
    for place in range(start + head, start + head + count * size, size):
        tag, kind, number = struct.unpack_from(order + form, data, place)
        if number > MOST_VALUES and kind not in BYTE_KINDS:
            raise ValueError(f"tag {tag} has {number} values")
        width = number * struct.calcsize("=" + _KINDS.get(kind, "B"))
        at = place + inline
        tags.setdefault(tag, Entry(kind, number, at if width <= size - inline else _offset(data, order, big, at)))
    end = start + head + count * size
    return tags, _offset(data, order, big, end) if end + 4 <= len(data) else 0


def values(data: bytes, tags: dict[int, Entry], tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
    """The numbers of a tag."""
    if tag not in tags:
        return default
    kind, count, place = tags[tag]
    letter = _KINDS.get(kind, "")
    if len(letter) != 1 or letter == "s":
        raise ValueError(f"tag {tag} holds no numbers")
    return struct.unpack_from(f"{_order(data)}{count}{letter}", data, place)


def read_tiff(data: bytes, start: int | None = None) -> Tiff:
    """How the pixels of a picture are stored, of the first one by default.

    Raises ValueError, and struct.error on damage, for what makes no sense.
    """
    tags, following = directory(data, start)

    def one(tag: int, default: int | None = None) -> int:
        found = values(data, tags, tag) or ((default,) if default is not None else ())
        if not found:
            raise ValueError(f"tag {tag} is missing")
        return int(found[0])

    samples = one(277, 1)
    tiled = 322 in tags
    width, height = one(256), one(257)
    chunk = (one(323), one(322)) if tiled else (min(one(278, height), height), width)
    bits, formats = set(values(data, tags, 258, (1,))), set(values(data, tags, 339, (1,)))
    if len(bits) != 1 or len(formats) != 1:
        raise ValueError("its bands are stored in different ways")
    return Tiff(
        order=_order(data), width=width, height=height, samples=samples, bits=bits.pop(),
        format={1: "u", 2: "i", 3: "f", 4: "u"}.get(formats.pop(), "complex"), photometric=one(262, 1),
        compression=one(259, 1),
        predictor=one(317, 1) if one(259, 1) in _DIFFERENCES else 1, planes=one(284, 1) == 2 and samples > 1,
        chunk=chunk, tiled=tiled, offsets=values(data, tags, 324 if tiled else 273),
        counts=values(data, tags, 325 if tiled else 279), turned=one(274, 1) != 1,
        pages=1 + len(_pages(data, following)),
    )  # fmt: skip


def georeference(data: bytes) -> dict[int, tuple[int, tuple[float, ...] | bytes]]:
    """The tags that say where on Earth a GeoTIFF lies, each with its type and values; {} for any other file.

    GDAL's value for "no data" is none of them: it is one of the photo's, and would be a class in a label map.
    """
    try:
        tags = directory(data)[0] if is_tiff(data) else {}
        found: dict[int, tuple[int, tuple[float, ...] | bytes]] = {}
        for tag in _GEOREFERENCE & tags.keys():
            kind, count, place = tags[tag]
            found[tag] = (kind, data[place : place + count] if kind == 2 else values(data, tags, tag))
    except (ValueError, struct.error):
        return {}
    return found


def _pages(data: bytes, following: int) -> list[int]:
    """The places of further pictures of a file; smaller copies of one, and masks, are none of their own."""
    places, seen = [], {0}
    while following not in seen and len(seen) < _MOST_PAGES:
        place = following
        seen.add(place)
        try:
            tags, following = directory(data, place)
            places += [] if values(data, tags, 254, (0,))[0] & 5 else [place]
        except (ValueError, struct.error, IndexError):
            break
    return places


def stacked(data: bytes) -> NDArray[np.generic]:
    """The samples (H, W, S) of pictures of one sample a pixel, one after the other: the bands of a stack.

    Raises what `pixels` raises, and NotRead for pictures of different sizes or kinds.
    """
    first = read_tiff(data)
    bands = [first, *(read_tiff(data, place) for place in _pages(data, directory(data)[1]))]
    like = [(band.width, band.height, band.samples, band.bits, band.format, band.photometric) for band in bands]
    if len(set(like)) > 1:
        raise NotRead(f"{len(bands)} pages of different sizes or kinds; save them as bands of one picture")
    _refuse(first._replace(samples=len(bands)))  # all of them together
    image = np.empty((first.height, first.width, len(bands)), _native(first))
    for number, band in enumerate(bands):
        image[..., number] = pixels(data, band)[..., 0]
    return image


def pixels(data: bytes, tiff: Tiff) -> NDArray[np.generic]:
    """The samples (H, W, S) as they are stored, white-is-zero included.

    Raises ValueError naming what is not read, and what the decoders raise on damage.
    """
    _refuse(tiff)
    each = 1 if tiff.planes else tiff.samples  # samples in a chunk
    image = np.empty((tiff.height, tiff.width, tiff.samples), _native(tiff))
    for number, (plane, top, left) in enumerate(_corners(tiff)):
        rows = tiff.chunk[0] if tiff.tiled else min(tiff.chunk[0], tiff.height - top)
        raw = data[tiff.offsets[number] :][: tiff.counts[number]]
        line = -(-tiff.chunk[1] * each * tiff.bits // 8)  # bytes
        block = _block(_unpacked(raw, tiff, line, rows), tiff, (rows, tiff.chunk[1], each))
        target = image[top : top + rows, left : left + tiff.chunk[1], plane : plane + each]
        target[...] = block[: target.shape[0], : target.shape[1]]
    return image


def _refuse(tiff: Tiff) -> None:
    whole = tiff.bits in (8, 16, 32, 64) or (tiff.bits in (1, 2, 4) and tiff.samples == 1 and tiff.format == "u")
    if tiff.format == "complex" or not whole or (tiff.format == "f" and tiff.bits == 8):
        raise NotRead(f"samples of {tiff.bits} bits in a TIFF of this kind are not read; save it with 8, 16 or 32")
    if tiff.compression != 1 and tiff.compression not in _ZLIB + _BY_LIBTIFF:
        name = _NAMES.get(tiff.compression, f"number {tiff.compression}")
        raise NotRead(f"{tiff.stored} with {name} compression are not read; save it with deflate or LZW")
    size = tiff.width * tiff.height * tiff.samples * tiff.bits // 8
    chunk = tiff.chunk[0] * tiff.chunk[1] * tiff.samples * tiff.bits // 8
    most = _PIXEL * most_pixels()
    if size > most or chunk > most or tiff.samples > 4096:
        raise NotRead(f"{tiff.width} x {tiff.height} pixels, {tiff.stored}; at most {most} bytes are read")
    count = sum(1 for _ in _corners(tiff)) if min(tiff.width, tiff.height, *tiff.chunk) > 0 else 0
    if not count or min(len(tiff.offsets), len(tiff.counts)) < count:
        raise ValueError("its strips or tiles do not cover it")


def _corners(tiff: Tiff) -> Iterator[tuple[int, int, int]]:
    """Plane, top row and left column of every strip or tile, in order."""
    for plane in range(tiff.samples if tiff.planes else 1):
        for top in range(0, tiff.height, tiff.chunk[0]):
            for left in range(0, tiff.width, tiff.chunk[1]):
                yield plane, top, left


def _unpacked(raw: bytes, tiff: Tiff, line: int, rows: int) -> bytes:
    """The bytes of a strip or tile of so many rows, `line` bytes each."""
    if tiff.compression in _ZLIB:
        raw = zlib.decompressobj().decompress(raw, line * rows)
    elif tiff.compression in _BY_LIBTIFF:
        raw = _by_libtiff(raw, tiff.compression, line, rows)
    if len(raw) < line * rows:
        raise ValueError("the file ends before its pixels do")
    return raw[: line * rows]


def _by_libtiff(raw: bytes, compression: int, line: int, rows: int) -> bytes:
    """What libtiff makes of compressed bytes, given to it as a grey picture of one strip."""
    tags = ((256, line), (257, rows), (258, 8), (259, compression), (262, 1), (273, 122), (277, 1), (278, rows),
            (279, len(raw)))  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    file = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + raw
    with Image.open(io.BytesIO(file), formats=("TIFF",)) as image:
        return image.tobytes()


def _block(raw: bytes, tiff: Tiff, shape: tuple[int, int, int]) -> NDArray[np.generic]:
    """Samples (rows, columns, samples) of unpacked bytes."""
    rows, columns, samples = shape
    if tiff.bits < 8:
        bits = np.unpackbits(np.frombuffer(raw, np.uint8).reshape(rows, -1), axis=1)
        bits = bits[:, : columns * tiff.bits].reshape(rows, columns, tiff.bits)
        return np.packbits(bits, axis=2) >> np.uint8(8 - tiff.bits)  # (rows, columns, 1)
    size = tiff.bits // 8
    if tiff.predictor == 3 and tiff.format == "f":  # all first bytes of a row, then all second ones; differences
        flat = np.frombuffer(raw, np.uint8).reshape(rows, -1, samples).cumsum(axis=1, dtype=np.uint8)
        ordered = flat.reshape(rows, size, columns * samples).transpose(0, 2, 1)
        return np.ascontiguousarray(ordered).view(f">f{size}").reshape(shape)
    stored = np.frombuffer(raw, f"{tiff.order}{tiff.format}{size}").reshape(shape)
    if tiff.predictor == 2:  # the differences wrap around
        whole = stored.view(f"{tiff.order}u{size}").astype(f"=u{size}")
        return whole.cumsum(axis=1, dtype=whole.dtype).view(f"={tiff.format}{size}")
    if tiff.predictor != 1:
        raise ValueError(f"predictor {tiff.predictor} is not read")
    return stored


def _native(tiff: Tiff) -> np.dtype[np.generic]:
    return np.dtype(f"={tiff.format}{max(1, tiff.bits // 8)}")


def _order(data: bytes) -> str:
    return "<" if data[:2] == b"II" else ">"


def _is_big(data: bytes) -> bool:
    return _unpack(data, _order(data) + "H", 2) == 43


def _offset(data: bytes, order: str, big: bool, place: int) -> int:
    return _unpack(data, order + ("Q" if big else "I"), place)


def _unpack(data: bytes, form: str, place: int) -> int:
    (number,) = struct.unpack_from(form, data, place)
    return int(number)
