"""Formats by the first bytes of a file: what stands in for an image, and what an image claims about itself.

Claims are looked at before Pillow allocates for them or works on them.
"""

import re
import struct
import zlib

import numpy as np

from mdp.io.errors import DatasetError
from mdp.io.files import tiff
from mdp.io.files.reading import most_pixels, printable

ORIENTATION = 274  # of EXIF and TIFF
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # of JPEG; the others stand inside a scan
_PNG = b"\x89PNG\r\n\x1a\n"
_SCANS = 100  # of a progressive JPEG; encoders write about 10, and each costs a pass over all coefficients
_SLOW = 2**24  # bytes of the two formats that Pillow decodes in Python, at 4 MB a second
_OTHERS = (
    (b"PK\3\4", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"MATLAB 5.0", "a MATLAB file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML file"),
    (b"<annotation", "an XML file"),
    (b"gimp xcf", "a GIMP picture"),
    (b"8BPS", "a Photoshop picture"),
)


# What stands in for an image


def refuse_stand_ins(path: str, data: bytes, what: str) -> None:
    """Raises DatasetError for what stands in for an image after a copy or download went wrong."""
    if not data:
        raise DatasetError(f"{path}: the {what} is empty; replace it")
    if data.startswith(b"version https://git-lfs"):
        raise DatasetError(f"{path}: a Git LFS pointer, not the {what} itself; run `git lfs pull`")
    if data[:64].lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise DatasetError(f"{path}: a web page, not a {what}: the download failed; fetch it again")
    if data.startswith(b"\x89PNG") and not data.startswith(_PNG) and b"IHDR" in data[:32]:
        raise DatasetError(
            f"{path}: damaged: its line ends were converted, as Git does where .gitattributes says that it is text, "
            f"and FTP in text mode; take the original {what}, with `*.png binary` in .gitattributes"
        )
    other = content(data) or ("a GIF" if what == "photo" and data.startswith(b"GIF8") else "")
    if other:
        raise DatasetError(f"{path}: {other}, not a {what}; replace it, or save it as PNG")
    if data.endswith(bytes(16)) and data.startswith(b"\xff\xd8") and not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        # libjpeg paints the missing rows grey without an error
        raise DatasetError(f"{path}: damaged: the end of the {what} is zeros; copy it again")


def content(data: bytes) -> str:
    """What a file is that is no image, as far as its first bytes tell; "" where they do not.

    >>> content(b'{"error": "not found"}'), content(b"P6 2 2")
    ('a JSON file', '')
    """
    head = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    for start, name in _OTHERS:
        if head.startswith(start):
            return name
    if data[4:8] == b"ftyp":
        return "a HEIC or AVIF photo" if data[8:12] in (b"heic", b"heix", b"mif1", b"avif") else "a film"
    if re.match(rb'[{\[]\s*["{\[\d\]}-]', head):
        return "a JSON file"
    return ""


# Claims


def too_large(width: int, height: int) -> str:
    """The refusal of more pixels than are read, with the setting that reads them."""
    return (
        f"{width} x {height} pixels; at most {most_pixels()} are read: cut it into tiles, or, where memory allows "
        f"about 25 bytes a pixel, set MDP_MAX_PIXELS={width * height} in the environment"
    )


def refuse_claims(data: bytes) -> None:
    """Raises ValueError for headers that make Pillow allocate, or work, long before it looks at the pixels."""
    if data[:4] == b"RIFF" and data[12:16] == b"VP8X":
        width, height = (1 + int.from_bytes(data[start : start + 3], "little") for start in (24, 27))
        if width * height > most_pixels():
            raise ValueError(too_large(width, height))
    run_length = data[:2] == b"BM" and data[30:34] in (b"\1\0\0\0", b"\2\0\0\0")
    if (run_length or data[:2] in (b"P1", b"P2", b"P3")) and len(data) > _SLOW:
        raise ValueError(f"{len(data)} bytes; of run-length BMP and text PPM at most {_SLOW} are read")
    if tiff.is_tiff(data):
        _refuse_tiff_claims(data)
    if data[:2] == b"\xff\xd8" and _most_scans(data) > _SCANS and _jpeg_scans(data) > _SCANS:
        raise ValueError(f"more than {_SCANS} scans")


def _refuse_tiff_claims(data: bytes) -> None:
    """Raises ValueError for a tag with absurdly many values, each of which becomes a Python object, or a giant tile."""
    tags, _ = tiff.directory(data)
    sides = [tiff.values(data, tags, tag, (0,))[0] for tag in (322, 323)]
    if sides[0] * sides[1] > most_pixels() // 4:
        raise ValueError(f"tiles of {sides[0]} x {sides[1]} pixels")


def _most_scans(data: bytes) -> int:
    """How often the bytes that begin a scan stand in a JPEG file, in a sixth of the time of `data.count`."""
    values = np.frombuffer(data, dtype=np.uint8)
    return int(np.count_nonzero((values[:-1] == 0xFF) & (values[1:] == 0xDA)))


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


# What is in a file besides one picture of plain numbers


def pages(data: bytes) -> int:
    """The pictures in a file: pages of a TIFF, images of a film; 1 where there is one, or the file is damaged."""
    try:
        if tiff.is_tiff(data):
            return tiff.read_tiff(data).pages
        if data.startswith(_PNG):
            place = data.find(b"acTL", 0, data.find(b"IDAT"))
            return int.from_bytes(data[place + 4 : place + 8]) if place > 0 else 1
        if data[:4] == b"RIFF" and data[12:16] == b"VP8X":
            return max(1, data.count(b"ANMF"))
        if data[:4] == b"GIF8":
            return max(1, data.count(b"\0\x21\xf9\x04"))
    except (ValueError, struct.error, IndexError):
        pass
    return 1


def palette_of(data: bytes) -> bytes:
    """The palette of a PNG, three bytes an entry; b"" where the file has none."""
    if not data.startswith(_PNG) or data[25] != 3:
        return b""
    place = data.find(b"PLTE", 0, data.find(b"IDAT"))
    return data[place + 4 :][: int.from_bytes(data[place - 4 : place])] if place > 0 else b""
