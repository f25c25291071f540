"""The records of a run as event files of TensorBoard (the extra `tensorboard`, which is imported when it is asked for).

Scalars have the names of metrics.jsonl, `train/loss`, `validate/miou/voc`, and its numbers rounded to float32, which is
what TensorBoard keeps; pictures are the very PNG files of the run folder.
"""

import importlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from mdp.io.errors import RecipeError, ResourceError
from mdp.io.journal.history import numbers

_STEP = re.compile(r"[_-]?step[_-]?\d+[_-]?")  # in a picture's name; TensorBoard has steps of its own


def expect_tensorboard() -> None:
    """Raises RecipeError, naming the extra, unless the library is there."""
    try:
        importlib.import_module("torch.utils.tensorboard")
    except ImportError as error:
        raise RecipeError(
            f"--tensorboard: the library cannot be imported ({error}); install the extra: "
            "pip install 'mdp-segmentation[tensorboard]'"
        ) from error


class Events:
    """The event files of a run; what an earlier start of it wrote for step `purge` and later ones is taken back."""

    def __init__(self, folder: Path, purge: int) -> None:
        self.folder = folder
        self.first = purge if any(folder.glob("events.out.tfevents.*")) else 0  # the first step that is not there yet
        with self._writable():
            library = importlib.import_module("torch.utils.tensorboard")
            self.writer = library.SummaryWriter(str(folder), purge_step=self.first or None, flush_secs=10)
            self.summary = importlib.import_module("tensorboard.compat.proto.summary_pb2").Summary

    def record(self, record: Mapping[str, Any]) -> None:
        """The finite numbers of a record of metrics.jsonl."""
        scalars = {"/".join(name): value for name, value in numbers(record, (record["kind"],)) if value is not None}
        self._add([{"tag": tag, "simple_value": value} for tag, value in scalars.items()], record["step"])

    def picture(self, step: int, tag: str, path: Path) -> None:
        """A PNG file, as it is."""
        with Image.open(path, formats=("PNG",)) as header:
            width, height = header.size
        image = {"width": width, "height": height, "colorspace": 3, "encoded_image_string": path.read_bytes()}
        self._add([{"tag": tag, "image": image}], step)

    def close(self) -> None:
        """Writes what is left."""
        with self._writable():
            self.writer.close()

    def _add(self, values: list[dict[str, Any]], step: int) -> None:
        with self._writable():
            self.writer.file_writer.add_summary(self.summary(value=values), step)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ResourceError(f"{self.folder}: event files cannot be written: {error.strerror}") from error


def tag_of(picture: Path, folder: Path) -> str:
    """The name of a picture of a run in TensorBoard, which is the same at all steps.

    >>> tag_of(Path("run/samples/step_00000100_worst.png"), Path("run")), tag_of(Path("run/a/step_1.png"), Path("run"))
    ('samples/worst', 'a')
    """
    inside = picture.relative_to(folder)
    return "/".join(part for part in (*inside.parent.parts, _STEP.sub("", inside.stem)) if part)
