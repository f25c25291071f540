"""How many images a second the loader gives: made JPEG photos and label maps, two views each, as pretraining asks."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mdp.io.data.loader import AHEAD, load
from mdp.io.data.order import epoch_batches
from mdp.io.data.pool import Key
from mdp.io.data.selection import named, pool_of
from mdp.io.data.views import PretrainItems, usual_views
from mdp.io.datasets._dataset import open_training
from mdp.io.recipe.settings import PretrainSettings

BATCH = 8  # images; an item takes as long in larger ones, and a small one is soon made
_YAML = """name: made
splits:
  train: {images: images, labels: labels}
classes: {0: one, 1: two}
"""


def loader_rate(crop: int, workers: int, rounds: int = 4, files: int = 64) -> float:
    """Images a second that the loader makes of made photos, two views each; see `rate_of`."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_files(folder, files)
        dataset = named(str(folder / "made.yaml")).dataset
        pool = pool_of([(dataset, open_training(dataset, folder, None)[0])])
        items = PretrainItems(pool, usual_views(PretrainSettings(crop=crop)), 0)
        steps = batches_of(workers, rounds)
        return rate_of(items, epoch_batches(0, [files], min(BATCH, files), False, 0, sum(steps)), workers, rounds)


def batches_of(workers: int, rounds: int) -> tuple[int, int]:
    """How many batches are taken before the clock starts, and how many afterwards.

    Each worker makes some ahead, which are there, or begun, when the first is asked for; to count them as made while
    the clock runs gave six times what the cores can do.
    """
    together = max(1, workers)
    return (AHEAD + 1) * together, rounds * together


def rate_of(items: Any, batches: Iterator[list[Key]], workers: int, rounds: int) -> float:
    """Items a second in steady state: what is taken as fast as it is made, once all that was made ahead is gone."""
    ahead, _ = batches_of(workers, rounds)
    with closing(load(items, batches, workers)) as made:
        for _ in range(ahead):
            next(made)
        began, seen = time.perf_counter(), sum(len(one) for one in made)
        return seen / (time.perf_counter() - began)


def write_files(folder: Path, count: int) -> None:
    """So many photos of 500 x 375, as VOC's are, smooth enough to take as many bytes, and label maps in patches."""
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    (folder / "made.yaml").write_text(_YAML, encoding="utf-8")
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (47, 63, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(folder / "images" / f"{number}.jpg", quality=90)
        patches = Image.fromarray(rng.integers(0, 2, (12, 16), dtype=np.uint8))
        patches.resize((500, 375), Image.Resampling.NEAREST).save(folder / "labels" / f"{number}.png")
