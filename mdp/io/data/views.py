"""The views of an image that pretraining sees."""

from typing import NamedTuple

import torch
from torch import Tensor

from mdp.core.batches import Batch
from mdp.core.chance import generator
from mdp.core.geometry import cut_image, cut_labels, draw_view
from mdp.core.photometry import PhotometryDraw, apply_photometry, draw_photometry, normalise_, stack_draws
from mdp.io.data.pool import Key, Pool
from mdp.io.errors import MdpError
from mdp.io.recipe.settings import PretrainSettings

# Pretraining: two views of each image


class ViewsItem(NamedTuple):
    """The views of one image, before photometry, or after it and normalised."""

    images: Tensor  # (V, 3, s, s) uint8, or float32 without draws
    labels: Tensor  # (V, s, s) int16
    draws: tuple[PhotometryDraw, ...]  # V draws, or none where they have been applied


class Views(NamedTuple):
    """The views of some images, as the loader hands them over."""

    images: Tensor  # (V, B, 3, s, s)
    labels: Tensor  # (V, B, s, s)
    draws: tuple[PhotometryDraw, ...]  # V stacks of draws, or none


class PretrainItems:
    """Sample -> views; what the loader's workers run.

    With `finish` they do the photometry, one view after the other, which stays in a CPU's caches; a GPU does it
    quicker itself, on a quarter of the bytes.
    """

    def __init__(self, pool: Pool, settings: PretrainSettings, seed: int, views: int = 2, finish: bool = False) -> None:
        self.pool, self.settings, self.seed, self.views, self.finish = pool, settings, seed, views, finish

    def __getitem__(self, key: Key) -> ViewsItem | MdpError:
        rng = generator(self.seed, "views", *key)
        size = (self.settings.crop, self.settings.crop)
        try:
            image, labels = self.pool.read(key[1])
        except MdpError as error:
            return error  # raised in the main process: a worker would wrap it in a traceback
        height, width = labels.shape
        views = [draw_view(rng, height, width, self.settings.crop_area) for _ in range(self.views)]
        draws = tuple(draw_photometry(rng, self.settings.photometry) for _ in views)
        images = [cut_image(image, view, size) for view in views]  # each (3, s, s)
        if self.finish:
            images = [finished(i[None], stack_draws([draw]))[0] for i, draw in zip(images, draws, strict=True)]
        maps = [cut_labels(labels, view, size) for view in views]
        return ViewsItem(torch.stack(images), torch.stack(maps), () if self.finish else draws)


def finished(images: Tensor, draws: PhotometryDraw) -> Tensor:
    """Photometry and normalisation of images (B, 3, s, s) uint8: float32."""
    return normalise_(apply_photometry(images, draws))


def stack_views(items: list[ViewsItem]) -> Views:
    """The items stacked, as a worker hands them over: a few large tensors, since each has its price on the way."""
    return Views(
        torch.stack([item.images for item in items], 1),
        torch.stack([item.labels for item in items], 1),
        tuple(stack_draws(draws) for draws in zip(*(item.draws for item in items), strict=True)),
    )


def view_batches(views: Views, device: torch.device) -> list[Batch]:
    """One batch a view, augmented and normalised, on `device`."""
    images = views.images.to(device, non_blocking=True)
    labels = views.labels.to(device, non_blocking=True).long()
    if views.draws:
        changed = [finished(*view) for view in zip(images, views.draws, strict=True)]
        return [Batch(*view) for view in zip(changed, labels, strict=True)]
    return [Batch(*view) for view in zip(images, labels, strict=True)]
