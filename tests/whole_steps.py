"""Pretraining and fine-tuning on made images, step by step, on any device: the loop's own runs, without files.

`tests/fake_cuda` and `tests/gpu` are built on it, so that both follow every change of what a step is.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mdp.core.chance import generator
from mdp.core.geometry import Box, View
from mdp.core.labels import LabelSpace, LabelUnion
from mdp.core.networks import Segmentor, build_segmentor
from mdp.core.photometry import DistortionSettings, PhotometrySettings, draw_distortion, draw_photometry
from mdp.core.views import frames_of
from mdp.io.data.crops import CropItem, Crops, stack_crops
from mdp.io.data.pool import Pool
from mdp.io.data.selection import Plan
from mdp.io.data.views import Views, ViewsItem, stack_views
from mdp.io.datasets import load
from mdp.io.datasets._dataset import Sample
from mdp.io.journal.journal import Journal
from mdp.io.processes.world import ALONE
from mdp.io.recipe.layers import Layer, resolve
from mdp.io.training.context import RunContext
from mdp.io.training.finetuning import Finetuning
from mdp.io.training.pretraining import Pretraining

STEPS = 100  # of the schedule: how far the learning rate has fallen
MIX: Layer = {"region": True, "pixel": True}
MINED: Layer = {"threshold": -1, "margin": 0, "warmup_epochs": 0, "ignored": True}

# Every method and every form of its targets, as the `method` section of a recipe; sizes are added by `method_layer`.
FORMS: dict[str, Layer] = {
    "multi_dataset": {"name": "multi_dataset"},
    "multi_dataset, mix": {"name": "multi_dataset", "mix": MIX},
    "multi_dataset, mix, csc2": {"name": "multi_dataset", "mix": MIX, "sparse": {"variant": "csc2"}},
    "multi_dataset, csc2 by prototype": {
        "name": "multi_dataset",
        "sparse": {"variant": "csc2", "source": "prototype"},
    },
    "multi_dataset, mix, csc1": {"name": "multi_dataset", "mix": MIX, "sparse": {"variant": "csc1"}},
    "multi_dataset, mix, mined, softmax": {
        "name": "multi_dataset",
        "mix": MIX,
        "mining": MINED,
        "softmax_weight": 1,
    },
    "multi_dataset, prototypes both": {"name": "multi_dataset", "prototypes": "both"},
    "multi_dataset, rivals": {"name": "multi_dataset", "rivals": "dataset"},
    "region_bank": {"name": "region_bank"},
    "region_bank, negatives": {"name": "region_bank", "denominator": "negatives"},
    "pixel_pairs": {"name": "pixel_pairs"},
    "moco": {"name": "moco"},
    "knn_moco": {"name": "knn_moco"},
    "supervised": {"name": "supervised"},
    "supervised, heads": {"name": "supervised", "heads": "datasets"},
    "pass_s": {"name": "pass_s"},
    "pixel_attention": {"name": "pixel_attention"},
    "swav": {"name": "swav"},
}
_SMALL: dict[str, Layer] = {  # widths of 8 or more: torch 2.13 crashes on narrower ones on some CPUs
    "multi_dataset": {"embedding": 8, "hidden": 8, "bank_batches": 2},
    "region_bank": {"embedding": 8, "hidden": 8, "queue": 5},
    "pixel_pairs": {"embedding": 8, "hidden": 8},
    "moco": {"embedding": 8, "queue": 12, "groups": 2},
    "knn_moco": {"embedding": 8, "queue": 12, "groups": 2, "neighbours": {"k": 3, "warmup_epochs": 0}},
    "supervised": {},
    "pass_s": {"embedding": 8, "hidden": 8, "prototypes": 6, "queue": 12, "queue_epoch": 0},
    "pixel_attention": {"embedding": 8, "hidden": 8, "prototypes": 6, "queue": 12},
    "swav": {"embedding": 8, "hidden": 8, "prototypes": 6, "queue": 12, "queue_epoch": 0},
}
NARROW: Layer = {"backbone": "resnet18", "width": 8, "channels": 8, "output_stride": 8, "dilations": [1, 2]}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large a step is."""

    model: Layer = field(default_factory=lambda: NARROW)
    batch: int = 4  # images
    crop: int = 32
    classes: int = 9


def method_layer(form: str, channels: int = 8) -> Layer:
    """The `method` section of a form at a small size, with so many channels of embedding."""
    given = FORMS[form]
    small = _SMALL[given["name"]]
    return {**small, **{key: channels for key in ("embedding", "hidden") if key in small}, **given}


class Nowhere(RunContext):
    """The context of a run that leaves nothing: no pictures, no log."""

    def picture(self, name: str, draw: Callable[[], Image.Image]) -> None:
        """Draws nothing."""


def nowhere(device: torch.device) -> Nowhere:
    """Such a context on `device`, whose journal is silent."""
    folder = Path(tempfile.gettempdir())
    return Nowhere(folder=folder, journal=Journal(folder, STEPS, 60.0, main=False), device=device, world=ALONE)


def made_pool(classes: int, images: int) -> Pool:
    """Names of so many samples of one dataset; they are not read."""
    space = LabelSpace(name="made", classes=tuple(f"class {number}" for number in range(classes)))
    dataset = replace(load("shapes-coarse"), name="made", labels=space)
    samples = [Sample(f"{number}.png", f"{number}.png", "made") for number in range(images)]
    return Pool(samples, {"made": dataset}, LabelUnion([space]))


def made_views(sizes: Sizes, seed: int) -> Views:
    """Two views of each image of a batch: smooth colours and label maps of five by five patches."""
    return stack_views([_views(sizes, generator(seed, index)) for index in range(sizes.batch)])


def _views(sizes: Sizes, rng: torch.Generator) -> ViewsItem:
    side = (sizes.crop, sizes.crop)
    coarse = torch.rand(2, 3, 9, 9, generator=rng)
    images = (F.interpolate(coarse, side, mode="bilinear") * 255).to(torch.uint8)  # (2, 3, s, s)
    cells = torch.randint(-1, sizes.classes, (2, 1, 5, 5), generator=rng).float()
    labels = F.interpolate(cells, side, mode="nearest")[:, 0].to(torch.int16)  # (2, s, s)
    draws = tuple(draw_photometry(rng, PhotometrySettings()) for _ in range(2))
    frames = frames_of([View(Box(0, 0, *side), False)] * 2)
    return ViewsItem((images,), (labels,), frames, 0, torch.zeros(2, dtype=torch.int64), draws)


def _pinned(items: Views) -> Views:
    images, labels = (tuple(tensor.pin_memory() for tensor in group) for group in (items.images, items.labels))
    return items._replace(images=images, labels=labels)


class Training:
    """A pretraining run of a method that sees the same two batches in turn; `pin`: as the loader has them for a GPU."""

    def __init__(self, method: Layer, device: torch.device, run: Layer, sizes: Sizes, pin: bool = False) -> None:
        pretrain: Layer = {"batch_size": sizes.batch, "crop": sizes.crop, "steps": STEPS, "lr": 0.01}
        self.recipe = resolve({"run": run, "model": sizes.model, "method": method, "pretrain": pretrain})
        pool = made_pool(sizes.classes, 4 * sizes.batch)
        self.run = Pretraining(Plan(recipe=self.recipe, pool=pool, validation=pool), nowhere(device), None, {})
        self.items = [made_views(sizes, seed) for seed in range(2)]
        if pin:
            self.items = [_pinned(items) for items in self.items]
        self.step = 0

    def advance(self) -> dict[str, float]:
        """One step, from bytes to the key encoder's update."""
        values = self.run.advance(self.items[self.step % 2], self.step)
        self.step += 1
        return values

    def weights(self) -> Tensor:
        """Weights and running statistics of all networks, flat."""
        networks = dict.fromkeys(self.run.pair)
        return torch.cat([t.detach().flatten().float() for n in networks for t in n.state_dict().values()])

    def state(self) -> Tensor:
        """The method's state, flat; a zero for methods without."""
        tensors = self.run.method.pack(self.run.state).values()
        return torch.cat([t.flatten().double() for t in tensors]) if tensors else torch.zeros(1)


def made_crops(batch: int, crop: tuple[int, int], classes: int) -> Crops:
    """A batch of fine-tuning crops of noise, each with some padding at its foot."""
    return stack_crops([_crop(generator(0, index), crop, classes) for index in range(batch)])


def _crop(rng: torch.Generator, crop: tuple[int, int], classes: int) -> CropItem:
    image = torch.randint(0, 256, (3, *crop), generator=rng).to(torch.uint8)
    labels = torch.randint(-1, classes, crop, generator=rng).to(torch.int16)
    return CropItem(image, labels, (crop[0] - 4, crop[1]), draw_distortion(rng, DistortionSettings()))


class Tuning:
    """A fine-tuning run that sees one batch of four crops again and again."""

    def __init__(
        self, head: str, device: torch.device, run: Layer, finetune: Layer, criterion: Layer | None = None
    ) -> None:
        crop, classes, batch = (32, 48), 9, 4
        own = ("dilations", "channels") if head == "linear" else ("dilations",)  # what is left to the head
        model = {key: value for key, value in NARROW.items() if key not in own} | {"head": head}
        settings: Layer = {"crop": list(crop), "batch_size": batch, "steps": STEPS, **finetune}
        recipe = resolve({"run": run, "model": model, "finetune": settings, "criterion": criterion or {}})
        network: Segmentor = build_segmentor(recipe.model, classes, generator(0))
        plan = Plan(recipe=recipe, pool=made_pool(classes, batch), validation=None)
        self.run = Finetuning(plan, network, nowhere(device), None)
        self.items = made_crops(batch, crop, classes)
        self.step = 0

    def advance(self) -> dict[str, float]:
        """One step, from bytes to the update."""
        values = self.run.advance(self.items, self.step)
        self.step += 1
        return values


def class_scores(training: Training) -> Tensor | None:
    """A method's class scores of one view, as validation asks for them; None where it knows no classes."""
    run = training.run
    images = training.items[0].images[0][0].float() / 255
    for network in dict.fromkeys(run.pair):
        network.eval()
    score = partial(run.method.class_scores, run.pair, run.state, settings=run.chosen)
    with torch.no_grad():
        return score(images=images.to(run.context.device))
