"""A criterion without an extra head and without a memory: what all of them answer alike."""

from typing import Any

import torch
from torch import Tensor

from mdp.core.methods import Progress
from mdp.core.networks import Grids, NetworkSettings
from mdp.core.processes import Processes

SUPPLEMENT = False


def build(settings: Any, network: NetworkSettings, channels: int, classes: int, rng: torch.Generator) -> None:
    return None


def initial_state(settings: Any, classes: int, device: torch.device) -> Any:
    return ()


def prepare(state: Any, labels: Tensor, settings: Any, processes: Processes, progress: Progress, grids: Grids) -> Any:
    return ()


def remember(state: Any, kept: Any, settings: Any, processes: Processes) -> Any:
    return state


def pack(state: Any) -> dict[str, Tensor]:
    return {}


def unpack(tensors: dict[str, Tensor], settings: Any, classes: int) -> Any:
    return ()


def state_bytes(settings: Any, classes: int) -> int:
    return 0
