"""From samples to batches: which image comes when, and what happens to it on the way.

The step number is the only position: the order of images is a function of (seed, epoch), the draws for an image of
(seed, epoch, index).  So neither the number of workers nor a resumed run changes what the network sees.
Photometry and normalisation are done image by image in the workers when training runs on a CPU; for a GPU images stay
uint8 until the batch is there, and it does the same on whole batches.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mdp.core.batches import Batch
from mdp.core.chance import coin, generator, uniform
from mdp.core.geometry import (
    Box,
    View,
    cut_image,
    cut_labels,
    cut_resized_labels,
    draw_crop,
    draw_window,
    fitted_size,
    pad_to,
)
from mdp.core.photometry import (
    IMAGENET,
    DistortionDraw,
    PhotometryDraw,
    Statistics,
    apply_distortion,
    apply_photometry,
    draw_distortion,
    draw_photometry,
    normalise_,
    of_bytes,
    stack_draws,
)
from mdp.core.photometry_bytes import apply_photometry_bytes
from mdp.io.data.cache.form import ignored_of
from mdp.io.data.channels import refuse_declared
from mdp.io.data.pool import Key, Pool
from mdp.io.errors import MdpError
from mdp.io.recipe.settings import FinetuneSettings

# Fine-tuning: one crop of each image

ColourDraw = DistortionDraw | PhotometryDraw


class DrawnCrop(NamedTuple):
    """The chance of a crop: where it lies, and how its colours change."""

    sample: int  # its index
    size: tuple[int, int] | None  # that the whole image is resized to before the window is cut; None: it is not
    view: View
    colors: tuple[ColourDraw, ...]  # one


class CropItem(NamedTuple):
    """A crop padded to the full crop size, before its colours are changed, or after that and normalised."""

    image: Tensor  # (K, *crop) uint8 RGB, or float32: in [0, 1] with a draw, normalised without; uint8 without a draw
    # is to be normalised
    labels: Tensor  # (*crop) int16; IGNORE where padded
    inside: tuple[int, int]  # height and width of what is not padding
    draw: ColourDraw | None


class Crops(NamedTuple):
    """Some crops, as the loader hands them over."""

    images: Tensor  # (B, K, *crop)
    labels: Tensor  # (B, *crop)
    inside: list[tuple[int, int]]
    draws: ColourDraw | None


class FinetuneItems:
    """Sample -> random scale, crop and flip, in MMSegmentation's order, or a random resized crop as in pretraining.

    With `finish` the colours are changed as well.
    """

    labelled = True
    draws_by_labels = True  # a window is judged by what is in it

    def __init__(self, pool: Pool, settings: FinetuneSettings, seed: int, finish: bool = False) -> None:
        self.pool, self.settings, self.seed, self.finish = pool, settings, seed, finish
        self.draws_by_labels = settings.crop_area is None
        if self.by_bytes:
            refuse_declared(pool.datasets, "finetune.photometry.bytes: it is", "set it to false")

    @property
    def by_bytes(self) -> bool:
        """Whether the workers change colours, on bytes, wherever training runs."""
        return self.settings.photometry is not None and self.settings.photometry.bytes

    def __getitem__(self, key: Key) -> CropItem | MdpError:
        try:
            image, labels = self.pool.read_changed(key, self.seed)
        except MdpError as error:
            return error
        return self.cut(image, labels, self.draw(key, (labels.shape[0], labels.shape[1]), labels))

    def draw(self, key: Key, size: tuple[int, int], labels: Tensor | None) -> DrawnCrop:
        """All that chance decides of an image of this size, and of these labels where it is drawn by them."""
        settings, rng = self.settings, generator(self.seed, "crops", *key)
        if settings.crop_area is None:
            assert labels is not None
            resized, view = _draw_window(labels, settings, rng)
        else:
            resized, view = None, _draw_share(size, settings, rng)
        return DrawnCrop(key[1], resized, view, (_draw_colors(rng, settings),))

    def cut(self, image: Tensor, labels: Tensor, drawn: DrawnCrop) -> CropItem:
        """The crop that was drawn; where there is no image its labels are ignored, in the form that they have."""
        crop = self.settings.crop
        draw: ColourDraw | None = drawn.colors[0]
        if drawn.size is None:
            inside = crop
            image, labels = cut_image(image, drawn.view, crop), cut_labels(labels, drawn.view, crop)
        else:
            inside = (drawn.view.box.height, drawn.view.box.width)
            whole = View(Box(0, 0, *image.shape[1:]), False)
            image = pad_to(cut_image(cut_image(image, whole, drawn.size), drawn.view, inside), crop, 0)
            labels = pad_to(cut_resized_labels(labels, drawn.size, drawn.view), crop, ignored_of(labels))
        if self.by_bytes:
            assert isinstance(draw, PhotometryDraw)
            image, draw = apply_photometry_bytes(image, draw), None
        if not self.finish:
            return CropItem(image, labels, inside, draw)
        draws = None if draw is None else stack_draws([draw])
        image = finished_crops(image[None], [inside], draws, self.pool.statistics)[0]
        return CropItem(image, labels, inside, None)


def _draw_window(labels: Tensor, settings: FinetuneSettings, rng: torch.Generator) -> tuple[tuple[int, int], View]:
    """The size that the image is resized to, and a window of that, mirrored or not."""
    height, width = labels.shape
    ratio = uniform(rng, *settings.ratio)
    long, short = settings.scale or (max(height, width), min(height, width))
    size = fitted_size(height, width, (int(long * ratio), int(short * ratio)))
    resized = cut_labels(labels, View(Box(0, 0, height, width), False), size)
    box = draw_window(rng, resized, settings.crop, settings.largest_share)
    return size, View(box, coin(rng, settings.flip))


def _draw_share(size: tuple[int, int], settings: FinetuneSettings, rng: torch.Generator) -> View:
    """A random share of the image, of the crop's aspect within a factor of 3/4 to 4/3, mirrored or not."""
    assert settings.crop_area is not None
    height, width = settings.crop
    aspect = (3 / 4 * width / height, 4 / 3 * width / height)
    box = draw_crop(rng, *size, settings.crop_area, aspect)
    return View(box, coin(rng, settings.flip))


def _draw_colors(rng: torch.Generator, settings: FinetuneSettings) -> ColourDraw:
    if settings.photometry is None:
        return draw_distortion(rng, settings.distortion)
    return draw_photometry(rng, settings.photometry)


def finished_crops(
    images: Tensor, inside: list[tuple[int, int]], draws: ColourDraw | None, statistics: Statistics
) -> Tensor:
    """Changed colours and normalisation of crops (B, K, *crop) in uint8, or float32 in [0, 1]: float32.

    Without draws uint8 was changed on bytes.  Padding is 0 after normalisation.
    """
    if draws is None:
        images = normalise_(images.float(), of_bytes(statistics))
    elif isinstance(draws, DistortionDraw):
        images = normalise_(apply_distortion(images, draws), statistics)
    else:
        images = normalise_(apply_photometry(images, draws), statistics)
    if images.is_cuda:  # some kernels for all, and none that the number of images multiplies
        sizes = torch.tensor(inside).to(images.device, non_blocking=True)[..., None]  # (B, 2, 1)
        rows, columns = (torch.arange(side, device=images.device) for side in images.shape[2:])
        beyond = (rows >= sizes[:, 0])[:, :, None] | (columns >= sizes[:, 1])[:, None]  # (B, H, W)
        return images.masked_fill_(beyond[:, None], 0)
    for image, (height, width) in zip(images, inside, strict=True):
        image[:, height:] = 0
        image[:, :, width:] = 0
    return images


def stack_crops(items: list[CropItem]) -> Crops:
    """The items stacked, as a worker hands them over."""
    draws = [item.draw for item in items if item.draw is not None]
    return Crops(
        torch.stack([item.image for item in items]),
        torch.stack([item.labels for item in items]),
        [item.inside for item in items],
        stack_draws(draws) if draws else None,
    )


def finished_batch(crops: Crops, device: torch.device, statistics: Statistics = IMAGENET) -> Crops:
    """The crops with images on `device`, distorted and normalised."""
    images = crops.images.to(device, non_blocking=True)
    if crops.draws is not None or images.dtype == torch.uint8:
        images = finished_crops(images, crops.inside, crops.draws, statistics)
    return crops._replace(images=images, draws=None)


def crop_batch(crops: Crops, device: torch.device, statistics: Statistics = IMAGENET) -> Batch:
    """The crops as one batch, distorted and normalised, on `device`."""
    images = finished_batch(crops, device, statistics).images
    return Batch(images, crops.labels.to(device, non_blocking=True).long())


# Evaluation: whole images


class WholeItem(NamedTuple):
    """An image as it is, and its labels."""

    sample: int  # its index
    image: Tensor  # (3, H, W) uint8, or (K, H, W) float32 in [0, 1]
    labels: Tensor  # (H, W) int16


class WholeItems:
    """Sample -> image and labels at their own resolution."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def __getitem__(self, key: Key) -> WholeItem | MdpError:
        try:
            return WholeItem(key[1], *self.pool.read(key[1]))
        except MdpError as error:
            return error
