"""Gradient checkpointing: less is kept, and nothing else changes."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from mdp.core.networks import NetworkSettings, Segmentor, build_segmentor
from mdp.core.networks.gradient_checkpointing import checkpoint_blocks_, computed_again, refuse_unable
from mdp.io.errors import RecipeError
from mdp.io.recipe.layers import resolve
from mdp.io.training.job import run_finetuning, run_pretraining
from tests.peers import library_or_skip
from tests.small_runs import assert_same, losses, request, tensors_of
from tests.tensors import rng_of

pytestmark = pytest.mark.usefixtures("bare_runs")

IMAGES = torch.randn(2, 3, 64, 64, generator=rng_of(0))


def two_steps(network: Segmentor, again: bool) -> tuple[list[float], int]:
    """The losses of two steps of gradient descent with dropout, and the bytes that the first backward pass held."""
    found, kept = [], 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += 0 if isinstance(tensor, nn.Parameter) or found else tensor.numel() * tensor.element_size()
        return tensor

    for step in range(2):
        torch.manual_seed(step)
        with saved_tensors_hooks(count, lambda tensor: tensor):
            loss = network(IMAGES).square().mean()
        with computed_again(network) if again else torch.enable_grad():
            loss.backward()
        found.append(loss.item())
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=0.01)
                    parameter.grad = None
    return found, kept


CASES: dict[str, dict[str, Any]] = {
    "resnet18": {"width": 8, "head": "fcn", "channels": 8},
    "resnet50": {"width": 8, "head": "upernet", "channels": 8},
    "timm:resnet10t": {"output_stride": 32, "head": "fcn", "channels": 8},
    "timm:convnext_atto": {"output_stride": 32, "head": "fcn", "channels": 8},
    "timm:vit_tiny_patch16_224": {"output_stride": 16, "head": "fcn", "channels": 8},
}


@pytest.mark.parametrize("name", CASES)
def test_losses_weights_and_statistics_have_the_same_bits_and_less_is_kept(name: str) -> None:
    if name.startswith("timm:"):
        library_or_skip("timm")
    plain = build_segmentor(NetworkSettings(backbone=name, **CASES[name]), 5, rng_of(0)).train()
    saving = copy.deepcopy(plain)
    refuse_unable(saving)
    checkpoint_blocks_(saving)
    (first, whole), (second, less) = two_steps(plain, again=False), two_steps(saving, again=True)
    assert first == second
    assert_same(dict(plain.state_dict()), dict(saving.state_dict()))  # counters of batches too
    assert less < 0.7 * whole
    assert all(module.momentum == 0.1 for module in saving.modules() if isinstance(module, nn.BatchNorm2d))


def test_a_backbone_that_keeps_as_much_is_refused() -> None:
    class Unmoved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 8, 1)

        def set_grad_checkpointing(self, enable: bool) -> None:
            """Has no effect."""

        def forward(self, images: Tensor) -> Tensor:
            features: Tensor = self.convolution(images)
            return features

    network = nn.Module()
    network.backbone, network._maps = Unmoved(), lambda backbone, images: backbone(images)
    with pytest.raises(ValueError, match="gradient_checkpointing: Unmoved of timm keeps as much with it as without"):
        refuse_unable(network)
    with pytest.raises(RecipeError, match=r"run\.gradient_checkpointing: compiled networks choose what"):
        resolve({"run": {"gradient_checkpointing": True, "compile": True}})


@pytest.mark.usefixtures("in_an_empty_folder")
@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_a_run_ends_in_the_same_bits_with_it(phase: str) -> None:
    runs = []
    for again in (False, True):
        asked = [(f"{phase}.steps", 3), ("run.gradient_checkpointing", again), ("run.accumulate", 2)]
        job = request(*asked, init=None if phase == "pretrain" else "scratch", out=Path(f"run{again}"))
        runs.append((run_pretraining if phase == "pretrain" else run_finetuning)(job))
    assert losses(runs[0]) == losses(runs[1])
    assert_same(tensors_of(runs[0]), tensors_of(runs[1]))
    assert "gradient checkpointing: the backward pass computes" in (runs[1] / "log.txt").read_text()
