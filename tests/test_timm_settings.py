"""What a run takes from a backbone out of timm: stride, mean and deviation; `--backbone`, `--dry-run`, presets."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from mdp.core.networks import NetworkSettings, build_segmentor
from mdp.core.photometry import IMAGENET, Statistics
from mdp.io.data.selection import plan_finetuning
from mdp.io.errors import MdpError, RecipeError
from mdp.io.recipe.backbone import backbone_lines, of_backbone
from mdp.io.recipe.layers import Layer, config_layer, merge, nest, resolve
from mdp.io.recipe.request import Request
from mdp.io.recipe.shelf import recipe_path
from mdp.io.run.checkpoints import checkpoints_in
from mdp.io.run.opened import open_run
from mdp.io.training.finetuning import describe_finetuning, finetune_recipe
from mdp.io.training.job import run_finetuning
from mdp.io.training.pretraining import describe_pretraining, pretrain_recipe
from tests.peers import library_or_skip
from tests.small_runs import TINY
from tests.tensors import rng_of

pytestmark = pytest.mark.usefixtures("bare_runs")

HALF = Statistics((0.5,) * 3, (0.5,) * 3)
PRESETS = ("vit", "swin", "convnext", "dinov2", "dinov3", "efficientnet_lite0")


@pytest.fixture(autouse=True)
def timm() -> ModuleType:
    return library_or_skip("timm")


def asked(*changes: tuple[str, Any], **more: Any) -> Request:
    small = {key: value for key, value in TINY.items() if key != "model"}
    model: Layer = {"model": {"backbone": "timm:test_vit", "channels": 8, "dilations": [1, 2]}}
    return Request(layers=(merge(small, model, *(nest(*change) for change in changes)),), quiet=True, **more)


def test_a_backbone_that_is_asked_for_alone_has_its_own_stride() -> None:
    own = {"test_vit": 16, "test_convnext": 32, "vit_small_patch14_dinov2": 14}
    assert {name: NetworkSettings(backbone=f"timm:{name}").stride for name in own} == own
    assert NetworkSettings().stride == NetworkSettings(backbone="resnet18", width=8).stride == 8
    assert NetworkSettings(backbone="timm:test_convnext", output_stride=16).stride == 16


def test_a_fresh_run_records_what_the_weights_were_trained_with() -> None:
    found = pretrain_recipe(asked()).model
    assert (found.output_stride, found.statistics) == (16, HALF)
    assert backbone_lines(found) == [
        "backbone timm:test_vit: output stride 16; photos less the mean 0.5, 0.5, 0.5, over the deviation 0.5, 0.5, "
        "0.5, as its weights in timm were trained"
    ]
    recipe = finetune_recipe(asked(init="scratch"))[0]
    assert recipe.model == found
    assert plan_finetuning(recipe).pool.statistics == HALF  # by which its photos are normalised


def test_a_setting_of_ones_own_wins_and_the_other_numbers_are_named() -> None:
    mean = ("model.image_mean", [0.1, 0.2, 0.3])
    found = pretrain_recipe(asked(mean, ("model.image_std", [0.5, 0.5, 0.5]))).model
    assert found.statistics == Statistics((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    assert "as set; timm's weights were trained with" in backbone_lines(found)[0]
    assert pretrain_recipe(asked(mean)).model.statistics.std == IMAGENET.std


def test_our_own_networks_and_other_channels_keep_their_statistics() -> None:
    ours = resolve({"model": {"backbone": "resnet18"}})
    assert of_backbone(ours).model == NetworkSettings(backbone="resnet18", output_stride=8)
    assert backbone_lines(ours.model) == []
    five = {"image_channels": 5, "image_mean": [0.1] * 5, "image_std": [0.2] * 5}
    assert of_backbone(resolve({"model": {"backbone": "timm:test_vit", **five}})).model.image_mean == (0.1,) * 5


@pytest.mark.usefixtures("in_an_empty_folder")
def test_fine_tuning_a_run_keeps_what_it_was_trained_with() -> None:
    run = run_finetuning(asked(("finetune.steps", 1), ("model.image_mean", [0.1, 0.2, 0.3]), init="scratch"))
    assert open_run(checkpoints_in(run)[0]).recipe.model.image_mean == (0.1, 0.2, 0.3)
    again, weights = finetune_recipe(Request(layers=({"finetune": TINY["finetune"]},), init=str(run)))
    assert weights is not None
    assert again.model.image_mean == (0.1, 0.2, 0.3)
    other = ({"finetune": TINY["finetune"], "model": {"backbone": "timm:test_convnext", "channels": 8}},)
    assert finetune_recipe(Request(layers=other, init=str(run)))[0].model.output_stride == 32
    with pytest.raises(MdpError, match=r"none of its tensors|only \d+ of the \d+ backbone tensors"):
        describe_finetuning(Request(layers=other, init=str(run)))


def test_a_dry_run_says_what_fits_and_writes_nothing(in_an_empty_folder: None, timm: ModuleType) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.save(timm.create_model("test_vit").state_dict(), "vit.pth")
    found = describe_finetuning(asked(init="vit.pth"))
    assert json.loads(json.dumps(found)) == found
    assert found["steps"] == TINY["finetune"]["steps"]
    assert "output stride 16" in found["found"][-1]
    assert found["starts_from"][0].startswith("loaded 76 of 76 backbone tensors from vit.pth; starts at random: dec")
    assert describe_finetuning(asked(init="scratch"))["starts_from"] == ["random weights"]
    assert "output stride 16" in describe_pretraining(asked())["found"][-1]
    with pytest.raises(RecipeError, match=r"near it: timm:test_vit"):
        describe_finetuning(asked(("model.backbone", "timm:test_vitt"), init="vit.pth"))
    assert sorted(Path().iterdir()) == [Path("vit.pth")]


def test_blocks_are_passed_by_at_rates_that_rise_to_the_one_that_is_set(timm: ModuleType) -> None:
    deep = NetworkSettings(backbone="timm:test_vit", channels=8, dilations=(1, 2), drop_path=0.5)
    network = build_segmentor(deep, 3, rng_of(0))
    rates = [block.drop_path1 for block in network.backbone.blocks]  # type: ignore[union-attr]
    assert [getattr(rate, "drop_prob", 0.0) for rate in rates] == pytest.approx(torch.linspace(0, 0.5, len(rates)))
    plain = build_segmentor(NetworkSettings(backbone="timm:test_vit", channels=8, dilations=(1, 2)), 3, rng_of(0))
    assert all(map(torch.equal, network.state_dict().values(), plain.state_dict().values()))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains_a_small_model_of_its_family(name: str, in_an_empty_folder: None) -> None:
    layer = config_layer(recipe_path(Path(name)))
    small = {"vit": "test_vit", "swin": "test_vit", "convnext": "test_convnext", "dinov2": "test_vit"}
    own = {"dinov3": "test_vit", "efficientnet_lite0": "test_efficientnet"}
    data = {key: TINY["finetune"][key] for key in ("target", "crop", "scale", "images") if key in TINY["finetune"]}
    changes: Layer = {
        "run": {**TINY["run"]},
        "model": {"backbone": f"timm:{(small | own)[name]}"},
        "finetune": {**data, "steps": 1, "batch_size": 2, "warmup_steps": 0, "validate_images": 1},
    }
    if layer["model"]["head"] != "linear":
        changes["model"]["channels"] = 8
    run = run_finetuning(Request(layers=(layer, changes), quiet=True, init="scratch"))
    record = json.loads((run / "status.json").read_text())
    assert record["state"] == "done"
