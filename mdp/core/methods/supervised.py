"""Joint supervised training: one softmax over the union, or a head for each dataset; no prototypes, no key encoder.

The obvious alternatives to contrast.  A step: logits of both views over all classes of the union -> cross-entropy on
the feature grid, where every method here is trained, so that rows of a table compare objectives and not resolutions.
With a head for each dataset, only classes of the pixel's own dataset compete.
Shape legend: V views, B images, C classes, h x w feature grid, N pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mdp.core.batches import Batch
from mdp.core.contrast import mean_over, nce, pixel_rows
from mdp.core.geometry import downsample_labels
from mdp.core.labels import IGNORE
from mdp.core.methods import Data, Loss, Prepared, Progress
from mdp.core.methods._usual import PRESET, remember, settle_, view_plan
from mdp.core.networks import NetworkSettings, Segmentor, build_segmentor
from mdp.core.networks.pair import EncoderPair
from mdp.core.processes import Processes
from mdp.core.targets import hard_targets

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
class Settings:
    """The method's settings."""

    heads: str = "union"  # union: one softmax over all classes; datasets: one over the classes of each dataset

    def __post_init__(self) -> None:
        if self.heads not in ("union", "datasets"):
            raise ValueError(f"heads: expected union or datasets, got {self.heads!r}")


def build(settings: Settings, network: NetworkSettings, data: Data, rng: torch.Generator) -> EncoderPair[Segmentor]:
    """One segmentor over the union; its dropout draws from torch's global generator, which the shell seeds."""
    segmentor = build_segmentor(network, data.union.size, rng)
    return EncoderPair(segmentor, segmentor)


def initial_state(settings: Settings, data: Data, rng: torch.Generator, device: torch.device) -> Tensor:
    """Which head each class of the union belongs to, (C,) int64; it never changes."""
    sizes = [len(space.classes) for space in data.union.spaces]
    heads = range(len(sizes)) if settings.heads == "datasets" else [0] * len(sizes)
    return torch.tensor([head for head, size in zip(heads, sizes, strict=True) for _ in range(size)], device=device)


class Shared(NamedTuple):
    """Heads and weight, the same for the loss of every part of the batch."""

    heads: Tensor  # (C,)
    weight: Tensor  # () valid pixels of the whole batch


def prepare(
    pair: EncoderPair[Segmentor],
    state: Tensor,
    views: Sequence[Batch],
    settings: Settings,
    rng: torch.Generator,
    processes: Processes,
    progress: Progress,
) -> Prepared:
    """The parts are a `Batch` for each view, with labels on the feature grid."""
    parts = tuple(Batch(v.images, downsample_labels(v.labels, *pair.query.grid)) for v in views)
    labels = torch.stack([part.labels for part in parts])  # (V, B, h, w)
    valid = [(labels != IGNORE).sum(), labels.new_full((), labels.numel())]
    counts = processes.all_sum(torch.stack(valid).float())  # (2,)
    return Prepared(state, Shared(state, counts[0]), parts, {"valid_share": counts[0] / counts[1]})


def loss(
    pair: EncoderPair[Segmentor], shared: Shared, parts: tuple[Batch, ...], settings: Settings, processes: Processes
) -> Loss:
    """Cross-entropy among the classes of each pixel's head; all views pass the network as one batch."""
    logits = pair.query(torch.cat([part.images for part in parts]))  # (V B, C, h, w)
    labels = torch.cat([part.labels for part in parts]).flatten()  # (N,)
    with torch.autocast(logits.device.type, enabled=False):
        competes = shared.heads[labels.clamp(min=0)][:, None] == shared.heads  # (N, C)
        rows = pixel_rows(logits.float()).masked_fill(~competes, -torch.inf)  # (N, C)
        found = nce(rows, hard_targets(labels))
    hits = (rows.argmax(1) == labels).sum()
    return Loss(mean_over(found.total, shared.weight), {"accuracy": hits / shared.weight.clamp(min=1)})


def key_momentum(settings: Settings, progress: Progress) -> float:
    """There is no key encoder."""
    return 0.0


def known_prototypes(state: Tensor, settings: Settings) -> None:
    return None


def prototype_images(state: Tensor, settings: Settings) -> None:
    return None


def temperature(settings: Settings) -> None:
    return None


def class_scores(pair: EncoderPair[Segmentor], state: Tensor, images: Tensor, settings: Settings) -> Tensor:
    """The logits."""
    scores: Tensor = pair.query(images)
    return scores


def state_bytes(settings: Settings, data: Data) -> int:
    """An int64 a class."""
    return 8 * data.union.size


def pack(state: Tensor) -> dict[str, Tensor]:
    return {"heads": state}


def unpack(tensors: dict[str, Tensor], settings: Settings, data: Data) -> Tensor:
    return tensors["heads"]
