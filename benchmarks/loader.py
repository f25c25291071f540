"""How many images a second the loader gives: made JPEG photos and label maps, two views each, as pretraining asks."""

import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from mdp.io.data.loader import load
from mdp.io.data.order import epoch_batches
from mdp.io.data.selection import named, pool_of
from mdp.io.data.views import PretrainItems, usual_views
from mdp.io.datasets._dataset import open_training
from mdp.io.recipe.settings import PretrainSettings

_YAML = """name: made
splits:
  train: {images: images, labels: labels}
classes: {0: one, 1: two}
"""


def loader_rate(crop: int, batch: int, workers: int, batches: int = 6, files: int = 64) -> float:
    """Images a second of the loader alone, its first batches, in which workers start, left out."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_files(folder, files)
        dataset = named(str(folder / "made.yaml")).dataset
        pool = pool_of([(dataset, open_training(dataset, folder, None)[0])])
        warm = 2
        keys = epoch_batches(0, [files], min(batch, files), False, 0, warm + batches)
        items = load(PretrainItems(pool, usual_views(PretrainSettings(crop=crop)), 0), keys, workers)
        for _ in range(warm):
            next(items)
        began, seen = time.perf_counter(), sum(len(one) for one in items)
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
