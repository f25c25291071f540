"""Tensors of a checkpoint under prefixes, and loading them into a network."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mdp.core.float64 import device_of_float64
from mdp.io.errors import CheckpointError

# Tensors of a checkpoint, under prefixes


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`{a: x}` -> `{prefix.a: x}`."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def section(tensors: Mapping[str, Tensor], prefix: str, device: torch.device | None = None) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix.`, without it, on `device`."""
    start = f"{prefix}."
    return {name.removeprefix(start): _moved(t, device) for name, t in tensors.items() if name.startswith(start)}


def _moved(tensor: Tensor, device: torch.device | None) -> Tensor:
    """On the device, but for float64 on one that has no such numbers."""
    wide = device is not None and tensor.dtype == torch.float64
    return tensor.to(device_of_float64(device) if wide else device)  # type: ignore[arg-type]


def restore_(network: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Loads all of a network's tensors.  Raises CheckpointError naming what differs."""
    own = network.state_dict()
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    shapes = [n for n in own if n in tensors and own[n].shape != tensors[n].shape]
    if missing or unexpected or shapes:
        first = [f"{n}: {list(tensors[n].shape)} in the checkpoint, {list(own[n].shape)} here" for n in shapes[:3]]
        raise CheckpointError(
            f"{what}: does not fit the network: {len(missing)} tensors missing, {len(unexpected)} unexpected, "
            f"{len(shapes)} of another shape ({'; '.join([*first, *missing[:2], *unexpected[:2]])}); "
            "the model settings must be those of the run"
        )
    network.load_state_dict(dict(tensors))
