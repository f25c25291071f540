"""Recipes of arXiv 2106.05967: rows of a table differ in what it is about, and in nothing else."""

from pathlib import Path
from typing import Any

import pytest

from mdp.core.methods.knn_moco import NeighbourSettings, Settings
from mdp.io.recipe.catalogue import recipe_rows
from mdp.io.recipe.layers import Recipe, as_layer, changed_keys, config_layer, resolve
from mdp.io.recipe.published import schedule_layer
from mdp.io.recipe.request import Request
from mdp.io.training.finetuning import finetune_recipe
from tests.conftest import ROOT

FOLDER = ROOT / "examples" / "recipes" / "revisiting"
FULL = "table4_full"


@pytest.fixture(autouse=True)
def in_the_root_of_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def recipe_of(name: str) -> Recipe:
    return resolve(config_layer(FOLDER / f"{name}.yaml"))


def differing(name: str, other: str) -> list[str]:
    return sorted(changed_keys(as_layer(recipe_of(name)), as_layer(recipe_of(other))))


@pytest.mark.parametrize(
    ("name", "other", "keys"),
    [
        ("table4_full", "table4_mc_cc_m_a", ["method.neighbours.weight"]),
        ("table4_mc_cc_m_a", "table4_mc_cc_m", ["method.auto_augment"]),
        ("table4_mc_cc_m", "table4_mc_cc", ["method.key_momentum"]),
        ("table4_mc_cc", "table4_mc", ["method.min_overlap"]),
        ("policy_standard", "table4_mc_cc_m", []),
        ("policy_either", "table4_mc_cc_m_a", []),
        ("policy_autoaugment", "policy_either", ["method.auto_augment"]),
        ("table8_weight0", "table4_mc_cc_m", []),
        ("table8_weight0.4", "table8_k20", []),
        ("table8_k5", "table8_k20", ["method.neighbours.k"]),
        ("table9_moco", "table4_moco", ["pretrain.epochs"]),
        ("table9_full", "table4_full", ["method.neighbours.warmup_epochs", "pretrain.epochs"]),
        ("table3_in118k", "table3_oi118k", ["pretrain.datasets"]),
        ("table3_in118k", "table3_in118k_lt", ["pretrain.images", "pretrain.long_tail"]),
        ("tableS1_in236k", "table3_in118k", ["pretrain.images"]),
        ("fcn_voc", "fcn_voc", []),
    ],
    ids=str,
)
def test_two_rows_differ_in_what_their_table_is_about(name: str, other: str, keys: list[str]) -> None:
    assert differing(name, other) == keys


def test_the_whole_method_is_what_it_does_without_a_recipe() -> None:
    recipe = recipe_of(FULL)
    assert recipe.method.settings == Settings()
    assert (recipe.pretrain.epochs, recipe.pretrain.batch_size, recipe.pretrain.lr) == (200, 256, 0.3)
    assert recipe_of("table8_k50").method.settings.neighbours == NeighbourSettings(k=50)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fcn_voc", {"epochs": 45, "batch_size": 16, "optimizer": "sgd", "lr": 0.003, "milestones": (31, 41)}),
        ("fcn_cityscapes", {"epochs": 150, "batch_size": 16, "optimizer": "adam", "lr": 1e-4, "scale": None}),
        (
            "deeplabv3_nyudv2",
            {"epochs": 100, "batch_size": 8, "optimizer": "adam", "lr": 1e-4, "schedule": "polynomial"},
        ),
    ],
    ids=str,
)
def test_fine_tuning_is_that_of_the_appendix_whatever_the_dataset_has_for_itself(
    name: str, expected: dict[str, Any]
) -> None:
    recipe = finetune_recipe(Request(layers=(config_layer(FOLDER / f"{name}.yaml"),), init="scratch"))[0]
    assert {key: getattr(recipe.finetune, key) for key in expected} == expected
    assert (recipe.model.output_stride, recipe.model.first_dilation) == (16, "own")
    assert recipe.finetune.weight_decay == 1e-4
    assert recipe.finetune.distortion.probability == 0
    assert schedule_layer(recipe.finetune.target)  # which it goes before


def test_every_row_says_what_to_expect() -> None:
    rows = {Path(row["path"]).stem: row["expected"] for row in recipe_rows(FOLDER)}
    assert len(rows) == 37
    assert all(text.startswith(("mIoU ", "mAP ")) and "of arXiv 2106.05967)" in text for text in rows.values())
