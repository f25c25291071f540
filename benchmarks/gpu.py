"""`python -m benchmarks --gpu`: hot spots and whole steps on one CUDA device, timed by its own events.

Without a device it ends with one line; on a CPU (`--device cpu`) it goes through the same code by the clock, which
says that it works and nothing about a GPU.  TF32 is off but where a row says so.
Shape legend: V = 2 views, B images, C classes, D channels, h x w feature grid.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks import counted, inputs
from benchmarks.recipes import StepRecipe, made_views, network_alone, new_pair, pretraining
from mdp.core.chance import generator
from mdp.core.contrast import prototype_nce
from mdp.core.methods import Progress, multi_dataset
from mdp.core.networks import NetworkSettings, follow_
from mdp.core.photometry import PhotometrySettings, apply_photometry, draw_photometry, normalise, stack_draws
from mdp.core.processes import alone
from mdp.core.prototype_bank import class_sums, empty_bank, prototypes, push
from mdp.core.targets import Targets, hard_targets, mixed_targets, prototype_similarity, sparse_targets
from mdp.io.errors import ResourceError
from mdp.io.processes.device import pick_device
from mdp.io.recipe.settings import RunSettings

TAU = 0.07
# Dense TFLOP/s of the makers' data sheets, without sparsity: bf16, TF32, float32 without tensor cores.
PEAKS = {
    "B200": (2250.0, 1125.0, 75.0),
    "H200": (989.0, 494.5, 67.0),
    "H100 PCIe": (756.0, 378.0, 51.0),
    "H100": (989.0, 494.5, 67.0),
    "A100": (312.0, 156.0, 19.5),
    "L40S": (362.0, 183.0, 91.6),
    "L4": (121.0, 60.0, 30.3),
    "A10": (125.0, 62.5, 31.2),
    "V100": (0.0, 0.0, 15.7),  # neither bf16 nor TF32
    "T4": (0.0, 0.0, 8.1),
    "RTX 4090": (165.2, 82.6, 82.6),
    "RTX 3090": (71.0, 35.6, 35.6),
}


class Row(NamedTuple):
    """A measurement: seconds of a call by round, bytes at its peak beyond its inputs."""

    name: str
    seconds: tuple[float, ...]
    memory: int | None
    busy: float | None = None  # share of a call's time in which the device computes; None where it is not known


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured."""

    step: StepRecipe
    embeddings: tuple[int, int]  # B and the side of the grid
    rounds: int
    compile: bool


FULL = StepRecipe(network=NetworkSettings(), images=64, crop=224, classes=counted.CLASSES, bank=481)
TINY = replace(
    FULL,
    network=NetworkSettings(backbone="resnet18", width=8, channels=8, dilations=(1, 2)),
    images=2, crop=32, classes=9, bank=4, embedding=16,
)  # fmt: skip


def sizes(quick: bool, rounds: int) -> Sizes:
    """ResNet-50 at 224 with 64 images, or sizes that only show that everything runs."""
    if quick:
        return Sizes(step=TINY, embeddings=(2, 8), rounds=2, compile=False)
    return Sizes(step=FULL, embeddings=(128, 28), rounds=rounds, compile=True)


def device_of(name: str) -> torch.device:
    """The device to measure.  Raises ResourceError, exit code 6, where there is no CUDA device to take."""
    if name == "auto" and not torch.cuda.is_available():
        raise ResourceError(
            "--gpu: torch finds no CUDA device here; --gpu --device cpu --quick shows that the benchmark runs"
        )
    return pick_device(name)


def header(device: torch.device, peaks: tuple[float, float, float] | None) -> str:
    """The device that is measured, and how, in a line."""
    if device.type == "cpu":
        return f"CPU, by the clock: shows that the benchmark runs, and nothing about a GPU; torch {torch.__version__}"
    known = f"peaks {peaks[0]:g} bf16, {peaks[1]:g} TF32, {peaks[2]:g} fp32 TFLOP/s" if peaks else "peaks unknown"
    name = torch.cuda.get_device_name(device)
    return f"{name}, {known}, torch {torch.__version__}, CUDA {torch.version.cuda}, by CUDA events"


def peaks_of(name: str) -> tuple[float, float, float] | None:
    """The data sheet's figures for a device's name; of two that fit, the longer.

    >>> peaks_of("NVIDIA A100-SXM4-80GB"), peaks_of("NVIDIA H100 PCIe")[0], peaks_of("something")
    ((312.0, 156.0, 19.5), 756.0, None)
    """
    words = f" {name.replace('-', ' ')} "
    fitting = [key for key in PEAKS if f" {key} " in words]
    return PEAKS[max(fitting, key=len)] if fitting else None


# Measuring


def measure(name: str, run: Callable[[], object], device: torch.device, rounds: int) -> Row:
    """Seconds of each of so many calls after two to warm up, and the memory of one."""
    for _ in range(2):
        run()
    if device.type != "cuda":
        return Row(name, tuple(_by_clock(run) for _ in range(rounds)), None)
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    seconds = tuple(_by_events(run, device) for _ in range(rounds))
    memory = torch.cuda.max_memory_allocated(device) - before
    return Row(name, seconds, memory, _computing(run, device) / median(seconds))


def _computing(run: Callable[[], object], device: torch.device) -> float:
    """The seconds of a call in which the device computes or copies."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize(device)
    return float(sum(event.self_device_time_total for event in profile.key_averages())) / 1e6


def _by_clock(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _by_events(run: Callable[[], object], device: torch.device) -> float:
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    first.record(torch.cuda.current_stream(device))
    run()
    last.record(torch.cuda.current_stream(device))
    last.synchronize()
    return float(first.elapsed_time(last)) / 1000


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """TF32 in matrix products and convolutions, inside."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


# Hot spots


def spots(chosen: Sizes, device: torch.device) -> dict[str, Callable[[], object]]:
    """The loss in its forms, class sums and bank, key encoder, photometry: one call each, inputs on the device."""
    (count, side), classes, channels = chosen.embeddings, chosen.step.classes, chosen.step.embedding
    rng = inputs.rng_of(0)
    raw = inputs.embeddings(rng, count, channels, side, side, "channels_last").to(device)
    first, second = (inputs.label_maps(rng, count, side, side, classes, min(12, classes)).to(device) for _ in range(2))
    share = torch.rand(count, generator=rng).to(device)
    known = type(made := inputs.prototypes(rng, classes, channels))(*(t.to(device) for t in made))
    hard = hard_targets(first)
    sparse = sparse_targets(hard, prototype_similarity(hard, known), known, min(3, classes), 0.1)
    bank = empty_bank(classes, channels, chosen.step.bank, device)

    def loss(targets: Targets) -> Tensor:
        leaf = raw.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(prototype_nce(leaf, known, targets, TAU, unit=False).mean(), leaf)
        return gradient

    def pooled() -> Tensor:
        return prototypes(push(bank, class_sums(raw, first, classes, unit=True))).vectors

    pair = new_pair(chosen.step)
    for network in pair:
        network.to(device)
    images = torch.randint(0, 256, (chosen.step.images, 3, chosen.step.crop, chosen.step.crop), generator=rng)
    images = images.to(device, torch.uint8)
    draws = stack_draws([draw_photometry(generator(i), PhotometrySettings()) for i in range(len(images))])
    size = f"N={count * side * side}, C={classes}"
    return {
        f"prototype loss, one label, {size}": partial(loss, hard),
        f"prototype loss, two labels, {size}": partial(loss, mixed_targets(first, second, share)),
        f"prototype loss, sparse K=3, {size}": partial(loss, sparse),
        f"class sums, bank, prototypes, {size}": pooled,
        "key encoder follows": partial(follow_, pair, 0.999),
        f"photometry of {len(images)} x {chosen.step.crop}^2": lambda: normalise(apply_photometry(images, draws)),
    }


# Steps


class Variant(NamedTuple):
    """A way to run a step."""

    name: str
    precision: str
    tf32: bool
    channels_last: bool
    compile: bool


def variants(device: torch.device, compiled: bool) -> list[Variant]:
    """bf16 and fp32, TF32 on and off, both layouts for bf16, compiled or not; on a CPU fp32 and the layouts."""
    if device.type == "cpu":
        return [Variant("fp32, NCHW", "fp32", False, False, False), Variant("fp32", "fp32", False, True, False)]
    found = [
        Variant("bf16", "bf16", False, True, False),
        Variant("bf16, NCHW", "bf16", False, False, False),
        Variant("fp32, TF32", "fp32", True, True, False),
        Variant("fp32", "fp32", False, True, False),
    ]
    if compiled:
        found += [one._replace(name=f"{one.name}, compiled", compile=True) for one in (found[0], found[2])]
    return found


class StepFigures(NamedTuple):
    """Rates and shares of a variant of the step."""

    row: Row
    images_per_second: float  # of the dataset: both views of an image count once
    utilisation: float | None  # FLOPs of the model a second, as a share of the peak
    beyond_network: float  # share of the step that the networks' passes alone do not take
    hours: float | None  # of VOC + ADE20K, 200 epochs; None for a step that is not the paper's


def step_figures(variant: Variant, chosen: Sizes, device: torch.device, peak: float | None) -> StepFigures:
    """A variant measured."""
    layout = None if variant.channels_last else False  # asked for by name it is refused where it is unsafe
    run = RunSettings(precision=variant.precision, channels_last=layout, compile=variant.compile)
    recipe = replace(chosen.step, run=run, device=device)
    with tf32(variant.tf32):
        row = measure(f"step, {variant.name}", pretraining(recipe), device, chosen.rounds)
        network = measure("network", network_alone(recipe), device, chosen.rounds)
    counts = counted.count(recipe.network, recipe.images, recipe.crop, recipe.classes, recipe.embedding)
    found = summed_up(row, network, counts, peak)
    return found if recipe.network == FULL.network else found._replace(hours=None)


def summed_up(row: Row, network: Row, counts: counted.Counts, peak: float | None) -> StepFigures:
    """The figures that follow from times and counts; `peak` in TFLOP/s."""
    seconds = median(row.seconds)
    steps = counted.EPOCHS * (counted.IMAGES // counts.images)
    return StepFigures(
        row,
        images_per_second=counts.images / seconds,
        utilisation=counts.step_flops / seconds / (peak * 1e12) if peak else None,
        beyond_network=max(0.0, 1 - median(network.seconds) / seconds),
        hours=steps * seconds / 3600,
    )


def check_waits(chosen: Sizes, device: torch.device) -> str:
    """Runs prepare and loss with torch told to fail where they would wait for the device; a line that says how it went.

    torch names the operation that waits.
    """
    recipe = replace(chosen.step, device=device)
    pair, views = new_pair(recipe), made_views(recipe)
    for network in pair:
        network.to(device)
    settings, processes = recipe.settings, alone(recipe.images)
    state = multi_dataset.initial_state(settings, recipe.data, generator(1), device)
    for attempt in range(2):  # the first call may wait: libraries choose their algorithms
        if device.type == "cuda" and attempt:
            torch.cuda.set_sync_debug_mode("error")
        try:
            ready = multi_dataset.prepare(pair, state, views, settings, generator(2), processes, Progress(0, 1, 1))
            loss = multi_dataset.loss(pair, ready.shared, ready.parts, settings, processes)
            loss.value.backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            return f"a step WAITS for the device: {str(error).splitlines()[0]}"
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    if device.type == "cpu":
        return "whether a step waits for the device: only a CUDA device can tell"
    return "a step waits for the device nowhere before its one check of loss and gradient"
