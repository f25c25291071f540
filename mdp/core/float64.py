"""float64 where a device has it, for sums that are long: Apple's has none."""

import torch
from torch import Tensor


def in_float64(tensor: Tensor) -> Tensor:
    """The tensor in float64: on its device, or on the CPU where the device has no such numbers."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def device_of_float64(device: torch.device | str) -> torch.device:
    """The device itself, or the CPU where the device has no float64."""
    return torch.device("cpu") if torch.device(device).type == "mps" else torch.device(device)
