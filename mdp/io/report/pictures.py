"""The pictures of a run inside a report: samples, predictions, confusion matrices, galleries of `mdp eval --gallery`,
activation maps of the run's own classifier and of `mdp probe`.

They are made smaller in bytes, not in size, and only so many are taken that the page stays easy to pass on.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from mdp.io.errors import MdpError
from mdp.io.files.photos import read_rgb
from mdp.io.pictures.html import text

_QUALITY = 75  # of JPEG, at which twelve images of a gallery have about half a megabyte
_BYTES = 4_000_000  # of all pictures of a page, encoded
_SAMPLES = {  # files of RUN/samples: what they show
    "failed": "Samples of the step that failed, those with the strangest pixels first; magenta is not finite",
    "unusable": "The sample that stopped the run, as far as it can be seen; raw label values in colours of their own",
    "first": "Samples of the first step as the network got them: cut, recoloured, mixed; each beside its labels",
}


class Picture(NamedTuple):
    """A picture and what it shows."""

    kind: str  # samples | predictions | confusion | gallery | activations
    caption: str
    path: str
    jpeg: str  # in base64


def read_pictures(folder: Path, notes: list[str]) -> list[Picture]:
    """All pictures of a run folder, what failed first.  A damaged one becomes a note."""
    pictures = []
    for kind, caption, path in _expected(folder):
        try:
            pictures.append(Picture(kind, caption, str(path), _encoded(path)))
        except MdpError as error:
            notes.append(str(error))
    return pictures


def _expected(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Kind, caption and path of the pictures that are there."""
    for name, caption in _SAMPLES.items():
        if (folder / "samples" / f"{name}.png").is_file():
            yield "samples", caption, folder / "samples" / f"{name}.png"
    for path in sorted((folder / "predictions").glob("*.png")):
        yield "predictions", f"{path.stem}: best, median and worst images of the last validation", path
    for path in sorted((folder / "eval").glob("*/confusion.png")):
        yield "confusion", f"{path.parent.name}: confusion matrix, shares of each labelled class", path
    for path in sorted((folder / "eval").glob("*/gallery/page-01.png")):
        yield "gallery", f"{path.parent.parent.name}: the images with the lowest mIoU", path
    if (folder / "activations.png").is_file():
        yield "activations", "where the run's own classifier finds classes", folder / "activations.png"
    for path in sorted((folder / "probe").glob("*/activations.png")):
        yield "activations", f"{path.parent.name}: where the linear classifier of mdp probe finds classes", path


def _encoded(path: Path) -> str:
    target = io.BytesIO()
    image = Image.fromarray(read_rgb(str(path)))
    image.save(target, "JPEG", quality=_QUALITY, subsampling=0)  # label maps are flat colours with sharp edges
    return base64.b64encode(target.getvalue()).decode()


def fitting(pictures: Sequence[Picture], most: int = _BYTES) -> set[str]:
    """The paths of the pictures that a page has room for; predictions go first, galleries last."""
    kinds = ("predictions", "samples", "confusion", "activations", "gallery")
    paths, left = set(), most
    for picture in sorted(pictures, key=lambda picture: kinds.index(picture.kind)):
        if len(picture.jpeg) <= left:
            left -= len(picture.jpeg)
            paths.add(picture.path)
    return paths


def pictures_section(kind: str, runs: Sequence[tuple[str, Sequence[Picture]]], room: set[str]) -> str:
    """The pictures of that kind of runs that have names (HTML); "" without one."""
    return "".join(
        _shown(run, picture, picture.path in room) for run, own in runs for picture in own if picture.kind == kind
    )


def _shown(run: str, picture: Picture, fits: bool) -> str:
    caption = text(picture.caption)
    title = f"<h3>{run}</h3><p>{caption}</p>"
    if not fits:
        return f'{title}<p class="note">Left out, to keep this page small; see {text(picture.path)}.</p>'
    return (
        f'{title}<div class="wide" role="region" tabindex="0" aria-label="{caption}">'
        f'<img alt="{caption}" src="data:image/jpeg;base64,{picture.jpeg}"></div>\n'
    )
