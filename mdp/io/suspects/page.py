"""suspects.html: crops of the labels that a model doubts most: photo, label, what the model says.

Shape legend: K channels, H x W image.
"""

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from mdp.core.geometry import Box
from mdp.core.label_quality import Disagreement
from mdp.core.label_shift import Shift, label_edges
from mdp.core.labels import IGNORE
from mdp.io.data.pool import Pool
from mdp.io.files.images import as_picture
from mdp.io.pictures.class_colors import colors_of_space
from mdp.io.pictures.html import document, section, table, text
from mdp.io.pictures.sheet import GAP, PAPER, class_picture, fitted, resized
from mdp.label_space import LabelSpace

_PANEL = (230, 200)  # the largest width and height of one picture
_WHOLE = (420, 340)  # of a whole photo with the edges of its labels
_CONTEXT, _LEAST = 0.6, 64  # of a box on each side, and pixels that a crop has at least
_QUALITY = 85  # of JPEG
_MARK, _EDGE = (255, 32, 160), (255, 230, 0)
_STYLE = (
    ".suspects { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 46rem), 1fr)); gap: .8rem; }"
    ".suspects figure { max-width: none; } .suspects img { display: block; max-width: 100%; height: auto; }"
    ".chip { display: inline-block; width: .9em; height: .9em; vertical-align: -.1em; border: 1px solid var(--rule); }"
)


class Shown(NamedTuple):
    """What the page shows of the images of a pool."""

    pool: Pool
    guess: Callable[[int, Tensor, tuple[int, int]], Tensor]  # number, image, size -> classes of that size
    regions: list[tuple[int, Disagreement, float]]  # image, region, doubt
    forgotten: list[tuple[int, Disagreement, float]]
    moves: list[tuple[int, Shift]]


def suspects_page(facts: dict[str, Any], shown: Shown, space: LabelSpace) -> str:
    """The whole page."""
    title = text(f"Suspect labels of {facts['target']} {facts['split']}")
    seen = f"{text(facts['seen'])}: a model agrees with labels it has learnt." if facts["seen"] else ""
    head = (
        f"<h1>{title}</h1><p>{facts['images_in_all']:,} images, doubted by {text(facts['doubted_by'], 1000)}.</p>"
        f"<p class='bad'>{seen}</p><p class='note'>{text(facts['rule'], 2000)}.  All of it is in suspects.json.</p>"
    )
    parts = [
        section("regions", "Regions that the model calls something else", _regions(shown, shown.regions, space)),
        section("forgotten", "Without a label, or background, and something to the model",
                _regions(shown, shown.forgotten, space)),
        section("shifted", "Label maps that fit their photos better when moved", _moves(facts, shown)),
        section("confusions", "Classes that are called each other", _confusions(facts)),
    ]  # fmt: skip
    return document(title, head + "".join(parts), "", _STYLE)


def _regions(shown: Shown, regions: Sequence[tuple[int, Disagreement, float]], space: LabelSpace) -> str:
    rows = []
    for rank, (index, region, doubt) in enumerate(regions, 1):
        image, labels = shown.pool.read(index)
        guess = shown.guess(index, image, (labels.shape[0], labels.shape[1]))
        picture = region_picture(image, labels, guess, region.box, space)
        name = text(shown.pool.samples[index].image)
        caption = (
            f"<b>{rank}.</b> {_class(region.label, space)} &rarr; {_class(region.guess, space)}, doubt {doubt:.2f}, "
            f"{region.share:.1%} of the image, confidence {region.confidence:.2f}"
        )
        rows.append(_figure(picture, f"photo, labels and guess around a region of {name}", caption, name))
    return f'<div class="suspects">{"".join(rows)}</div>' if rows else "<p>None.</p>"


def _moves(facts: dict[str, Any], shown: Shown) -> str:
    usual = facts["all_maps"]
    head = (
        f"<p class='note'>In the median image the best move is {usual['right']:+} right and {usual['down']:+} down, at "
        f"320 pixels, and gains {usual['gain']:.2f}; that is taken off.  Left the edges of the labels where they lie, "
        "right where they would.</p>"
        if usual
        else ""
    )
    rows = []
    for rank, (index, move) in enumerate(shown.moves, 1):
        image, labels = shown.pool.read(index)
        name = text(shown.pool.samples[index].labels or shown.pool.samples[index].image)
        caption = f"<b>{rank}.</b> {move.right:+} right, {move.down:+} down, gain {move.gain:.2f}"
        rows.append(_figure(move_picture(image, labels, move), f"edges of {name}", caption, name))
    return head + (f'<div class="suspects">{"".join(rows)}</div>' if rows else "<p>None.</p>")


def _confusions(facts: dict[str, Any]) -> str:
    rows = [
        [text(pair["first"]), text(pair["second"]), f"{pair['first_called_second']:.1%}",
         f"{pair['second_called_first']:.1%}", str(pair["images"])]
        for pair in facts["confusions"]
    ]  # fmt: skip
    heads = ["one", "other", "of one, called other", "of other, called one", "images where most of one is"]
    return table(
        "Pixels of a class that the model calls the other; swapped names would show in both columns", heads, rows
    )


def _class(label: int, space: LabelSpace) -> str:
    if label == IGNORE:
        return "no label"
    red, green, blue = colors_of_space(space)[label]
    return f'<span class="chip" style="background:rgb({red},{green},{blue})"></span> {text(space.classes[label])}'


def _figure(picture: Image.Image, about: str, caption: str, name: str) -> str:
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=_QUALITY)
    data = base64.b64encode(target.getvalue()).decode()
    return (
        f'<figure><img alt="{about}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{caption}<br><span>{name}</span></figcaption></figure>"
    )


# Pictures


def region_picture(image: Tensor, labels: Tensor, guess: Tensor, box: Box, space: LabelSpace) -> Image.Image:
    """Photo (K, H, W), labels and guess (H, W) around a box, side by side, the box outlined."""
    crop = around(box, labels.shape)
    cut = slice(crop.top, crop.top + crop.height), slice(crop.left, crop.left + crop.width)
    colors = colors_of_space(space)
    photo = as_picture(image[:, cut[0], cut[1]].permute(1, 2, 0).numpy())
    maps = (class_picture(some[cut].numpy().astype(np.int64), colors, _PANEL) for some in (labels, guess))
    size = fitted(crop.width, crop.height, _PANEL)
    row = Image.new("RGB", (3 * size[0] + 2 * GAP, size[1]), PAPER)
    ratio = size[0] / crop.width, size[1] / crop.height
    left, top = (box.left - crop.left) * ratio[0], (box.top - crop.top) * ratio[1]
    for number, picture in enumerate((photo, *maps)):
        panel = resized(picture, size)
        right, bottom = left + box.width * ratio[0] - 1, top + box.height * ratio[1] - 1
        ImageDraw.Draw(panel).rectangle((left, top, max(left, right), max(top, bottom)), outline=_MARK, width=2)
        row.paste(panel, (number * (size[0] + GAP), 0))
    return row


def around(box: Box, shape: Sequence[int]) -> Box:
    """The box with something of what is around it, inside an image of that height and width.

    >>> around(Box(100, 0, 100, 100), (240, 500))
    Box(top=40, left=0, height=200, width=160)
    """
    down, across = (max(round(_CONTEXT * side), (_LEAST - side) // 2) for side in (box.height, box.width))
    top, left = max(0, box.top - down), max(0, box.left - across)
    bottom = min(int(shape[0]), box.top + box.height + down)
    right = min(int(shape[1]), box.left + box.width + across)
    return Box(top, left, bottom - top, right - left)


def move_picture(image: Tensor, labels: Tensor, move: Shift) -> Image.Image:
    """The photo (K, H, W) with the edges of its labels (H, W) where they lie, and where they would after the move."""
    photo = as_picture(image.permute(1, 2, 0).numpy())
    size = fitted(labels.shape[1], labels.shape[0], _WHOLE)
    row = Image.new("RGB", (2 * size[0] + GAP, size[1]), PAPER)
    right, down = label_edges(labels)
    rows, columns = ((right + down) > 0).nonzero(as_tuple=True)
    for number, (y, x) in enumerate(((0, 0), (move.down, move.right))):
        inside = (rows + y).clamp(0, labels.shape[0] - 1), (columns + x).clamp(0, labels.shape[1] - 1)
        drawn = photo.copy()
        drawn[inside[0].numpy(), inside[1].numpy()] = _EDGE
        row.paste(resized(drawn, size), (number * (size[0] + GAP), 0))
    return row
