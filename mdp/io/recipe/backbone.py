"""Settings that a fresh run takes from its backbone, and the line that says them."""

from dataclasses import replace

from mdp.core.networks.backbones import statistics_of
from mdp.core.networks.segmentor import NetworkSettings
from mdp.core.photometry import IMAGENET
from mdp.io.recipe.layers import Recipe


def of_backbone(recipe: Recipe) -> Recipe:
    """The recipe with its backbone's own output stride, mean and deviation where nothing is asked.

    So they stand in the run's record.  RGB photos only: of other channels the backbone's weights have seen none.
    """
    model, own = recipe.model, statistics_of(recipe.model.backbone)
    chosen = replace(model, output_stride=model.stride)
    if own and model.image_channels == len(own.mean) and (model.image_mean, model.image_std) == (None, None):
        chosen = replace(chosen, image_mean=own.mean, image_std=own.std)
    return replace(recipe, model=chosen)


def backbone_lines(model: NetworkSettings) -> list[str]:
    """What is to know of a backbone out of timm; nothing of our own."""
    own, used = statistics_of(model.backbone), model.statistics
    if own is None:
        return []
    whose = "as its weights in timm were trained" if used == own else "ImageNet's" if used == IMAGENET else "as set"
    mean, std = (", ".join(f"{number:g}" for number in numbers) for numbers in used)
    asked = "" if used == own else f"; timm's weights were trained with {own.mean} and {own.std}"
    return [
        f"backbone {model.backbone}: output stride {model.stride}; photos less the mean {mean}, over the deviation "
        f"{std}, {whose}{asked}"
    ]
