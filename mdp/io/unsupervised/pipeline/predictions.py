"""The stage in which a network that learnt the labels predicts a split: label maps for `mdp luss score`."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mdp.core.activation_maps import unit_range
from mdp.core.networks import Segmentor
from mdp.core.photometry import as_float, normalise
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
from mdp.io.unsupervised.pipeline.vectors import at_size, short_side

Segment = Callable[[Tensor], Tensor]  # a photo (K, H, W) -> its categories (H, W)
_LONG = 100_000  # pixels, as many as a scale may have: only the short side of a photo is asked for


def by_activation(network: Segmentor, side: int, threshold: float, device: torch.device) -> Segment:
    """Photos have the one category whose scores are highest in the mean, where these are above a threshold (eq. 16).

    Scores are taken from 0, where least in the photo, to 1, where most (eq. 15); "other" is what is left.
    """
    network.eval()

    @torch.no_grad()
    def segment(photo: Tensor) -> Tensor:
        inputs = normalise(as_float(short_side(photo, side)[None].to(device)), network.statistics)
        scores = network.look(inputs).logits[0].float()  # (K + 1, h, w)
        number = 1 + int(scores[1:].mean((1, 2)).argmax())
        level = at_size(unit_range(scores[number]).cpu(), (photo.shape[1], photo.shape[2]))  # (H, W)
        return torch.where(level > threshold, number, 0)

    return segment


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
        side, threshold = recipe.luss.short_side, recipe.luss.activation
        settings = {"short_side": side} if threshold is None else {"short_side": side, "activation": threshold}
        folder = request.out / f"predictions-{split}"
        with stage(folder, "predictions", inputs, settings, stop, progress, request.overwrite) as work:
            stop.patient = True
            if not work.done:
                opened = open_run(path)
                network = trained_segmentor(opened, opened.recipe, device)
                whole = EvalSettings(scale=(_LONG, side))
                segment = (segmenter(network, whole, device) if threshold is None else
                           by_activation(network, side, threshold, device))  # fmt: skip
                names = relative_paths([sample.image for sample in samples])
                keys: Iterator[list[Key]] = iter([[(0, number)] for number in range(work.position, len(samples))])
                watch = Watch(name=lambda key: pool.name(key[1]), stop=lambda: stop)
                loaded = load(_Items(pool), keys, min(recipe.run.loaders, len(samples)), None, watch=watch)
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
