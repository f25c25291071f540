"""Whole steps: ResNet-50 at stride 8, two views of 64 crops of 224, in the ways a run can compute; other methods."""

from typing import Any, NamedTuple

import torch

from benchmarks import counted, gpu
from mdp.core.networks import NetworkSettings
from mdp.io.recipe.layers import Layer
from tests.gpu.findings import Findings
from tests.gpu.parts._timing import Timing, paper_step, sizes, timed
from tests.whole_steps import Training

IMAGES, STEPS = 64, 12
METHODS: dict[str, Layer] = {
    "supervised": {},
    "pixel_pairs": {},
    "moco": {"groups": 8},
    "region_bank": {"queue": 512},
}
QUICK: dict[str, Layer] = {"moco": {"groups": 2}, "region_bank": {"queue": 64}}


class Variant(NamedTuple):
    """A way to run a step."""

    name: str
    run: Layer
    images: int = IMAGES
    search: bool = False  # cudnn.benchmark
    products: bool = False  # TF32 in matrix products too; convolutions have it anyway


BF16: Layer = {"precision": "bf16"}
VARIANTS = (
    Variant("bf16", BF16),
    Variant("bf16, cudnn.benchmark", BF16, search=True),
    Variant("bf16, cudnn.benchmark, TF32 products", BF16, search=True, products=True),
    Variant("bf16, NCHW, cudnn.benchmark", {**BF16, "channels_last": False}, search=True, products=True),
    Variant("bf16, 8 images", BF16, images=8),
    Variant("bf16, 256 images, cudnn.benchmark", BF16, images=256, search=True, products=True),
    Variant("fp32 as it comes (TF32 convolutions)", {}),
    Variant("fp16", {"precision": "fp16"}),
    Variant("bf16, accumulate 4", {**BF16, "accumulate": 4}),
    Variant("bf16, deterministic", {**BF16, "deterministic": True}),
)


def check(findings: Findings, device: torch.device, quick: bool) -> None:
    """Figures only: what is fast depends on the device."""
    counts = counted.count(NetworkSettings(), IMAGES, 224, counted.CLASSES, 256)
    peaks = gpu.peaks_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    for variant in VARIANTS:
        with findings.going_on(variant.name):
            _measure(findings, variant, device, quick, counts, peaks[0] if peaks else 0.0)
    _set_up(Variant("as it comes", {}))
    for name, settings in METHODS.items():
        with findings.going_on(name):
            _other(findings, name, {**settings, **(QUICK.get(name, {}) if quick else {})}, device, quick)


def _set_up(variant: Variant) -> None:
    """torch's own switches."""
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = variant.search, True
    torch.backends.cuda.matmul.allow_tf32 = variant.products
    torch.use_deterministic_algorithms(bool(variant.run.get("deterministic")))


def _measure(
    findings: Findings, variant: Variant, device: torch.device, quick: bool, counts: counted.Counts, peak: float
) -> None:
    """A variant of the paper's step."""
    _set_up(variant)
    _forget(device)
    training = paper_step(device, variant.run, quick, variant.images)
    timing, images = timed(training, device, 2 if quick else STEPS), training.recipe.pretrain.batch_size
    figures = _figures(timing, images)
    if device.type == "cuda":
        figures["peak_GiB"] = torch.cuda.max_memory_allocated(device) / 2**30
    if peak and not quick:
        figures["of_bf16_peak"] = counts.step_flops * images / IMAGES / timing.seconds / (peak * 1e12)
    if not quick:
        figures["voc_ade_hours"] = counted.EPOCHS * (counted.IMAGES // images) * timing.seconds / 3600
    if variant.name in ("bf16", "bf16, 8 images"):
        figures["kernels"] = timing.kernels
    findings.figure(variant.name, **figures)


def _other(findings: Findings, name: str, settings: Layer, device: torch.device, quick: bool) -> None:
    """Another method's step in bf16."""
    _forget(device)
    training = Training({"name": name, **settings}, device, BF16, sizes(quick, IMAGES), pin=device.type == "cuda")
    timing = timed(training, device, 2 if quick else 4)
    findings.figure(f"{name}, bf16", **_figures(timing, training.recipe.pretrain.batch_size))


def _figures(timing: Timing, images: int) -> dict[str, Any]:
    busy = {} if timing.busy is None else {"busy": timing.busy}
    return {"ms": 1000 * timing.seconds, "images_per_second": images / timing.seconds, **busy}


def _forget(device: torch.device) -> None:
    """Gives the last variant's memory back before the next is counted."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
