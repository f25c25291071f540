"""Seconds of a step by the clock, the share of them that the device computes, and its slowest kernels."""

import time
from typing import Any, NamedTuple

import torch

from mdp.io.recipe.layers import Layer
from tests.whole_steps import MIX, Sizes, Training

_WARM_UP, _PROFILED, _KERNELS = 4, 2, 25


class Timing(NamedTuple):
    """What a step takes."""

    seconds: float
    busy: float | None  # share of the time in which the device computes; None on a CPU
    kernels: list[dict[str, Any]]  # the slowest, milliseconds a step


def paper_step(device: torch.device, run: Layer, quick: bool, batch: int = 64, bank: int = 481) -> Training:
    """The paper's step with region and pixel mixing; a narrow network on small crops where it must be quick."""
    method: Layer = {"name": "multi_dataset", "bank_batches": bank, "mix": MIX}
    return Training(method, device, run, sizes(quick, batch), pin=device.type == "cuda")


def sizes(quick: bool, batch: int) -> Sizes:
    """ResNet-50 at stride 8 on crops of 224, or what only shows that it runs."""
    if not quick:
        return Sizes(model={}, batch=batch, crop=224, classes=171)
    model: Layer = {"backbone": "resnet18", "width": 16, "channels": 32, "dilations": [1, 3]}
    return Sizes(model=model, batch=max(2, batch // 16), crop=64, classes=171)


def timed(training: Training, device: torch.device, steps: int) -> Timing:
    """The mean of so many steps after some to warm up."""
    for _ in range(_WARM_UP):
        training.advance()
    _wait(device)
    began = time.perf_counter()
    for _ in range(steps):
        training.advance()
    _wait(device)
    seconds = (time.perf_counter() - began) / steps
    if device.type != "cuda":
        return Timing(seconds, None, [])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(_PROFILED):
            training.advance()
        _wait(device)
    events = sorted(profile.key_averages(), key=lambda event: -event.self_device_time_total)
    busy = sum(event.self_device_time_total for event in events) / (1e6 * _PROFILED) / seconds
    slowest = [
        {"name": event.key[:120], "ms": event.self_device_time_total / (1e3 * _PROFILED), "calls": event.count}
        for event in events[:_KERNELS]
    ]
    return Timing(seconds, busy, slowest)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
