"""What a recipe leaves to the device, and which device a process takes; GPUs are played."""

import importlib.util
from typing import Any

import pytest
import torch

from mdp.io.errors import RecipeError, ResourceError
from mdp.io.processes import device as device_file
from mdp.io.processes.device import for_device, precision_words, quick_convolutions, set_up, sizes_vary
from mdp.io.processes.world import ALONE, World, local_device
from mdp.io.recipe.layers import resolve

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Two GPUs of an A100's kind; the list tells which were taken."""
    taken: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    return taken


def decided(device: torch.device, **run: Any) -> tuple[str, int | None]:
    fitted = for_device(resolve({"run": run}), device, ALONE).run
    return fitted.precision, fitted.workers


@pytest.mark.usefixtures("gpus")
def test_a_gpu_takes_bf16_and_workers_by_cores_unless_the_recipe_says_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_file, "_cores", lambda: 9)
    assert decided(CUDA) == ("bf16", 8)
    assert decided(CUDA, precision="fp32", workers=3) == ("fp32", 3)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert decided(CUDA) == ("bf16", 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert decided(CUDA)[0] == "fp32"


def test_a_cpu_keeps_what_it_had() -> None:
    assert decided(CPU) == ("fp32", 2)
    assert decided(CPU, precision="bf16", workers=0) == ("bf16", 0)


def test_the_first_gpu_is_left_alone_where_another_is_asked_for(gpus: list[Any]) -> None:
    recipe = resolve({"run": {"device": "cuda:1"}})
    assert set_up(recipe, ALONE) == torch.device("cuda:1")
    assert gpus == [torch.device("cuda:1")]


def test_a_task_of_slurms_takes_the_one_gpu_that_it_sees(gpus: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(ResourceError, match="process 4 of this machine finds 1 CUDA devices"):
        local_device(CUDA, World(3, 4))
    monkeypatch.setenv("SLURM_LOCALID", "3")
    assert local_device(CUDA, World(3, 4)) == torch.device("cuda:0")
    assert gpus == [0]


@pytest.mark.usefixtures("gpus")
def test_compiling_for_a_gpu_without_triton_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = resolve({"run": {"device": "cuda", "compile": True}})
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "triton" else found(name))
    with pytest.raises(RecipeError, match=r"--compile: .* triton"):
        set_up(recipe, ALONE)


def test_cudnn_tries_its_algorithms_for_training_alone() -> None:
    run = resolve({}).run
    try:
        quick_convolutions(CUDA, run)
        assert torch.backends.cudnn.benchmark
        with sizes_vary():
            assert not torch.backends.cudnn.benchmark
        assert torch.backends.cudnn.benchmark
        for device, deterministic in ((CUDA, True), (CPU, False)):
            quick_convolutions(device, resolve({"run": {"deterministic": deterministic}}).run)
            assert not torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = False


def test_tf32_is_said_where_there_is_any() -> None:
    assert precision_words(CPU, "fp32") == ""
    assert precision_words(CUDA, "bf16") == "bf16"
    assert precision_words(CUDA, "fp32") == "fp32, TF32 in convolutions"  # torch's defaults
