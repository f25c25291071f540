"""The stage in which a network that learnt the labels predicts a split: label maps for `mdp luss score`."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from mdp.io.data.loader import load
from mdp.io.data.pool import Key, Pool
from mdp.io.data.selection import named, pool_of
from mdp.io.data.workers import Watch
from mdp.io.datasets._dataset import open_split
from mdp.io.errors import MdpError
from mdp.io.evaluation.server_formats import relative_paths
from mdp.io.files.images import png_bytes
from mdp.io.files.writing import make, write_atomically
from mdp.io.inference.predict import segmenter
from mdp.io.journal.counter import Counter
from mdp.io.processes.device import memory_in_one_line, set_up
from mdp.io.processes.signals import stop_on_signals
from mdp.io.processes.world import ALONE
from mdp.io.recipe.layers import resolve
from mdp.io.recipe.request import Request
from mdp.io.recipe.settings import EvalSettings
from mdp.io.run.folder import checkpoint_of
from mdp.io.run.opened import open_run, trained_segmentor
from mdp.io.unsupervised.pipeline.stage import digest_of_file, digest_of_photos, stage

_LONG = 100_000  # pixels, as many as a scale may have: only the short side of a photo is asked for


class _Items:
    """Index -> photo and its number."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def __getitem__(self, key: Key) -> object:
        try:
            return key[1], self.pool.photo(key[1])
        except MdpError as error:
            return error


def run_split_predictions(request: Request, run: Path, target: str, split: str) -> Path:
    """The folder of predictions OUT/predictions-SPLIT/labels of a fine-tuning run, at the photos' own paths.

    Photos are resized by their short side, as for labels.  Raises Preempted when a signal came.
    """
    recipe, progress = resolve(*request.layers), Counter(request.quiet)
    assert request.out
    with stop_on_signals() as stop:
        device = set_up(recipe, ALONE)
        dataset, _ = named(target)
        samples, _ = open_split(dataset, Path(recipe.data.root), split)
        pool = pool_of([(dataset, samples)])
        path = checkpoint_of(run)
        inputs = {"weights": digest_of_file(path), "photos": digest_of_photos(pool)}
        side = recipe.luss.short_side
        folder = request.out / f"predictions-{split}"
        with stage(folder, "predictions", inputs, {"short_side": side}, stop, progress, request.overwrite) as work:
            stop.patient = True
            if not work.done:
                opened = open_run(path)
                network = trained_segmentor(opened, opened.recipe, device)
                segment = segmenter(network, EvalSettings(scale=(_LONG, side)), device)
                names = relative_paths([sample.image for sample in samples])
                keys: Iterator[list[Key]] = iter([[(0, number)] for number in range(work.position, len(samples))])
                watch = Watch(name=lambda key: pool.name(key[1]), stop=lambda: stop)
                loaded = load(_Items(pool), keys, min(recipe.run.workers, len(samples)), None, watch=watch)
                with memory_in_one_line(advice="try a smaller luss.short_side"), closing(loaded) as items:
                    for ((number, photo),) in items:
                        classes = segment(photo).numpy().astype(np.uint16)
                        place = folder / "labels" / names[number].with_suffix(".png")
                        make(place.parent)
                        write_atomically(place, [png_bytes(Image.fromarray(classes))])
                        progress.tell(number + 1, len(samples))
                        if work.due:
                            work.note(number + 1)
                work.finish([])
    return folder / "labels"
