"""What an image file claims about itself, before Pillow allocates for it or works on it.

A file that stands in for another after a download or copy went wrong is named as what it is.
"""

import re
import struct
import zlib

from mdp.io.errors import DatasetError
from mdp.io.files.reading import printable

MOST_PIXELS = 2**26  # an 8k x 8k photo; larger claims are refused before anything is allocated
ORIENTATION = 274  # of EXIF and TIFF
_BYTE_KINDS = (1, 2, 6, 7)  # types of TIFF tags that stay bytes
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # of JPEG; the others stand inside a scan
_PNG = b"\x89PNG\r\n\x1a\n"
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_TAG_VALUES = 2**18  # in a TIFF tag; 8192 rows of 3 planes, a strip each, are 24,576
_SCANS = 100  # of a progressive JPEG; encoders write about 10, and each costs a pass over all coefficients
_SLOW = 2**24  # bytes of the two formats that Pillow decodes in Python, at 4 MB a second


def refuse_stand_ins(path: str, data: bytes, what: str) -> None:
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


def refuse_claims(data: bytes) -> None:
    """Raises ValueError for headers that make Pillow allocate, or work, long before it looks at the pixels."""
    if data[:4] == b"RIFF" and data[12:16] == b"VP8X":
        width, height = (1 + int.from_bytes(data[start : start + 3], "little") for start in (24, 27))
        if width * height > MOST_PIXELS:
            raise ValueError(f"{width} x {height} pixels; at most {MOST_PIXELS} are read")
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
    if sides.get(_TILE_WIDTH, 0) * sides.get(_TILE_LENGTH, 0) > MOST_PIXELS // 4:
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


def check_png(path: str, data: bytes) -> None:
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
