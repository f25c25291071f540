"""Multi-dataset pretraining: pixels against class prototypes of the union (arXiv 2106.04121, sections 3.2 to 3.5).

Beside the paper's form stand choices of its objective: prototypes may be learnt, as a classifier's weights are; only
the classes of a pixel's own dataset may compete for it; and what is known of classes of different datasets, as
relations or as vectors of their names, may say which of them share a prototype, pull or do not compete.  Photos without
labels may be there, and their pixels be pulled to prototypes that they are clearly near to.
Small views may come beside the two, as queries alone: what is in a corner has to be near the prototypes too.

A step: keys of the clean views -> class sums -> bank -> prototypes; mixed views -> queries -> targets -> loss.  The
bank is updated before the loss, so every class of the batch has a prototype, even in the first step.  Pixels without a
label are mined between the two, by their keys.  Partners for mixing are drawn over the whole batch, whichever process
has them.
Shape legend: V views, B images, C classes, D embedding channels, H x W image, h x w feature grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdp.core.batches import Batch, Blend
from mdp.core.bounds import Bounds, Count, Positive, Share, Side, Weight
from mdp.core.class_relations import once_each, pooled_sums, pooled_vectors, relation_tables, with_wholes
from mdp.core.contrast import mean_over, pixel_rows, prototype_nce
from mdp.core.dataset_softmax import dataset_cross_entropy
from mdp.core.geometry import Grid, downsample_labels
from mdp.core.labels import IGNORE
from mdp.core.methods import Data, Loss, Prepared, Progress, _pixel_encoder
from mdp.core.methods._pixel_encoder import PixelSettings, key_momentum, temperature
from mdp.core.methods._pixel_targets import SparseSettings, label_targets, mined_views, pixel_targets
from mdp.core.methods._usual import PRESET
from mdp.core.mixing import MixSettings, draw_plan, mix, plan_rows, unmixed
from mdp.core.networks import DatasetClassifier, EmbeddingNetwork, EncoderPair, NetworkSettings, make_pair
from mdp.core.pixel_mining import MiningCounts, MiningSettings, given
from mdp.core.processes import Processes
from mdp.core.prototype_bank import (
    ClassSums,
    PrototypeBank,
    Prototypes,
    class_similarity,
    class_sums,
    empty_bank,
    filled_classes,
    hold_rows,
    pack_bank,
    prototypes,
    push,
    unpack_bank,
)
from mdp.core.rivals import same_dataset
from mdp.core.views import ViewGroup, ViewPlan
from mdp.core.word_vectors import alike_names, directions

# fmt: off
__all__ = [
    "NEEDS_LABELS", "PRESET", "SYNC_BATCH_NORM", "Settings", "build", "class_scores", "initial_state", "key_momentum",
    "known_prototypes", "loss", "pack", "prepare", "prototype_images", "remember", "settle_", "state_bytes",
    "temperature", "unpack", "view_plan",
]
# fmt: on
NEEDS_LABELS = True
SYNC_BATCH_NORM = True


@dataclass(frozen=True, kw_only=True)
class Settings(PixelSettings):
    """The method's settings; "stated", "inferred" and "chosen" say where each default comes from."""

    bank_batches: Positive | None = None  # stated: about the batches of one epoch; None means just that
    bank_images: Positive | None = (
        None  # the same counted in images, as Table 2 does, both views of each; whole batches
    )
    normalise_prototypes: bool = True  # chosen: without it loose classes get a smaller logit scale
    prototypes: str = "bank"  # stated; learnt: unit vectors that are trained, the bank only scores; both: half of each
    rivals: str = "union"  # stated: all classes compete for a pixel; dataset: those of its own dataset only
    relations: str | None = None  # a CSV file of relations between classes, as `mdp taxonomy` writes one
    relation_weight: Share = 0.1  # chosen, as for sparse coding: of the pull of a part's pixels towards the whole
    class_embeddings: str | None = None  # a file of vectors of class names: where learnt prototypes start
    related_words: Annotated[float, Bounds(-1, 1)] | None = (
        None  # names of a larger cosine do not compete; None: all do
    )
    mix: MixSettings = field(default_factory=MixSettings)
    sparse: SparseSettings = field(default_factory=SparseSettings)
    softmax_weight: Weight = (
        0.0  # of a classifier with a softmax for each dataset, beside the contrastive term; 0: none
    )
    mining: MiningSettings | None = None  # of pixels without a label, and of photos without any; {}: by its defaults
    small_count: Count = 0  # small views beside the two, of SwAV's size and area
    small_size: Side = 96
    small_area: tuple[Share, Share] = (0.05, 0.14)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.small_area[0] <= self.small_area[1]:
            raise ValueError(f"small_area: expected 0 < low <= high <= 1, got {list(self.small_area)}")
        if self.prototypes not in ("bank", "learnt", "both"):
            raise ValueError(f"prototypes: expected bank, learnt or both, got {self.prototypes!r}")
        if self.rivals not in ("union", "dataset"):
            raise ValueError(f"rivals: expected union or dataset, got {self.rivals!r}")
        if self.class_embeddings and self.prototypes == "bank" and self.related_words is None:
            raise ValueError("class_embeddings: nothing uses them; give prototypes: learnt or both, or related_words")
        if self.related_words is not None and not self.class_embeddings:
            raise ValueError("related_words: expected class_embeddings beside it, a file of vectors of class names")
        if self.bank_batches is not None and self.bank_images is not None:
            raise ValueError("bank_batches and bank_images say the same thing: give one of them")


def bank_size(settings: Settings, data: Data) -> int:
    """T, the bank's length in batches: one epoch unless told otherwise."""
    if settings.bank_images is not None:
        return max(1, settings.bank_images // data.batch_size)
    return settings.bank_batches or max(1, data.epoch_batches)


def view_plan(settings: Settings, default: ViewPlan) -> ViewPlan:
    """The two views that the recipe describes, and the small ones."""
    if not settings.small_count:
        return default
    small = ViewGroup(count=settings.small_count, size=settings.small_size, area=settings.small_area)
    return replace(default, groups=(*default.groups, small))


def build(
    settings: Settings, network: NetworkSettings, data: Data, rng: torch.Generator
) -> EncoderPair[EmbeddingNetwork]:
    """Backbone, segmentation head and projection head, twice; learnt prototypes are the query encoder's, last drawn."""
    pair = _pixel_encoder.build(settings, network, data, rng)
    if settings.prototypes == "bank" and not settings.softmax_weight:
        return pair
    if settings.prototypes != "bank":
        start = F.normalize(torch.randn(data.union.size, settings.embedding, generator=rng), dim=1)
        pair.query.class_prototypes = nn.Parameter(
            start if data.words is None else directions(data.words, settings.embedding)
        )
    if settings.softmax_weight:
        pair.query.classifier = _classifier(network.head_channels, data, rng)
    return make_pair(pair.query)


def _classifier(channels: int, data: Data, rng: torch.Generator) -> DatasetClassifier:
    """A classifier that starts as a segmentor's does: weights from N(0, 0.01), no bias."""
    with torch.device("meta"):  # numbers of torch's own would be drawn from its global generator
        found = DatasetClassifier(channels, [len(space.classes) for space in data.union.spaces])
    found.to_empty(device="cpu")
    nn.init.normal_(found.conv.weight, std=0.01, generator=rng)
    if found.conv.bias is not None:
        nn.init.zeros_(found.conv.bias)
    return found


def settle_(pair: EncoderPair[EmbeddingNetwork], settings: Settings) -> None:
    """Learnt prototypes back to unit length: what steps and weight decay did to it would change their rate."""
    if pair.query.class_prototypes is not None:
        with torch.no_grad():
            pair.query.class_prototypes.copy_(F.normalize(pair.query.class_prototypes, dim=1))


class State(NamedTuple):
    """What is kept between steps, and what is known of the classes; of the tables, None is the paper's form."""

    bank: PrototypeBank
    rivals: Tensor | None = None  # (C, C) bool: row t has the classes that compete for pixels of t
    groups: Tensor | None = None  # (C,) int64: classes of one number share a prototype
    wholes: Tensor | None = None  # (C, W) int64: what each class is a part of; -1 for none


def _tables(settings: Settings, data: Data) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Rivals, groups and wholes."""
    known = [*data.relations]
    if settings.related_words is not None and data.words is not None:
        known += alike_names(data.words, data.union, settings.related_words)
    rivals = same_dataset(data.union) if settings.rivals == "dataset" else None
    if not known:
        return rivals, None, None
    tables = relation_tables(known, data.union.size)
    unrelated = tables.rivals if rivals is None else tables.rivals & rivals
    return once_each(unrelated, tables.groups), tables.groups, tables.wholes


def initial_state(settings: Settings, data: Data, rng: torch.Generator, device: torch.device) -> State:
    """An empty bank."""
    bank = empty_bank(data.union.size, settings.embedding, bank_size(settings, data), device)
    return State(bank, *(None if table is None else table.to(device) for table in _tables(settings, data)))


class Shared(NamedTuple):
    """Prototypes and weights, the same for the loss of every part of the batch."""

    known: Prototypes
    state: State  # the tables of the classes
    weights: Tensor  # (V,) valid pixels of each view of the whole batch


def prepare(
    pair: EncoderPair[EmbeddingNetwork],
    state: State,
    views: Sequence[Batch],
    settings: Settings,
    rng: torch.Generator,
    processes: Processes,
    progress: Progress,
) -> Prepared:
    """Keys of the large views, bank, prototypes and mixed views; the parts are a `Blend` for each view.

    Both pass each network as one batch of V B images: half the launches, and BatchNorm statistics over twice
    the images.
    """
    grid = pair.query.grid
    views, small = views[: len(views) - settings.small_count], views[len(views) - settings.small_count :]
    with torch.no_grad():
        keys = pair.key(torch.cat([view.images for view in views]))  # (V B, D, h, w)
    told = downsample_labels(torch.cat([view.labels for view in views]), *grid)  # (V B, h, w)
    labels = told if settings.mining is None else given(told)
    sums = class_sums(keys, labels, classes=len(state.bank.total.counts), unit=True)
    sums = ClassSums(processes.all_sum(sums.sums), processes.all_sum(sums.counts))
    bank = push(state.bank, sums)
    state = state._replace(bank=bank)
    known = known_prototypes(state, settings)
    mined: Sequence[Tensor] = ()
    if settings.mining is not None:
        views, mined = mined_views(views, keys, told, known, state.groups, settings.mining, grid, progress)
    small = [_of_known_classes(view, known) for view in small]
    blends = tuple(_blend(view, settings.mix, rng, processes) for view in (*views, *small))
    weights = [label_targets(blend, settings, grid).valid.sum() for blend in blends]
    valid = [(labels != IGNORE).sum().float(), labels.new_full((), labels.numel(), dtype=torch.float32)]
    counts = processes.all_sum(torch.stack([*weights, *valid, *mined]))  # (V + 2,), or four more
    count = len(weights)
    metrics = {
        "valid_share": counts[count] / counts[count + 1],
        "classes_in_batch": filled_classes(sums).sum(),
        "classes_in_bank": known.present.sum(),
    }
    if mined:
        every = MiningCounts(*counts[count + 2 :])
        metrics["mined_share"] = every.mined / every.candidates.clamp(min=1)
        metrics["mined_purity"] = every.right / every.known  # nan where nothing is known
    return Prepared(state, Shared(known, state, counts[:count]), blends, metrics)


def loss(
    pair: EncoderPair[EmbeddingNetwork],
    shared: Shared,
    parts: tuple[Blend, ...],
    settings: Settings,
    processes: Processes,
) -> Loss:
    """Each view's pixels against the prototypes: the mean over its valid pixels, then the mean over views.

    A classifier's cross-entropy, likewise a mean, comes to it with its weight.
    """
    queries, classified = _looked(pair.query, parts, settings)
    grid, losses, learnt = pair.query.grid, [], _learnt(pair.query, shared.state.groups)
    for query, blend, weight in zip(queries, parts, shared.weights, strict=True):
        targets = pixel_targets(query, blend, shared.known, settings, grid)
        if shared.state.wholes is not None:
            targets = with_wholes(targets, shared.state.wholes, settings.relation_weight)
        for known in _candidates(shared.known, learnt, settings.prototypes):
            found = prototype_nce(
                query, known, targets, settings.temperature, rivals=shared.state.rivals, learnt=known is learnt
            )
            losses.append(mean_over(found.total, weight))
    contrast = torch.stack(losses).mean()
    if not classified:
        return Loss(contrast, {})
    softmax = _softmax_loss(classified, parts, shared.weights, settings, grid)
    metrics = {"contrast_loss": contrast.detach(), "softmax_loss": softmax.detach()}
    return Loss(contrast + settings.softmax_weight * softmax, metrics)


def remember(state: State, kept: Any, settings: Settings, processes: Processes, numbers: Mapping[str, float]) -> State:
    """The state; what was read of a step on a GPU says how many classes the bank's newest batch has."""
    if "classes_in_batch" not in numbers:
        return state
    return state._replace(bank=hold_rows(state.bank, int(numbers["classes_in_batch"])))


def _of_known_classes(view: Batch, known: Prototypes) -> Batch:
    """A small view without labels that are not given, as no keys could mine them, or whose class has no prototype.

    Such a class was in no large view so far: pixels that nobody pulled anywhere have nothing to be pulled to.
    """
    labels = given(view.labels)
    return view._replace(labels=torch.where(known.present[labels.clamp(min=0)], labels, IGNORE))


def _looked(
    network: EmbeddingNetwork, parts: tuple[Blend, ...], settings: Settings
) -> tuple[list[Tensor], list[Tensor]]:
    """The queries (B, D, h, w) of each view, and with a classifier its log p (B, C, h, w).

    Views of one size pass the network as one batch.
    """
    queries: list[Tensor] = []
    classified: list[Tensor] = []
    large = parts[: len(parts) - settings.small_count]
    for group in (large, parts[len(large) :]) if settings.small_count else (large,):
        images = torch.cat([blend.images for blend in group])  # (V B, 3, H, W)
        if settings.softmax_weight:
            vectors, log_p = network(images, unit=False, classes=True)
            classified += log_p.chunk(len(group))
        else:
            vectors = network(images, unit=False)
        queries += vectors.chunk(len(group))
    return queries, classified


def _softmax_loss(
    log_p: Sequence[Tensor], parts: tuple[Blend, ...], weights: Tensor, settings: Settings, grid: Grid
) -> Tensor:
    """Of each view's log p (B, C, h, w): the mean over its valid pixels, then the mean over views."""
    losses = []
    for part, blend, weight in zip(log_p, parts, weights, strict=True):
        total = dataset_cross_entropy(pixel_rows(part), label_targets(blend, settings, grid))
        losses.append(mean_over(total, weight))
    return torch.stack(losses).mean()


def _learnt(network: EmbeddingNetwork, groups: Tensor | None) -> Prototypes | None:
    if network.class_prototypes is None:
        return None
    vectors = F.normalize(network.class_prototypes.float(), dim=1)  # (C, D): steps along them change nothing
    vectors = vectors if groups is None else pooled_vectors(vectors, groups)
    return Prototypes(vectors, torch.ones(len(vectors), dtype=torch.bool, device=vectors.device))


def _candidates(known: Prototypes, learnt: Prototypes | None, which: str) -> list[Prototypes]:
    """What pixels are compared with, one after the other."""
    if learnt is None or which == "bank":
        return [known]
    return [known, learnt] if which == "both" else [learnt]


def _blend(view: Batch, settings: MixSettings, rng: torch.Generator, processes: Processes) -> Blend:
    if not (settings.region or settings.pixel):
        return unmixed(view)
    plan = draw_plan(rng, settings, processes.total, *view.images.shape[2:])
    if len(processes.images) == 1:
        return mix(view, plan)  # partners are here, and need no copies
    others = Batch(processes.take(view.images, plan.partner), processes.take(view.labels, plan.partner))
    return mix(view, plan_rows(plan, processes.own), others)


def _sums(state: State) -> PrototypeBank:
    """The bank in which equal classes have the sums of all of them together."""
    if state.groups is None:
        return state.bank
    return state.bank._replace(total=pooled_sums(state.bank.total, state.groups))


def known_prototypes(state: State, settings: Settings) -> Prototypes:
    return prototypes(_sums(state), settings.normalise_prototypes)


def prototype_images(state: State, settings: Settings) -> Tensor:
    return _sums(state).total.counts


def class_scores(pair: EncoderPair[EmbeddingNetwork], state: State, images: Tensor, settings: Settings) -> Tensor:
    """Similarity of the embeddings to the prototypes."""
    return class_similarity(pair.query(images), known_prototypes(state, settings))


def state_bytes(settings: Settings, data: Data) -> int:
    """At most, where every batch has all classes: T batches' rows, the float64 total, and what is known of classes.

    A row is its float32 sums and two int32, and a batch has one more, its number of rows.
    """
    rows, classes = bank_size(settings, data), data.union.size
    tables = sum(table.numel() * table.element_size() for table in _tables(settings, data) if table is not None)
    return classes * (rows * (4 * settings.embedding + 8) + 8 * settings.embedding + 8) + 4 * rows + tables


def pack(state: State) -> dict[str, Tensor]:
    tables = {"rivals": state.rivals, "groups": state.groups, "wholes": state.wholes}
    known = {
        name: table.to(torch.uint8) if name == "rivals" else table
        for name, table in tables.items()
        if table is not None
    }
    return {**pack_bank(state.bank), **known}


def unpack(tensors: dict[str, Tensor], settings: Settings, data: Data) -> State:
    rivals = tensors.get("rivals")
    bank = unpack_bank(tensors, bank_size(settings, data))
    return State(bank, None if rivals is None else rivals.bool(), tensors.get("groups"), tensors.get("wholes"))
