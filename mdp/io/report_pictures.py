"""The images that a network does worst on, of the galleries that `mdp eval --gallery` wrote, inside a report.

They are made smaller in bytes, not in size, and only so many are taken that the page stays easy to pass on.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from mdp.io.errors import MdpError
from mdp.io.images import read_rgb
from mdp.io.markup import text

_QUALITY = 70  # of JPEG, at which a page of twelve images has about half a megabyte
_BYTES = 1_500_000  # of all pictures of a page, encoded


def read_galleries(folder: Path, notes: list[str]) -> dict[str, str]:
    """The first gallery page of each evaluation of a run as JPEG in base64, by the evaluation's folder.

    A damaged one becomes a note.
    """
    found = {}
    for path in sorted((folder / "eval").glob("*/gallery/page-01.png")):
        try:
            found[str(path.parent.parent)] = _encoded(path)
        except MdpError as error:
            notes.append(str(error))
    return found


def _encoded(path: Path) -> str:
    target = io.BytesIO()
    Image.fromarray(read_rgb(str(path))).save(target, "JPEG", quality=_QUALITY)
    return base64.b64encode(target.getvalue()).decode()


def pictures_section(runs: Sequence[tuple[str, Mapping[str, str]]]) -> str:
    """The galleries of runs that have names (HTML), as long as there is room; "" without one."""
    parts, left = [], _BYTES
    for run, galleries in runs:
        for evaluation, words in galleries.items():
            fits = len(words) <= left
            left -= len(words) if fits else 0
            parts.append(_picture(run, evaluation, words if fits else ""))
    return "".join(parts)


def _picture(run: str, evaluation: str, words: str) -> str:
    title = f"<h3>{run}: {text(Path(evaluation).name)}</h3>"
    if not words:
        return f'{title}<p class="note">Left out, to keep this page small; see {text(evaluation)}/gallery.</p>'
    seen = f"Photo, ground truth, prediction and errors of the images with the lowest mIoU of {text(evaluation)}"
    return (
        f'{title}<div class="wide" role="region" tabindex="0" aria-label="{seen}">'
        f'<img alt="{seen}" src="data:image/jpeg;base64,{words}"></div>\n'
    )
