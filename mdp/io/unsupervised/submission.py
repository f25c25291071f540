"""A submission to the servers of ImageNet-S: predictions, what made them and the matching, in one archive.

`<category>/<photo>.png` with red + 256 green, `method.txt`, and `match.json` where predicted categories have no names;
the four tracks (unsupervised, semi-supervised, distance matching, free) take the same.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mdp.core.protocols import luss
from mdp.io.data.selection import named
from mdp.io.datasets._dataset import Sample
from mdp.io.errors import DatasetError, Preempted, RecipeError
from mdp.io.files.images import png_bytes
from mdp.io.files.photos import read_claims
from mdp.io.files.reading import is_file, printable, read_bytes
from mdp.io.files.writing import make, write_atomically
from mdp.io.journal.counter import Counter, number_of
from mdp.io.processes.signals import stop_on_signals
from mdp.io.unsupervised.asked import Score
from mdp.io.unsupervised.score import ids_of, pairs_of, run_score, score_table

_LINES = ("Method name", "Training data", "Training scheme", "Networks", "Paper/Project link", "Method description")
METHOD = "".join(f"{line}: \n" for line in _LINES)  # what the servers read
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every entry, so that the same predictions are the same bytes
_MOST = 2**16 - 1  # the highest number that two channels hold


def run_submission(asked: Score, archive: Path, method: Path | None = None, quiet: bool = False) -> dict[str, Any]:
    """Writes the archive; what it holds as JSON, with the scores where the split has label maps.

    `method` is the text of method.txt; without it lines to fill in.  Raises an MdpError with one line of what is wrong.
    """
    dataset, split = named(asked.target) if asked.target else (None, None)
    if dataset is None:
        raise RecipeError("--submission: expected --target NAME:SPLIT, whose photos the predictions are for")
    if archive.suffix != ".zip":
        raise RecipeError(f"--submission {archive}: expected a name that ends in .zip")
    if method and not is_file(method):
        raise RecipeError(f"--method {method}: expected a text file, found none")
    scores = {} if (split or dataset.val) in dataset.unlabelled else run_score(asked, quiet)
    match = _match(asked, scores)
    progress, stored = Counter(quiet), io.BytesIO()
    with stop_on_signals() as stop, zipfile.ZipFile(stored, "w", zipfile.ZIP_STORED) as zipped:  # PNGs are compressed
        stop.patient = True
        _, pairs = pairs_of(asked, Counter(quiet=True))
        for number, pair in enumerate(pairs, 1):
            if stop:
                raise Preempted(
                    "stopped while predictions were packed; nothing was written, run the same command again"
                )
            name = pair.prediction.relative_to(asked.predictions).as_posix()
            _add(zipped, name, _packed(pair.prediction, pair.truth))
            progress.tell(number, len(pairs))
        _add(zipped, "method.txt", read_bytes(str(method), "text") if method else METHOD.encode())
        if match:
            _add(zipped, "match.json", match)
    make(archive.parent)
    write_atomically(archive, [stored.getbuffer()])
    progress.say(f"written to {archive}")
    if not method:
        progress.say("its method.txt has lines to fill in: give --method FILE")
    if not match and asked.matching != "none":
        progress.say("there is no match.json in it: give --matching FILE where predicted categories have no names")
    told = {"submission": str(archive), "images": len(pairs), "method": bool(method), "match": bool(match)}
    return {**told, **({"scores": scores} if scores else {})}


def _match(asked: Score, scores: dict[str, Any]) -> bytes:
    """The matching to send: that of the file, or the one that was found with the scores; empty without any."""
    if asked.matching not in luss.MATCHINGS:
        return read_bytes(asked.matching, "matching")
    if asked.matching == "none" or not scores:
        return b""
    names = {str(made): name for made, name in enumerate(scores["names"]) if name <= scores["categories"]}
    return json.dumps(names).encode()


def _packed(path: Path, truth: Sample | Path) -> bytes:
    """A prediction as a PNG of two channels.  Raises DatasetError where it has not the photo's size."""
    numbers = ids_of(path)
    height, width = read_claims(truth.image)[:2] if isinstance(truth, Sample) else numbers.shape
    if numbers.shape != (height, width):
        raise DatasetError(
            f"{printable(path)}: it is {numbers.shape[1]} x {numbers.shape[0]} and the photo {width} x {height}"
        )
    if numbers.size and int(numbers.max()) > _MOST:
        raise DatasetError(f"{printable(path)}: {int(numbers.max())} is more than red + 256 green can hold")
    return png_bytes(_two_channels(numbers))


def _two_channels(numbers: NDArray[np.int64]) -> Image.Image:
    return Image.fromarray(np.stack([numbers % 256, numbers // 256, 0 * numbers], -1).astype(np.uint8))


def _add(zipped: zipfile.ZipFile, name: str, data: bytes) -> None:
    zipped.writestr(zipfile.ZipInfo(name, _EPOCH), data)


def submission_text(found: dict[str, Any]) -> str:
    """The scores, where there are some, and what was written, for people."""
    scores = f"{score_table(found['scores'])}\n" if "scores" in found else ""
    match = ", match.json" if found["match"] else ""
    return f"{scores}{found['submission']}: {number_of(found['images'], 'prediction')}, method.txt{match}"
