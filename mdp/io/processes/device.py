"""The start of every job: the device and torch's switches, and what a recipe leaves to the device."""

import importlib.util
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from mdp.io.errors import RecipeError, ResourceError
from mdp.io.processes.world import World, local_device
from mdp.io.recipe.layers import Recipe
from mdp.io.recipe.settings import RunSettings

_KNOWN = "expected auto, cpu, cuda, cuda:N or mps"


def set_up(recipe: Recipe, world: World) -> torch.device:
    """The device of this process, with torch and the wait for others set up as the recipe asks."""
    world.wait_at_most(recipe.run.timeout)
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    if recipe.run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False  # which may choose another algorithm each time
    device = pick_device(recipe.run.device)
    if device.type == "mps":
        _expect_plain(recipe.run, world)
    if device.type == "cuda" and recipe.run.compile and importlib.util.find_spec("triton") is None:
        raise RecipeError("--compile: torch compiles for a GPU by triton, which is not installed; leave it out")
    device = local_device(device, world)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # or what names no device, such as pinned memory, takes some of the first one
    return device


def for_device(recipe: Recipe, device: torch.device, world: World) -> Recipe:
    """The recipe with what it leaves to the device decided, by the main process for all.

    bf16 where a GPU computes in it, and as many loader processes as there are cores for.
    """

    def decided() -> str:
        gpu, run = device.type == "cuda", recipe.run
        half = gpu and torch.cuda.get_device_capability(device) >= (8, 0)
        precision = ("bf16" if half else "fp32") if run.precision == "auto" else run.precision
        workers = run.loaders if run.workers is not None or not gpu else loaders_for(_cores(), _beside(world))
        return json.dumps({"precision": precision, "workers": workers})

    return replace(recipe, run=replace(recipe.run, **json.loads(world.broadcast_main(decided))))


def loaders_for(cores: int, processes: int) -> int:
    """Loader processes of each of so many processes of a machine, which keeps a core to itself.

    A core makes 120 pretraining images a second, and the fastest devices take some 430 (docs/speed.md).

    >>> loaders_for(16, 1), loaders_for(16, 4), loaders_for(2, 1), loaders_for(64, 2)
    (12, 3, 1, 12)
    """
    return max(1, min(12, cores // processes - 1))


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _beside(world: World) -> int:
    """The processes of the run on this machine, this one among them."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world.size))


def quick_convolutions(device: torch.device, run: RunSettings) -> None:
    """Lets cuDNN try its algorithms for each new size and keep the fastest, where bits may differ."""
    torch.backends.cudnn.benchmark = device.type == "cuda" and not run.deterministic


@contextmanager
def sizes_vary() -> Iterator[None]:
    """Inside, cuDNN tries nothing: every photo has another size."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def precision_words(device: torch.device, precision: str) -> str:
    """What the networks compute in, for people; "" where that goes without saying."""
    if device.type != "cuda" or precision != "fp32":
        return "" if precision == "fp32" else precision
    there = {"convolutions": torch.backends.cudnn.allow_tf32, "matrix products": torch.backends.cuda.matmul.allow_tf32}
    return f"fp32, TF32 in {' and '.join(name for name, on in there.items() if on) or 'nothing'}"


def _expect_plain(run: RunSettings, world: World) -> None:
    """Raises RecipeError for what is not done on Apple's device."""
    unable = {
        "precision bf16 or fp16": run.precision not in ("fp32", "auto"),
        "compile": run.compile,
        "--processes": world.size > 1,
    }
    asked = [words for words, wanted in unable.items() if wanted]
    if asked:
        raise RecipeError(
            f"--device mps: there is no {' and no '.join(asked)} there; leave it out, or take another device"
        )


@contextmanager
def memory_in_one_line(
    where: str = "",
    advice: str = "try --accumulate, --precision bf16, a smaller --batch-size or crop, or model.output_stride=16",
) -> Iterator[None]:
    """Turns what torch and Python raise when memory is short into one line; other errors pass."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error) or "MemoryError"
        if not isinstance(error, MemoryError) and "out of memory" not in text and "can't allocate memory" not in text:
            raise
        raise ResourceError(f"{where}out of memory ({text.splitlines()[0]}); {advice}") from error


def pick_device(name: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda`, `cuda:N` or `mps` stands for; `auto` is CUDA's, or else the CPU.

    Raises ResourceError when it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ResourceError(f"--device {name}: {_KNOWN}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ResourceError(f"--device {name}: this machine shows {torch.cuda.device_count()} CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ResourceError(f"--device {name}: this machine has no device of Apple's that torch can use")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ResourceError(f"--device {name}: {_KNOWN}")
    return device
