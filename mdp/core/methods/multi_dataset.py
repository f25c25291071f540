"""Multi-dataset pretraining: pixels against class prototypes of the union (arXiv 2106.04121, sections 3.2 to 3.5).

A step: keys of the clean views -> class sums -> bank -> prototypes; mixed views -> queries -> targets -> loss.  The
bank is updated before the loss, so every class of the batch has a prototype, even in the first step.
Shape legend: V views, B images, C classes, D embedding channels, H x W image, h x w feature grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mdp.core.batches import Batch, Blend
from mdp.core.contrast import WeightedLoss, pixel_rows, prototype_nce
from mdp.core.geometry import downsample_labels
from mdp.core.labels import IGNORE
from mdp.core.methods import AllSum, Data, Step
from mdp.core.mixing import MixSettings, draw_plan, mix, unmixed
from mdp.core.networks import EmbeddingNetwork, EncoderPair
from mdp.core.pixel_encoder import PixelSettings, build, key_momentum  # noqa: F401 - offered as they are
from mdp.core.prototypes import (
    ClassSums,
    PrototypeBank,
    Prototypes,
    class_similarity,
    class_sums,
    empty_bank,
    pack_bank,
    prototypes,
    push,
    unpack_bank,
)
from mdp.core.targets import (
    Targets,
    hard_targets,
    mixed_targets,
    pixel_similarity,
    prototype_similarity,
    relaxed_targets,
    sparse_targets,
)

NEEDS_LABELS = True


@dataclass(frozen=True, kw_only=True)
class SparseSettings:
    """Cross-class sparse coding (eq. 8).  Off by default: it helps unseen domains only (Table 4)."""

    variant: str = "off"  # off | csc2 (the paper's: similar classes are pulled) | csc1 (merely not pushed away)
    k: int = 3  # chosen: a VOC class has one to three twins in the other taxonomies
    weight: float = 0.1  # authors: "low"; the number is chosen
    source: str = "pixel"  # chosen: top-K by similarity to the pixel; "prototype": to its class's prototype

    def __post_init__(self) -> None:
        if self.variant not in ("off", "csc1", "csc2"):
            raise ValueError(f"variant: expected off, csc1 or csc2, got {self.variant!r}")
        if self.source not in ("pixel", "prototype"):
            raise ValueError(f"source: expected pixel or prototype, got {self.source!r}")
        if self.k < 1 or self.weight < 0:
            raise ValueError(f"k: expected 1 or more, got {self.k}; weight: expected 0 or more, got {self.weight}")


@dataclass(frozen=True, kw_only=True)
class Settings(PixelSettings):
    """The method's settings; "stated", "inferred" and "chosen" say where each default comes from."""

    bank_batches: int | None = None  # stated: about the batches of one epoch; None means just that
    bank_images: int | None = None  # the same counted in images, as Table 2 does, both views of each; whole batches
    normalise_prototypes: bool = True  # chosen: without it loose classes get a smaller logit scale
    mix: MixSettings = field(default_factory=MixSettings)
    sparse: SparseSettings = field(default_factory=SparseSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, length in (("bank_batches", self.bank_batches), ("bank_images", self.bank_images)):
            if length is not None and length < 1:
                raise ValueError(f"{name}: expected 1 or more, got {length}")
        if self.bank_batches is not None and self.bank_images is not None:
            raise ValueError("bank_batches and bank_images say the same thing: give one of them")


def bank_size(settings: Settings, data: Data) -> int:
    """T, the bank's length in batches: one epoch unless told otherwise."""
    if settings.bank_images is not None:
        return max(1, settings.bank_images // data.batch_size)
    return settings.bank_batches or max(1, data.epoch_batches)


def initial_state(settings: Settings, data: Data, rng: torch.Generator, device: torch.device) -> PrototypeBank:
    """An empty bank."""
    return empty_bank(data.union.size, settings.embedding, bank_size(settings, data), device)


def step(
    pair: EncoderPair[EmbeddingNetwork],
    state: PrototypeBank,
    views: Sequence[Batch],
    settings: Settings,
    rng: torch.Generator,
    all_sum: AllSum,
) -> Step:
    """One step over the views of a batch; see the module's docstring for the order.

    Both views pass each network as one batch of V B images: half the launches, and BatchNorm statistics over twice
    the images.
    """
    stride = pair.query.output_stride
    with torch.no_grad():
        keys = pair.key(torch.cat([view.images for view in views]))  # (V B, D, h, w)
    labels = downsample_labels(torch.cat([view.labels for view in views]), stride)  # (V B, h, w)
    sums = class_sums(keys, labels, classes=len(state.total.counts))
    bank = push(state, ClassSums(all_sum(sums.sums), all_sum(sums.counts)))
    known = prototypes(bank, settings.normalise_prototypes)

    blends = [_blend(view, settings.mix, rng) for view in views]
    queries = pair.query(torch.cat([blend.images for blend in blends])).chunk(len(blends))  # V of (B, D, h, w)
    losses = []
    for query, blend in zip(queries, blends, strict=True):
        targets = _targets(query, blend, known, settings, stride)
        loss = prototype_nce(query, known, targets, settings.temperature)
        losses.append(WeightedLoss(loss.total, all_sum(loss.weight)).mean())
    total = torch.stack(losses).mean()
    metrics = {
        "loss": total.detach(),
        "valid_share": (labels != IGNORE).float().mean(),
        "classes_in_batch": (sums.counts > 0).sum(),
        "classes_in_bank": known.present.sum(),
    }
    return Step(total, bank, metrics)


def _blend(view: Batch, settings: MixSettings, rng: torch.Generator) -> Blend:
    if not (settings.region or settings.pixel):
        return unmixed(view)
    count, _, height, width = view.images.shape
    return mix(view, draw_plan(rng, settings, count, height, width))


def _targets(query: Tensor, blend: Blend, known: Prototypes, settings: Settings, stride: int) -> Targets:
    first = downsample_labels(blend.first, stride)  # (B, h, w)
    if settings.mix.pixel:
        targets = mixed_targets(first, downsample_labels(blend.second, stride), blend.share)
    else:
        targets = hard_targets(first)
    sparse = settings.sparse
    if sparse.variant == "off":
        return targets
    if sparse.source == "pixel":
        similarity = pixel_similarity(pixel_rows(query), known)  # (N, C)
    else:
        similarity = prototype_similarity(targets, known)  # (N, C)
    if sparse.variant == "csc1":
        return relaxed_targets(targets, similarity, known, sparse.k)
    return sparse_targets(targets, similarity, known, sparse.k, sparse.weight)


def known_prototypes(state: PrototypeBank, settings: Settings) -> Prototypes:
    return prototypes(state, settings.normalise_prototypes)


def class_scores(
    pair: EncoderPair[EmbeddingNetwork], state: PrototypeBank, images: Tensor, settings: Settings
) -> Tensor:
    """Similarity of the embeddings to the prototypes."""
    return class_similarity(pair.query(images), known_prototypes(state, settings))


def state_bytes(settings: Settings, data: Data) -> int:
    """The window's float32 sums and int64 counts, and the float64 total."""
    rows = bank_size(settings, data)
    return data.union.size * (rows * (4 * settings.embedding + 8) + 8 * settings.embedding + 8)


def pack(state: PrototypeBank) -> dict[str, Tensor]:
    return pack_bank(state)


def unpack(tensors: dict[str, Tensor], settings: Settings, data: Data) -> PrototypeBank:
    return unpack_bank(tensors, bank_size(settings, data))
