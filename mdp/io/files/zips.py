"""Zip archives read as folders, without unpacking: what is in one, and the bytes of one of its files.

The table of contents is read once for a (path, size, time of change); every file is read through a handle of its own,
so that neither threads nor processes, however they were started, share a position in the archive.
"""

import io
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

_DIRECTORY = 2**29  # bytes of the table of contents; that of ImageNet's 1,281,167 photos has about 120 MB
_SLACK = 2**20  # packed bytes beyond the unpacked: what does not shrink grows by 5 bytes in 16 KiB
_HEADER = 30  # bytes before the name that stands in front of each file
_ZIP = re.compile(r"\.zip(?=/|$)", re.IGNORECASE)
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


class Unusable(Exception):
    """Why an archive, or a file in it, is not read; without its name."""


class Entry(NamedTuple):
    """A file in an archive."""

    offset: int  # of its header
    packed: int  # bytes in the archive
    size: int  # bytes unpacked
    crc: int
    deflated: bool


class Archive(NamedTuple):
    """The files and folders in an archive, by the folder they lie in; the top folder is ""."""

    path: str
    size: int
    changed: int  # nanoseconds
    files: dict[str, dict[str, Entry]]
    folders: dict[str, set[str]]

    def entry(self, inside: str) -> Entry | None:
        """The file of that path in the archive."""
        folder, _, name = inside.rpartition("/")
        return self.files.get(folder, {}).get(name)


def split(path: str) -> tuple[str, str] | None:
    """The zip file that a path leads into, and the path inside; None where it leads into none."""
    for match in _ZIP.finditer(path):
        if os.path.isfile(path[: match.end()]):  # folders may be called so too
            return path[: match.end()], "/".join(_parts(path[match.end() :]))
    return None


def archive(path: str) -> Archive:
    """The contents of a zip file.  Raises Unusable for one that is damaged or hostile, OSError as opening does."""
    status = os.stat(path)
    return _archive(path, status.st_size, status.st_mtime_ns)


def read(held: Archive, entry: Entry, what: str, limit: int) -> bytes:
    """A file's content.  Raises Unusable when it is damaged or above the limit, OSError as reading does."""
    if entry.size > limit or entry.packed > limit + _SLACK:
        raise Unusable(f"{max(entry.size, entry.packed)} bytes; a {what} has at most {limit}")
    with open(held.path, "rb") as file:
        status = os.fstat(file.fileno())
        if (status.st_size, status.st_mtime_ns) != (held.size, held.changed):
            raise Unusable("the zip archive was changed while it was in use; start again")
        file.seek(entry.offset)
        header = file.read(_HEADER)
        if len(header) < _HEADER or not header.startswith(b"PK\3\4"):
            raise Unusable("damaged: its header in the zip archive is wrong; get the archive again")
        file.seek(sum(struct.unpack_from("<HH", header, 26)), os.SEEK_CUR)  # name and extra field
        packed = file.read(entry.packed)
    content = _inflated(packed, entry.size) if entry.deflated else packed
    if len(content) != entry.size or zlib.crc32(content) != entry.crc:
        raise Unusable("damaged: its checksum in the zip archive is wrong; get the archive again")
    return content


def _inflated(packed: bytes, size: int) -> bytes:
    """The unpacked bytes, never more than one too many: whether they are right is seen by their checksum."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return unpacker.decompress(packed, size + 1)
    except zlib.error as error:
        raise Unusable(f"damaged in the zip archive ({error}); get the archive again") from error


# The table of contents


class _Bounded(io.FileIO):
    """A file of which nothing large is read at once: how long the table of contents is, is the archive's own claim."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _DIRECTORY:
            raise zipfile.BadZipFile(f"a table of contents of {size} bytes; at most {_DIRECTORY} are read")
        return super().read(size) or b""


@lru_cache(maxsize=64)
def _archive(path: str, size: int, changed: int) -> Archive:
    try:
        with _Bounded(path) as file, zipfile.ZipFile(file) as opened:
            listed = opened.infolist()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, struct.error) as error:
        raise Unusable(f"damaged or no zip archive ({error}); is the download complete?") from error
    held = Archive(path, size, changed, {"": {}}, {"": set()})
    for info in listed:
        _put(held, info)
    _refuse_overlaps(held)
    return held


def _put(held: Archive, info: zipfile.ZipInfo) -> None:
    """Adds a file or folder and the folders it lies in.  Raises Unusable for what no plain archive of data has."""
    reason = _reason(info)
    if reason:
        raise Unusable(f"not read, since {info.orig_filename!r} in it {reason}")
    parts = _parts(info.filename)
    is_folder = info.filename.endswith("/")
    folder = ""
    for part in parts if is_folder else parts[:-1]:
        _refuse_twice(part in held.files[folder], info)
        held.folders[folder].add(part)
        folder = f"{folder}/{part}" if folder else part
        held.files.setdefault(folder, {})
        held.folders.setdefault(folder, set())
    if parts and not is_folder:
        _refuse_twice(parts[-1] in held.files[folder] or parts[-1] in held.folders[folder], info)
        deflated = info.compress_type == _DEFLATED
        held.files[folder][parts[-1]] = Entry(
            info.header_offset, info.compress_size, info.file_size, info.CRC, deflated
        )


def _parts(inside: str) -> list[str]:
    return [part for part in inside.split("/") if part not in ("", ".")]


def _refuse_twice(twice: bool, info: zipfile.ZipInfo) -> None:
    if twice:
        raise Unusable(f"not read, since {info.orig_filename!r} is in it twice; unpack it and see which one is meant")


def _reason(info: zipfile.ZipInfo) -> str:
    """Why a file in an archive is not read; "" if it is."""
    name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & 0x1:
        return "is encrypted; unpack it with its password"
    if info.compress_type not in (_STORED, _DEFLATED):
        return f"is compressed by method {info.compress_type}; unpack it, or pack it with plain `zip`"
    if "\\" in name or "\0" in name or name[1:2] == ":":
        return "is not written with /; unpack it"
    if name.startswith("/") or ".." in name.split("/"):
        return "leads out of the archive"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or device; unpack it"
    if info.compress_type == _STORED and info.compress_size != info.file_size:
        return "has two different sizes"
    return ""


def _refuse_overlaps(held: Archive) -> None:
    """Raises Unusable when files share their bytes, by which a small archive grows beyond every measure."""
    end = 0
    for entry in sorted(_entries(held)):
        if entry.offset < end:
            raise Unusable("not read, since files in it overlap: it is damaged or made to harm")
        end = entry.offset + _HEADER + entry.packed


def _entries(held: Archive) -> Iterable[Entry]:
    return (entry for files in held.files.values() for entry in files.values())
