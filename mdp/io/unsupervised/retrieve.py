"""The job behind `mdp retrieve`: each region of an image gets the label of the most similar region of labelled images.

Of all images only a vector and a count of pixels a region are kept; the few images of the page are read again.
Shape legend: D channels, h x w feature grid, H x W label map, R regions of an image, N regions of labelled images, C
classes.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mdp.core.chance import generator
from mdp.core.comparison import block_counts
from mdp.core.geometry import Box, View, cut_image
from mdp.core.labels import IGNORE
from mdp.core.neighbours import nearest
from mdp.core.protocols import Counts, collect, segmentation
from mdp.core.regions import (
    cells_under,
    majority_labels,
    nearest_labels,
    region_confusion,
    region_pixels,
    region_vectors,
    regions_of,
    unit_cells,
)
from mdp.io.data.channels import refuse_other_channels
from mdp.io.data.pool import Pool
from mdp.io.data.selection import named, no_validation, pool_of
from mdp.io.datasets._dataset import open_split, open_training, refuse_unlabelled
from mdp.io.errors import DatasetError, Preempted, RecipeError
from mdp.io.evaluation.counts import Reading, images_in
from mdp.io.evaluation.scores import summary, table, write_report
from mdp.io.files.writing import make, write_text
from mdp.io.journal.counter import Counter
from mdp.io.processes.device import memory_in_one_line, set_up
from mdp.io.processes.signals import Stop, stop_on_signals
from mdp.io.processes.world import ALONE
from mdp.io.recipe.layers import Layer, resolve
from mdp.io.unsupervised.features import Features, open_features, results_folder
from mdp.io.unsupervised.retrieval_page import Found, Query, Region, retrieval_page

_STRIDE = 16  # of the dilated backbone; the paper's
_ITERATIONS = 100  # of k-means at most; chosen
_QUERIES, _NEAREST = 12, 4  # on the page
_STOPPED = "stopped while regions were looked at; nothing was written, run the same command again"
RULE = (
    "regions: k-means of an image's features of length 1; each has the mean of its features, of length 1, and takes "
    "the majority class of the most similar region of the labelled images (cosine, one neighbour)"
)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is retrieved, and how."""

    source: str  # RUN, FILE, timm:NAME, scratch or colors
    target: str  # a dataset, NAME or NAME:SPLIT
    regions: int = 15  # of an image; the paper's
    size: int = 512  # that both sides of images are resized to; the paper's
    start: str = ""  # where in the file the backbone's names begin
    out: Path | None = None  # None: RUN/retrieve/NAME-SPLIT, of another source nothing is written


class _Regions(NamedTuple):
    """The regions of a split's images, one image after the other."""

    vectors: Tensor  # (images R, D)
    pixels: Tensor  # (images, R, C) int64


def run_retrieval(asked: Asked, layer: Layer, quiet: bool = False) -> dict[str, Any]:
    """The scores of retrieval as JSON, as `mdp eval` has them, and files and a page of queries beside them.

    Of `layer` the sections run, data and model count.  Raises an MdpError, in one line, for what the user has to mend.
    """
    recipe, progress = resolve(layer), Counter(quiet)
    device = set_up(recipe, ALONE)
    features = open_features(asked.source, layer, stride=_STRIDE, start=asked.start, device=device)
    known, queries, split, lines = _pools(asked, features, Path(recipe.data.root))
    for line in (*features.lines, f"{asked.source}: {features.words}", *lines):
        progress.say(line)
    looker = _Looker(asked, features, recipe.run.seed)
    with stop_on_signals() as stop, memory_in_one_line(advice="try a smaller --size, or --device cpu"):
        reading = Reading(workers=recipe.run.workers, stop=stop, tell=progress.tell)
        bank = looker.look("train", known, reading)
        found = looker.look(split, queries, reading)
        labels = majority_labels(bank.pixels.flatten(0, 1))
        usable = labels != IGNORE
        if not usable.any():
            raise DatasetError(f"{asked.target}: no labelled pixel in its training images")
        rows = usable.nonzero()[:, 0]  # of the bank's regions, those with a label
        vectors, labels = bank.vectors[rows], labels[rows]
        named_so = nearest_labels(found.vectors, vectors, labels).view(len(queries.samples), asked.regions)
        scores = {
            "source": asked.source, "features": features.words, "target": asked.target, "split": split,
            "regions": asked.regions, "size": asked.size, "labelled_images": len(known.samples),
            "labelled_regions": len(rows), "retrieval_rule": RULE,
            **summary(_counts(found, named_so, queries), queries.union.spaces[0]),
        }  # fmt: skip
        if out := results_folder(asked.out, asked.source, "retrieve", f"{queries.union.spaces[0].name}-{split}"):
            shown = _shown(looker, found, named_so, vectors, (rows, labels), known, queries, stop)
            _write(make(out), scores, retrieval_page(scores, shown, queries.union.spaces[0]))
            progress.say(f"written to {out}: scores.json and retrieval.html")
    return scores


def _pools(asked: Asked, features: Features, root: Path) -> tuple[Pool, Pool, str, list[str]]:
    """The labelled images, those that are asked about, their split, and lines about both."""
    dataset, split = named(asked.target)
    if not dataset.labels.classes:
        raise RecipeError(f"{dataset.name}: no labels; retrieval needs a labelled target")
    split = split or dataset.val
    if split is None:
        raise RecipeError(f"{no_validation(dataset)}; name one: {asked.target}:SPLIT")
    if split in dataset.train[:1]:
        raise RecipeError(f"{dataset.name}: {split} is what is searched in; ask about another split")
    refuse_unlabelled(dataset, split, "score with")
    refuse_other_channels(features.image_channels, dataset)
    cells = (-(-asked.size // features.stride)) ** 2
    if not 1 <= asked.regions <= cells:
        raise RecipeError(
            f"--regions {asked.regions}: expected 1 to {cells}, the cells of an image of --size {asked.size} at stride "
            f"{features.stride}"
        )
    train, first = open_training(dataset, root)
    samples, second = open_split(dataset, root, split)
    return pool_of([(dataset, train)]), pool_of([(dataset, samples)]), split, [first, second]


class _Looker:
    """Images to regions."""

    def __init__(self, asked: Asked, features: Features, seed: int) -> None:
        self.asked, self.features, self.seed = asked, features, seed

    def look(self, split: str, pool: Pool, reading: Reading) -> _Regions:
        """The regions of all images of a pool.  Raises Preempted when asked to stop."""
        count, classes = self.asked.regions, pool.union.size
        images = len(pool.samples)
        vectors = torch.empty(images * count, self.features.channels)
        pixels = torch.zeros(images, count, classes, dtype=torch.int64)
        with closing(images_in(pool, images, reading)) as items:
            for item in items:
                regions, own = self.regions(item.image, item.sample)
                vectors[item.sample * count : (item.sample + 1) * count] = own
                pixels[item.sample] = region_pixels(self.spread(regions, item.labels), item.labels, count, classes)
        if reading.stop:
            raise Preempted(_STOPPED)
        return _Regions(vectors, pixels)

    def regions(self, image: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """The regions (h, w) of an image (K, H, W), and their vectors (R, D), on the CPU."""
        side = self.asked.size
        whole = View(Box(0, 0, int(image.shape[1]), int(image.shape[2])), False)
        features = self.features.maps(cut_image(image, whole, (side, side))[None])[0]  # (D, h, w)
        rows = unit_cells(features)  # (h w, D)
        found = regions_of(rows, self.asked.regions, generator(self.seed, "regions", index), _ITERATIONS)
        return found.view(features.shape[1:]).cpu(), region_vectors(rows, found, self.asked.regions).cpu()

    def spread(self, regions: Tensor, labels: Tensor) -> Tensor:
        """Regions (h, w) at the size of a label map (H, W)."""
        down, across = (cells_under(int(side), self.asked.size, self.features.grid) for side in labels.shape)
        return regions[down[:, None], across]


def _counts(found: _Regions, predicted: Tensor, queries: Pool) -> Counts:
    """The counts of all images, as those of a segmentor are kept."""
    images, settings = len(queries.samples), segmentation.Settings(boundary=False)

    def counted() -> Iterator[tuple[int, Counts]]:
        for index, pixels in enumerate(found.pixels):
            matrix = region_confusion(pixels, predicted[index])
            yield index, Counts({"confusion": matrix, "classes": block_counts(matrix), "images": torch.tensor(1)}, {})

    return collect(counted(), segmentation.empty(queries.union.spaces[0], images, settings), images)


# The page


def _shown(
    looker: _Looker,
    found: _Regions,
    predicted: Tensor,
    bank: Tensor,
    known: tuple[Tensor, Tensor],
    train: Pool,
    queries: Pool,
    stop: Stop,
) -> list[Query]:
    """A region, drawn by the seed, of each of a few evenly spaced images, with the most similar ones of the bank."""
    count, images, rows = looker.asked.regions, len(queries.samples), known[0]
    shown = []
    for number in range(min(_QUERIES, images)):
        image = number * images // min(_QUERIES, images)
        labelled = found.pixels[image].sum(1).nonzero()[:, 0]
        if stop:
            raise Preempted(_STOPPED)
        if not len(labelled):
            continue
        drawn = int(torch.randint(len(labelled), (), generator=generator(looker.seed, "query", image)))
        region = int(labelled[drawn])
        truth = int(majority_labels(found.pixels[image])[region])
        vector = found.vectors[image * count + region]
        likeness, places = nearest(vector[None], bank, min(_NEAREST, len(bank)))
        near = [
            Found(_region(looker, train, int(rows[place]) // count, int(rows[place]) % count),
                  int(known[1][place]), float(like))
            for like, place in zip(likeness[0], places[0].tolist(), strict=True)
        ]  # fmt: skip
        shown.append(Query(_region(looker, queries, image, region), truth, int(predicted[image, region]), near))
    return shown


def _region(looker: _Looker, pool: Pool, image: int, region: int) -> Region:
    """A region of an image, looked at again."""
    photo, labels = pool.read(image)
    regions, _ = looker.regions(photo, image)
    return Region(pool.samples[image].image, photo, looker.spread(regions, labels) == region)


def _write(folder: Path, scores: dict[str, Any], page: str) -> None:
    write_text(folder / "retrieval.html", page)
    write_report(folder, scores, json.dumps(scores) + "\n")


def retrieval_table(scores: dict[str, Any]) -> str:
    """The scores for people."""
    return (
        f"{table(scores)}\n{scores['regions']} regions an image of {scores['size']} x {scores['size']}, named by "
        f"{scores['labelled_regions']:,} regions of {scores['labelled_images']:,} labelled images"
    )
