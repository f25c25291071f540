"""The start of every job: the device and torch's switches."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

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
    return local_device(device, world)


def _expect_plain(run: RunSettings, world: World) -> None:
    """Raises RecipeError for what is not done on Apple's device."""
    unable = {"precision bf16 or fp16": run.precision != "fp32", "compile": run.compile, "--processes": world.size > 1}
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
