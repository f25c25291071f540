"""Opening the data that a recipe names: which datasets, which splits, how many images, what to say about them."""

import hashlib
import os.path
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch

from mdp.core.chance import generator
from mdp.core.labels import LabelUnion
from mdp.core.subsets import draw_images, draw_long_tail
from mdp.io.data.channels import with_channels
from mdp.io.data.manifest import DataPart, names_of
from mdp.io.data.pool import Pool
from mdp.io.datasets import load as load_dataset
from mdp.io.datasets._dataset import Absent, Dataset, Sample, open_split, open_training, refuse_unlabelled
from mdp.io.errors import DatasetError, RecipeError
from mdp.io.files.reading import shown
from mdp.io.recipe.layers import Recipe
from mdp.io.recipe.methods import find_method, method_names
from mdp.io.recipe.settings import PretrainSettings

ONE_CLASS = (
    "{name} is the only class, and nothing can be told from it; name what it is not as a class too, such as "
    "`0: background`, and not under ignore"
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A recipe and the data it names, opened."""

    recipe: Recipe
    pool: Pool
    validation: Pool | None
    lines: list[str] = field(default_factory=list)  # what was found, for people
    data: tuple[DataPart, ...] = ()  # the files, once they were looked at
    labelled: bool = True  # whether label maps are read to train on
    draws_by_labels: bool = False  # whether crops are drawn by what their labels are
    scored: tuple[int, ...] | None = None  # samples of `validation` that are scored while training; None: all


class Named(NamedTuple):
    """A dataset and the split asked for, as written: `voc`, `voc:train`, `my.yaml:all`."""

    dataset: Dataset
    split: str | None


def named(text: str) -> Named:
    """Splits `name:split`.  Raises RecipeError for an unknown dataset or a YAML file that says something wrong."""
    name, colon, split = text.rpartition(":")
    if not colon or "/" in split:
        name, split = text, ""
    return Named(load_dataset(name), split or None)


def pool_of(parts: list[tuple[Dataset, list[Sample]]]) -> Pool:
    """The datasets side by side.  Raises RecipeError when two have one name."""
    datasets = {dataset.name: dataset for dataset, _ in parts}
    if len(datasets) != len(parts):
        names = [dataset.name for dataset, _ in parts]
        raise RecipeError(
            f"two datasets have the same name: {', '.join(names)}; set `name:` in the YAML file of one, or "
            "rename the folder"
        )
    samples = [sample for _, own in parts for sample in own]
    return Pool(samples, datasets, LabelUnion([dataset.labels for dataset in datasets.values()]))


def no_validation(dataset: Dataset) -> str:
    """Words for a dataset without a validation split, with what to write where its owner can."""
    own = dataset.source.endswith((".yaml", ".yml"))
    how = f" (`val: 20%` under `splits` in {dataset.source} draws one from the training images)" if own else ""
    return f"{dataset.name} has no split `val`{how}"


def refuse_one_class(datasets: Sequence[Dataset]) -> None:
    """Raises RecipeError where there is one class in all: nothing can be told from it."""
    classes = [(dataset, name) for dataset in datasets for name in dataset.labels.classes]
    if len(classes) == 1:
        dataset, name = classes[0]
        raise RecipeError(f"{dataset.name}: {ONE_CLASS.format(name=shown(name))} ({dataset.source})")


def _named_for_pretraining(recipe: Recipe) -> list[Named]:
    """The datasets to pretrain on.  Raises RecipeError when there are none, or one that the method cannot use."""
    if not recipe.pretrain.datasets:
        raise RecipeError("no datasets: give --datasets a,b (see `mdp datasets`), or pretrain.datasets in the config")
    chosen = [named(text) for text in recipe.pretrain.datasets]
    method = recipe.method.name
    unlabelled = [dataset.name for dataset, _ in chosen if not dataset.labels.classes]
    unlabelled += [f"{dataset.name}:{split}" for dataset, split in chosen if split in dataset.unlabelled]
    labelled = any(dataset.labels.classes and split not in dataset.unlabelled for dataset, split in chosen)
    _refuse_mining(recipe, unlabelled, labelled)
    if unlabelled and find_method(method).NEEDS_LABELS and not mines(recipe):
        without = [name for name in method_names() if not find_method(name).NEEDS_LABELS]
        raise RecipeError(
            f"{', '.join(unlabelled)}: no labels, and the method {method} needs them; leave it out, or use --method "
            f"{' or '.join(without)}"
        )
    if find_method(method).NEEDS_LABELS:
        refuse_one_class([dataset for dataset, _ in chosen])
    return chosen


def mines(recipe: Recipe) -> bool:
    """Whether pixels without a label are mined, so that photos need none."""
    return getattr(recipe.method.settings, "mining", None) is not None


def _refuse_mining(recipe: Recipe, unlabelled: Sequence[str], labelled: bool) -> None:
    """Raises RecipeError where labels are hidden that nobody looks at, where nothing can be mined, or by nothing."""
    hidden = recipe.pretrain.hide_labels
    if hidden and not find_method(recipe.method.name).NEEDS_LABELS:
        raise RecipeError(
            f"pretrain.hide_labels: the method {recipe.method.name} looks at no labels; leave it out, or set it to 0"
        )
    if not mines(recipe):
        return
    if not labelled:
        raise RecipeError(
            f"{', '.join(unlabelled)}: no labels, and method.mining compares pixels with prototypes of classes; add a "
            "labelled dataset"
        )
    if not (unlabelled or hidden or recipe.method.settings.mining.ignored):
        raise RecipeError(
            "method.mining: every photo has labels, so there is nothing to mine; add photos without, or set "
            "method.mining.ignored to true, or pretrain.hide_labels"
        )


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The data of a pretraining run, as far as they are known before it."""

    recipe: Recipe
    union: LabelUnion
    images: dict[str, int]  # of each dataset
    lines: list[str]


def expect_pretraining(recipe: Recipe) -> Expected:
    """The union of the classes and the number of training images of each dataset, without reading any.

    A dataset that is not there counts with its official number.  Raises RecipeError or DatasetError where there is
    none.
    """
    images: dict[str, int] = {}
    lines, train = [], []
    parts = _named_for_pretraining(recipe)
    for dataset, split in parts:
        try:
            samples, line = open_training(dataset, Path(recipe.data.root), split)
            images[dataset.name] = len(samples)
            train.append((dataset, samples))
        except Absent:
            chosen = split or dataset.train[0]
            published = dataset.splits.get(chosen)
            if published is None:
                raise
            images[dataset.name] = published
            line = f"{dataset.name} {chosen}: not there; counted as published"
        lines.append(line)
    union = pool_of([(dataset, []) for dataset, _ in parts]).union
    if len(train) == len(parts):
        pool, drawn = _drawn(pool_of(train), recipe.pretrain, recipe.run.seed)
        drawn += _hidden_lines(pool, recipe)
        images = pool.sizes()
    else:
        images, drawn = _expected_of(images, recipe.pretrain)
    lines += drawn
    recipe, told = with_channels(recipe, [dataset for dataset, _ in parts])
    recipe, notes = _fit_batch(recipe, sum(images.values()))
    return Expected(recipe=recipe, union=union, images=images, lines=lines + told + notes)


def plan_pretraining(recipe: Recipe) -> Plan:
    """Opens the union's training images, and the validation images of those datasets that have some.

    Raises RecipeError or DatasetError saying what is missing.
    """
    root = Path(recipe.data.root)
    lines, train, validation = [], [], []
    for dataset, split in _named_for_pretraining(recipe):
        samples, line = open_training(dataset, root, split)
        train.append((dataset, samples))
        lines.append(line)
        try:
            scored = open_split(dataset, root, dataset.val)[0] if dataset.val else []
        except DatasetError as error:  # pretraining goes on without its scores
            scored = []
            lines.append(f"note: {dataset.name} is not scored while pretraining: {error}")
        validation.append((dataset, scored))
    pool, drawn = _drawn(pool_of(train), recipe.pretrain, recipe.run.seed)
    lines += drawn + _hidden_lines(pool, recipe)
    recipe, told = with_channels(recipe, list(pool.datasets.values()))
    recipe, notes = _fit_batch(recipe, len(pool.samples))
    pools = _normalised(recipe, pool), _normalised(recipe, pool_of(validation))
    count = recipe.pretrain.validate_images
    return Plan(
        recipe=recipe,
        pool=pools[0],
        validation=pools[1],
        lines=lines + told + notes,
        labelled=find_method(recipe.method.name).NEEDS_LABELS,
        scored=tuple(index for name in pools[1].datasets for index in pools[1].evenly(name, count)),
    )


def _drawn(pool: Pool, settings: PretrainSettings, seed: int) -> tuple[Pool, list[str]]:
    """The pool with the images that are to be pretrained on, in their order, and a line where these are not all.

    Raises RecipeError where a dataset would be left without any, or has no folders to make a long tail of.
    """
    samples, rng = pool.samples, generator(seed, "images")
    if settings.long_tail is not None:
        chosen = draw_long_tail(_folders(pool), settings.long_tail, settings.images, rng)
        how = f", a long tail of power {settings.long_tail:g} over their folders"
    elif settings.images is not None:
        chosen, how = draw_images(len(samples), settings.images, rng), ""
    else:
        return pool, []
    if len(chosen) == len(samples):
        return pool, []
    pool = pool._replace(samples=[samples[i] for i in chosen])
    empty = [name for name, size in pool.sizes().items() if not size]
    if empty:
        raise RecipeError(
            f"pretrain.images: of {', '.join(empty)} there is none among the {len(chosen):,} images that seed {seed} "
            "draws; ask for more, or leave it out"
        )
    return pool, [f"pretraining on {len(chosen):,} of {len(samples):,} images, drawn by seed {seed}{how}"]


def hidden_labels(pool: Pool, recipe: Recipe) -> dict[str, list[int]]:
    """For each labelled dataset the samples whose labels are hidden (`pretrain.hide_labels`)."""
    settings, found = recipe.pretrain, {}
    for name, dataset in pool.datasets.items():
        own = [index for index in _samples_of(pool, name) if _labelled(pool, index)]
        names = names_of(dataset, [pool.samples[index] for index in own], recipe.data.root)
        found[name] = [own[i] for i in draw_by_name(names, settings.hide_labels, settings.hide_seed)]
    return found


def draw_by_name(names: Sequence[str], share: float, seed: int) -> list[int]:
    """Which of N images make such a share of them, drawn by their names and the seed: rising numbers.

    The same images whatever order they come in; a smaller share of a seed is a subset of a larger one.

    >>> draw_by_name(["a", "b", "c", "d"], 0.5, 0), draw_by_name(["d", "c", "b", "a"], 0.5, 0)
    ([0, 1], [2, 3])
    """
    ranks = [hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest() for name in names]
    order = sorted(range(len(names)), key=ranks.__getitem__)
    return sorted(order[: int(share * len(names) + 0.5)])


def without_labels(pool: Pool, recipe: Recipe) -> frozenset[int]:
    """The samples whose labels training is not given: there are none, or they are hidden."""
    none = (index for index in range(len(pool.samples)) if not _labelled(pool, index))
    return frozenset(none).union(*hidden_labels(pool, recipe).values())


def _labelled(pool: Pool, index: int) -> bool:
    sample = pool.samples[index]
    return bool(sample.labels and pool.datasets[sample.dataset].labels.classes)


def _samples_of(pool: Pool, name: str) -> list[int]:
    return [index for index, sample in enumerate(pool.samples) if sample.dataset == name]


def _hidden_lines(pool: Pool, recipe: Recipe) -> list[str]:
    """A line that says how many labels are hidden, where some are.

    Raises RecipeError where a dataset would be left without labels.
    """
    if not recipe.pretrain.hide_labels:
        return []
    told = []
    for name, hidden in hidden_labels(pool, recipe).items():
        count = sum(_labelled(pool, index) for index in _samples_of(pool, name))
        if count and len(hidden) == count:
            raise RecipeError(
                f"pretrain.hide_labels: {recipe.pretrain.hide_labels:g} hides those of all {count} images of {name}; "
                "some must keep theirs: lower it"
            )
        told += [f"{len(hidden):,} of {count:,} of {name}"] if count else []
    return [
        f"labels hidden from training: {', '.join(told)}; drawn by their names and seed {recipe.pretrain.hide_seed}"
    ]


def _folders(pool: Pool) -> list[str]:
    """The dataset and folder of each image.  Raises RecipeError where all images of a dataset lie in one."""
    folders = [os.path.dirname(sample.image) for sample in pool.samples]
    for name in pool.datasets:
        own = {folder for folder, sample in zip(folders, pool.samples, strict=True) if sample.dataset == name}
        if len(own) < 2:
            raise RecipeError(
                f"pretrain.long_tail: expected folders that are categories, as ImageNet has, got {name}, whose images "
                "lie in one"
            )
    return [f"{sample.dataset}/{folder}" for folder, sample in zip(folders, pool.samples, strict=True)]


def _expected_of(images: dict[str, int], settings: PretrainSettings) -> tuple[dict[str, int], list[str]]:
    """How many images of each dataset are to be expected, where not all are there to draw from."""
    total = sum(images.values())
    if settings.images is not None and settings.images < total:
        expected = {name: round(settings.images * count / total) for name, count in images.items()}
        return expected, [f"pretraining on {settings.images:,} of {total:,} images; they are drawn when all are there"]
    if settings.long_tail is not None:
        return images, ["note: pretrain.long_tail leaves fewer of them; how many shows when they are there"]
    return images, []


def _normalised(recipe: Recipe, pool: Pool) -> Pool:
    """The pool with the statistics of the network's images."""
    return pool._replace(statistics=recipe.model.statistics)


def _fit_batch(recipe: Recipe, images: int) -> tuple[Recipe, list[str]]:
    """The recipe with batches no larger than the union, and a note if that changed them.

    Raises DatasetError for batches of one image.
    """
    batch = recipe.pretrain.batch_size
    if min(images, batch) < 2:
        raise DatasetError(f"a batch of {min(images, batch)} image: BatchNorm needs two or more")
    if images >= batch:
        return recipe, []
    smaller = replace(recipe, pretrain=replace(recipe.pretrain, batch_size=images))
    return smaller, [f"note: {images} images are fewer than a batch of {batch}; batches have {images}"]


def plan_finetuning(recipe: Recipe) -> Plan:
    """Opens the target's training and validation images.  Raises RecipeError or DatasetError saying what is missing."""
    root, settings = Path(recipe.data.root), recipe.finetune
    if not settings.target:
        raise RecipeError("no target: give --target NAME or a .yaml file, or finetune.target in the config")
    dataset, split = named(settings.target)
    if not dataset.labels.classes:
        raise RecipeError(f"{dataset.name}: no labels; fine-tuning needs a labelled target")
    refuse_one_class([dataset])
    refuse_unlabelled(dataset, settings.split or split, "fine-tune on")
    samples, line = open_training(dataset, root, settings.split or split)
    recipe, told = with_channels(recipe, [dataset])
    lines = [line, *told]
    if settings.images is not None and settings.images < len(samples):
        # a prefix of one permutation: fewer images of a seed are a subset of more
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(recipe.run.seed))
        samples = [samples[i] for i in sorted(order[: settings.images].tolist())]
        lines.append(f"training on {len(samples)} of them, drawn by seed {recipe.run.seed}")
    if settings.batch_size < 2:
        raise RecipeError(f"finetune.batch_size: BatchNorm needs 2 or more, got {settings.batch_size}")
    validation = None
    if dataset.val:
        scored, line = open_split(dataset, root, dataset.val)
        if settings.validate_images is not None and settings.validate_images < len(scored):
            count = settings.validate_images
            scored = [scored[i * len(scored) // count] for i in range(count)]  # evenly spaced
            line = f"{line}, {count} of them scored while training"
        validation = _normalised(recipe, pool_of([(dataset, scored)]))
        lines.append(line)
    else:
        lines.append(f"note: {no_validation(dataset)}; nothing is scored while training")
    pool = _normalised(recipe, pool_of([(dataset, samples)]))
    windows = settings.crop_area is None
    return Plan(recipe=recipe, pool=pool, validation=validation, lines=lines, draws_by_labels=windows)
