"""Recipes: layers, strictness, and the way back to YAML."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mdp.io.errors import RecipeError
from mdp.io.recipe.layers import as_layer, as_yaml, config_layer, merge, nest, resolve, set_layer
from mdp.io.recipe.published import recipe_yaml, schedule_layer


def test_later_layers_win_setting_by_setting() -> None:
    recipe = resolve({"pretrain": {"lr": 1.0, "epochs": 7}}, {"pretrain": {"lr": 2.0}}, {})
    assert recipe.pretrain.lr == 2.0
    assert recipe.pretrain.epochs == 7
    assert recipe.pretrain.batch_size == 64


def test_the_defaults_are_the_papers() -> None:
    recipe = resolve()
    assert (recipe.model.backbone, recipe.model.stride, recipe.model.head_channels) == ("resnet50", 8, 512)
    assert (recipe.pretrain.crop, recipe.pretrain.batch_size, recipe.pretrain.epochs) == (224, 64, 100)
    assert (recipe.pretrain.lr, recipe.pretrain.momentum, recipe.pretrain.weight_decay) == (0.03, 0.9, 1e-4)
    assert recipe.method.name == "multi_dataset"
    assert (recipe.method.settings.temperature, recipe.method.settings.key_momentum) == (0.07, 0.999)
    assert recipe.method.settings.sparse.variant == "off"


@pytest.mark.parametrize(
    ("target", "steps", "batch", "crop", "scale"),
    [
        ("voc", 40000, 16, (512, 512), (2048, 512)),
        ("ade20k", 80000, 16, (512, 512), (2048, 512)),
        ("cityscapes", 40000, 8, (512, 1024), (2048, 1024)),
        ("coco_stuff", 80000, 16, (512, 512), (2048, 512)),
        ("anything", 20000, 16, (512, 512), None),
    ],
)
def test_targets_bring_their_published_schedule(
    target: str, steps: int, batch: int, crop: tuple[int, int], scale: tuple[int, int] | None
) -> None:
    recipe = resolve(schedule_layer(target))
    found = recipe.finetune
    assert (found.steps, found.batch_size, found.crop, found.scale) == (steps, batch, crop, scale)
    assert recipe.eval.scale == scale


def test_a_recipe_survives_yaml() -> None:
    recipe = resolve(
        schedule_layer("cityscapes"),
        nest("method.mix.region", True),
        nest("pretrain.datasets", ["voc", "ade20k"]),
        nest("run.threads", 2),
    )
    assert resolve(yaml.safe_load(as_yaml(recipe))) == recipe
    assert resolve(as_layer(recipe)) == recipe


KEYS = [
    "pretrain.lr",
    "run.seed",
    "model.backbone",
    "method.temperature",
    "method.mix.region",
    "finetune.crop",
    "eval.mode",
]


@given(st.sampled_from(KEYS), st.integers(0, 30), st.sampled_from("abcdefgz_"))
def test_every_misspelt_key_is_refused_with_its_full_name(key: str, place: int, letter: str) -> None:
    section, _, name = key.rpartition(".")
    place %= len(name) + 1
    wrong = f"{section}.{name[:place]}{letter}{name[place:]}"
    with pytest.raises(RecipeError, match=f"unknown setting {wrong}; did you mean '{name}'"):
        resolve(nest(wrong, 1))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"pretrian": {}}, "unknown setting pretrian; did you mean 'pretrain'"),
        ({"pretrain": {"lr": "fast"}}, "pretrain.lr: expected a number, got 'fast'"),
        ({"pretrain": {"epochs": 1.5}}, "pretrain.epochs: expected a whole number, got 1.5"),
        ({"pretrain": {"epochs": True}}, "pretrain.epochs: expected a whole number, got True"),
        ({"pretrain": {"balance": 1}}, "pretrain.balance: expected true or false, got 1"),
        ({"pretrain": {"datasets": "voc"}}, r"pretrain.datasets: expected a list such as \[voc\], got 'voc'"),
        ({"finetune": {"crop": 512}}, r"finetune.crop: expected a list such as \[512, 512\], got 512"),
        ({"finetune": {"crop": None}}, "finetune.crop: expected a list, got"),
        ({"pretrain": {"crop_area": [0.2]}}, "pretrain.crop_area: expected 2 values"),
        (
            {"pretrain": {"crop_area": [0.9, 0.2]}},
            r"pretrain.crop_area: expected 0 < low <= high <= 1, got \[0.9, 0.2\]",
        ),
        ({"pretrain": {"lr": float("nan")}}, "pretrain.lr: expected 0 or more, got nan"),
        ({"pretrain": {"batch_size": 0}}, "pretrain.batch_size: expected 1 or more, got 0"),
        ({"pretrain": 3}, "pretrain: expected a section"),
        ({"model": {"backbone": "resnet51"}}, "model.backbone: expected one of resnet18"),
        ({"method": {"name": "multi_datasets"}}, "unknown method 'multi_datasets'; did you mean 'multi_dataset'"),
        ({"method": {"mix": {"box": "middle"}}}, "box: expected corner or center, got 'middle'"),
        ({"method": {"sparse": {"k": 0}}}, "k: expected 1 or more"),
        ({"finetune": {"load": ["neck"]}}, "finetune.load: expected"),
        ({"eval": {"mode": "both"}}, "eval.mode: expected whole or slide"),
        ({"finetune": {"scale": [0, 5]}}, "finetune.scale"),
    ],
)
def test_wrong_values_are_refused_by_name(layer: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolve(layer)


def test_set_takes_yaml_values_and_needs_an_equals_sign() -> None:
    layer = set_layer(("pretrain.lr=1e-4", "finetune.crop=[64, 96]", "method.mix.region=true", "run.seed=3"))
    recipe = resolve(layer)
    assert recipe.pretrain.lr == 1e-4
    assert recipe.finetune.crop == (64, 96)
    assert recipe.method.settings.mix.region is True
    with pytest.raises(RecipeError, match="expected KEY=VALUE"):
        set_layer(("pretrain.lr",))


@given(
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=4),
)
def test_merging_with_nothing_changes_nothing(a: dict[str, int], b: dict[str, int]) -> None:
    assert merge(a, {}) == a
    assert merge(a, b) == {**a, **b}


def test_what_is_shown_of_a_recipe_is_the_same_recipe_further_criteria_included(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("criterion: {name: focal, plus: {dice: 3}}\nmethod: {name: knn_moco}\n")
    (tmp_path / "shown.yaml").write_text(recipe_yaml(tmp_path / "own.yaml", "", ""))
    assert resolve(config_layer(tmp_path / "shown.yaml")) == resolve(config_layer(tmp_path / "own.yaml"))
