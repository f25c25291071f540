"""Mixing across datasets: images of different taxonomies in one picture (paper, section 3.4, eq. 5 and 6).

Region mixing (cutmix) pastes a box of one image into another, labels included.  Pixel mixing (mixup) blends two
images and keeps both labels.  Plans are drawn first (`draw_plan`) and applied after (`mix`).
Shape legend: B images, H x W image.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from mdp.core.batches import Batch, Blend
from mdp.core.bounds import Bounds, Share, check_bounds
from mdp.core.chance import beta
from mdp.core.geometry import Box

PLAIN, REGION, PIXEL = 0, 1, 2


Shape = Annotated[float, Bounds(0.001, 1000)]  # of a Beta law; outside it draws its ends, or its middle, only


@dataclass(frozen=True, kw_only=True)
class MixSettings:
    """Which mixings are on, and their laws."""

    region: bool = False  # the paper's ablations start without; +0.7 to +1.2 mIoU (Table 3)
    pixel: bool = False  # helps only across datasets: +1.0 on VOC+ADE20K, -1.3 on VOC alone (Table 3)
    region_alpha: Shape = 1.0  # share ~ Beta(alpha, alpha); chosen: both recipes of the CutMix code use 1
    pixel_alpha: Shape = 1.0  # chosen: default of the mixup code
    box: str = "corner"  # "corner" (authors): top-left corner uniform; "center" (CutMix code): centre uniform
    probability: Share = 0.5  # chosen: share of images mixed when one mixing is on; with both on all are mixed

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.box not in ("corner", "center"):
            raise ValueError(f"box: expected corner or center, got {self.box!r}")


class MixPlan(NamedTuple):
    """How each image of a batch is mixed; on the CPU."""

    partner: Tensor  # (B,) int64: the image that is mixed in
    kind: Tensor  # (B,) int64: PLAIN, REGION or PIXEL
    share: Tensor  # (B,) float32: the weight (area or intensity) aimed at for the image itself
    boxes: tuple[Box, ...]  # B boxes, used where kind is REGION


def draw_box(rng: torch.Generator, share: float, height: int, width: int, law: str = "corner") -> Box:
    """The pasted box: sides H sqrt(1 - share) and W sqrt(1 - share), cut at the border.

    "corner" puts its top-left corner uniformly in the image (the authors' law), "center" its centre (CutMix's code).

    >>> draw_box(torch.Generator(), 1.0, 20, 30)[2:]
    (0, 0)
    """
    side = max(0.0, 1 - share) ** 0.5
    y, x = (torch.rand(2, generator=rng, dtype=torch.float64) * torch.tensor([height, width])).tolist()
    box_height, box_width = height * side, width * side
    if law == "center":
        y, x = y - box_height / 2, x - box_width / 2
    top, bottom = max(0, int(y)), min(height, int(y + box_height))
    left, right = max(0, int(x)), min(width, int(x + box_width))
    return Box(top, left, max(0, bottom - top), max(0, right - left))


def draw_plan(rng: torch.Generator, settings: MixSettings, count: int, height: int, width: int) -> MixPlan:
    """Partners by one random permutation of the batch, and a kind, a share and a box for every image."""
    partner = torch.randperm(count, generator=rng)
    mixed = torch.rand(count, generator=rng) < settings.probability
    if settings.region and settings.pixel:
        kind = torch.where(mixed, REGION, PIXEL)
    elif settings.region:
        kind = torch.where(mixed, REGION, PLAIN)
    elif settings.pixel:
        kind = torch.where(mixed, PIXEL, PLAIN)
    else:
        kind = torch.full((count,), PLAIN)
    region, pixel = beta(rng, settings.region_alpha, count), beta(rng, settings.pixel_alpha, count)
    share = torch.where(kind == PIXEL, pixel, region)
    boxes = tuple(draw_box(rng, float(lam), height, width, settings.box) for lam in share)
    return MixPlan(partner, kind, share, boxes)


def mix_regions(a: Batch, b: Batch, boxes: tuple[Box, ...]) -> Batch:
    """Image and labels of `b` inside the boxes, of `a` outside (eq. 5); labels stay integers.

    Raises ValueError unless both batches have one shape, labels too, and there is a box for every image.
    """
    if a.images.shape != b.images.shape or len(boxes) != len(a.images):
        raise ValueError(f"{len(boxes)} boxes for batches {tuple(a.images.shape)} and {tuple(b.images.shape)}")
    _expect_maps(a, b)
    mixed = Batch(a.images.clone(), a.labels.clone())
    for i, box in enumerate(boxes):
        _paste_(mixed, i, b, i, box)
    return mixed


def mix_pixels(a: Batch, b: Batch, share: Tensor) -> Blend:
    """share * a + (1 - share) * b (eq. 6); labels are not mixed, both are kept.  `share` is (B,).

    Raises ValueError unless both batches have one shape, labels too.
    """
    _expect_maps(a, b)
    share = share.to(a.images.device, non_blocking=True)
    lam = share.to(a.images.dtype)[:, None, None, None]  # (B, 1, 1, 1)
    return Blend(torch.lerp(b.images, a.images, lam), a.labels, b.labels, share)


def plan_rows(plan: MixPlan, rows: slice) -> MixPlan:
    """The plan of some of the images; partners stay indices into the whole batch."""
    return MixPlan(plan.partner[rows], plan.kind[rows], plan.share[rows], plan.boxes[rows])


def mix(batch: Batch, plan: MixPlan, others: Batch | None = None) -> Blend:
    """Applies a plan: every image is left plain, region-mixed or pixel-mixed with its partner.

    `others` are the partners, one for each image, where `batch` is a part of a batch that processes share.  Raises
    ValueError unless labels have the size of their images and the plan is for as many.
    """
    _expect_maps(*((batch,) if others is None else (batch, others)))
    if len(plan.kind) != len(batch.images):
        raise ValueError(f"a plan for {len(plan.kind)} images, and a batch of {len(batch.images)}")
    other, place = (batch, plan.partner.tolist()) if others is None else (others, range(len(plan.partner)))
    mixed = Batch(batch.images.clone(), batch.labels.clone())
    for i in (plan.kind == REGION).nonzero().flatten().tolist():
        _paste_(mixed, i, other, place[i], plan.boxes[i])
    share, second = torch.where(plan.kind == PIXEL, plan.share, 1.0), mixed.labels.clone()
    for i in (share < 1).nonzero().flatten().tolist():  # one by one, where partners need no batch of their own
        torch.lerp(other.images[place[i]], batch.images[i], float(share[i]), out=mixed.images[i])
        second[i] = other.labels[place[i]]
    return Blend(mixed.images, mixed.labels, second, share.to(mixed.images.device, non_blocking=True))


def _expect_maps(*batches: Batch) -> None:
    """Raises ValueError unless all are of one shape, and labels as large as images: boxes are cut of both."""
    for images, labels, *_ in batches:
        if labels.shape != (len(images), *images.shape[2:]) or images.shape != batches[0].images.shape:
            shapes = ", ".join(f"{tuple(batch.images.shape)} with {tuple(batch.labels.shape)}" for batch in batches)
            raise ValueError(f"images with labels of shapes {shapes}: expected (B, 3, H, W) with (B, H, W)")


def _paste_(mixed: Batch, i: int, other: Batch, j: int, box: Box) -> None:
    """Writes a box of image `j` of the other batch into image `i`, labels included."""
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    mixed.images[i, :, rows, columns] = other.images[j, :, rows, columns]
    mixed.labels[i, rows, columns] = other.labels[j, rows, columns]


def unmixed(batch: Batch) -> Blend:
    """The blend of every image with nothing: share 1."""
    share = torch.ones(len(batch.images), device=batch.images.device)
    return Blend(batch.images, batch.labels, batch.labels, share)
