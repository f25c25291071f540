"""Joint supervised training: one softmax over the union, or a head for each dataset; no prototypes, no key encoder.

The obvious alternatives to contrast.  A step: logits of both views over all classes of the union -> cross-entropy on
the feature grid, where every method here is trained, so that rows of a table compare objectives and not resolutions.
With a head for each dataset, only classes of the pixel's own dataset compete.
Shape legend: V views, B images, C classes, h x w feature grid, N pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mdp.core.batches import Batch
from mdp.core.contrast import WeightedLoss, nce, pixel_rows
from mdp.core.geometry import downsample_labels
from mdp.core.labels import IGNORE
from mdp.core.methods import AllSum, Data, Step
from mdp.core.networks import NetworkSettings, Segmentor, build_segmentor
from mdp.core.networks.pair import EncoderPair
from mdp.core.targets import hard_targets

NEEDS_LABELS = True


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


def step(
    pair: EncoderPair[Segmentor],
    state: Tensor,
    views: Sequence[Batch],
    settings: Settings,
    rng: torch.Generator,
    all_sum: AllSum,
) -> Step:
    """One step; both views pass the network as one batch."""
    logits = pair.query(torch.cat([view.images for view in views]))  # (V B, C, h, w)
    labels = downsample_labels(torch.cat([view.labels for view in views]), pair.query.output_stride)  # (V B, h, w)
    with torch.autocast(logits.device.type, enabled=False):
        rows, flat = pixel_rows(logits.float()), labels.flatten()  # (N, C), (N,)
        competes = state[flat.clamp(min=0)][:, None] == state  # (N, C)
        loss = nce(rows.masked_fill(~competes, -torch.inf), hard_targets(flat))
    total = WeightedLoss(loss.total, all_sum(loss.weight)).mean()
    hits = rows.masked_fill(~competes, -torch.inf).argmax(1) == flat
    metrics = {
        "loss": total.detach(),
        "valid_share": (flat != IGNORE).float().mean(),
        "accuracy": hits.sum() / (flat != IGNORE).sum().clamp(min=1),
    }
    return Step(total, state, metrics)


def key_momentum(settings: Settings) -> float:
    """There is no key encoder."""
    return 0.0


def known_prototypes(state: Tensor, settings: Settings) -> None:
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
