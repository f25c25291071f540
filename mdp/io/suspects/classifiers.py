"""The class probabilities of an image: by a run's own classifier or prototypes, or by classes fitted to other images.

Shape legend: K channels, C classes of the target, D features, H x W image, h x w feature grid.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mdp.core.chance import generator
from mdp.core.discriminants import discriminant, moments, no_rows, together
from mdp.core.geometry import Box, View, cut_image
from mdp.core.labels import IGNORE, LabelUnion
from mdp.core.linear_probe import Linear
from mdp.core.networks import upsample
from mdp.core.photometry import as_float, normalise
from mdp.core.subsets import draw_folds
from mdp.io.check.seen import photos_of, read_seen, told, twins
from mdp.io.data.channels import refuse_other_channels
from mdp.io.data.manifest import look_at_pool, read_manifest
from mdp.io.data.pool import Pool
from mdp.io.errors import CheckpointError, DatasetError, Preempted, RecipeError
from mdp.io.evaluation.counts import Reading, images_in
from mdp.io.files.reading import printable
from mdp.io.inference.memory_budget import new_budget
from mdp.io.inference.predict import inference_settings, probabilities
from mdp.io.recipe.layers import Recipe
from mdp.io.recipe.methods import find_method
from mdp.io.run.folder import checkpoint_of, home_of
from mdp.io.run.opened import OpenedRun, at_step, method_state, open_run, same_labels, trained_segmentor
from mdp.io.run.record import FINETUNE
from mdp.io.run.restore import restore_, section
from mdp.io.unsupervised.features import Features
from mdp.label_space import LabelSpace

STOPPED = "stopped while images were looked at; nothing was written, run the same command again"
Size = tuple[int, int]  # height and width


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """Who says which classes an image shows."""

    words: str  # who, for people
    out_of_fold: bool
    seen: str = ""  # how many of the images it has been trained on, in words; "" for none that is known
    probabilities: Callable[[int, Tensor, Size], Tensor]  # image of the pool, its pixels (K, H, W), (h, w) -> (C, h, w)


# A run's own


def of_run(source: str, pool: Pool, recipe: Recipe, device: torch.device) -> Classifier:
    """The softmax of a fine-tuned run, or the prototypes of a pretraining run among the target's own classes.

    Raises CheckpointError where the run has other classes, or neither.
    """
    if not Path(source).exists():
        raise CheckpointError(
            f"{source}: expected a run folder or a checkpoint, found nothing; with --folds any weights will do"
        )
    opened = open_run(checkpoint_of(Path(source)))
    (space,), (dataset,) = pool.union.spaces, pool.datasets.values()
    refuse_other_channels(opened.recipe.model.image_channels, dataset)
    seen = _seen(opened, pool, recipe)
    of_kind = _by_softmax if opened.record.kind == FINETUNE else _by_prototypes
    give = of_kind(opened, space, device)
    words = f"{printable(opened.path)} {at_step(opened, opened.weights())}"
    return Classifier(words=words, out_of_fold=False, seen=seen, probabilities=give)


def _seen(opened: OpenedRun, pool: Pool, recipe: Recipe) -> str:
    """How many images of the pool the run was trained on."""
    home = home_of(opened.path)
    seen = read_seen(home)
    if seen is None or not len(seen.names):
        return ""
    (part,) = look_at_pool(pool, "train", recipe.data.root, read_manifest(home))
    return told(twins(seen, photos_of(part, {})), len(pool.samples))


def _by_softmax(opened: OpenedRun, space: LabelSpace, device: torch.device) -> Callable[[int, Tensor, Size], Tensor]:
    (own,) = opened.record.labels
    same_labels(replace(opened.record, labels=(replace(own, name=space.name),)), LabelUnion([space]), opened.path)
    network = trained_segmentor(opened, opened.recipe, device, opened.weights())
    settings = inference_settings(opened.recipe)
    budget = new_budget(settings)
    return lambda _, image, size: probabilities(network, image, settings, device, budget, size)


def _by_prototypes(opened: OpenedRun, space: LabelSpace, device: torch.device) -> Callable[[int, Tensor, Size], Tensor]:
    names = [own.name for own in opened.record.labels]
    if space.name not in names:
        raise CheckpointError(
            f"{opened.path}: pretrained on {printable(', '.join(names))}, so that it has no prototypes of "
            f"{space.name}; give --folds 5, or a run that was fine-tuned on it"
        )
    own = opened.record.labels[names.index(space.name)]
    same_labels(replace(opened.record, labels=(own,)), LabelUnion([space]), opened.path)
    recipe = opened.recipe
    method, settings = find_method(recipe.method.name), recipe.method.settings
    try:
        state = method_state(opened, device)
    except KeyError as error:
        raise CheckpointError(f"{opened.path}: the state of {recipe.method.name} lacks {error}") from error
    temperature = method.temperature(settings)
    if method.known_prototypes(state, settings) is None or temperature is None:
        raise RecipeError(f"{opened.path}: the method {recipe.method.name} has no prototypes; give --folds 5")
    pair = method.build(settings, recipe.model, opened.data, torch.Generator())  # any chance: all is restored
    restore_(pair.query, section(opened.tensors, "query"), str(opened.path))
    pair.query.to(device).eval()
    among, side, statistics = opened.union.classes_of(space.name), recipe.pretrain.crop, recipe.model.statistics

    @torch.no_grad()
    def give(_: int, image: Tensor, size: Size) -> Tensor:
        whole = View(Box(0, 0, int(image.shape[1]), int(image.shape[2])), False)
        inputs = normalise(as_float(cut_image(image, whole, (side, side))[None].to(device)), statistics)
        scores = method.class_scores(pair, state, inputs, settings)  # (1, C of the union, h, w)
        assert scores is not None, "what has prototypes has scores"
        own = scores[:, among].float().cpu().clamp(min=-1e4) / temperature  # a class without one has minus infinity
        return upsample(own, size)[0].softmax(0)

    return give


# Classes fitted to other images


class Folds:
    """Discriminants of frozen features, each fitted to all images but those of one fold."""

    def __init__(self, features: Features, pool: Pool, folds: int, side: int, seed: int) -> None:
        """Raises RecipeError for more folds than images, or another number of channels."""
        refuse_other_channels(features.image_channels, next(iter(pool.datasets.values())))
        try:
            self.fold_of = draw_folds(len(pool.samples), folds, generator(seed, "folds"))
        except ValueError as error:
            raise RecipeError(f"--{error}") from error
        self.features, self.pool, self.folds, self.side = features, pool, folds, side

    def classifier(self, reading: Reading) -> Classifier:
        """Fits them, which looks at every image.  Raises Preempted when asked to stop, DatasetError without labels."""
        known = self._fit(reading)
        return Classifier(
            words=f"class means and one covariance of frozen features ({self.features.words}), "
            f"fitted to the other images in {self.folds} folds",
            out_of_fold=True,
            probabilities=lambda index, image, size: self._probabilities(known[self.fold_of[index]], image, size),
        )

    def _fit(self, reading: Reading) -> Sequence[Linear]:
        classes, width = self.pool.union.size, self.features.channels
        parts = [no_rows(classes, width) for _ in range(self.folds)]
        with closing(images_in(self.pool, len(self.pool.samples), reading)) as items:
            for item in items:
                maps, labels = self.maps(item.image), self.labels(item.labels)
                valid = labels != IGNORE
                own = moments(maps[:, valid].T, labels[valid], classes)
                fold = self.fold_of[item.sample]
                parts[fold] = together(parts[fold], own)
        if reading.stop:
            raise Preempted(STOPPED)
        total = no_rows(classes, width)
        for part in parts:
            total = together(total, part)
        try:
            return [discriminant(together(total, part, -1)) for part in parts]
        except ValueError as error:
            raise DatasetError(
                f"{self.pool.union.spaces[0].name}: no labelled pixel outside one of the folds"
            ) from error

    def _probabilities(self, known: Linear, image: Tensor, size: Size) -> Tensor:
        maps = self.maps(image)
        scores = known.scores(maps.flatten(1).T).T.float().clamp(min=-1e4).view(-1, *maps.shape[1:])  # (C, h, w)
        return upsample(scores[None], size)[0].softmax(0)

    def maps(self, image: Tensor) -> Tensor:
        """Features (D, h, w), on the CPU, of an image (K, H, W) whose longer side is brought to `side`."""
        size = within(image.shape[1:], self.side, enlarge=True)
        whole = View(Box(0, 0, int(image.shape[1]), int(image.shape[2])), False)
        return self.features.maps(cut_image(image, whole, size)[None])[0].cpu()

    def labels(self, labels: Tensor) -> Tensor:
        """The labels (h, w) int64 in the middle of the cells over labels (H, W): where `upsample` puts their scores."""
        rows, columns = (
            ((torch.arange(0, seen, self.features.stride) + self.features.stride // 2).clamp(max=seen - 1) * own)
            // seen
            for seen, own in zip(within(labels.shape, self.side, enlarge=True), labels.shape, strict=True)
        )
        return labels[rows[:, None], columns].long()


def within(shape: Sequence[int], side: int, enlarge: bool = False) -> Size:
    """Height and width at which the longer side is so many pixels, or fewer where it has fewer and may not grow.

    >>> within((100, 200), 50), within((100, 200), 400), within((100, 200), 400, enlarge=True)
    ((25, 50), (100, 200), (200, 400))
    """
    height, width = shape
    ratio = side / max(height, width)
    if ratio >= 1 and not enlarge:
        return int(height), int(width)
    return max(1, round(height * ratio)), max(1, round(width * ratio))
