"""The channels of a run's photos: what its datasets declare, agreed on, as settings of the network."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mdp.core.photometry import IMAGENET, Statistics
from mdp.io.datasets._dataset import Dataset
from mdp.io.errors import RecipeError
from mdp.io.recipe.layers import Recipe
from mdp.photo_rule import PhotoRule

_RGB = 3
_LISTED = 8  # numbers in a line


def with_channels(recipe: Recipe, datasets: Sequence[Dataset]) -> tuple[Recipe, list[str]]:
    """The recipe with the network's image channels, mean and deviation as the datasets declare them, and lines to say.

    Where none does the recipe's own stay, unless they came from photos of other channels.  The mean and the deviation
    of several datasets are those of their photos together, as if each had as many.
    Raises RecipeError, naming the files, where channels disagree or have no mean and deviation.
    """
    counts = {dataset.name: dataset.photos.channels or _RGB for dataset in datasets}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise RecipeError(
            f"photos of different numbers of channels: {told}; a network takes one number: leave some out, or choose "
            "as many by `image: {bands: [...]}` in their YAML files"
        )
    channels = next(iter(counts.values()))
    for dataset in datasets:
        if dataset.photos.channels and dataset.photos.mean is None:
            raise RecipeError(
                f"{dataset.source}: image: {channels} channels need `mean` and `std`, a number for each; "
                f"`mdp check {dataset.source}` measures them and prints the line to write"
            )
    declared, asked = [dataset.photos.statistics() for dataset in datasets], recipe.model.image_channels
    # 3 is what nobody asked for, too
    other = [_other_line(asked, channels)] if asked not in (_RGB, channels) else []
    if not any(declared):
        return (recipe, []) if asked == _RGB else (_with_model(recipe, _RGB, None), other)
    together = _mixture([Statistics(*pair) if pair else recipe_statistics(recipe) for pair in declared])
    line = _line(channels, together, [each.photos for each in datasets])
    return _with_model(recipe, channels, together), [*other, line]


def recipe_statistics(recipe: Recipe) -> Statistics:
    """By which RGB photos of 8 bits are normalised."""
    return recipe.model.statistics if recipe.model.image_channels == _RGB else IMAGENET


def refuse_other_channels(takes: int, dataset: Dataset) -> None:
    """Raises RecipeError where a network that takes so many channels cannot take a dataset's photos."""
    channels = dataset.photos.channels or _RGB
    if channels != takes:
        raise RecipeError(
            f"{dataset.name}: photos of {channels} channels, and the network takes {takes}; choose as "
            f"many by `image: {{bands: [...]}}` in {dataset.source}, or another run"
        )


def refuse_declared(datasets: Mapping[str, Dataset], what: str, instead: str) -> None:
    """Raises RecipeError where a dataset's photos have declared channels and something is for bytes of RGB only."""
    many = [name for name, dataset in datasets.items() if dataset.photos.channels]
    if many:
        raise RecipeError(f"{what} for RGB of 8 bits, and {many[0]} has other channels; {instead}")


def _mixture(parts: Sequence[Statistics]) -> Statistics:
    """Mean and deviation of several sets of equally many values; a deviation has that of their means in it."""
    if len(set(parts)) == 1:
        return parts[0]
    count = len(parts)
    mean = [sum(values) / count for values in zip(*(part.mean for part in parts), strict=True)]
    squares = [
        sum(m * m + s * s for m, s in values) / count
        for values in zip(*(zip(part.mean, part.std, strict=True) for part in parts), strict=True)
    ]
    std = [math.sqrt(square - m * m) for square, m in zip(squares, mean, strict=True)]
    return Statistics(tuple(mean), tuple(std))


def _with_model(recipe: Recipe, channels: int, statistics: Statistics | None) -> Recipe:
    mean, std = statistics or (None, None)
    return replace(recipe, model=replace(recipe.model, image_channels=channels, image_mean=mean, image_std=std))


def _other_line(asked: int, channels: int) -> str:
    return (
        f"note: model.image_channels: {asked} is what the recipe or the run that this starts from says, and the photos "
        f"have {channels}, which the network takes"
    )


def _line(channels: int, statistics: Statistics, rules: Sequence[PhotoRule]) -> str:
    """`photos of 5 channels (bands 3, 2, 1, 4, 5), ...`."""
    bands = {rule.bands for rule in rules}
    some = next(iter(bands))
    of = f" (bands {', '.join(map(str, some))})" if len(bands) == 1 and some and len(some) <= _LISTED else ""
    colors = "" if channels == _RGB else "; hue, saturation and grey are left out: they are of red, green and blue"
    return (
        f"photos of {channels} channel{'s' * (channels != 1)}{of}, in [0, 1] normalised by mean "
        f"{_numbers(statistics.mean)} and deviation {_numbers(statistics.std)}{colors}"
    )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values[:_LISTED]) + (", ..." if len(values) > _LISTED else "")
