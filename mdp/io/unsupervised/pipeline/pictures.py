"""pipeline.html: photos with their attention, the label that was made of it, the network's prediction and the truth."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mdp.core.labels import IGNORE, LabelSpace, LabelUnion
from mdp.io.data.pool import Pool
from mdp.io.evaluation.server_formats import relative_paths
from mdp.io.files.images import as_picture, png_bytes
from mdp.io.files.label_maps import read_labels
from mdp.io.files.writing import write_text
from mdp.io.journal.progress_text import percent
from mdp.io.pictures.class_colors import colors_of_space
from mdp.io.pictures.html import document, section, table, text
from mdp.io.pictures.sheet import class_picture, fitted, resized
from mdp.io.unsupervised.pipeline.label_files import cut_at, true_labels

_ROWS = 24
_PANEL = (168, 168)
_STYLE = """
.photos img { display: block; image-rendering: pixelated; }
.photos td, .photos th { padding: .25rem .5rem .25rem 0; font-weight: 400; }
.classes li { display: inline-block; margin-right: .9rem; } .classes { list-style: none; padding: 0; }
.classes i { display: inline-block; width: 1rem; height: 1rem; border: 1px solid var(--rule); vertical-align: -.15rem;
  margin-right: .3rem; }
"""


def write_page(
    out: Path, pool: Pool, split: str, predictions: Path, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Path:
    """Writes the page of a pipeline and returns its path; photos are evenly spaced in the split that was scored.

    Categories have the colours of the classes that they were matched with; the others are black.
    """
    (space,) = (dataset.labels for dataset in pool.datasets.values())
    names = relative_paths([sample.image for sample in pool.samples])
    count = min(_ROWS, len(names))
    rows = []
    for index in (number * len(names) // count for number in range(count)):
        place = names[index].with_suffix(".png")
        cells = _panels(out / f"labels-{split}", place.as_posix(), pool, index, predictions / place, before, after)
        rows.append([text(names[index]), *cells])
    heads = ["", "photo", "attention", "label made", "prediction", "truth"]
    body = (
        f"<h1>Segmentation without labels: {text(space.name)} {text(split)}</h1>\n{_summary(before, after)}"
        + section("photos", "Photos", _legend(space) + table("evenly spaced in the split", heads, rows, "photos"))
    )
    path = out / "pipeline.html"
    write_text(path, document(f"{text(space.name)} without labels", body, "", _STYLE))
    return path


def _panels(
    labels: Path,
    place: str,
    pool: Pool,
    index: int,
    prediction: Path,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> list[str]:
    """The five pictures of a photo, as cells."""
    sample = pool.samples[index]
    union = LabelUnion([dataset.labels for dataset in pool.datasets.values()])
    photo = as_picture(np.ascontiguousarray(pool.photo(index).permute(1, 2, 0).numpy()))
    files = {"labels": f"labels/{place}"}
    cells = [_image(photo, "photo")]
    if (labels / "levels" / place).is_file():
        files["levels"] = f"levels/{place}"
        cells.append(_image(_heat(read_labels(str(labels / files["levels"]))), "attention"))
    else:
        cells.append("none")
    made = cut_at(labels, files, round(100 * (before["threshold"] or 0))).numpy()
    guess = read_labels(str(prediction)).astype(np.int64)
    (space,) = union.spaces
    for classes, words in (
        (_named(made, before["names"]), "label made"),
        (_named(guess, after["names"]), "prediction"),
        (true_labels(sample, pool, union).numpy(), "truth"),
    ):
        cells.append(_image(_colored(classes, space), words))
    return cells


def _named(made: NDArray[np.int64], names: Sequence[int]) -> NDArray[np.int64]:
    """The classes that categories were matched with."""
    renamed: NDArray[np.int64] = np.array(names)[made]
    return renamed


def _colored(classes: NDArray[np.int64], space: LabelSpace) -> NDArray[np.uint8]:
    colors = [(235, 235, 230), *colors_of_space(space)[1:], (0, 0, 0)]  # of "other", the classes, and what is no class
    return class_picture(np.where(classes == IGNORE, len(colors), classes), colors, _PANEL)


def _heat(levels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Levels in hundredths from dark blue to yellow."""
    stops = np.array([(20, 20, 90), (40, 120, 140), (120, 190, 90), (250, 230, 60)], dtype=np.float64)
    position = levels / 100 * (len(stops) - 1)
    low = position.astype(int).clip(0, len(stops) - 2)
    part = (position - low)[..., None]
    mixed: NDArray[np.uint8] = (stops[low] * (1 - part) + stops[low + 1] * part).round().astype(np.uint8)
    return mixed


def _image(picture: NDArray[np.uint8], words: str) -> str:
    size = fitted(picture.shape[1], picture.shape[0], _PANEL)
    smaller = picture.shape[1] > size[0]
    drawn = resized(picture, size) if smaller else Image.fromarray(picture)
    data = base64.b64encode(png_bytes(drawn)).decode()
    return f'<img alt="{words}" width="{size[0]}" height="{size[1]}" src="data:image/png;base64,{data}">'


def _legend(space: LabelSpace) -> str:
    colors = ["ebebe6", *(f"{color[0]:02x}{color[1]:02x}{color[2]:02x}" for color in colors_of_space(space)[1:])]
    most = 30
    items = [f'<li><i style="background:#{color}"></i>{text(name)}</li>' for color, name in
             zip(colors[:most], space.classes[:most], strict=False)]  # fmt: skip
    left = [f"<li>and {len(colors) - most} more</li>"] if len(colors) > most else []
    return f'<ul class="classes">{"".join([*items, *left])}</ul>'


def _summary(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    keys = (("mIoU", "miou"), ('without "other"', "miou_of_categories"), ("image accuracy", "image_accuracy"),
            ("F-beta", "f_beta"))  # fmt: skip
    rows = [[words, *(percent(found[key]) for _, key in keys)] for words, found in
            (("labels that were made", before), ("the network that learnt them", after))]  # fmt: skip
    cut = before["threshold"]
    note = "Categories got their names from the label maps of this split"
    note += f", and so did the threshold {cut:.2f} of attention." if cut is not None else "; nothing else used them."
    return table("in percent", ["", *(words for words, _ in keys)], rows) + f'<p class="note">{note}</p>'
