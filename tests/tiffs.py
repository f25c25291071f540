"""TIFF files of kinds that Pillow does not write, byte by byte."""

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

KINDS = {"u": 1, "b": 1, "i": 2, "f": 3}


def tiff(
    path: Path,
    values: NDArray[np.generic],
    *,
    order: str = "<",
    big: bool = False,
    planes: bool = False,
    tile: int = 0,
    rows: int = 0,
    deflate: bool = False,
    predictor: int = 1,
    photometric: int | None = None,
    tags: Mapping[int, tuple[int, ...]] | None = None,
    pages: int = 1,
) -> Path:
    """A TIFF of values (H, W) or (H, W, S), with strips of so many rows or square tiles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = values if values.ndim == 3 else values[..., None]
    height, width, count = samples.shape
    blocks = [block for plane in (np.split(samples, count, 2) if planes else [samples])
              for block in _blocks(plane, tile, rows or height)]  # fmt: skip
    coded = [_coded(block, order, predictor) for block in blocks]
    coded = [zlib.compress(block) for block in coded] if deflate else coded
    entries = {
        256: (width,), 257: (height,), 258: (8 * values.dtype.itemsize,) * count, 259: (8 if deflate else 1,),
        262: (photometric if photometric is not None else 2 if count == 3 else 1,), 277: (count,),
        284: (2 if planes else 1,), 339: (KINDS[values.dtype.kind],) * count,
    }  # fmt: skip
    if count > 3:
        entries[338] = (0,) * (count - 3)
    if predictor != 1:
        entries[317] = (predictor,)
    if tile:
        entries |= {322: (tile,), 323: (tile,)}
    else:
        entries[278] = (rows or height,)
    entries |= tags or {}
    path.write_bytes(_file(order, big, entries, coded, bool(tile), pages))
    return path


def _blocks(plane: NDArray[np.generic], tile: int, rows: int) -> list[NDArray[np.generic]]:
    height, width = plane.shape[:2]
    if not tile:
        return [plane[top : top + rows] for top in range(0, height, rows)]
    padded = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
    return [padded[y : y + tile, x : x + tile] for y in range(0, height, tile) for x in range(0, width, tile)]


def _coded(block: NDArray[np.generic], order: str, predictor: int) -> bytes:
    kind, size = block.dtype.kind, block.dtype.itemsize
    if predictor == 2:
        whole = np.ascontiguousarray(block).view(f"u{size}")
        whole = np.concatenate([whole[:, :1], whole[:, 1:] - whole[:, :-1]], axis=1)
        return whole.astype(f"{order}u{size}").tobytes()
    if predictor == 3:
        rows, columns, samples = block.shape
        parts = np.ascontiguousarray(block.astype(f">f{size}")).view(np.uint8).reshape(rows, columns * samples, size)
        line = parts.transpose(0, 2, 1).reshape(rows, -1, samples)
        return np.concatenate([line[:, :1], line[:, 1:] - line[:, :-1]], axis=1).tobytes()
    return block.astype(f"{order}{kind}{size}").tobytes()


def _file(
    order: str, big: bool, entries: Mapping[int, tuple[int, ...]], coded: list[bytes], tiled: bool, pages: int
) -> bytes:
    mark = b"II" if order == "<" else b"MM"
    letter, inline, entry = ("Q", 8, 20) if big else ("I", 4, 12)
    start = 16 if big else 8
    head = mark + (struct.pack(order + "HHHQ", 43, 8, 0, start) if big else struct.pack(order + "HI", 42, start))
    number = len(entries) + 2
    size = (8 if big else 2) + number * entry + inline  # of a directory
    body = b""
    base = start + pages * size  # where values and pixels begin
    offsets = []
    for block in coded:
        offsets.append(base + len(body))
        body += block
    entries = {**entries, (324 if tiled else 273): tuple(offsets), (325 if tiled else 279): tuple(map(len, coded))}
    result = b""
    for page in range(pages):
        listed = struct.pack(order + ("Q" if big else "H"), number)
        for tag, values in sorted(entries.items()):
            kind, code = (
                (16, "Q") if big and tag in (273, 279, 324, 325) else (4, "I") if max(values) > 65535 else (3, "H")
            )
            packed = struct.pack(f"{order}{len(values)}{code}", *values)
            if len(packed) > inline:
                place, body = base + len(body), body + packed
                packed = struct.pack(order + letter, place)
            listed += struct.pack(order + "HH" + letter, tag, kind, len(values)) + packed.ljust(inline, b"\0")
        following = start + (page + 1) * size if page + 1 < pages else 0
        result += listed + struct.pack(order + letter, following)
    return head + result + body
