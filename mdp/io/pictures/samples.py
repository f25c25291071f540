"""Pictures of training samples as the network gets them: cut, recoloured, mixed, each beside its labels.

A run keeps those of its first step, and those of a step that failed, in its folder.
Shape legend: V views, B images, H x W crop.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mdp.core.batches import Batch, Blend
from mdp.core.labels import IGNORE, RGB, LabelUnion
from mdp.core.mixing import unmixed
from mdp.core.photometry import IMAGENET, Statistics, denormalise
from mdp.core.pixel_mining import given
from mdp.io.datasets._dataset import Sample
from mdp.io.errors import MdpError
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.images import as_picture
from mdp.io.files.label_maps import read_labels
from mdp.io.files.photos import read_rgb
from mdp.io.files.reading import printable
from mdp.io.pictures.class_colors import colors_of_union
from mdp.io.pictures.sheet import FAINT, GAP, INK, LINE, MARGIN, PAPER, cut, fitted, font, legend, resized, swatch

ROWS = 6
_PANEL = (230, 230)  # the largest width and height of one picture
_BROKEN = (255, 0, 255)  # pixels that are no numbers
_OPACITY = 0.6  # of labels on the photo


def sample_sheet(
    views: Sequence[Batch | Blend],
    names: Sequence[str],
    union: LabelUnion,
    title: str,
    rows: Sequence[int] | None = None,
    statistics: Statistics = IMAGENET,
) -> Image.Image:
    """A row for each image, with each of its views (B, K, H, W) and its labels on it; the first images, or `rows`.

    The images are normalised by the statistics.  Views may be of several sizes, and without labels.  A mixed pixel
    has the colours of both its labels, by their shares; an ignored one is left as it is.
    """
    chosen = list(range(min(ROWS, len(names))) if rows is None else rows[:ROWS])
    blends = [_given(rows_at(view if isinstance(view, Blend) else unmixed(view), chosen)) for view in views]
    palette = colors_of_union(union)
    colors = np.array([*palette, (0, 0, 0)], dtype=np.float32)  # the last serves IGNORE
    tiles = [[tile for blend in blends for tile in _tiles(blend, i, colors, statistics)] for i in range(len(chosen))]
    present = torch.unique(torch.cat([labels.flatten() for blend in blends for labels in (blend.first, blend.second)]))
    entries = [(palette[label], printable(union.names[label])) for label in present.tolist() if label != IGNORE]
    heads = []
    for number, blend in enumerate(blends, 1):
        heads += ["crop" if len(views) == 1 else f"view {number}"] + ["its labels"] * bool(blend.first.numel())
    captions = [_caption(names[row], blends, i) for i, row in enumerate(chosen)]
    return _sheet(title, entries, heads, captions, tiles)


def rows_at(blend: Blend, rows: Sequence[int]) -> Blend:
    """These images of the blend, on the CPU."""
    index = torch.tensor(rows, device=blend.images.device)
    return Blend(*(tensor.detach()[index].cpu() for tensor in blend))


def _given(blend: Blend) -> Blend:
    """The blend with those labels alone that are given."""
    return blend._replace(first=given(blend.first), second=given(blend.second))


def strangest(*views: torch.Tensor) -> list[int]:
    """The images, of which each view is (B, 3, H, W), in order of their largest value, those not finite first."""
    each = [view.detach().float().abs().nan_to_num(nan=torch.inf).flatten(1).amax(1) for view in views]  # V of (B,)
    return torch.stack(each).amax(0).argsort(descending=True, stable=True).tolist()


def _caption(name: str, blends: Sequence[Blend], row: int) -> str:
    """The sample, and how much of it is left where another one is blended in."""
    shares = [float(blend.share[row]) for blend in blends]
    mixed = ", ".join(f"{share:.0%}" for share in shares) if any(share < 1 for share in shares) else ""
    return printable(name) + (f"   (its share in each view: {mixed})" if mixed else "")


def _tiles(blend: Blend, row: int, colors: NDArray[np.float32], statistics: Statistics) -> list[NDArray[np.uint8]]:
    """A photo, and its labels on it where there are any; (H, W, 3) each."""
    image = blend.images[row].float()  # (K, H, W)
    broken = ~image.isfinite().all(0).numpy()  # (H, W)
    photo = _photo(image, statistics)  # (H, W, 3)
    photo[broken] = _BROKEN
    if not blend.first.numel():
        return [photo.round().astype(np.uint8)]
    first, second, share = blend.first[row].numpy(), blend.second[row].numpy(), float(blend.share[row])
    filled_first, filled_second = np.where(first == IGNORE, second, first), np.where(second == IGNORE, first, second)
    tint = share * colors[filled_first] + (1 - share) * colors[filled_second]  # (H, W, 3)
    tinted = np.where((filled_first == IGNORE)[..., None], photo, (1 - _OPACITY) * photo + _OPACITY * tint)
    return [photo.round().astype(np.uint8), tinted.round().astype(np.uint8)]


def _photo(image: torch.Tensor, statistics: Statistics) -> NDArray[np.float32]:
    """A network's image (K, H, W) as people see it, (H, W, 3) in 0..255."""
    if len(image) != 3:
        return as_picture(image.permute(1, 2, 0).numpy()).astype(np.float32)
    rgb = denormalise(image[None], statistics)[0].nan_to_num(0).clamp(0, 1)
    photo: NDArray[np.float32] = rgb.permute(1, 2, 0).numpy() * 255
    return photo


# A sample that cannot be used


def unusable_sheet(sample: Sample, title: str) -> Image.Image:
    """As much as is readable of a sample's photo and label map, each on its own, raw values in colours of their own."""
    tiles, heads = [], []
    for what, path, read in (("photo", sample.image, read_rgb), ("label map", sample.labels, _raw_picture)):
        try:
            tiles.append(read(path))
            heads.append(what)
        except MdpError:
            tiles.append(np.full((_PANEL[1] // 2, _PANEL[0], 3), 225, dtype=np.uint8))
            heads.append(f"{what}: not readable as a picture")
    return _sheet(title, [], heads, [printable(sample.image)], [tiles])


def _raw_picture(path: str) -> NDArray[np.uint8]:
    """A label map's raw values, in VOC's colours modulo 256; one in colours as it is."""
    try:
        raw = read_labels(path)
    except MdpError:
        return read_rgb(path)
    picture: NDArray[np.uint8] = np.array(voc_colormap(256), dtype=np.uint8)[raw.astype(np.int64) % 256]
    return picture


# The page


def _sheet(
    title: str,
    entries: Sequence[tuple[RGB, str]],
    heads: Sequence[str],
    captions: Sequence[str],
    tiles: Sequence[Sequence[NDArray[np.uint8]]],
) -> Image.Image:
    """A title, a legend, and the pictures of each sample under its caption; two samples a row where they have two."""
    across = 2 if len(heads) == 2 else 1
    step, column = _PANEL[0] + GAP, len(heads) * (_PANEL[0] + GAP)
    width = 2 * MARGIN + across * column - GAP
    placed = legend(entries, width - 2 * MARGIN)
    top = MARGIN + LINE + 8 + LINE * (1 + max((line for line, *_ in placed), default=-1)) + 8
    images = [[resized(tile, fitted(tile.shape[1], tile.shape[0], _PANEL)) for tile in row] for row in tiles]
    heights = [LINE + max(image.height for image in row) + GAP for row in images]
    heights = [max(heights[i : i + across]) for i in range(0, len(heights), across)]
    sheet = Image.new("RGB", (width, top + LINE + sum(heights) + MARGIN - GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 4), cut(title, font(18), width - 2 * MARGIN), INK, font(18))
    for line, left, color, text in placed:
        swatch(draw, MARGIN + left, MARGIN + LINE + 8 + line * LINE, color, text)
    for i, text in enumerate([*heads] * min(across, len(images))):
        draw.text((MARGIN + i * step, top), text, FAINT, font(15))
    for index, (caption, row) in enumerate(zip(captions, images, strict=True)):
        left = MARGIN + index % across * column
        upper = top + LINE + sum(heights[: index // across])
        draw.text((left, upper + 2), cut(caption, font(15), column - GAP), INK, font(15))
        for i, image in enumerate(row):
            sheet.paste(image, (left + i * step, upper + LINE))
    return sheet
