"""A pretraining method that mdp does not have, for tests: it uses everything that the Protocol offers.

Images are given to prototypes: what the key encoder says of the second view is what the query encoder is to say of all
others, and from step `late` on the nearest row of a queue pulls besides.  The queue is filled by what the losses keep
of the first view.  With `balance` the prototypes are to be used alike by the whole batch, which a loss asks of all
processes in its middle.  No normalisation looks at other images, so that the split of a batch changes nothing else.
Shape legend: B images, D embedding channels, P prototypes, Q rows of the queue.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdp.core.batches import Batch
from mdp.core.bounds import Channels, Count, Positive, Share, check_bounds
from mdp.core.geometry import Grid
from mdp.core.methods import Data, Loss, Prepared, Progress
from mdp.core.networks import NetworkSettings
from mdp.core.networks.pair import EncoderPair, make_pair
from mdp.core.networks.projection_heads import projection
from mdp.core.networks.segmentor import OnGrid
from mdp.core.processes import Processes
from mdp.core.views import ViewGroup, ViewPlan, matched_grids

NEEDS_LABELS = False
SYNC_BATCH_NORM = False
PRESET: Mapping[str, Any] = {"pretrain": {"batch_size": 6, "lr": 0.05, "steps": 7, "epochs": 3}}


@dataclass(frozen=True, kw_only=True)
class Settings:
    embedding: Channels = 8
    prototypes: Positive = 9
    queue: Positive = 10
    late: Count = 4  # steps before the queue counts
    balance: bool = True
    key_momentum: Share = 0.5
    min_overlap: Share = 1.0

    def __post_init__(self) -> None:
        check_bounds(self)


class Network(OnGrid):
    """Images of any size -> unit embeddings (B, D), and their cosines with the prototypes (B, P)."""

    grid = Grid(4)

    def __init__(self, embedding: int, prototypes: int, rng: torch.Generator) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 4, 4)
        self.projection_head = projection((8, 8, embedding), conv=False, norm=False)
        self.prototypes = nn.Linear(embedding, prototypes, bias=False)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5, generator=rng)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = F.normalize(self.projection_head(self.backbone(images).relu().mean((2, 3))), dim=1)
        return embeddings, self.prototypes(embeddings)


class State(NamedTuple):
    queue: Tensor  # (Q, D), the newest last
    filled: Tensor  # () int64


class Shared(NamedTuple):
    queue: Tensor  # (q, D), none before its time
    images: int  # of the whole batch


class Parts(NamedTuple):
    views: tuple[Batch, ...]
    codes: Tensor  # (B, P) of the second view


def view_plan(settings: Settings, default: ViewPlan) -> ViewPlan:
    groups = (
        ViewGroup(count=2, size=24, area=(0.2, 1.0)),
        ViewGroup(count=1, size=16, area=(0.1, 0.3)),
        ViewGroup(count=2, size=16, area=(0.05, 0.14), auto_augment=(0.0, 0.5)),
    )
    return replace(default, groups=groups, anchor=1, min_overlap=settings.min_overlap)


def build(settings: Settings, network: NetworkSettings, data: Data, rng: torch.Generator) -> EncoderPair[Network]:
    return make_pair(Network(settings.embedding, settings.prototypes, rng))


def initial_state(settings: Settings, data: Data, rng: torch.Generator, device: torch.device) -> State:
    return State(torch.zeros(settings.queue, settings.embedding, device=device), torch.zeros((), dtype=torch.int64))


def prepare(
    pair: EncoderPair[Network],
    state: State,
    views: Sequence[Batch],
    settings: Settings,
    rng: torch.Generator,
    processes: Processes,
    progress: Progress,
) -> Prepared:
    first, second = views[0].frames, views[1].frames
    assert first is not None
    assert second is not None
    assert all(view.labels.numel() == 0 for view in views)
    inside = (matched_grids(first, second, 3)[0].abs().flatten(1).amax(1) <= 1.001).sum()
    with torch.no_grad():
        codes = (pair.key(views[1].images)[1] / 0.1).softmax(1)
    used = min(int(state.filled), settings.queue) if progress.step >= settings.late else 0
    metrics = {
        "matched": processes.all_sum(inside),
        "queue_rows": torch.tensor(used),
        "of_steps": torch.tensor(progress.steps),
    }
    queue = state.queue[settings.queue - used :]
    return Prepared(state, Shared(queue, processes.total), Parts(tuple(views), codes), metrics)


def loss(pair: EncoderPair[Network], shared: Shared, parts: Parts, settings: Settings, processes: Processes) -> Loss:
    """Cross-entropy to the codes, cosines with the nearest rows, and the square of the prototypes' mean use."""
    total, use, kept = parts.codes.new_zeros(()), parts.codes.new_zeros(settings.prototypes), parts.codes
    for number, view in enumerate(parts.views):
        embeddings, scores = pair.query(view.images)
        total = total - (parts.codes * (scores / 0.1).log_softmax(1)).sum()
        use = use + (scores / 0.1).softmax(1).sum(0)
        if len(shared.queue):
            total = total - (embeddings @ shared.queue.T).amax(1).sum()
        if number == 0:
            kept = embeddings.detach()
    value = total / shared.images
    if settings.balance:
        among = processes.all_sum(use.detach())  # of all processes: this one's share of its gradient is its own
        whole = ((among - use.detach() + use) / processes.total).square().sum() * processes.total / shared.images
        value = value + whole - whole.detach() * (1 - len(parts.codes) / processes.total)
    return Loss(value, {"share": torch.tensor(len(parts.codes) / shared.images)}, kept=(kept,))


def remember(state: State, kept: Any, settings: Settings, processes: Processes, numbers: Mapping[str, float]) -> State:
    rows = processes.gather(kept[0])  # (B, D)
    return State(torch.cat([state.queue, rows])[-settings.queue :], state.filled + len(rows))


def settle_(pair: EncoderPair[Network], settings: Settings) -> None:
    """The prototypes' lengths are 1."""
    with torch.no_grad():
        for network in pair:
            network.prototypes.weight.copy_(F.normalize(network.prototypes.weight, dim=1))


def key_momentum(settings: Settings, progress: Progress) -> float:
    """The key encoder follows at once in the first half."""
    return 0.0 if progress.step < progress.steps / 2 else settings.key_momentum


def known_prototypes(state: State, settings: Settings) -> None:
    return None


def prototype_images(state: State, settings: Settings) -> None:
    return None


def temperature(settings: Settings) -> None:
    return None


def class_scores(pair: EncoderPair[Network], state: State, images: Tensor, settings: Settings) -> None:
    return None


def state_bytes(settings: Settings, data: Data) -> int:
    return 4 * settings.queue * settings.embedding + 8


def pack(state: State) -> dict[str, Tensor]:
    return state._asdict()


def unpack(tensors: dict[str, Tensor], settings: Settings, data: Data) -> State:
    return State(**tensors)
