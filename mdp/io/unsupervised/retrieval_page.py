"""retrieval.html: regions of a few images, each with the regions of labelled images that are most like it.

Shape legend: K channels, H x W image.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from mdp.core.labels import IGNORE
from mdp.io.evaluation.scores import percent
from mdp.io.files.images import as_picture
from mdp.io.pictures.html import document, section, text
from mdp.io.pictures.sheet import fitted
from mdp.label_space import LabelSpace

_PANEL = (220, 220)  # the largest width and height of one picture
_FAINT = 0.75  # how far what is outside a region fades into white
_QUALITY = 80  # of JPEG
_STYLE = (
    ".queries { display: flex; flex-wrap: wrap; gap: .8rem; margin: .6rem 0 1.2rem; }"
    ".queries figure { max-width: 15rem; } .queries img { display: block; max-width: 100%; }"
    ".queries .asked { border: 2px solid var(--c0); }"
)


class Region(NamedTuple):
    """A region of a photo."""

    name: str
    image: Tensor  # (K, H, W)
    inside: Tensor  # (H, W) bool


class Found(NamedTuple):
    """A region of a labelled image."""

    region: Region
    label: int  # its majority class
    likeness: float  # the cosine


class Query(NamedTuple):
    """A region that was asked about."""

    region: Region
    truth: int  # its majority class
    predicted: int
    found: list[Found]  # the most similar first


def retrieval_page(scores: dict[str, Any], queries: Sequence[Query], space: LabelSpace) -> str:
    """The page: what was scored, and a row for each query."""
    title = text(f"Regions of {scores['target']} by {scores['source']}")
    counts = (
        f"mIoU {percent(scores['miou'])} on {text(scores['split'])}, {scores['regions']} regions an image, "
        f"{scores['labelled_regions']:,} labelled regions of {scores['labelled_images']:,} images"
    )
    head = (
        f"<h1>{title}</h1><p>{text(scores['features'], 1000)}. {counts}.</p>"
        f"<p class='note'>{text(scores['retrieval_rule'], 1000)}. Images are evenly spaced in the split, and one of "
        "their regions is drawn; what is outside of it is faded.</p>"
    )
    rows = "".join(_row(number, query, space) for number, query in enumerate(queries, 1))
    return document(title, head + section("queries", "Queries and their nearest regions", rows), "", _STYLE)


def _row(number: int, query: Query, space: LabelSpace) -> str:
    right = query.truth == query.predicted
    kind, words = ("good", "right") if right else ("bad", "wrong")
    verdict = f'<span class="{kind}">{words}</span>'
    asked = _figure(
        query.region, f"<b>Query {number}</b>: {_named(query.truth, space)}, named {_named(query.predicted, space)} "
        f"{verdict}", "asked",
    )  # fmt: skip
    near = "".join(
        _figure(item.region, f"{_named(item.label, space)}, cosine {item.likeness:.3f}") for item in query.found
    )
    return f'<div class="queries">{asked}{near}</div>\n'


def _named(label: int, space: LabelSpace) -> str:
    return "no label" if label == IGNORE else text(space.classes[label])


def _figure(region: Region, caption: str, kind: str = "") -> str:
    name = text(region.name.rpartition("/")[2])
    return (
        f'<figure class="{kind}"><img alt="a region of {name}" src="data:image/jpeg;base64,{_jpeg(region)}">'
        f"<figcaption>{caption}<br><span>{name}</span></figcaption></figure>"
    )


def _jpeg(region: Region) -> str:
    """The photo in base64, all but the region faded."""
    photo = as_picture(region.image.permute(1, 2, 0).numpy()).astype(np.float32)  # (H, W, 3)
    faded = photo + _FAINT * (255 - photo)
    picture = np.where(region.inside.numpy()[..., None], photo, faded).round().astype(np.uint8)
    height, width = picture.shape[:2]
    target = io.BytesIO()
    small = Image.fromarray(picture).resize(fitted(width, height, _PANEL), Image.Resampling.BOX)
    small.save(target, "JPEG", quality=_QUALITY)
    return base64.b64encode(target.getvalue()).decode()
