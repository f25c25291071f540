"""Region and pixel mixing of a batch with its label maps (eq. 5 and 6), by a plan that is drawn before.

Shape legend: B = 32 images, H x W = 224 x 224.
"""

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate, Run
from benchmarks.peers import peer
from mdp.core.batches import Batch
from mdp.core.mixing import PIXEL, REGION, MixPlan, MixSettings, draw_plan, mix

COUNT = 32
SIDE = 224
CLASSES = 342

Mixed = tuple[Tensor, Tensor, Tensor]  # images, first and second labels


def cases() -> dict[str, Callable[[], Case]]:
    """One size."""
    return {"32x3x224x224": _case}


def _case() -> Case:
    rng = inputs.rng_of(1)
    batch = Batch(torch.randn(COUNT, 3, SIDE, SIDE, generator=rng), inputs.label_maps(rng, COUNT, SIDE, SIDE, CLASSES))
    plan = draw_plan(rng, MixSettings(region=True, pixel=True), COUNT, SIDE, SIDE)
    entries = (
        Entry("mix", "ours", lambda: tuple(mix(batch, plan))[:3]),
        peer("v2.CutMix, then v2.MixUp, no label maps", "torchvision.transforms.v2", _torchvision(batch), exact=False),
        Entry("float masks, x[partner]", "plain", lambda: _masked(batch, plan)),
        Entry(
            "copying images and two label maps", "floor", lambda: (batch.images.clone(), *[batch.labels.clone()] * 2)
        ),
    )
    gates = (Gate("plain", 3.0), Gate("plain", 2.5, what="memory"))
    return Case("mixing", "32x3x224x224 with labels", entries, gates, lambda: _masked(_double(batch), plan))


def _double(batch: Batch) -> Batch:
    return Batch(batch.images.double(), batch.labels)


def _masked(batch: Batch, plan: MixPlan) -> Mixed:
    pasted = torch.zeros(COUNT, 1, SIDE, SIDE, dtype=batch.images.dtype)
    for i, (top, left, height, width) in enumerate(plan.boxes):
        if plan.kind[i] == REGION:
            pasted[i, 0, top : top + height, left : left + width] = 1
    images = batch.images * (1 - pasted) + batch.images[plan.partner] * pasted
    first = torch.where(pasted[:, 0] > 0, batch.labels[plan.partner], batch.labels)
    share = torch.where(plan.kind == PIXEL, plan.share, 1.0).to(images)[:, None, None, None]
    images = share * images + (1 - share) * batch.images[plan.partner]
    second = torch.where(share[:, 0] < 1, batch.labels[plan.partner], first)
    return images, first, second


def _torchvision(batch: Batch) -> Callable[[ModuleType], Run]:
    """It mixes classes of images only; each of the two meets the whole batch."""
    names = batch.labels[:, 0, 0].clamp(min=0)

    def make(v2: ModuleType) -> Run:
        cut, mixed = v2.CutMix(num_classes=CLASSES), v2.MixUp(num_classes=CLASSES)
        return lambda: (cut(batch.images, names), mixed(batch.images, names))

    return make
