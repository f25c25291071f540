"""The lines of `python -m benchmarks --gpu`: made one by one, so that a run that is cut short has said something."""

import os
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

import torch

from benchmarks import gpu
from benchmarks.counted import EPOCHS, IMAGES
from benchmarks.gpu import Row, Sizes, StepFigures
from benchmarks.gpu_run import CACHES, run_figures
from benchmarks.loader import loader_rate

_WIDTH = 60


PARTS = ("waits", "spots", "steps", "loader", "runs")


def lines(
    device: torch.device,
    chosen: Sizes,
    peak: float | None,
    workers: int,
    only: Sequence[str] = PARTS,
    figures: dict[str, Any] | None = None,
) -> Iterator[str]:
    """The parts that are asked for, in order; `peak` (TFLOP/s) overrides what is known of the device.

    `figures`, where given, is filled with what was measured, for a file.
    """
    known = gpu.peaks_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    kept: dict[str, Any] = {} if figures is None else figures
    kept["device"] = gpu.header(device, known)
    yield kept["device"]
    if "waits" in only:
        kept["waits"] = gpu.check_waits(chosen, device)
        yield kept["waits"]
    if "spots" in only:
        yield f"\n{'':{_WIDTH}}{'ms':>10}{'MiB':>10}"
        with gpu.tf32(False):
            for name, run in gpu.spots(chosen, device).items():
                row = gpu.measure(name, run, device, chosen.rounds)
                kept.setdefault("spots", []).append(row._asdict())
                yield row_line(row)
    recipe, best = chosen.step, 0.0
    if "steps" in only:
        yield (
            f"\nstep: {recipe.network.backbone}, 2 views of {recipe.images} crops of {recipe.crop}^2, "
            f"C={recipe.classes}, channels_last unless named"
        )
        for variant in gpu.variants(device, chosen.compile):
            found = gpu.step_figures(variant, chosen, device, peak or _peak(known, variant))
            best = max(best, found.images_per_second)
            kept.setdefault("steps", []).append({**found._asdict(), "row": found.row._asdict()})
            yield row_line(found.row)
            yield f"    {sentence(found)}"
    if "loader" in only and workers:
        rate = kept["loader_images_per_second"] = loader_rate(recipe.crop, workers)
        yield f"\n{loader_sentence(rate, workers, best)}"
    if "runs" in only:
        for cache in CACHES:
            ended = run_figures(cache, chosen, device, workers, chosen.rounds)
            kept.setdefault("runs", []).append(ended._asdict())
            yield ended.sentence


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
    busy = "" if figures.row.busy is None else f", the device computes for {figures.row.busy:.1%} of it"
    line = f"{figures.images_per_second:.1f} images/s, {share}, {figures.beyond_network:.1%} beyond the networks{busy}"
    if figures.hours is None:
        return line
    return f"{line}; VOC + ADE20K ({IMAGES:,} images), {EPOCHS} epochs: {figures.hours:.1f} h"


def loader_sentence(rate: float, workers: int, step: float) -> str:
    """Whether the loader keeps up with the fastest step.

    >>> loader_sentence(300.0, 2, 600.0).partition(": ")[2]
    'slower than the fastest step (600.0 images/s); about 4 workers would keep up'
    """
    start = f"loader, {workers} workers on {os.cpu_count()} cores, {rate:.1f} images/s (made 500 x 375 JPEG files)"
    if not step:
        return start
    if rate >= step:
        return f"{start}: keeps up with the fastest step ({step:.1f} images/s)"
    needed = -(-workers * step // rate)
    return f"{start}: slower than the fastest step ({step:.1f} images/s); about {needed:.0f} workers would keep up"
