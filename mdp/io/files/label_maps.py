"""Label maps as the numbers they mean.

A label map is never converted by luminance, resampled, or guessed at: palette files are read as indices, grey files as
ids, colour files through a table or not at all.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mdp.core.labels import RGB
from mdp.io.errors import DatasetError, ResourceError
from mdp.io.files.decoding import open_image
from mdp.io.files.matlab import read_label_mat
from mdp.io.files.reading import printable, read_bytes

_FORMATS = ("PNG", "BMP", "TIFF", "PPM")  # no GIF: whoever writes one may renumber its palette
_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC = 258, 259, 262  # of TIFF
_COLORS = 2**16  # strange colours that are counted before a file is given up
_BAND = 2**22  # pixels of a colour-coded label map that are looked up at a time


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
    image = open_image(path, data, _FORMATS, "label map")
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
    image = open_image(path, data, _FORMATS, "label map")
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
