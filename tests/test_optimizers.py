"""Optimizers by name: groups of parameters, LARS, rates by layer and by schedule, and their state in checkpoints."""

import importlib
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mdp.core.lars import lars_added, lars_scaled
from mdp.core.networks.backbones import build_backbone
from mdp.core.networks.layers import layers_of
from mdp.core.networks.resnet import ResNet
from mdp.io.errors import Preempted, RecipeError
from mdp.io.recipe.layers import Layer, merge, resolve
from mdp.io.recipe.request import Request
from mdp.io.recipe.settings import OPTIMIZERS, FinetuneSettings, OptimizationSettings
from mdp.io.training import optimizers
from mdp.io.training.finetuning import finetune_recipe
from mdp.io.training.job import run_finetuning, run_pretraining
from mdp.io.training.optimizers import (
    Optimizer,
    build_optimizer,
    moments_of,
    parameter_groups,
    restore_moments_,
    set_rate_,
)
from mdp.io.training.rates import learning_rate
from tests.conftest import ROOT
from tests.peers import library_or_skip
from tests.small_runs import TINY, assert_same, losses, signal_after, tensors_of
from tests.tensors import rng_of, seeds

pytestmark = pytest.mark.usefixtures("bare_runs")


class Small(nn.Module):
    """A network as all are: a backbone, and a head after it."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet("resnet18", 8, 16)
        self.head = nn.Conv2d(64, 3, 1)


def vector_of(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def test_every_name_has_its_file() -> None:
    files = {path.stem for path in Path(optimizers.__file__).parent.glob("[a-z]*.py")}
    assert files == set(OPTIMIZERS)


# Groups


def test_sgd_is_one_group_of_all_parameters_in_their_order() -> None:
    network = Small()
    optimizer = build_optimizer(network, OptimizationSettings(lr=0.1, weight_decay=0.01))
    (group,) = optimizer.param_groups
    assert [id(parameter) for parameter in group["params"]] == [id(parameter) for parameter in network.parameters()]
    assert (group["weight_decay"], group["rate"]) == (0.01, 1.0)


def test_biases_and_norms_are_in_groups_without_decay_where_they_are_not_meant() -> None:
    network = Small()
    settings = OptimizationSettings(optimizer="adamw", weight_decay=0.05)
    decays = {id(p): group["weight_decay"] for group in build_optimizer(network, settings).param_groups
              for p in group["params"]}  # fmt: skip
    assert {name: decays[id(p)] for name, p in network.named_parameters()} == {
        name: 0.05 if p.ndim > 1 else 0.0 for name, p in network.named_parameters()
    }
    both = build_optimizer(network, replace(settings, decay_1d=True))
    assert [group["weight_decay"] for group in both.param_groups] == [0.05]


def test_a_frozen_parameter_is_in_no_group() -> None:
    network = Small()
    network.backbone.conv1.weight.requires_grad_(False)
    held = [p for group in parameter_groups(network, OptimizationSettings(), True) for p in group["params"]]
    assert len(held) == len(list(network.parameters())) - 1


def test_layers_of_a_resnet_are_its_stem_its_blocks_and_the_head() -> None:
    layers = layers_of(Small())
    assert layers["backbone.conv1.weight"] == layers["backbone.bn1.bias"] == 0
    assert layers["backbone.layer1.0.conv1.weight"] == 1
    assert layers["backbone.layer4.1.bn2.weight"] == 8
    assert layers["backbone.layer4.0.downsample.0.weight"] == 7
    assert layers["head.bias"] == 9
    deep = nn.Module()
    deep.backbone, deep.head = ResNet("resnet50", 8, 16), nn.Conv2d(256, 3, 1)
    assert max(layers_of(deep).values()) == 17


def test_rates_fall_by_a_factor_a_layer_and_follow_the_schedule() -> None:
    network = Small()
    optimizer = build_optimizer(network, OptimizationSettings(optimizer="adamw", layer_decay=0.5))
    set_rate_(optimizer, 0.1)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    named = {name: rates[id(p)] for name, p in network.named_parameters()}
    assert named["head.weight"] == 0.1
    assert named["backbone.layer4.1.conv1.weight"] == 0.05
    assert named["backbone.conv1.weight"] == pytest.approx(0.1 * 0.5**9)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto", "swin_tiny_patch4_window7_224", "resnet10t"])
def test_rates_of_timm_backbones_are_those_that_timm_gives_to_the_whole_model(name: str) -> None:
    timm = library_or_skip("timm")
    groups = importlib.import_module("timm.optim").param_groups_layer_decay
    whole = timm.create_model(name, num_classes=7)
    named = {id(parameter): name for name, parameter in whole.named_parameters()}
    spared = getattr(whole, "no_weight_decay", tuple)()
    expected = {named[id(parameter)]: (group["lr_scale"], group["weight_decay"])
                for group in groups(whole, 0.05, no_weight_decay_list=spared, layer_decay=0.7)
                for parameter in group["params"]}  # fmt: skip
    network = nn.Module()
    network.backbone, network.head = build_backbone(f"timm:{name}", 64, None, False).module, nn.Conv2d(8, 7, 1)
    own = {id(parameter): name for name, parameter in network.backbone.named_parameters()}
    settings = OptimizationSettings(optimizer="adamw", weight_decay=0.05, layer_decay=0.7)
    found = {own[id(parameter)]: (group["rate"], group["weight_decay"])
             for group in parameter_groups(network, settings, False)
             for parameter in group["params"] if id(parameter) in own}  # fmt: skip
    assert len(found) > 30
    assert found == {name: pytest.approx(expected[name]) for name in found}


# LARS


@given(seeds, st.sampled_from([0.0, 0.1]))
def test_lars_gives_each_tensor_a_step_in_proportion_to_its_weights(seed: int, decay: float) -> None:
    rng = rng_of(seed)
    weights = [torch.randn(3, 4, generator=rng).double(), torch.randn(5, 2, 2, generator=rng).double()]
    gradients = [torch.randn(w.shape, generator=rng).double() for w in weights]
    for weight, update in zip(weights, lars_added(weights, gradients, decay, 0.01), strict=True):
        torch.testing.assert_close(update.norm(), 0.01 * weight.norm())
    for function in (lars_scaled, lars_added):
        update = vector_of(function(weights, gradients, 0.0, 0.01))
        # without decay the length of the gradient does not matter
        torch.testing.assert_close(vector_of(function(weights, [7 * g for g in gradients], 0.0, 0.01)), update)


def test_lars_by_hand() -> None:
    weights, gradients = [torch.tensor([[3.0, 4.0]]), torch.tensor([2.0])], [torch.tensor([[0.0, 2.0]]), torch.ones(1)]
    scaled = lars_scaled(weights, gradients, 0.1, 0.001)
    torch.testing.assert_close(scaled[0], 0.001 * 5 / (2 + 0.1 * 5) * torch.tensor([[0.3, 2.4]]))
    torch.testing.assert_close(scaled[1], torch.tensor([0.001 * 2 / (1 + 0.2) * 1.2]))
    added = lars_added(weights, gradients, 0.1, 0.001)
    torch.testing.assert_close(added[0], 0.001 * 5 / math.hypot(0.3, 2.4) * torch.tensor([[0.3, 2.4]]))
    assert added[1] is gradients[1]


def test_a_tensor_that_is_zero_or_does_not_move_is_left_as_it_is() -> None:
    zero, some = torch.zeros(2, 2), torch.ones(2, 2)
    assert torch.equal(lars_scaled([zero], [some], 0.1, 0.001)[0], some)
    assert torch.equal(lars_scaled([some], [zero], 0.1, 0.001)[0], zero)
    assert torch.equal(lars_added([zero], [some], 0.1, 0.001)[0], some)
    assert torch.equal(lars_added([some], [zero], 0.0, 0.001)[0], zero)


@pytest.mark.parametrize("form", ["scaled", "added"])
def test_lars_is_sgd_on_scaled_gradients(form: str) -> None:
    network = nn.Conv2d(2, 3, 1)
    plain = nn.Conv2d(2, 3, 1)
    plain.load_state_dict(network.state_dict())
    settings = OptimizationSettings(optimizer="lars", lr=0.5, weight_decay=0.01, lars_decay=form)
    ours, theirs = build_optimizer(network, settings), torch.optim.SGD(plain.parameters(), 0.5, momentum=0.9)
    set_rate_(ours, 0.5)
    for step in range(3):
        grads = [torch.randn(p.shape, generator=rng_of(step)) for p in plain.parameters()]
        scale = {"scaled": lars_scaled, "added": lars_added}[form]
        scaled = scale(list(plain.parameters()), grads, 0.01, 0.001)
        for p, q, own, given_ in zip(network.parameters(), plain.parameters(), grads, scaled, strict=True):
            p.grad, q.grad = own.clone(), given_.detach()
        ours.step()
        theirs.step()
    assert_same(dict(network.state_dict()), dict(plain.state_dict()))


# Schedules


def test_the_defaults_are_the_published_schedules() -> None:
    pretrain = OptimizationSettings(lr=0.03)
    assert [learning_rate(pretrain, step, 100, 10) for step in (0, 50)] == pytest.approx([0.03, 0.015])
    finetune = FinetuneSettings(steps=100)
    assert learning_rate(finetune, 0, 100, 7.5) == 0.01
    assert learning_rate(finetune, 50, 100, 7.5) == pytest.approx((0.01 - 1e-4) * 0.5**0.9 + 1e-4)


@given(st.integers(1, 40), st.floats(1, 9), st.sampled_from(["cosine", "polynomial"]))
def test_by_epoch_the_rate_changes_only_where_one_begins_and_is_that_of_the_step_there(
    epochs: int, length: float, schedule: str
) -> None:
    settings = OptimizationSettings(lr=0.3, min_lr=0.001, schedule=schedule, schedule_by="epoch")
    steps = max(1, round(epochs * length))
    for step in range(steps):
        epoch = math.floor(step / length + 1e-9)
        at = replace(settings, schedule_by="step")
        expected = learning_rate(at, 0, 1, 1) if epoch == 0 else None
        rate = learning_rate(settings, step, steps, length)
        assert 0.001 <= rate <= 0.3
        assert expected is None or rate == expected
        first = math.ceil(epoch * length - 1e-6)
        assert rate == learning_rate(settings, first, steps, length)


def test_steps_are_counted_in_epochs_or_steps() -> None:
    settings = OptimizationSettings(lr=1.0, schedule="steps", milestones=(2, 3), schedule_by="epoch")
    assert [learning_rate(settings, step, 16, 4) for step in (7, 8, 11, 12)] == pytest.approx([1, 0.1, 0.1, 0.01])
    by_step = replace(settings, schedule_by="step")
    assert [learning_rate(by_step, step, 16, 4) for step in (1, 2, 3)] == pytest.approx([1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": "adamm"}, "pretrain.optimizer: expected sgd, adam, adamw or lars, got 'adamm'"),
        ({"schedule": "steps"}, "pretrain.milestones: schedule: steps needs them"),
        ({"milestones": [3]}, "pretrain.milestones: schedule: steps needs them and no other has any"),
        ({"schedule": "steps", "milestones": [3, 2]}, "pretrain.milestones: expected rising numbers"),
        ({"layer_decay": 0}, "pretrain.layer_decay: expected"),
        ({"betas": [0.9, 1.0]}, "pretrain.betas: expected numbers in"),
        ({"betas": [0.9]}, "pretrain.betas: expected 2 values"),
        ({"lars_decay": "none"}, "pretrain.lars_decay: expected scaled or added"),
        ({"min_lr": float("nan")}, "pretrain.min_lr: expected 0 or more"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_by_its_key(changes: Layer, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        resolve({"pretrain": changes})


def test_of_steps_and_epochs_the_later_one_counts() -> None:
    target: Layer = {"finetune": {"target": "shapes-target"}}
    layers = (target, {"finetune": {"epochs": 3}}, {"finetune": {"steps": 7}})
    recipe, _ = finetune_recipe(Request(layers=layers, init="scratch"))
    assert (recipe.finetune.steps, recipe.finetune.epochs) == (7, None)
    recipe, _ = finetune_recipe(Request(layers=(*layers, {"finetune": {"epochs": 2}}), init="scratch"))
    assert recipe.finetune.epochs == 2
    pretrain = resolve({"pretrain": {"steps": 7}}, {"pretrain": {"epochs": 3}}).pretrain
    assert (pretrain.steps, pretrain.epochs) == (None, 3)


# In checkpoints


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_goes_on_from_its_moments_to_the_same_bits(name: str) -> None:
    settings = OptimizationSettings(optimizer=name, lr=0.1, weight_decay=0.01)

    def steps(network: nn.Module, optimizer: Optimizer, numbers: range) -> None:
        set_rate_(optimizer, 0.1)
        for number in numbers:
            for parameter in network.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=rng_of(number))
            optimizer.step()

    whole, stopped, resumed = (nn.Conv2d(2, 3, 1) for _ in range(3))
    stopped.load_state_dict(whole.state_dict())
    steps(whole, build_optimizer(whole, settings), range(5))
    first = build_optimizer(stopped, settings)
    steps(stopped, first, range(2))
    resumed.load_state_dict(stopped.state_dict())
    second = build_optimizer(resumed, settings)
    restore_moments_(second, resumed, {name: tensor.clone() for name, tensor in moments_of(first, stopped).items()})
    steps(resumed, second, range(2, 5))
    assert_same(dict(whole.state_dict()), dict(resumed.state_dict()))


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("name", ["sgd", "sgd without momentum", "adam", "adamw"])
def test_an_optimizer_gives_the_bits_of_torchs(name: str, decay: float) -> None:
    ours, theirs = Small(), Small()
    theirs.load_state_dict(ours.state_dict())
    momentum = 0.0 if "without" in name else 0.9
    settings = OptimizationSettings(
        optimizer=name.split(maxsplit=1)[0], lr=0.1, momentum=momentum, weight_decay=decay, decay_1d=True
    )
    own = build_optimizer(ours, settings)
    parameters = list(theirs.parameters())
    other: torch.optim.Optimizer
    if name in ("adam", "adamw"):
        other = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](parameters, lr=0.1, weight_decay=decay)
    else:
        other = torch.optim.SGD(parameters, lr=0.1, momentum=momentum, weight_decay=decay)
    for step in range(4):
        set_rate_(own, 0.1 / (step + 1))
        other.param_groups[0]["lr"] = 0.1 / (step + 1)
        for number, (p, q) in enumerate(zip(ours.parameters(), theirs.parameters(), strict=True)):
            unused = number == 3 and step < 2  # a parameter that has no gradient at first
            p.grad = None if unused else torch.randn(p.shape, generator=rng_of(100 * step + number))
            q.grad = None if p.grad is None else p.grad.clone()
        own.step()
        other.step()
        own.zero_grad()
    assert_same(dict(ours.state_dict()), dict(theirs.state_dict()))
    assert all(parameter.grad is None for parameter in ours.parameters())


TRAINS = """
import sys
from pathlib import Path
from mdp.io.training.job import run_pretraining
from tests.small_runs import request
for name in ("sgd", "adamw"):
    run_pretraining(request(("pretrain.steps", 1), ("run.check", False), ("pretrain.optimizer", name), out=Path(name)))
print(sorted({"torch._dynamo", "torch._inductor", "sympy", "torch.distributed.launcher"} & set(sys.modules)))
"""


def test_training_does_not_import_torchs_compiler(tmp_path: Path) -> None:
    """In an interpreter of its own: that which other commands are forked from has imported it."""
    done = subprocess.run(
        [sys.executable, "-c", TRAINS],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["[]"]), done.stderr


CHOSEN: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": "adamw", "lr": 0.001, "layer_decay": 0.8, "warmup_steps": 2, "schedule_by": "epoch"},
    "lars": {"optimizer": "lars", "lr": 0.6, "min_lr": 0.0006},
}


@pytest.mark.usefixtures("in_an_empty_folder")
@pytest.mark.parametrize("name", CHOSEN)
def test_a_resumed_run_ends_bit_for_bit_as_if_never_stopped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = merge(TINY, {"pretrain": CHOSEN[name]})
    whole = run_pretraining(Request(layers=(layer,), quiet=True, out=Path("whole")))
    with monkeypatch.context() as patch:
        signal_after(patch, 3)
        with pytest.raises(Preempted):
            run_pretraining(Request(layers=(layer,), quiet=True, out=Path("stopped")))
    resumed = run_pretraining(Request(resume="stopped", quiet=True))
    assert_same(tensors_of(whole), tensors_of(resumed))
    assert losses(whole) == losses(resumed)


@pytest.mark.usefixtures("in_an_empty_folder")
def test_fine_tuning_in_epochs_with_adam_falls_and_ends_after_them() -> None:
    epochs: Layer = {"finetune": {"optimizer": "adam", "lr": 0.01, "epochs": 2, "batch_size": 10, "schedule": "cosine"}}
    run = run_finetuning(Request(layers=(merge(TINY, epochs),), quiet=True, init="scratch"))
    found = [loss for _, loss in losses(run)]
    assert len(found) == 10  # twice 50 images
    assert sum(found[-5:]) < sum(found[:5])
