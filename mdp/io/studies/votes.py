"""What the classes of datasets are called by each other's classifiers, on photos: frozen features of any weights.

Each dataset's classifier is a linear discriminant, fitted to its own labels; what it says of its own photos comes from
one that was fitted to the other half of them.  Features are kept as half floats until all classifiers are there.
Shape legend: C classes of the union, P labelled cells of a photo, D features.
"""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.chance import generator
from mdp.core.class_votes import VoteSettings, name_prior
from mdp.core.discriminants import Moments, discriminant, moments, no_rows, together
from mdp.core.geometry import Box, View, cut_image
from mdp.core.labels import IGNORE, LabelUnion
from mdp.core.linear_probe import Linear
from mdp.core.prototype_bank import Prototypes
from mdp.core.subsets import draw_images
from mdp.io.data.channels import refuse_other_channels
from mdp.io.data.pool import Pool
from mdp.io.data.selection import named, pool_of
from mdp.io.datasets._dataset import open_split, open_training, refuse_unlabelled
from mdp.io.errors import DatasetError, Preempted, RecipeError
from mdp.io.evaluation.counts import Reading, images_in
from mdp.io.files.reading import printable
from mdp.io.journal.counter import Counter
from mdp.io.processes.device import memory_in_one_line, set_up
from mdp.io.processes.signals import stop_on_signals
from mdp.io.processes.world import ALONE
from mdp.io.recipe.layers import Layer, Recipe, resolve
from mdp.io.run.folder import checkpoint_of
from mdp.io.run.opened import open_run
from mdp.io.suspects.classifiers import STOPPED, within
from mdp.io.unsupervised.features import Features, open_features
from mdp.io.weights.word_vectors import class_vectors

_FOLDS = 2
_STRIDE = 16  # of the features, by dilating the last stage


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Who looks at which photos."""

    source: str  # a run, FILE, timm:NAME, scratch or colors
    photos: int  # of each dataset
    datasets: tuple[str, ...] = ()  # NAME or NAME:SPLIT; none: those of the run
    size: int = 320  # longer side at which photos are seen; chosen
    names: float = 0.0  # weight of names beside the votes
    words: Path | None = None  # vectors of class names, for their likeness; None: equal names only


class Seen(NamedTuple):
    """What the photos have shown."""

    pool: Pool
    features: Features
    known: Prototypes  # the mean feature of every class, over photos
    photos: Tensor  # (C,) int64: in how many each class was seen
    votes: Tensor  # (C, C) float64: cells of the row's class that are called the column's
    largest: dict[int, int]  # for each class the photo of the pool that has most of it
    prior: Tensor | None  # (C, C) of names
    settings: VoteSettings


class _Look(NamedTuple):
    """The labelled cells of a photo."""

    dataset: int
    fold: int
    rows: Tensor  # (P, D) half
    labels: Tensor  # (P,) int64 of the union


def photos_of(asked: Asked, layer: Layer, quiet: bool = False) -> Pool:
    """So many photos of each dataset, drawn by the recipe's seed; nothing is looked at yet.

    Raises an MdpError in one line for what the user has to mend.
    """
    return _pool(asked, resolve(layer), Counter(quiet))


def look(asked: Asked, pool: Pool, layer: Layer, quiet: bool = False) -> Seen:
    """Looks at photos of every dataset twice: to fit its classifier, and to hear what all of them call their cells.

    Of `layer` the sections run, data and model count.  Raises an MdpError in one line for what the user has to mend.
    """
    recipe, progress = resolve(layer), Counter(quiet)
    device = set_up(recipe, ALONE)
    words = None if asked.words is None else class_vectors(asked.words, pool.union, "--words")
    with stop_on_signals() as stop, memory_in_one_line(advice="try a smaller --size, or fewer --photos"):
        features = open_features(asked.source, layer, stride=_STRIDE, device=device)
        for dataset in pool.datasets.values():
            refuse_other_channels(features.image_channels, dataset)
        for line in features.lines:
            progress.say(line)
        looks, photos, largest, sums = _look(pool, features, asked.size, Reading(
            workers=recipe.run.loaders, stop=stop, tell=progress.tell))  # fmt: skip
        if stop:
            raise Preempted(STOPPED)
        votes = _votes(pool.union, looks, features.channels)
    settings = VoteSettings(names=asked.names)
    prior = name_prior(pool.union, words) if asked.names else None
    known = Prototypes(F.normalize(sums, dim=1), photos > 0)
    return Seen(pool, features, known, photos, votes, largest, prior, settings)


def _pool(asked: Asked, recipe: Recipe, progress: Counter) -> Pool:
    """So many photos of each dataset, drawn by the seed."""
    root, parts = Path(recipe.data.root), []
    for number, text in enumerate(asked.datasets or _own(asked.source)):
        dataset, split = named(text)
        if not dataset.labels.classes:
            continue
        refuse_unlabelled(dataset, split, "relate the classes of")
        samples, line = open_split(dataset, root, split) if split else open_training(dataset, root)
        progress.say(line)
        chosen = draw_images(len(samples), asked.photos, generator(recipe.run.seed, "atlas", number))
        parts.append((dataset, [samples[index] for index in chosen]))
    if len(parts) < 2:
        found = printable(", ".join(dataset.name for dataset, _ in parts)) or "none"
        raise RecipeError(f"{printable(asked.source)}: expected several labelled datasets to relate, found {found}")
    return pool_of(parts)


def _own(source: str) -> tuple[str, ...]:
    """The datasets that a run was pretrained on.  Raises RecipeError for weights of nobody's."""
    needs = "--photos needs the datasets: give --datasets a,b"
    if not Path(source).exists():
        raise RecipeError(f"{printable(source)}: not a run; {needs}")
    found = open_run(checkpoint_of(Path(source))).recipe.pretrain.datasets
    if not found:
        raise RecipeError(f"{printable(source)}: not a pretraining run; {needs}")
    return tuple(found)


def _look(
    pool: Pool, features: Features, side: int, reading: Reading
) -> tuple[list[_Look], Tensor, dict[int, int], Tensor]:
    """Every photo's labelled cells; of each class in how many it is, the one with most of it, the summed means."""
    union, names = pool.union, list(pool.datasets)
    photos = torch.zeros(union.size, dtype=torch.int64)
    sums = torch.zeros(union.size, features.channels)
    most, largest, looks = torch.zeros(union.size), dict[int, int](), list[_Look]()
    turn = dict.fromkeys(names, 0)
    with closing(images_in(pool, len(pool.samples), reading)) as items:
        for item in items:
            size = within(item.image.shape[1:], side, enlarge=True)
            whole = View(Box(0, 0, int(item.image.shape[1]), int(item.image.shape[2])), False)
            maps = features.maps(cut_image(item.image, whole, size)[None])[0].cpu()  # (D, h, w)
            labels = cell_labels(item.labels, size, features.stride)  # (h, w)
            valid = labels != IGNORE
            rows, own = maps[:, valid].T, labels[valid]
            onto = F.one_hot(own, union.size).float()  # (P, C)
            counts = onto.sum(0)
            sums += F.normalize((onto.T @ rows) / counts.clamp(min=1)[:, None], dim=1)
            photos += (counts > 0).long()
            for label in (counts / labels.numel() > most).nonzero()[:, 0].tolist():
                most[label], largest[label] = counts[label] / labels.numel(), item.sample
            name = pool.samples[item.sample].dataset
            looks.append(_Look(names.index(name), turn[name] % _FOLDS, rows.half(), own))
            turn[name] += 1
    return looks, photos, largest, sums


def cell_labels(labels: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """The labels (h, w) int64 in the middle of the cells of a map, whose photo of labels (H, W) was seen at `size`."""
    rows, columns = (
        ((torch.arange(0, seen, stride) + stride // 2).clamp(max=seen - 1) * own) // seen
        for seen, own in zip(size, labels.shape, strict=True)
    )
    return labels[rows[:, None], columns].long()


def _votes(union: LabelUnion, looks: list[_Look], channels: int) -> Tensor:
    """Fits the classifiers of all datasets, and counts what they call the cells of every class, (C, C)."""
    ranges = [union.classes_of(space.name) for space in union.spaces]
    parts = [[no_rows(own.stop - own.start, channels) for _ in range(_FOLDS)] for own in ranges]
    for seen in looks:
        own = ranges[seen.dataset]
        more = moments(seen.rows.float(), seen.labels - own.start, own.stop - own.start)
        parts[seen.dataset][seen.fold] = together(parts[seen.dataset][seen.fold], more)
    fitted = [_fitted(space.name, own) for space, own in zip(union.spaces, parts, strict=True)]
    votes = torch.zeros(union.size, union.size, dtype=torch.float64)
    for seen in looks:
        rows = seen.rows.double()
        for number, (own, (halves, whole)) in enumerate(zip(ranges, fitted, strict=True)):
            known = halves[seen.fold] if number == seen.dataset else whole
            called = known.scores(rows).argmax(1) + own.start
            votes.view(-1).index_add_(0, seen.labels * union.size + called, torch.ones(len(rows), dtype=torch.float64))
    return votes


def _fitted(name: str, parts: list[Moments]) -> tuple[list[Linear], Linear]:
    """The classifier without each fold, and that of all."""
    total = parts[0]
    for part in parts[1:]:
        total = together(total, part)
    try:
        halves = [discriminant(together(total, part, -1), weighted=False) for part in parts]
        return halves, discriminant(total, weighted=False)
    except ValueError as error:
        raise DatasetError(f"{printable(name)}: no labelled pixel in half of its photos; ask for more") from error


def as_votes(seen: Seen, least: int) -> Tensor:
    """The votes of classes that were seen in enough photos; the others neither vote nor are voted for."""
    enough = (seen.photos >= least).double()
    return seen.votes * enough[:, None] * enough
