"""Contrast between pixels of all images, beside cross-entropy (Wang et al. 2021, arXiv 2101.11939).

An extra head embeds pixels.  Some of each image's classes are anchors, half of them pixels that the network gets wrong;
they are pulled to what is of their class and pushed from the rest: among the anchors of the batch, or in a memory of
regions (the mean of a class in an image) and of pixels, which is looked at before a step and filled after it.
The sources of defaults: "stated" is the paper's text as others report it, "code" the authors' released code and
configurations, which are all that is known of most numbers here, "chosen" ours.
Shape legend: B images of a part, C classes, D embedding channels, h x w grid of embeddings, V pixels an image's class
gives to the memory, N anchors, Q rows of a class's memory, R rows of the memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdp.core.bounds import Bounds, Channels, Count, Positive, Temperature, Weight, check_bounds
from mdp.core.contrast import mean_over, pixel_rows
from mdp.core.contrast_chunked import EPS
from mdp.core.contrast_mining import MINING, Choice
from mdp.core.criteria import Part, Rngs
from mdp.core.geometry import Grid, downsample_labels
from mdp.core.label_checks import expect_grid
from mdp.core.methods import Loss, Progress
from mdp.core.networks import Grids, Look, NetworkSettings, upsample
from mdp.core.networks.backbones import inputs_of, randomly
from mdp.core.networks.decode_heads import HEADS
from mdp.core.networks.heads.upernet import resized
from mdp.core.networks.projection_heads import projection
from mdp.core.pixel_contrast import (
    anchor_groups,
    anchor_views,
    batch_contrast,
    draw_anchors,
    draw_pixels,
    memory_contrast,
)
from mdp.core.processes import Processes
from mdp.core.prototype_bank import class_means
from mdp.core.queues import ClassQueues, empty_queues, enqueue_classes, enqueue_rows

SUPPLEMENT = True
MEMORIES = {"off": (), "region": ("regions",), "pixel": ("pixels",), "both": ("regions", "pixels")}
FEATURES = ("last", "stages", "head")
_CAPACITY, _ROWS = 5000, 200_000  # of a class (code); of all (chosen: 205 MB of 256 channels)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the pixel contrast.  Grade C: known from others' reports of the paper only."""

    weight: Weight = 0.1  # code, which multiplies by temperature / 0.07 besides; its Cityscapes memory file: 1
    temperature: Temperature = 0.1  # stated: the best of 0.05 to 0.4 on Cityscapes; code with a memory: 0.07
    memory: str = "both"  # off: anchors among each other | region | pixel | both (stated: the full model)
    same_image: bool = False  # without a memory: anchors meet those of their own image only (an ablation)
    capacity: Positive | None = None  # rows of a class in each memory; null: 5000 (code), 200,000 in all at most
    pixels: Positive = 10  # that an image's class gives to the pixel memory (stated, grade C; code)
    mining: str = "semi_hard"  # all (code) | random | hardest | semi_hard (stated: the best; grade C, not in the code)
    positives: Positive = 1024  # rows of the memory that mining leaves an anchor (stated, grade C)
    negatives: Positive = 2048  # likewise (stated, grade C)
    max_views: Positive = 100  # anchors of an image's class, which has more pixels on the grid (code); stated, C: 50
    max_samples: Annotated[int, Bounds(1, 2**16)] = 1024  # anchors of a batch, shared by its images' classes (code)
    warmup_steps: Count | None = None  # steps before it counts; null: an eighth of the run, as 5000 of 40000 (code)
    features: str | None = None  # what is embedded: last map | stages, joined | head's; null: stages where it has them
    hidden: Channels | None = None  # of the extra head; null: as many as it sees (code)
    embedding: Channels = 256  # stated, grade C; code

    def __post_init__(self) -> None:
        check_bounds(self)
        _one_of("memory", self.memory, tuple(MEMORIES))
        _one_of("mining", self.mining, MINING)
        if self.features is not None:
            _one_of("features", self.features, FEATURES)
        if self.same_image and self.memory != "off":
            raise ValueError(f"same_image: a memory has rows of other images; give memory: off, got {self.memory!r}")


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name}: expected {', '.join(known[:-1])} or {known[-1]}, got {value!r}")


# The extra head


class PixelHead(nn.Module):
    """A `Look` -> embeddings (B, D, h, w) float32 of unit length, whatever the autocast: two 1x1 convolutions."""

    def __init__(self, takes: str, channels: int, hidden: int, embedding: int) -> None:
        super().__init__()
        self.takes = takes
        self.layers = projection((channels, hidden, embedding), conv=True, norm=True)

    def forward(self, look: Look) -> Tensor:
        return F.normalize(self.layers(self._features(look)).float(), dim=1, eps=EPS)

    def _features(self, look: Look) -> Tensor:
        if self.takes == "stages":
            return torch.cat([resized(stage, look.stages[0]) for stage in look.stages], 1)
        return look.last if self.takes == "last" else look.features


def build(settings: Settings, network: NetworkSettings, channels: int, classes: int, rng: torch.Generator) -> nn.Module:
    """The extra head.  Raises ValueError where it is to see stages that the segmentation head does not take."""
    stages = HEADS[network.head].takes == "stages"
    takes = _takes(settings, stages)
    if takes == "stages" and not stages:
        raise ValueError(f"features: the head {network.head} takes no stages; give last or head, or leave it out")
    wide = network.head_channels if takes == "head" else channels
    if takes == "stages":
        inputs = inputs_of(network.backbone, network.width, network.output_stride, "stages", network.image_channels)
        wide = sum(inputs.stages)
    return randomly(lambda: PixelHead(takes, wide, settings.hidden or wide, settings.embedding), False, rng)


def _takes(settings: Settings, stages: bool) -> str:
    return settings.features or ("stages" if stages else "last")


def _grid(settings: Settings, grids: Grids) -> Grid:
    return grids.last if _takes(settings, grids.stages) == "last" else grids.features


# The memory


class Memory(NamedTuple):
    """Embeddings of earlier steps."""

    classes: int  # C
    regions: ClassQueues | None  # the means of classes in images; None: there is no such memory
    pixels: ClassQueues | None


class Entries(NamedTuple):
    """The valid rows of a memory, one after the other."""

    rows: Tensor  # (R, D) of unit length
    labels: Tensor  # (R,) int64


class Kept(NamedTuple):
    """What images give to the memory, a row for each; None where there is no such memory."""

    means: Tensor | None  # (B, C, D) of unit length
    present: Tensor | None  # (B, C) bool
    rows: Tensor | None  # (B, C, V, D)
    drawn: Tensor | None  # (B, C, V) bool


def capacity(settings: Settings, classes: int) -> int:
    """Q, the rows of a class in each memory.

    >>> capacity(Settings(), 19), capacity(Settings(), 171), capacity(Settings(capacity=9), 171)
    (5000, 584, 9)
    """
    memories = len(MEMORIES[settings.memory])
    return settings.capacity or max(1, min(_CAPACITY, _ROWS // (classes * max(1, memories))))


def initial_state(settings: Settings, classes: int, device: torch.device) -> Memory:
    """Memories that hold nothing."""
    size, chosen = capacity(settings, classes), MEMORIES[settings.memory]

    def empty(name: str) -> ClassQueues | None:
        return empty_queues(classes, size, settings.embedding, device) if name in chosen else None

    return Memory(classes, empty("regions"), empty("pixels"))


def state_bytes(settings: Settings, classes: int) -> int:
    """float32 rows, and an int64 count a class."""
    return len(MEMORIES[settings.memory]) * classes * (4 * capacity(settings, classes) * settings.embedding + 8)


def entries(memory: Memory) -> Entries:
    """What the memory holds."""
    queues = [queues for queues in (memory.regions, memory.pixels) if queues is not None]
    filled = [each.filled for each in queues]
    rows = [each.rows[there] for each, there in zip(queues, filled, strict=True)]
    return Entries(torch.cat(rows), torch.cat([there.nonzero()[:, 0] for there in filled]))


def remember(state: Memory, kept: Any, settings: Settings, processes: Processes) -> Memory:
    """The memory with what all images of the batch give, in their order."""
    if settings.memory == "off":
        return state
    everyone: list[Any] = [None if own is None else processes.gather(own) for own in kept]
    means, present, rows, drawn = everyone
    regions, pixels = state.regions, state.pixels
    if regions is not None:
        regions = enqueue_classes(regions, means, present)
    if pixels is not None:
        pixels = enqueue_rows(pixels, rows[drawn], drawn.nonzero()[:, 1])
    return Memory(state.classes, regions, pixels)


def pack(state: Memory) -> dict[str, Tensor]:
    named = {"regions": state.regions, "pixels": state.pixels}
    return {
        f"{name}.{key}": tensor
        for name, queues in named.items()
        if queues is not None
        for key, tensor in queues._asdict().items()
    }


def unpack(tensors: dict[str, Tensor], settings: Settings, classes: int) -> Memory:
    def queues(name: str) -> ClassQueues | None:
        there = name in MEMORIES[settings.memory]
        return ClassQueues(tensors[f"{name}.rows"], tensors[f"{name}.pushed"]) if there else None

    return Memory(classes, queues("regions"), queues("pixels"))


# A step


class Shared(NamedTuple):
    """What the losses of all parts are made with."""

    classes: int
    grid: Grid  # of the embeddings
    views: int  # anchors of each group; 0 while the warm-up lasts
    known: Entries | None  # the memory; None: anchors meet anchors
    weight: Tensor  # () anchors of the whole batch whose class the memory knows


class Anchors(NamedTuple):
    """The anchors of some images, image by image."""

    rows: Tensor  # (N, D) of unit length, with gradient
    labels: Tensor  # (N,)
    images: Tensor  # (N,) the image of each among those of the part
    hard: Tensor  # (N,) bool: the network is wrong there
    draws: Tensor  # (N, 2) int64: what mining draws by


def prepare(
    state: Memory, labels: Tensor, settings: Settings, processes: Processes, progress: Progress, grids: Grids
) -> Shared:
    """The anchors of the batch, counted; every group has as many, since it has more pixels than `max_views`."""
    takes = _takes(settings, grids.stages)
    grid = grids.last if takes == "last" else grids.features
    shared = Shared(state.classes, grid, 0, None, torch.zeros((), device=labels.device))
    warmup = progress.steps // 8 if settings.warmup_steps is None else settings.warmup_steps
    if progress.step < warmup:
        return shared
    groups = anchor_groups(downsample_labels(labels, *grid), state.classes, settings.max_views)  # (B, C)
    counts = processes.all_sum(groups.sum(0))  # (C,)
    views = anchor_views(int(counts.sum()), settings.max_samples, settings.max_views)
    if settings.memory == "off":
        return shared._replace(views=views)
    known = entries(state)
    there = torch.bincount(known.labels, minlength=state.classes) > 0  # (C,)
    return shared._replace(views=views, known=known, weight=(views * (counts * there).sum()).float())


def loss(
    look: Look, head: Tensor, shared: Shared, part: Part, settings: Settings, rngs: Rngs, processes: Processes
) -> Loss:
    """The share of some images.

    With a memory it is the mean over the anchors of the whole batch; among each other they are those that all processes
    take at once, and with parts that follow each other the loss is the mean of theirs.
    """
    labels = downsample_labels(part.whole, *shared.grid)  # (B, h, w)
    expect_grid(head, labels)
    draws = [rngs(place) for place in range(len(labels))]
    anchors = _anchors(look, head, labels, shared, settings, draws)
    if shared.views == 0:
        value = anchors.rows.sum()  # of none: 0, with a gradient, which what sends gradients early waits for
    elif shared.known is None:
        counts = tuple(processes.all_rows(anchors.labels.new_tensor([len(anchors.rows)]), (1,) * len(processes.images))
                       .tolist())  # fmt: skip
        images = anchors.images + processes.own.start if settings.same_image else None
        found = batch_contrast(anchors.rows, anchors.labels, counts, settings.temperature, processes, images)
        value = found.mean() * (processes.total / part.images)
    else:
        choice = Choice(settings.mining, settings.positives, settings.negatives, anchors.draws)
        total, _ = memory_contrast(
            anchors.rows, anchors.labels, *shared.known, settings.temperature,
            choice=None if settings.mining == "all" else choice,
        )  # fmt: skip
        value = mean_over(total, shared.weight)
    metrics = {"anchors": torch.tensor(len(anchors.rows)), "hard_anchors": anchors.hard.sum()}
    return Loss(value, metrics, _kept(head.detach(), labels, shared, settings, draws))


def _anchors(
    look: Look, head: Tensor, labels: Tensor, shared: Shared, settings: Settings, rngs: Sequence[torch.Generator]
) -> Anchors:
    """The anchors of the images, each drawn with the generator of its image."""
    size, cells = (labels.shape[1], labels.shape[2]), labels[0].numel()
    logits = look.logits if look.logits.shape[2:] == size else upsample(look.logits, size)
    wrong = logits.argmax(1) != labels  # (B, h, w)
    groups = anchor_groups(labels, shared.classes, settings.max_views)  # (B, C)
    places, draws = [], []
    for image, rng in enumerate(rngs):
        drawn = draw_anchors(labels[image], wrong[image], groups[image] & (shared.views > 0), shared.views, rng)
        places.append(drawn + image * cells)
        draws.append(torch.randint(2**31, (len(drawn), 2), generator=rng))
    place = torch.cat(places)  # (N,)
    return Anchors(
        pixel_rows(head).index_select(0, place),
        labels.flatten()[place],
        place // cells,
        wrong.flatten()[place],
        torch.cat(draws).to(labels.device),
    )


def _kept(
    embeddings: Tensor, labels: Tensor, shared: Shared, settings: Settings, rngs: Sequence[torch.Generator]
) -> Any:
    """What the images give to the memory; () where there is none."""
    if settings.memory == "off":
        return ()
    means = present = rows = drawn = None
    if "regions" in MEMORIES[settings.memory]:
        means, present = class_means(embeddings, labels, shared.classes, unit=True)  # (B, C, D), (B, C)
        means = F.normalize(means, dim=2, eps=EPS)
    if "pixels" in MEMORIES[settings.memory]:
        places = torch.stack([draw_pixels(own, shared.classes, settings.pixels, rng)
                              for own, rng in zip(labels, rngs, strict=True)])  # (B, C, V)  # fmt: skip
        drawn = places >= 0
        own = places.clamp(min=0).flatten(1)[..., None].expand(-1, -1, embeddings.shape[1])  # (B, C V, D)
        rows = embeddings.flatten(2).mT.gather(1, own).view(*places.shape, -1)  # (B, C, V, D)
    return Kept(means, present, rows, drawn)
