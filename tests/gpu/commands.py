"""`mdp` as users start it, and photos to start it on."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    text: str  # both of its outputs
    seconds: float

    def tail(self) -> str:
        """The last of its words, where it failed."""
        return self.text[-300:] if self.code else ""


def mdp(*words: str, stop_after: float | None = None) -> Ended:
    """Runs a command to its end; `stop_after` so many seconds it is asked to stop, as a cluster would."""
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "mdp", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            text, _ = process.communicate(timeout=stop_after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            text, _ = process.communicate()
    return Ended(process.returncode, text, time.perf_counter() - began)


def write_photos(folder: Path, count: int, size: tuple[int, int], classes: int, seed: int) -> Path:
    """A dataset of one's own of made photos, JPEG files with PNG label maps; returns the path of its description."""
    for sub in ("images", "labels"):
        (folder / sub).mkdir(parents=True)
    names = "".join(f"  {number}: class {number}\n" for number in range(classes))
    splits = "splits:\n  train: {images: images, labels: labels}\n"
    described = folder / "made.yaml"
    described.write_text(f"name: {folder.name}\n{splits}classes:\n{names}", encoding="utf-8")
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as threads:  # Pillow computes without Python's lock
        list(threads.map(partial(_photo, folder, size, classes, seed), range(count)))
    return described


def _photo(folder: Path, size: tuple[int, int], classes: int, seed: int, number: int) -> None:
    rng = np.random.default_rng([seed, number])
    coarse = Image.fromarray(rng.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8))
    coarse.resize(size, Image.Resampling.BICUBIC).save(folder / "images" / f"{number}.jpg", quality=90)
    patches = Image.fromarray(rng.integers(0, classes, (12, 16), dtype=np.uint8))
    patches.resize(size, Image.Resampling.NEAREST).save(folder / "labels" / f"{number}.png")
