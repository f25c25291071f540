"""The job behind `mdp retrieve`: each region of an image gets the label of the most similar region of labelled images.

Of an image that is searched in only a vector and a class a region are kept, of one that is asked about a vector and
counts of pixels; vectors are on disk where they are many.  The few images of the page are read again.
Shape legend: D channels, h x w feature grid, H x W label map, R regions of an image, N regions of labelled images, C
classes.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mdp.core.chance import generator
from mdp.core.comparison import block_counts
from mdp.core.geometry import Box, View, cut_image
from mdp.core.labels import IGNORE
from mdp.core.neighbours import nearest, nearest_of_parts
from mdp.core.protocols import Counts, collect, segmentation
from mdp.core.regions import (
    cells_under,
    majority_labels,
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
from mdp.io.evaluation.counts import Reading, images_in, over_processes
from mdp.io.evaluation.scores import summary, table, write_report
from mdp.io.files.writing import make, write_text
from mdp.io.journal.counter import Counter
from mdp.io.processes.agreement import agree
from mdp.io.processes.device import memory_in_one_line, set_up
from mdp.io.processes.signals import Stop, stop_on_signals
from mdp.io.processes.world import World, joined
from mdp.io.recipe.layers import Layer, resolve
from mdp.io.unsupervised.asked import Retrieval
from mdp.io.unsupervised.features import Features, open_features, results_folder, weights_file
from mdp.io.unsupervised.retrieval_page import Found, Query, Region, retrieval_page
from mdp.io.unsupervised.stored_rows import StoredRows, row_files

_STRIDE = 16  # of the dilated backbone; the paper's
_ITERATIONS = 100  # of k-means at most; chosen
_QUERIES, _NEAREST = 12, 4  # on the page
_TOGETHER = 16  # images whose regions are looked up together
_PART = 2**24  # floats of the bank at a time
_STOPPED = "stopped while regions were looked at; nothing was written, run the same command again"
RULE = (
    "regions: k-means of an image's features of length 1; each has the mean of its features, of length 1, and takes "
    "the majority class of the most similar region of the labelled images (cosine, one neighbour)"
)


class _Regions(NamedTuple):
    """The regions of a split's images, one image after the other."""

    vectors: StoredRows  # (images R, D)
    pixels: Tensor  # (images, R, C) int64, of this process's images; zeros elsewhere


def run_retrieval(asked: Retrieval, layer: Layer, quiet: bool = False) -> dict[str, Any]:
    """The scores of retrieval as JSON, as `mdp eval` has them, and files and a page of queries beside them.

    Of `layer` the sections run, data and model count.  Raises an MdpError, in one line, for what the user has to mend.
    """
    recipe = resolve(layer)
    with stop_on_signals() as stop, joined(recipe.run.timeout) as world:
        progress = Counter(quiet or not world.main)
        return _retrieved(asked, layer, world, stop, progress)


def refuse_early(asked: Retrieval, layer: Layer) -> None:
    """Raises what each of several processes would raise at its start, as far as it takes no weights to know."""
    _pools(asked, Path(resolve(layer).data.root))


def _retrieved(asked: Retrieval, layer: Layer, world: World, stop: Stop, progress: Counter) -> dict[str, Any]:
    recipe = resolve(layer)
    device = set_up(recipe, world)
    known, queries, split, lines = _pools(asked, Path(recipe.data.root))
    features = open_features(asked.source, layer, stride=_STRIDE, start=asked.start, device=device)
    _refuse_misfits(asked, features, queries)
    agree(world, recipe, [known.samples, queries.samples], [], weights_file(asked.source))
    for line in (*features.lines, f"{asked.source}: {features.words}", *lines):
        progress.say(line)
    looker = _Looker(asked, features, recipe.run.seed)
    out = results_folder(asked.out, asked.source, "retrieve", f"{queries.union.spaces[0].name}-{split}")
    sizes = {name: (len(pool.samples) * asked.regions, features.channels)
             for name, pool in (("bank", known), ("queries", queries))}  # fmt: skip
    reading = Reading(workers=recipe.run.loaders, world=world, stop=stop, tell=progress.tell)
    with memory_in_one_line(advice="try a smaller --size, or --device cpu"), row_files(out, world, **sizes) as (
        rows, line,
    ):  # fmt: skip
        progress.say(line)
        labels = looker.bank(known, rows["bank"], reading)
        if not (labels != IGNORE).any():
            raise DatasetError(f"{asked.target}: no labelled pixel in its training images")
        found = looker.look(queries, rows["queries"], reading)
        bank = _Bank(rows["bank"], labels)
        named_so = _named(found.vectors, bank, asked.regions, device, reading).view(-1, asked.regions)
        counts = over_processes(_counts(found, named_so, queries, world), world)
        scores = {
            "source": asked.source, "features": features.words, "target": asked.target, "split": split,
            "regions": asked.regions, "size": asked.size, "labelled_images": len(known.samples),
            "labelled_regions": int((labels != IGNORE).sum()), "retrieval_rule": RULE,
            **summary(counts, queries.union.spaces[0]),
        }  # fmt: skip
        if out and world.main:
            shown = _shown(looker, found, named_so, bank, known, queries, stop)
            _write(make(out), scores, retrieval_page(scores, shown, queries.union.spaces[0]))
            progress.say(f"written to {out}: scores.json and retrieval.html")
        world.broadcast_main(str)  # the files of rows are the main one's to remove, once all have read them
    return scores


def _pools(asked: Retrieval, root: Path) -> tuple[Pool, Pool, str, list[str]]:
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
    train, first = open_training(dataset, root)
    samples, second = open_split(dataset, root, split)
    return pool_of([(dataset, train)]), pool_of([(dataset, samples)]), split, [first, second]


def _refuse_misfits(asked: Retrieval, features: Features, queries: Pool) -> None:
    """Raises RecipeError for what these features cannot look at."""
    (dataset,) = queries.datasets.values()
    refuse_other_channels(features.image_channels, dataset)
    cells = (-(-asked.size // features.stride)) ** 2
    if not 1 <= asked.regions <= cells:
        raise RecipeError(
            f"--regions {asked.regions}: expected 1 to {cells}, the cells of an image of --size {asked.size} at stride "
            f"{features.stride}"
        )


class _Looker:
    """Images to regions."""

    def __init__(self, asked: Retrieval, features: Features, seed: int) -> None:
        self.asked, self.features, self.seed = asked, features, seed

    def bank(self, pool: Pool, rows: StoredRows, reading: Reading) -> Tensor:
        """The class (images R,) of each region of a pool's images, the same on all processes; vectors go to `rows`."""
        labels = torch.zeros(len(pool.samples), self.asked.regions, dtype=torch.int64)
        for image, pixels in self._seen(pool, rows, reading):
            labels[image] = majority_labels(pixels) - IGNORE  # nobody else's, and so a sum
        return reading.world.all_sum(labels).flatten() + IGNORE

    def look(self, pool: Pool, rows: StoredRows, reading: Reading) -> _Regions:
        """The regions of this process's images of a pool; vectors go to `rows`."""
        pixels = torch.zeros(len(pool.samples), self.asked.regions, pool.union.size, dtype=torch.int64)
        for image, own in self._seen(pool, rows, reading):
            pixels[image] = own
        reading.world.any_true(False)  # all vectors are there once all processes have come here
        return _Regions(rows, pixels)

    def _seen(self, pool: Pool, rows: StoredRows, reading: Reading) -> Iterator[tuple[int, Tensor]]:
        """The number of each image of this process and its regions' pixels (R, C).  Raises Preempted when stopped."""
        count, classes = self.asked.regions, pool.union.size
        with closing(images_in(pool, len(pool.samples), reading)) as items:
            for item in items:
                regions, own = self.regions(item.image, item.sample)
                rows.put(item.sample * count, own)
                yield item.sample, region_pixels(self.spread(regions, item.labels), item.labels, count, classes)
        if reading.stop:
            raise Preempted(_STOPPED)

    def regions(self, image: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """The regions (h, w) of an image (K, H, W), and their vectors (R, D), on the CPU."""
        side = self.asked.size
        whole = View(Box(0, 0, int(image.shape[1]), int(image.shape[2])), False)
        features = self.features.maps(cut_image(image, whole, (side, side))[None])[0]  # (D, h, w)
        rows = unit_cells(features)  # (h w, D)
        found = regions_of(rows, self.asked.regions, generator(self.seed, "regions", index), _ITERATIONS)
        return found.view(features.shape[1:]).cpu(), region_vectors(rows, found, self.asked.regions).cpu()

    def pixels(self, pool: Pool, index: int) -> Tensor:
        """The pixels (R, C) of the regions of an image, looked at again."""
        image, labels = pool.read(index)
        regions, _ = self.regions(image, index)
        return region_pixels(self.spread(regions, labels), labels, self.asked.regions, pool.union.size)

    def spread(self, regions: Tensor, labels: Tensor) -> Tensor:
        """Regions (h, w) at the size of a label map (H, W)."""
        down, across = (cells_under(int(side), self.asked.size, self.features.grid) for side in labels.shape)
        return regions[down[:, None], across]


class _Bank(NamedTuple):
    """The regions of the labelled images."""

    rows: StoredRows  # (N, D)
    labels: Tensor  # (N,), `IGNORE` for those without a labelled pixel

    def parts(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Numbers (n,) and vectors (n, D) of those that have a label, some at a time."""
        for start, vectors in self.rows.parts(max(1, _PART // self.rows.channels)):
            usable = (self.labels[start : start + len(vectors)] != IGNORE).nonzero()[:, 0]
            yield (start + usable).to(device), vectors[usable].to(device)


def _named(vectors: StoredRows, bank: _Bank, regions: int, device: torch.device, reading: Reading) -> Tensor:
    """The class of each region's nearest region of the bank, (images R,), the same on all processes.

    Which regions are looked up together does not depend on who does it, and so neither do the bits of a product.
    """
    world, size = reading.world, _TOGETHER * regions
    best, named_so = torch.full((vectors.total,), -torch.inf), torch.zeros(vectors.total, dtype=torch.int64)
    for numbers, known in bank.parts(device):  # each is read once
        for start in range(world.rank * size, vectors.total, world.size * size) if len(known) else ():
            if reading.stop:
                raise Preempted(_STOPPED)
            some = slice(start, min(start + size, vectors.total))
            products, places = nearest(vectors.between(some.start, some.stop).to(device), known, 1)
            likeness, labels = products[:, 0].cpu(), bank.labels[numbers[places[:, 0]].cpu()]
            named_so[some] = torch.where(likeness > best[some], labels, named_so[some])
            best[some] = torch.maximum(likeness, best[some])
    return world.all_sum(named_so)


def _counts(found: _Regions, predicted: Tensor, queries: Pool, world: World) -> Counts:
    """The counts of this process's images, as those of a segmentor are kept."""
    images, settings = len(queries.samples), segmentation.Settings(boundary=False)

    def counted() -> Iterator[tuple[int, Counts]]:
        for index in range(world.rank, images, world.size):
            matrix = region_confusion(found.pixels[index], predicted[index])
            yield index, Counts({"confusion": matrix, "classes": block_counts(matrix), "images": torch.tensor(1)}, {})

    return collect(counted(), segmentation.empty(queries.union.spaces[0], images, settings), images)


# The page


def _shown(
    looker: _Looker, found: _Regions, predicted: Tensor, bank: _Bank, train: Pool, queries: Pool, stop: Stop
) -> list[Query]:
    """A region, drawn by the seed, of each of a few evenly spaced images, with the most similar ones of the bank."""
    count, images, device = looker.asked.regions, len(queries.samples), looker.features.device
    shown = []
    for number in range(min(_QUERIES, images)):
        image = number * images // min(_QUERIES, images)
        if stop:
            raise Preempted(_STOPPED)
        pixels = looker.pixels(queries, image)  # another process may have looked at it
        labelled = pixels.sum(1).nonzero()[:, 0]
        if not len(labelled):
            continue
        drawn = int(torch.randint(len(labelled), (), generator=generator(looker.seed, "query", image)))
        region = int(labelled[drawn])
        vector = found.vectors.between(image * count + region, image * count + region + 1)
        likeness, places = nearest_of_parts(vector.to(device), bank.parts(device), _NEAREST)
        near = [
            Found(_region(looker, train, place // count, place % count), int(bank.labels[place]), like)
            for like, place in zip(likeness[0].tolist(), places[0].tolist(), strict=True)
        ]
        truth, guess = int(majority_labels(pixels)[region]), int(predicted[image, region])
        shown.append(Query(_region(looker, queries, image, region), truth, guess, near))
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
