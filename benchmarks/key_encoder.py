"""The key encoder follows the query encoder: an average of the parameters of a whole network, in place."""

import copy
from collections.abc import Callable
from functools import cache
from types import ModuleType

import torch
from torch import Tensor, nn

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate, Run
from benchmarks.peers import peer
from mdp.core.networks import NetworkSettings, build_embedding_network
from mdp.core.networks.pair import EncoderPair, follow_

MOMENTUM = 0.999


def cases() -> dict[str, Callable[[], Case]]:
    """A ResNet-50 with a small ASPP head and a projection head."""
    return {"ResNet-50, ASPP": _case}


def _case() -> Case:
    query, key = _network(), cache(lambda: copy.deepcopy(_network()).requires_grad_(False))
    count = sum(p.numel() for p in query.parameters())
    entries = (
        Entry("follow_", "ours", lambda: follow_(EncoderPair(query, key()), MOMENTUM)),
        peer("update_momentum", "lightly.models.utils", lambda utils: _updating(utils, query, key)),
        Entry("torch get_ema_multi_avg_fn", "peer", lambda: _torch(query, key())),
        Entry("loop k = k*m + q*(1-m)", "plain", lambda: _moco(query, key())),
        Entry("loop mul_, add_", "plain", lambda: _in_place(query, key())),
        Entry("adding one flat tensor", "floor", _floor(count)),
    )
    gates = (Gate("loop k = k*m + q*(1-m)", 3.5), Gate("loop mul_, add_", 1.1), Gate("floor", at_most=1.2))
    return Case("key encoder", f"{count / 1e6:.1f} M parameters", entries, gates)


@cache
def _network() -> nn.Module:
    return build_embedding_network(NetworkSettings(channels=256), 256, 512, inputs.rng_of(1))


def _updating(utils: ModuleType, query: nn.Module, key: Callable[[], nn.Module]) -> Run:
    return lambda: utils.update_momentum(query, key(), MOMENTUM)


def _torch(query: nn.Module, key: nn.Module) -> None:
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(MOMENTUM)  # type: ignore[no-untyped-call]
    average(list(key.parameters()), list(query.parameters()), torch.tensor(1))


@torch.no_grad()
def _moco(query: nn.Module, key: nn.Module) -> None:
    for own, other in zip(query.parameters(), key.parameters(), strict=True):
        other.data = other.data * MOMENTUM + own.data * (1 - MOMENTUM)


@torch.no_grad()
def _in_place(query: nn.Module, key: nn.Module) -> None:
    for own, other in zip(query.parameters(), key.parameters(), strict=True):
        other.mul_(MOMENTUM).add_(own, alpha=1 - MOMENTUM)


def _floor(count: int) -> Run:
    both: list[Tensor] = []

    def run() -> None:
        if not both:
            both.extend(torch.zeros(2, count))
        both[0].add_(both[1])

    return run
