"""The lines of `python -m benchmarks --gpu`: made one by one, so that a run that is cut short has said something."""

import os
from collections.abc import Iterator
from statistics import median

import torch

from benchmarks import gpu
from benchmarks.counted import EPOCHS, IMAGES
from benchmarks.gpu import Row, Sizes, StepFigures
from benchmarks.loader import loader_rate

_WIDTH = 60


def lines(device: torch.device, chosen: Sizes, peak: float | None, workers: int) -> Iterator[str]:
    """Everything, in order; `peak` (TFLOP/s) overrides what is known of the device."""
    known = gpu.peaks_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    yield gpu.header(device, known)
    yield gpu.check_waits(chosen, device)
    yield f"\n{'':{_WIDTH}}{'ms':>10}{'MiB':>10}"
    with gpu.tf32(False):
        for name, run in gpu.spots(chosen, device).items():
            yield row_line(gpu.measure(name, run, device, chosen.rounds))
    recipe, best = chosen.step, 0.0
    yield (
        f"\nstep: {recipe.network.backbone}, 2 views of {recipe.images} crops of {recipe.crop}^2, C={recipe.classes}, "
        "channels_last unless named"
    )
    for variant in gpu.variants(device, chosen.compile):
        own = peak or _peak(known, variant)
        figures = gpu.step_figures(variant, chosen, device, own)
        best = max(best, figures.images_per_second)
        yield row_line(figures.row)
        yield f"    {sentence(figures)}"
    if workers:
        rate = loader_rate(recipe.crop, recipe.images, workers)
        yield f"\n{loader_sentence(rate, workers, best)}"


def _peak(known: tuple[float, float, float] | None, variant: gpu.Variant) -> float | None:
    """The peak that a variant's arithmetic has; None where the device has no such arithmetic."""
    if known is None:
        return None
    return known[0 if variant.precision == "bf16" else 1 if variant.tf32 else 2] or None


def row_line(row: Row) -> str:
    """A measurement as a line."""
    memory = "-" if row.memory is None else f"{row.memory / 2**20:.1f}"
    return f"{row.name:{_WIDTH}}{1000 * median(row.seconds):>10.3f}{memory:>10}"


def sentence(figures: StepFigures) -> str:
    """A step's rates and shares as a sentence."""
    share = "peak unknown" if figures.utilisation is None else f"{figures.utilisation:.1%} of the peak"
    line = f"{figures.images_per_second:.1f} images/s, {share}, {figures.beyond_network:.1%} beyond the networks"
    if figures.hours is None:
        return line
    return f"{line}; VOC + ADE20K ({IMAGES:,} images), {EPOCHS} epochs: {figures.hours:.1f} h"


def loader_sentence(rate: float, workers: int, step: float) -> str:
    """Whether the loader keeps up with the fastest step.

    >>> loader_sentence(300.0, 2, 600.0).partition(": ")[2]
    'slower than the fastest step (600.0 images/s); about 4 workers would keep up'
    """
    start = f"loader, {workers} workers on {os.cpu_count()} cores, {rate:.1f} images/s (made 500 x 375 JPEG files)"
    if rate >= step:
        return f"{start}: keeps up with the fastest step ({step:.1f} images/s)"
    needed = -(-workers * step // rate)
    return f"{start}: slower than the fastest step ({step:.1f} images/s); about {needed:.0f} workers would keep up"
