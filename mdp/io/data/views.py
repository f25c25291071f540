"""The views of an image that pretraining sees."""

import json
import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mdp.core.autoaugment import AutoDraw, apply_auto, draw_auto, no_auto
from mdp.core.autoaugment_batched import apply_auto_batch
from mdp.core.batches import Batch
from mdp.core.chance import coin, generator
from mdp.core.geometry import View, cut_image, cut_labels
from mdp.core.labels import IGNORE
from mdp.core.photometry import (
    IMAGENET,
    PhotometryDraw,
    Statistics,
    apply_photometry,
    apply_photometry_,
    as_float,
    draw_photometry,
    no_photometry,
    normalise_,
    of_bytes,
    stack_draws,
)
from mdp.core.photometry_bytes import apply_photometry_bytes, changed_levels
from mdp.core.pixel_mining import withheld
from mdp.core.views import ViewPlan, draw_views, frame_ious, frames_of, missed, two_views
from mdp.io.data.channels import refuse_declared
from mdp.io.data.pool import Key, Pool
from mdp.io.datasets._dataset import Sample
from mdp.io.errors import MdpError
from mdp.io.files.writing import write_text
from mdp.io.recipe.settings import PretrainSettings

GIVEN, IGNORED, MARKED = 0, 1, 2  # what becomes of an image's labels; marked ones: `core/pixel_mining.py`
OVERLAPS = 1000  # images whose views are compared


def usual_views(settings: PretrainSettings) -> ViewPlan:
    """The two views of an image that a recipe asks for."""
    plan = two_views(settings.crop, settings.crop_area, settings.photometry)
    return replace(plan, max_iou=settings.max_iou)


class DrawnViews(NamedTuple):
    """The chance of an image's views: where they lie, and how their colours change."""

    sample: int  # its index
    views: tuple[View, ...]
    auto: tuple[AutoDraw | None, ...]  # of each view that takes AutoAugment
    colors: tuple[PhotometryDraw, ...]  # V draws


class ViewsItem(NamedTuple):
    """The views of one image, before photometry, or after it and normalised; a tensor for each group of the plan."""

    images: tuple[Tensor, ...]  # (v, K, s, s) each, uint8 RGB, or float32: in [0, 1] with draws, normalised without;
    # uint8 without draws is to be normalised
    labels: tuple[Tensor, ...]  # (v, s, s) each, int16; none where they are not read
    frames: Tensor  # (V, 5)
    missed: int  # views that are not as the plan wants them
    origin: Tensor  # (2,) int64: the dataset and the folder that the image is from
    draws: tuple[PhotometryDraw, ...]  # V draws, or none where they have been applied
    autos: tuple[AutoDraw, ...] = ()  # V draws, or none where they have been applied or no view takes any
    hidden: tuple[int, ...] = ()  # where some labels are hidden what becomes of these: GIVEN, IGNORED or MARKED


class Views(NamedTuple):
    """The views of some images, as the loader hands them over."""

    images: tuple[Tensor, ...]  # (v, B, K, s, s) each
    labels: tuple[Tensor, ...]  # (v, B, s, s) each, or none
    frames: Tensor  # (V, B, 5)
    missed: int
    origins: Tensor  # (B, 2)
    draws: tuple[PhotometryDraw, ...]  # V stacks of draws, or none
    autos: tuple[AutoDraw, ...] = ()  # likewise
    hidden: tuple[Tensor, ...] = ()  # (B,), or none


class PretrainItems:
    """Sample -> views; what the loader's workers run.

    With `finish` they change the colours, one view after the other, which stays in a CPU's caches; a GPU does it
    quicker itself, on a quarter of the bytes.  Without `labelled` no label map is read.  The labels of the samples
    `hidden` are ignored, or where pixels are `mined` marked as not given (`core/pixel_mining.py`).
    """

    draws_by_labels = False

    def __init__(
        self,
        pool: Pool,
        plan: ViewPlan,
        seed: int,
        labelled: bool = True,
        finish: bool = False,
        hidden: frozenset[int] = frozenset(),
        mined: bool = False,
    ) -> None:
        self.pool, self.plan, self.seed, self.labelled, self.finish = pool, plan, seed, labelled, finish
        self.hidden, self.shown = hidden, MARKED if mined else IGNORED
        if any(plan.auto_augment):
            refuse_declared(pool.datasets, "auto_augment: its operations are", "set it to 0")
        if plan.photometry.bytes:
            refuse_declared(pool.datasets, "pretrain.photometry.bytes: it is", "set it to false")
        declared = sum(dataset.photos.channels is not None for dataset in pool.datasets.values())
        self.mixed = 0 < declared < len(pool.datasets)

    def __getitem__(self, key: Key) -> ViewsItem | MdpError:
        labels = None
        try:
            if self.labelled:
                image, labels = self.pool.read_changed(key, self.seed)
            else:
                image = self.pool.photo_changed(key, self.seed)
        except MdpError as error:
            return error  # raised in the main process: a worker would wrap it in a traceback
        return self.cut(image, labels, self.draw(key, (image.shape[1], image.shape[2])))

    def draw(self, key: Key, size: tuple[int, int], labels: Tensor | None = None) -> DrawnViews:
        """All that chance decides of an image of this size, whatever its labels."""
        rng, plan = generator(self.seed, "views", *key), self.plan
        views = draw_views(rng, *size, plan)
        auto: list[AutoDraw | None] = []
        colors = []
        for share in plan.auto_augment:
            taken = bool(share) and coin(rng, share)
            auto.append(draw_auto(rng) if taken else None)
            colors.append(no_photometry() if taken else draw_photometry(rng, plan.photometry))
        return DrawnViews(key[1], views, tuple(auto), tuple(colors))

    def cut(self, image: Tensor, labels: Tensor | None, drawn: DrawnViews) -> ViewsItem:
        """The views that were drawn."""
        plan, views = self.plan, drawn.views
        sizes = [(size, size) for size in plan.sizes]
        images = [cut_image(image, view, size) for view, size in zip(views, sizes, strict=True)]  # each (K, s, s)
        if self.mixed and not self.finish:  # stacked with floats in [0, 1], bytes would keep their values
            images = [as_float(image) for image in images]
        maps = [] if labels is None else [cut_labels(labels, *view) for view in zip(views, sizes, strict=True)]
        if self.finish or self.by_bytes:
            images = [_by_auto(image, auto) for image, auto in zip(images, drawn.auto, strict=True)]
        if self.by_bytes and not self.finish:
            images = [apply_photometry_bytes(*each) for each in zip(images, drawn.colors, strict=True)]
        return ViewsItem(
            self._finished(images, drawn.colors) if self.finish else _by_group(images, plan),
            _by_group(maps, plan) if maps else (),
            frames_of(views),
            missed(views, plan) if plan.constrained else 0,
            origin_of(self.pool.samples[drawn.sample]),
            () if self.finish or self.by_bytes else drawn.colors,
            tuple(no_auto() if auto is None else auto for auto in drawn.auto) if self._sends_autos else (),
            ((self.shown if drawn.sample in self.hidden else GIVEN),) if self.hidden else (),
        )

    def _finished(self, images: list[Tensor], draws: tuple[PhotometryDraw, ...]) -> tuple[Tensor, ...]:
        """The groups, finished: each view where it is to lie among those of its group."""
        rest = zip(images, draws, strict=True)
        groups = []
        for group in self.plan.groups:
            made = torch.empty(group.count, *images[0].shape[:1], group.size, group.size)
            for place in made[:, None]:  # (1, K, s, s)
                image, draw = next(rest)
                if self.by_bytes:
                    normalise_(place.copy_(changed_levels(image, draw)), of_bytes(self.pool.statistics))
                    continue
                place.copy_(image)
                if image.dtype == torch.uint8:
                    place.div_(255)
                normalise_(apply_photometry_(place, stack_draws([draw])), self.pool.statistics)
            groups.append(made)
        return tuple(groups)

    @property
    def by_bytes(self) -> bool:
        """Whether the workers change colours, on bytes, wherever training runs."""
        return self.plan.photometry.bytes

    @property
    def _sends_autos(self) -> bool:
        return not (self.finish or self.by_bytes) and any(self.plan.auto_augment)


def _by_auto(image: Tensor, draw: AutoDraw | None) -> Tensor:
    return image if draw is None else torch.from_numpy(apply_auto(image.numpy(), draw))


def origin_of(sample: Sample) -> Tensor:
    """Numbers of a sample's dataset and of its photo's folder, the same in every process and run, (2,) int64."""
    folder = os.path.dirname(sample.image)
    return torch.tensor([zlib.crc32(name.encode("utf-8", "surrogateescape")) for name in (sample.dataset, folder)])


def _by_group(tensors: list[Tensor], plan: ViewPlan) -> tuple[Tensor, ...]:
    """The tensors of V views as one for each group."""
    rest = iter(tensors)
    return tuple(torch.stack([next(rest) for _ in range(group.count)]) for group in plan.groups)


def finished(images: Tensor, draws: PhotometryDraw, statistics: Statistics) -> Tensor:
    """Photometry and normalisation of images (B, K, s, s) in uint8, or float32 in [0, 1]: float32."""
    return normalise_(apply_photometry(images, draws), statistics)


def stack_views(items: list[ViewsItem]) -> Views:
    """The items stacked, as a worker hands them over: a few large tensors, since each has its price on the way."""
    return Views(
        tuple(torch.stack(group, 1) for group in zip(*(item.images for item in items), strict=True)),
        tuple(torch.stack(group, 1) for group in zip(*(item.labels for item in items), strict=True)),
        torch.stack([item.frames for item in items], 1),
        sum(item.missed for item in items),
        torch.stack([item.origin for item in items]),
        tuple(stack_draws(draws) for draws in zip(*(item.draws for item in items), strict=True)),
        tuple(stack_draws(draws) for draws in zip(*(item.autos for item in items), strict=True)),
        tuple(torch.tensor(column) for column in zip(*(item.hidden for item in items), strict=True)),
    )


class ViewOverlaps:
    """How much the large views of an image overlap, counted over a run's first images, for its report.

    The file counts the steps before `steps`.  It is written before each checkpoint, so a run that goes on finds no
    fewer steps in it than it has done itself, and counts each step once: its views are drawn as they were before.
    """

    def __init__(self, folder: Path, plan: ViewPlan) -> None:
        self.path, self.count = folder / "view_overlaps.json", plan.groups[0].count
        self.steps, self.images, self.pairs = 0, 0, torch.zeros(11, dtype=torch.int64)
        if self.path.exists():
            try:
                before = json.loads(self.path.read_text())
                self.steps, self.images, self.pairs = before["steps"], before["images"], torch.tensor(before["pairs"])
            except (OSError, ValueError, KeyError, TypeError):
                self.count = 0  # of an older version, or damaged: it stays as it is, and the report says what it is
        self.written = self.steps

    def look(self, frames: Tensor, step: int) -> None:
        """Counts the frames (V, B, 5) of a step, unless they are counted or there are enough."""
        if step < self.steps or self.images >= OVERLAPS or self.count < 2:
            return
        ious = frame_ious(frames[: self.count])
        bins = (ious.flatten() * 10).ceil().long().clamp(0, 10)  # 0 for views that share nothing
        self.pairs += bins.bincount(minlength=11)
        self.steps, self.images = step + 1, self.images + len(ious)

    def write(self) -> None:
        """Writes the file, where something was counted since."""
        if self.steps > self.written:
            counts = {"steps": self.steps, "images": self.images, "pairs": self.pairs.tolist()}
            write_text(self.path, json.dumps(counts) + "\n")
            self.written = self.steps


def finished_views(views: Views, device: torch.device, statistics: Statistics = IMAGENET) -> Views:
    """The views with images on `device`, augmented and normalised: those of a group at once."""
    groups, draws, autos = [], iter(views.draws), iter(views.autos)
    for group in views.images:  # (v, B, K, s, s)
        moved = group.to(device, non_blocking=True)
        if views.autos:
            moved = torch.stack([apply_auto_batch(view, next(autos)) for view in moved])
        if moved.dtype == torch.uint8 and not views.draws:  # changed on bytes
            moved = normalise_(moved.float(), of_bytes(statistics))
        if views.draws:
            own = [next(draws) for _ in group]
            together = type(own[0])(*(torch.cat(field) for field in zip(*own, strict=True)))
            moved = finished(moved.flatten(0, 1), together, statistics).view(moved.shape)
        groups.append(moved)
    return views._replace(images=tuple(groups), draws=(), autos=())


def view_batches(views: Views, device: torch.device, statistics: Statistics = IMAGENET) -> list[Batch]:
    """One batch a view, augmented and normalised, on `device`."""
    views = finished_views(views, device, statistics)
    images = [view for group in views.images for view in group]  # V of (B, K, s, s)
    labels = [view for group in views.labels for view in group.to(device, non_blocking=True).long()]
    for hidden in views.hidden:
        labels = [_as_told(view, hidden.to(device, non_blocking=True)) for view in labels]
    if not labels:
        labels = [view.new_empty((len(view), 0, 0), dtype=torch.int64) for view in images]
    frames = views.frames.to(device, non_blocking=True)  # (V, B, 5)
    origins = views.origins.to(device, non_blocking=True)  # (B, 2)
    return [Batch(*view, origins) for view in zip(images, labels, frames, strict=True)]


def _as_told(labels: Tensor, hidden: Tensor) -> Tensor:
    """The labels (B, H, W) of images as their part of `hidden` (B,) says."""
    told = hidden[:, None, None]
    return torch.where(told == MARKED, withheld(labels), labels).masked_fill_(told == IGNORED, IGNORE)
