"""Contrast between pixels of all images, beside cross-entropy (Wang et al. 2021, arXiv 2101.11939).

An extra head embeds pixels.  Some of each image's classes are anchors, half of them pixels that the network gets wrong;
they are pulled to what is of their class and pushed from the rest: among the anchors of the batch, or in a memory of
regions (the mean of a class in an image) and of pixels, which is looked at before a step and filled after it.
The sources of defaults: "stated" is the paper's text as others report it, "code" the authors' released code and
configurations, which are all that is known of most numbers here, "chosen" ours.
Shape legend: B images of a part, C classes, D embedding channels, h x w grid of embeddings, V pixels an image's class
gives to the memory, N anchors, Q rows of a class's memory, R rows of the memory.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdp.core.bounds import Bounds, Channels, Count, Positive, Temperature, Weight, check_bounds
from mdp.core.contrast import mean_over, pixel_rows
from mdp.core.contrast_chunked import EPS
from mdp.core.contrast_mining import MINING, Choice
from mdp.core.criteria import Part, Rngs, Source
from mdp.core.criteria._pixel_head import FEATURES, PixelHead, channels_of, take_
from mdp.core.criteria._pixel_memory import (
    Entries,
    Kept,
    Memory,
    empty_memory,
    entries,
    filled_up,
    held,
    known_classes,
    pack_memory,
    unpack_memory,
)
from mdp.core.geometry import Grid, downsample_labels
from mdp.core.label_checks import expect_grid
from mdp.core.methods import Loss, Progress
from mdp.core.networks import Grids, Look, NetworkSettings, upsample
from mdp.core.networks.backbones import randomly
from mdp.core.networks.decode_heads import HEADS
from mdp.core.networks.projection_heads import projection, projection_head
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

SUPPLEMENT = True
MEMORIES = {"off": (), "region": ("regions",), "pixel": ("pixels",), "both": ("regions", "pixels")}
_CAPACITY, _ROWS = 5000, 200_000  # of a class (code); of all (chosen: 205 MB of 256 channels)
_EMBEDDING, _HIDDEN = 256, 512  # stated, grade C; multi_dataset's


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
    hidden: Channels | None = None  # of the extra head; null: as many as it sees (code), or the pretraining's
    embedding: Channels | None = None  # null: 256 (stated, grade C; code), or the pretraining's
    source_prototypes: bool = False  # those of the pretraining run join what anchors meet, from the first step (ours)
    head_from: str | None = None  # random | pretraining: its projection head (ours); null: with its prototypes

    def __post_init__(self) -> None:
        check_bounds(self)
        _one_of("memory", self.memory, tuple(MEMORIES))
        _one_of("mining", self.mining, MINING)
        if self.features is not None:
            _one_of("features", self.features, FEATURES)
        if self.head_from is not None:
            _one_of("head_from", self.head_from, ("random", "pretraining"))
        if _from_pretraining(self) and self.features not in (None, "head"):
            raise ValueError(f"features: the pretraining's projection head sees head, got {self.features!r}")
        if self.same_image and self.memory != "off":
            raise ValueError(f"same_image: a memory has rows of other images; give memory: off, got {self.memory!r}")


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name}: expected {', '.join(known[:-1])} or {known[-1]}, got {value!r}")


def _from_pretraining(settings: Settings) -> bool:
    """Whether the extra head starts from the projection head of a pretraining run, and is built like it."""
    return settings.source_prototypes if settings.head_from is None else settings.head_from == "pretraining"


def _embedding(settings: Settings) -> int:
    """D."""
    return settings.embedding or _EMBEDDING


def build(settings: Settings, network: NetworkSettings, channels: int, classes: int, rng: torch.Generator) -> nn.Module:
    """The extra head: two 1x1 convolutions, or what pretraining has.

    Raises ValueError where it is to see stages that the segmentation head does not take.
    """
    features = _features(settings, HEADS[network.head].takes == "stages")
    seen, embedding = channels_of(features, network, channels), _embedding(settings)

    def head() -> PixelHead:
        if _from_pretraining(settings):
            return PixelHead(features, projection_head(seen, settings.hidden or _HIDDEN, embedding))
        return PixelHead(features, projection((seen, settings.hidden or seen, embedding), conv=True, norm=True))

    return randomly(head, False, rng)


def _features(settings: Settings, stages: bool) -> str:
    """What the extra head sees, where there are stages or not."""
    if _from_pretraining(settings):
        return "head"
    return settings.features or ("stages" if stages else "last")


def misfit(settings: Settings, network: NetworkSettings, crop: tuple[int, int]) -> str:
    """That no class can have more cells than `max_views`, where the grid is that of the last map."""
    takes = HEADS[network.head].takes
    cells = math.prod(-(-side // network.stride) for side in crop)
    coarse = takes == "last" or _features(settings, takes == "stages") == "last"
    if not coarse or cells > settings.max_views:
        return ""
    return (
        f"max_views: a class gives anchors where more than {settings.max_views} of the {cells} cells of a crop of "
        f"{crop[0]} x {crop[1]} are its own, so none ever does; give less"
    )


def asks_for(settings: Settings) -> str:
    """The setting that asks for a pretraining run."""
    if settings.source_prototypes:
        return "source_prototypes: true"
    return "head_from: pretraining" if _from_pretraining(settings) else ""


def fitted(settings: Settings, method: Mapping[str, Any]) -> Settings:
    """The settings with the widths of a pretraining method, where they are open and it is asked for."""
    if not asks_for(settings):
        return settings
    names = ("embedding", "hidden") if _from_pretraining(settings) else ("embedding",)
    return replace(settings, **{
        name: method[name] for name in names if getattr(settings, name) is None and name in method
    })  # fmt: skip


def start_(state: Memory, head: PixelHead, source: Source, settings: Settings) -> Memory:
    """The memory with the prototypes of the source classes, and the head with the weights of pretraining's."""
    found, own = source.known.vectors.shape[1], _embedding(settings)
    if found != own:
        raise ValueError(f"embedding: expected {found}, as the pretraining run has it, got {own}")
    if _from_pretraining(settings):
        take_(head, source.projection)
    if not settings.source_prototypes:
        return state
    present = source.known.present
    vectors = F.normalize(source.known.vectors[present].float(), dim=1, eps=EPS)
    return state._replace(sources=vectors, related=source.related[:, present])


# The memory


def capacity(settings: Settings, classes: int) -> int:
    """Q, the rows of a class in each memory.

    >>> capacity(Settings(), 19), capacity(Settings(), 171), capacity(Settings(capacity=9), 171)
    (5000, 584, 9)
    """
    memories = len(MEMORIES[settings.memory])
    return settings.capacity or max(1, min(_CAPACITY, _ROWS // (classes * max(1, memories))))


def initial_state(settings: Settings, classes: int, device: torch.device) -> Memory:
    """Memories that hold nothing."""
    size = capacity(settings, classes)
    return empty_memory(MEMORIES[settings.memory], classes, size, _embedding(settings), device)


def state_bytes(settings: Settings, classes: int) -> int:
    """float32 rows, and an int64 count a class."""
    return len(MEMORIES[settings.memory]) * classes * (4 * capacity(settings, classes) * _embedding(settings) + 8)


def remember(state: Memory, kept: Any, settings: Settings, processes: Processes) -> Memory:
    """The memory with what the images of the batch give, in their order."""
    return state if settings.memory == "off" else filled_up(state, kept, processes)


def pack(state: Memory) -> dict[str, Tensor]:
    return pack_memory(state)


def unpack(tensors: dict[str, Tensor], settings: Settings, classes: int) -> Memory:
    nothing = empty_memory((), classes, 1, _embedding(settings), next(iter(tensors.values()), torch.empty(0)).device)
    return unpack_memory(tensors, nothing)


# A step


class Shared(NamedTuple):
    """What the losses of all parts are made with."""

    classes: int
    grid: Grid  # of the embeddings
    views: int  # anchors of each group; 0 while the warm-up lasts
    known: Entries | None  # the memory; None: anchors meet anchors, and the sources
    weight: Tensor  # () anchors of the whole batch whose class the memory knows
    sources: Tensor  # (S, D)
    related: Tensor  # (C, S); on the CPU beside a memory, whose labels lie there too


class Anchors(NamedTuple):
    """The anchors of some images, image by image."""

    rows: Tensor  # (N, D) of unit length, with gradient
    labels: Tensor  # (N,) on the CPU
    images: Tensor  # (N,) the image of each among those of the part, on the CPU
    hard: Tensor  # (N,) bool: the network is wrong there
    draws: Tensor  # (N, 2) int64: what mining draws by


def prepare(
    state: Memory, labels: Tensor, settings: Settings, processes: Processes, progress: Progress, grids: Grids
) -> Shared:
    """The anchors of the batch, counted; every group has as many, since it has more pixels than `max_views`."""
    features = _features(settings, grids.stages)
    grid = grids.last if features == "last" else grids.features
    nothing = torch.zeros((), device=labels.device)
    sources, related = state.sources.to(labels.device), state.related.to(labels.device)
    shared = Shared(state.classes, grid, 0, None, nothing, sources, related)
    warmup = progress.steps // 8 if settings.warmup_steps is None else settings.warmup_steps
    if progress.step < warmup:
        return shared
    groups = anchor_groups(downsample_labels(labels, *grid), state.classes, settings.max_views)  # (B, C)
    counts = processes.all_sum(groups.sum(0))  # (C,)
    queues = held(state)
    told = torch.cat([counts.sum()[None], *(each.pushed for each in queues), related.flatten().long()])
    sizes = [1, *(len(each.pushed) for each in queues), related.numel()]
    anchors, *pushed, known = torch.split(told.cpu(), sizes)  # one wait
    views = anchor_views(int(anchors), settings.max_samples, settings.max_views)
    if settings.memory == "off":
        return shared._replace(views=views)
    weight = (views * (counts * known_classes(state)).sum()).float()
    related = known.view(related.shape).bool()
    return shared._replace(views=views, known=entries(state, pushed), weight=weight, related=related)


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
    size = (labels.shape[1], labels.shape[2])
    logits = look.logits if look.logits.shape[2:] == size else upsample(look.logits, size)
    wrong = logits.argmax(1) != labels  # (B, h, w)
    seen = torch.stack([labels, wrong]).cpu()  # what is drawn by: one wait
    anchors = _anchors(head, wrong, seen, shared, settings, draws)
    if shared.views == 0:
        value = anchors.rows.sum()  # of none: 0, with a gradient, which what sends gradients early waits for
    elif shared.known is None:
        own, of = anchors.labels.to(head.device, non_blocking=True), anchors.images.to(head.device, non_blocking=True)
        counts: tuple[int, ...] = (len(own),)
        if len(processes.images) > 1:
            number = own.new_full((1,), len(own))
            counts = tuple(processes.all_rows(number, (1,) * len(processes.images)).tolist())
        images = of + processes.own.start if settings.same_image else None
        found = batch_contrast(
            anchors.rows,
            own,
            counts,
            settings.temperature,
            processes,
            images,
            shared.sources,
            shared.related,
        )
        value = found.mean() * (processes.total / part.images)
    else:
        choice = Choice(settings.mining, settings.positives, settings.negatives, anchors.draws)
        total, _ = memory_contrast(
            anchors.rows, anchors.labels, *shared.known, settings.temperature, shared.related,
            None if settings.mining == "all" else choice,
        )  # fmt: skip
        value = mean_over(total, shared.weight)
    number = torch.full((), len(anchors.rows), device=head.device)
    metrics = {"anchors": number, "hard_anchors": anchors.hard.sum()}
    return Loss(value, metrics, _kept(head.detach(), labels, seen[0], shared, settings, draws))


def _anchors(
    head: Tensor, wrong: Tensor, seen: Tensor, shared: Shared, settings: Settings, rngs: Sequence[torch.Generator]
) -> Anchors:
    """The anchors of the images, each drawn with the generator of its image.

    `seen` (2, B, h, w) are labels and where the network is `wrong`, on the CPU.
    """
    labels, hard = seen[0], seen[1].bool()
    cells = labels[0].numel()
    groups = anchor_groups(labels, shared.classes, settings.max_views) & (shared.views > 0)  # (B, C)
    places, draws = [], []
    for image, rng in enumerate(rngs):
        drawn = draw_anchors(labels[image], hard[image], groups[image], shared.views, rng)
        places.append(drawn + image * cells)
        draws.append(torch.randint(2**31, (len(drawn), 2), generator=rng))
    place = torch.cat(places)  # (N,)
    there = place.to(head.device, non_blocking=True)
    return Anchors(
        pixel_rows(head).index_select(0, there),
        labels.flatten()[place],
        place // cells,
        wrong.flatten()[there],
        torch.cat(draws).to(head.device, non_blocking=True),
    )


def _kept(
    embeddings: Tensor,
    labels: Tensor,
    seen: Tensor,
    shared: Shared,
    settings: Settings,
    rngs: Sequence[torch.Generator],
) -> Any:
    """What the images give to the memory; () where there is none.  `seen` are the labels on the CPU."""
    if settings.memory == "off":
        return ()
    means = present = rows = drawn = None
    if "regions" in MEMORIES[settings.memory]:
        means, present = class_means(embeddings, labels, shared.classes, unit=True)  # (B, C, D), (B, C)
        means = F.normalize(means, dim=2, eps=EPS)
    if "pixels" in MEMORIES[settings.memory]:
        places = torch.stack([draw_pixels(own, shared.classes, settings.pixels, rng)
                              for own, rng in zip(seen, rngs, strict=True)])  # (B, C, V)  # fmt: skip
        places = places.to(labels.device, non_blocking=True)
        drawn = places >= 0
        own = places.clamp(min=0).flatten(1)[..., None].expand(-1, -1, embeddings.shape[1])  # (B, C V, D)
        rows = embeddings.flatten(2).mT.gather(1, own).view(*places.shape, -1)  # (B, C, V, D)
    return Kept(means, present, rows, drawn)
