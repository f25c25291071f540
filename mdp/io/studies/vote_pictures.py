"""A picture of each class: its largest region in the photo that has most of it, outlined, what is around it faint.

The outline is what shows a white sky beside faint houses.
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mdp.core.components import connected_regions
from mdp.core.geometry import Box, View, cut_labels
from mdp.io.files.images import as_picture
from mdp.io.pictures.sheet import fitted, resized
from mdp.io.studies.votes import Seen
from mdp.io.suspects.page import around

_SIZE = (168, 112)  # the largest width and height of a picture
_FAINT = 0.35  # what is left of the contrast around a class
_OUTLINE = (255, 32, 160)  # as the page of suspects has it
_QUALITY = 80  # of JPEG


def class_pictures(seen: Seen, labels: Sequence[int]) -> dict[int, str]:
    """The pictures of classes of the union as data for a page; those never seen have none."""
    found = {}
    for label in labels:
        if label in seen.largest:
            image, own = seen.pool.read(seen.largest[label])
            found[label] = _data(region_picture(image, own == label))
    return found


def region_picture(image: Tensor, inside: Tensor) -> Image.Image:
    """The photo (K, H, W) around the largest connected part of what is `inside` (H, W), outlined; the rest is faint."""
    box = largest_box(inside)
    crop = around(box, inside.shape)
    cut = slice(crop.top, crop.top + crop.height), slice(crop.left, crop.left + crop.width)
    photo = as_picture(image[:, cut[0], cut[1]].permute(1, 2, 0).numpy())
    size = fitted(crop.width, crop.height, _SIZE)
    drawn = np.asarray(resized(photo, size))
    shown = cut_labels(inside[cut].byte(), View(Box(0, 0, crop.height, crop.width), False), (size[1], size[0])).bool()
    pale = (255 - _FAINT * (255 - drawn.astype(np.float32))).astype(np.uint8)
    drawn = np.where(shown.numpy()[..., None], drawn, pale)
    drawn[outline(shown).numpy()] = _OUTLINE
    return Image.fromarray(drawn)


def outline(inside: Tensor) -> Tensor:
    """The pixels of a mask (H, W) that touch one outside it, and those outside that they touch; (H, W) bool.

    >>> outline(torch.tensor([[1, 1, 1, 0, 0]]).bool()).int().tolist()
    [[0, 0, 1, 1, 0]]
    """
    grown, kept = (F.max_pool2d(some[None].float(), 3, 1, 1)[0] > 0 for some in (inside, ~inside))
    return grown & kept


def largest_box(inside: Tensor) -> Box:
    """The box around the largest connected part of a mask (H, W) that is not empty.

    >>> largest_box(torch.tensor([[1, 0, 0], [0, 1, 1], [0, 1, 0]]).bool())
    Box(top=1, left=1, height=2, width=2)
    """
    regions = connected_regions(inside)
    chosen = int(torch.where(inside.flatten()[regions.first], regions.pixels, 0).argmax())
    rows, columns = (regions.numbers == chosen).nonzero(as_tuple=True)
    top, left = int(rows.min()), int(columns.min())
    return Box(top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1)


def _data(picture: Image.Image) -> str:
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(target.getvalue()).decode()}"
