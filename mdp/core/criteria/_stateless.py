"""A criterion without an extra head and without a memory: what all of them answer alike."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mdp.core.criteria import Source
from mdp.core.methods import Progress
from mdp.core.networks import Grids, NetworkSettings
from mdp.core.processes import Processes

SUPPLEMENT = False


def build(settings: Any, network: NetworkSettings, channels: int, classes: int, rng: torch.Generator) -> None:
    return None


def initial_state(settings: Any, classes: int, device: torch.device) -> Any:
    return ()


def misfit(settings: Any, network: NetworkSettings, crop: tuple[int, int]) -> str:
    return ""


def asks_for(settings: Any) -> str:
    return ""


def fitted(settings: Any, method: Mapping[str, Any]) -> Any:
    return settings


def start_(state: Any, head: Any, source: Source, settings: Any) -> Any:
    return state


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
