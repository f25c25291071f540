"""Label maps as the numbers they mean.

A label map is never converted by luminance, resampled, or guessed at: palette files are read as indices, or as colours
where the colours are what is declared; grey files as ids, colour files through a table or not at all.
"""

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from mdp.io.errors import DatasetError, ResourceError
from mdp.io.files import tiff
from mdp.io.files.decoding import TURNED_TIFF, open_image, refuse_size, refused
from mdp.io.files.formats import refuse_claims
from mdp.io.files.matlab import read_label_mat
from mdp.io.files.reading import printable, read_bytes
from mdp.label_space import RGB

_FORMATS = ("PNG", "BMP", "TIFF", "PPM", "GIF")
_COLORS = 2**16  # strange colours that are counted before a file is given up
_RARE = 0.001  # of the pixels: a colour on fewer is no class where classes are areas
_MOST_EDGES = 0.25  # of the pixels may be edges
_MOST_NAMED = 64  # of them that a check sums up
_BAND = 2**22  # pixels of a colour-coded label map that are looked up at a time
LARGEST = 65535
_GREY_JPEG = 16  # what rounding makes of three equal channels


class LabelRule(NamedTuple):
    """How the files of a dataset's label maps are to be read."""

    colors: Mapping[RGB, int] | None = None  # the raw values that colours stand for
    indices: bool = True  # palette files may be read by index: classes are named by value (too)
    edges: str = ""  # pixels of no declared colour: "" refused, "ignore", or "nearest" of the neighbours'
    ignored: int = 0  # the raw value for ignored edges
    lossy: bool = False  # JPEG is read: classes are ranges of values
    others: Sequence[
        tuple[int, int, int]
    ] = ()  # first and last of other numbers, and the raw value that stands for them
    largest: int = LARGEST  # raw value that means itself


PLAIN = LabelRule()


class Strange(NamedTuple):
    """The colours of a label map that are no class's."""

    colors: Mapping[int, int]  # the first of those that may be classes, and their pixels
    more: int  # of these that are not listed
    edges: tuple[int, int]  # colours, and pixels, that lie between those of classes
    pixels: int  # of the label map
    declared: bool  # whether any class has a colour


class UnknownColors(DatasetError):
    """A colour label map has colours of no class."""

    strange = Strange({}, 0, (0, 0), 0, False)


def read_labels(path: str, colors: Mapping[RGB, int] | None = None, rule: LabelRule = PLAIN) -> NDArray[np.integer]:
    """A label map as (H, W) raw values: palette indices, grey ids, whole numbers, or colours through `colors`.

    Files are PNG, BMP, TIFF (whole numbers and floats that are whole), PPM, GIF, NumPy's `.npy`, and MATLAB's `.mat`.
    Raises DatasetError naming the file, and for colours the YAML lines that would read it.
    """
    if path.lower().endswith(".mat"):
        return _whole(printable(path), read_label_mat(path), rule)
    data = read_bytes(path, "label map")
    path = printable(path)
    if colors is not None:
        rule = rule._replace(colors=colors)
    if data.startswith(b"\x93NUMPY"):
        return _whole(path, _numpy(path, data), rule)
    if data.startswith(b"\xff\xd8\xff"):
        return _lossy(path, data, rule)
    stored = _tiff_values(path, data)
    if stored is not None:
        return _whole(path, stored, rule)
    image = open_image(path, data, _FORMATS, "label map")
    try:
        return _raw_values(path, image, data, rule)
    except MemoryError as error:
        raise ResourceError(f"{path}: memory is short for its {image.width} x {image.height} pixels") from error


def read_packed_labels(path: str) -> NDArray[np.uint16]:
    """A label map (H, W) whose ids are red + 256 * green of an RGB image, as ImageNet-S has them.

    Raises DatasetError naming the file, also where blue is used.
    """
    data = read_bytes(path, "label map")
    path = printable(path)
    image = open_image(path, data, _FORMATS, "label map")
    if image.mode != "RGB" or _depth(path, image, data) != 8:
        raise DatasetError(f"{path}: a label map of mode {image.mode}; expected RGB with ids of red + 256 * green")
    pixels = np.array(image).astype(np.uint16)  # (H, W, 3); 256 * green does not fit into its own 8 bits
    if pixels[..., 2].any():
        raise DatasetError(f"{path}: blue is used, where ids are red + 256 * green: is it a picture of the labels?")
    return pixels[..., 0] + 256 * pixels[..., 1]


# Numbers


def _numpy(path: str, data: bytes) -> NDArray[np.generic]:
    """The array (H, W) of an .npy file; nothing in it is executed."""
    with refused(path, data, ("NumPy",), "label map"):
        file = io.BytesIO(data)
        version = npy.read_magic(file)
        head = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_columns, dtype = head(file)
        sides = [side for side in shape if side != 1] if len(shape) > 2 else list(shape)
        if len(sides) != 2 or dtype.kind not in "buif" or min(sides) < 1:
            raise DatasetError(f"{path}: an array {shape} of {dtype}; expected whole numbers (height, width)")
        refuse_size(path, sides[1], sides[0])
        values = np.frombuffer(data, dtype, sides[0] * sides[1], file.tell())
        return values.reshape(sides, order="F" if by_columns else "C")


def _tiff_values(path: str, data: bytes) -> NDArray[np.generic] | None:
    """The numbers (H, W) of a TIFF that Pillow would change or refuse; None for any other file."""
    if not tiff.is_tiff(data):
        return None
    with refused(path, data, _FORMATS, "label map"):
        refuse_claims(data)
        kind = tiff.read_tiff(data)
        if kind.samples != 1 or kind.photometric > 1:
            return None
        if kind.photometric == 1 and kind.format == "u" and kind.bits in (8, 16) and kind.compression not in (6, 7):
            return None
        refuse_size(path, kind.width, kind.height)
        if kind.turned:
            raise DatasetError(f"{path}: {TURNED_TIFF}")
        return tiff.pixels(data, kind)[..., 0]


def _whole(path: str, values: NDArray[np.generic], rule: LabelRule) -> NDArray[np.integer]:
    """Numbers of any type as raw values 0..65535.  Raises DatasetError for the first thing that is wrong with them."""
    if values.dtype.kind == "f":
        broken = ~np.isfinite(values) | (values != np.rint(values))
        if broken.any():
            raise DatasetError(
                f"{path}: {np.count_nonzero(broken)} of {broken.size} pixels are no whole number, such as "
                f"{values[broken][0]:.6g}; label maps hold one number a class"
            )
    low, high = values.min().item(), values.max().item()
    if low >= 0 and high <= rule.largest:
        return values.astype(np.uint8 if values.dtype.kind == "b" or values.dtype == np.uint8 else np.uint16)
    outside = np.less(values, 0) | np.greater(values, rule.largest)
    raw = np.where(outside, 0, values).astype(np.uint16)
    for first, last, stand_in in rule.others:
        here = outside & np.greater_equal(values, first) & np.less_equal(values, last)
        raw[here] = stand_in
        outside &= ~here
    if outside.any():
        numbers, counts = np.unique(values[outside], return_counts=True)
        listed = ", ".join(
            f"{number:.15g} ({count} pixels)" for number, count in zip(numbers[:4], counts, strict=False)
        )
        raise DatasetError(
            f"{path}: label values outside 0..{rule.largest}: {listed}; if they are never a class, add to the "
            f"dataset's YAML: ignore: [{', '.join(f'{number:.15g}' for number in numbers)}]"
        )
    return raw


def _lossy(path: str, data: bytes, rule: LabelRule) -> NDArray[np.integer]:
    """The grey values of a JPEG, where classes are ranges of values."""
    if not rule.lossy:
        raise DatasetError(
            f"{path}: a JPEG file: lossy, so its values are not labels; use the original PNG, or, where each class is "
            "a range of values, write the ranges, such as `values: 128-255`"
        )
    pixels = np.array(open_image(path, data, ("JPEG",), "label map"))
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 3 and np.ptp(pixels, axis=2).max() <= _GREY_JPEG:
        return pixels[..., 1]  # of three channels that are one but for rounding; green keeps the most
    raise DatasetError(f"{path}: a JPEG file in colour; ranges of values are of grey ones")


def _raw_values(path: str, image: Image.Image, data: bytes, rule: LabelRule) -> NDArray[np.integer]:
    """The numbers that a label map means, by how it is stored.  Raises DatasetError where they are not certain."""
    depth = _depth(path, image, data)
    if image.format == "PNG" and image.mode == "L" and data[25] in (0, 4) and depth < 8:
        # Pillow stretches 2 and 4 bit grey to 0..255: undo it, the ids are what was stored
        return np.array(image) // np.uint8(255 // (2**depth - 1))
    if image.mode == "P" or (image.mode == "PA" and depth == 8):
        return _by_palette(path, image, rule)
    if image.mode == "L":
        return np.array(image)
    if image.mode == "LA" and depth == 8:
        return np.array(image)[..., 0]
    if image.mode == "1":
        return np.array(image).astype(np.uint8)
    if image.mode.startswith("I"):
        return _whole(path, np.array(image), rule)
    if image.mode in ("RGB", "RGBA"):  # of 16 bits a channel Pillow keeps the upper 8: the same colour
        return _from_colors(path, np.array(image)[..., :3], rule)
    raise DatasetError(f"{path}: label map of mode {image.mode}, {depth} bits; expected palette, grey or RGB")


def _depth(path: str, image: Image.Image, data: bytes) -> int:
    """Bits a channel in the file.  Raises DatasetError for a TIFF whose numbers Pillow does not give as stored."""
    if image.format == "PNG":
        return data[24]  # IHDR, which comes first
    if image.format == "TIFF":
        kind = tiff.read_tiff(data)
        if kind.compression in (6, 7):
            raise DatasetError(f"{path}: a TIFF with JPEG inside: lossy, so its values are not labels")
        if kind.bits not in (8, 16):
            raise DatasetError(f"{path}: a TIFF label map in colour with {kind.bits} bits; expected 8 or 16")
        return kind.bits
    return 8


# Colours


def _by_palette(path: str, image: Image.Image, rule: LabelRule) -> NDArray[np.integer]:
    """A palette file: by its colours where these are declared, by the numbers in it otherwise.

    A GIF has no grey but by its palette, and its writer numbers the colours as it likes.
    """
    indices = np.array(image if image.mode == "P" else image.getchannel(0))
    if not rule.colors and image.format != "GIF":
        return indices  # counting what is used takes longer than decoding
    from mdp.core.label_colors import color_codes, table_index  # noqa: PLC0415 - core brings torch, which most files need not wait for

    palette = np.zeros((256, 3), dtype=np.uint8)
    entries = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)[:256]
    palette[: len(entries)] = entries
    used = np.flatnonzero(np.bincount(indices.ravel(), minlength=256))
    if not rule.colors:
        if (palette[used] == palette[used, :1]).all():
            return np.take(palette[:, 0], indices)
        return _from_colors(path, palette[indices], rule)
    keys, values = _table(rule.colors)
    found = table_index(color_codes(palette), keys)
    if (found[used] >= 0).all():
        return np.take(values[found], indices)
    if not rule.indices or rule.edges:
        return _from_colors(path, palette[indices], rule)
    return indices


def _table(colors: Mapping[RGB, int]) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    """The codes of declared colours, sorted, and their raw values."""
    known = {(r << 16) + (g << 8) + b: value for (r, g, b), value in colors.items()}
    keys = np.array(sorted(known), dtype=np.int32)
    return keys, np.array([known[key] for key in keys.tolist()], dtype=np.uint16)


def _from_colors(path: str, pixels: NDArray[np.uint8], rule: LabelRule) -> NDArray[np.uint16]:
    """Raw values of a colour-coded label map (H, W, 3).

    Raises UnknownColors for colours outside the table, or without one.
    """
    from mdp.core.label_colors import color_codes, nearest_of_neighbours, table_index  # noqa: PLC0415 - core brings torch, which most files need not wait for

    keys, values = _table(rule.colors or {})
    index = np.empty(pixels.shape[:2], dtype=np.intp if rule.edges == "nearest" else np.int16)
    rows = max(1, _BAND // pixels.shape[1])
    for start in range(0, len(pixels), rows):  # in bands: the numbers on the way take ten times the memory of labels
        index[start : start + rows] = table_index(color_codes(pixels[start : start + rows]), keys)
    if index.min() >= 0:
        return values[index]
    if not rule.edges or not len(keys):
        raise _unknown_colors(path, pixels, keys)
    if rule.edges == "nearest":
        table = np.stack([keys >> 16, keys >> 8 & 255, keys & 255], axis=-1).astype(np.uint8)
        index = nearest_of_neighbours(pixels, index, table)
    return np.where(index >= 0, values[index], np.uint16(rule.ignored))


def _unknown_colors(path: str, pixels: NDArray[np.uint8], keys: NDArray[np.int32]) -> UnknownColors:
    """What the colours of no class may be: classes, or mixtures along edges."""
    from mdp.core.label_colors import between, color_codes, flat, table_index  # noqa: PLC0415 - core brings torch, which most files need not wait for

    codes = color_codes(pixels)
    strange = table_index(codes, keys) < 0
    colors, counts = _counted(codes[strange])
    if len(colors) > _COLORS:
        return _refusal(path, colors, counts, np.zeros(len(colors), dtype=bool), codes.size, bool(len(keys)))
    areas = np.isin(colors, np.unique(codes[strange & flat(codes)]))
    ends = np.union1d(keys, colors[areas])
    # where three classes meet a mixture lies on no line, but hardly two have the same colour
    soft = ~areas & (between(colors, counts, ends) | ((counts < _RARE * codes.size) & (len(ends) >= 2)))
    if counts[soft].sum() > _MOST_EDGES * codes.size:
        soft = np.zeros(len(colors), dtype=bool)  # a photo, or a picture of many shades
    return _refusal(path, colors, counts, soft, codes.size, bool(len(keys)))


def _counted(codes: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The different colours, and how many pixels have each."""
    if codes.size < _BAND:
        return np.unique(codes, return_counts=True)
    counts = np.bincount(codes)  # sorting very many pixels takes seconds
    colors = np.flatnonzero(counts)
    return colors.astype(np.int32), counts[colors]


def _refusal(
    path: str,
    colors: NDArray[np.int32],
    counts: NDArray[np.int64],
    soft: NDArray[np.bool_],
    pixels: int,
    has_table: bool,
) -> UnknownColors:
    count = f"{len(colors)}" if len(colors) <= _COLORS else f"more than {_COLORS}"
    what = f"{count} colours are in no class" if has_table else "an RGB label map needs a colour table"
    pairs = sorted(
        zip(colors[~soft].tolist(), counts[~soft].tolist(), strict=True), key=lambda pair: (-pair[1], pair[0])
    )
    edges = (int(np.count_nonzero(soft)), int(counts[soft].sum()))
    if pairs:
        entries = [
            f'\n  {i}: {{name: class_{i}, colors: ["#{color:06x}"]}}  # {pixels} pixels'
            for i, (color, pixels) in enumerate(pairs[:12])
        ]
        rest = len(pairs) - 12
        more = f"\n  # and {rest} colours more: was it resized or saved as JPEG?" if rest > 0 else ""
        more += f"\n{edge_advice(*edges, pixels)}" if edges[0] else ""
        text = (
            f"{what}; add to the dataset's YAML, with your names (or to its `ignore:` list):"
            f"\nclasses:{''.join(entries)}{more}"
        )
    else:
        text = f"{what}; {edge_advice(*edges, pixels)}"
    error = UnknownColors(f"{path}: {text}")
    error.strange = Strange(dict(pairs[:_MOST_NAMED]), max(0, len(pairs) - _MOST_NAMED), edges, pixels, has_table)
    return error


def edge_advice(colors: int, pixels: int, of: int) -> str:
    """The line for colours that lie between those of classes."""
    return (
        f"{colors} colours on {pixels / of:.2%} of the pixels lie between those of classes, as where edges were drawn "
        "smooth: write `edges: nearest` (each takes the nearest colour among its neighbours') or `edges: ignore`"
    )
