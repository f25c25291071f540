"""Recipes of the paper's rows: they resolve, plan what hand arithmetic says, and name the figure to reach."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mdp.cli import cli
from mdp.io.errors import RecipeError
from mdp.io.files.strict_yaml import parse_yaml
from mdp.io.recipe.catalogue import recipe_rows, recipe_table
from mdp.io.recipe.layers import Layer, Recipe, config_layer, resolve
from mdp.io.recipe.published import recipe_yaml, schedule_layer
from mdp.io.recipe.request import Request
from mdp.io.recipe.shelf import recipe_path
from mdp.io.training.finetuning import finetune_recipe
from mdp.io.training.pretraining import describe_pretraining
from tests.conftest import ROOT
from tests.peers import library_or_skip

RECIPES = sorted((ROOT / "examples" / "recipes").rglob("*.yaml"))
PAPER = ROOT / "examples" / "recipes" / "paper"

# Rows of Tables 1 to 4, and those of the authors' notes that the settings can express: the figures as reported
TABLES = {
    "table1_scratch": "voc 44.78, ade20k 28.67, cityscapes 54.27",
    "table1_moco_v2": "voc 71.59, ade20k 38.29, cityscapes 77.52",
    "table1_supervised_imagenet": "voc 75.63, ade20k 39.36, cityscapes 77.60",
    "table1_mdp_voc_ade_100ep": "voc 73.32, ade20k 40.17, cityscapes 77.75",
    "table1_mdp_voc_ade_200ep": "voc 74.30, ade20k 40.83, cityscapes 78.59",
    "table1_mdp_voc_ade_coco_200ep": "voc 77.79, ade20k 42.69, cityscapes 80.64",
    "table2_pixel_to_pixel": "voc 68.05",
    "table2_region_4096": "voc 68.69",
    "table2_class_1024": "voc 69.61",
    "table2_class_4096": "voc 69.72",
    "table2_class_10560": "voc 69.80",
    "table2_class_4096_tau0.3": "voc 69.01",
    "table2_class_4096_tau0.5": "voc 68.65",
    "table3_voc": "voc 69.72",
    "table3_voc_cutmix": "voc 70.92",
    "table3_voc_mixup": "voc 68.40",
    "table3_voc_ade": "voc 71.98",
    "table3_voc_ade_cutmix": "voc 72.66",
    "table3_voc_ade_mixup": "voc 73.00",
    "table3_voc_ade_both": "voc 73.32",
    "table4_without_csc": "voc 71.98, cityscapes 75.37",
    "table4_with_csc": "voc 71.84, cityscapes 76.53",
}
EXTRA = {
    "extra_csc1": "voc 70.88, cityscapes 75.50",
    "extra_voc_200ep": "voc 70.56",
    "extra_voc_400ep": "voc 72.26",
    "extra_voc_ade_200ep": "voc 73.49",
    "extra_pixel_to_pixel_voc_ade": "voc 71.19, ade20k 38.81, cityscapes 77.17",
    "extra_multi_head_voc_ade": "voc 71.19",
    "extra_sequential": "voc 75.68, ade20k 41.44, cityscapes 78.47",
    "extra_coco_only": "voc 76.85",
    "extra_coco_only_from_imagenet": "voc 77.56",
    "extra_voc_ade_100ep_from_imagenet": "voc 75.70, ade20k 41.57",
    "extra_voc_ade_200ep_from_imagenet": "voc 76.24, ade20k 41.93",
    "extra_supervised_coco": "voc 68.48",
    "extra_supervised_coco_from_imagenet": "voc 74.51",
}
ROWS = {**TABLES, **EXTRA}
ONLY_FINETUNED = {
    "table1_scratch": "voc",
    "table1_supervised_imagenet": "voc",
    "extra_supervised_coco": "coco_stuff",
    "extra_supervised_coco_from_imagenet": "coco_stuff",
}

# Images by official counts: VOC trainaug 10,582, ADE20K 20,210, COCO-Stuff 118,287, ImageNet 1,281,167; steps an epoch
# are whole batches. A class bank of L batches and C classes has at most C (L (4 x 256 + 8) + 8 x 256 + 8) + 4 L bytes.
VOC, VOC_ADE, ALL, COCO = (10_582, 165), (30_792, 481), (149_079, 2_329), (118_287, 1_848)
BANK_VOC, BANK_VOC_ADE = 21 * (64 * 1032 + 2056) + 256, 171 * (64 * 1032 + 2056) + 256  # 1,430,440 and 11,646,040
EPOCH_VOC_ADE, EPOCH_COCO = (
    85_236_532,
    326_479_224,
)  # 171 x (481 x 1032 + 2056) + 1924, 171 x (1848 x 1032 + 2056) + 7392
PLANS: dict[str, tuple[tuple[int, int], int, int]] = {  # (images, steps an epoch), steps, bytes of state
    "table1_moco_v2": ((1_281_167, 5_004), 4_003_200, 4 * 65_536 * 128),
    "table1_mdp_voc_ade_100ep": (VOC_ADE, 48_100, EPOCH_VOC_ADE),
    "table1_mdp_voc_ade_200ep": (VOC_ADE, 96_200, EPOCH_VOC_ADE),
    "table1_mdp_voc_ade_coco_200ep": (ALL, 465_800, 822_719_044),  # 342 x (2329 x 1032 + 2056) + 4 x 2329
    "table2_pixel_to_pixel": (VOC, 16_500, 0),
    "table2_region_4096": (VOC, 16_500, 88_080_552),  # 21 x (4096 x 1024 + 8)
    "table2_class_1024": (VOC, 16_500, 389_992),  # 21 x (16 x 1032 + 2056) + 4 x 16
    "table2_class_4096": (VOC, 16_500, BANK_VOC),
    "table2_class_10560": (VOC, 16_500, 3_619_716),  # 21 x (165 x 1032 + 2056) + 4 x 165
    "table2_class_4096_tau0.3": (VOC, 16_500, BANK_VOC),
    "table2_class_4096_tau0.5": (VOC, 16_500, BANK_VOC),
    "table3_voc": (VOC, 16_500, BANK_VOC),
    "table3_voc_cutmix": (VOC, 16_500, BANK_VOC),
    "table3_voc_mixup": (VOC, 16_500, BANK_VOC),
    "table3_voc_ade": (VOC_ADE, 48_100, BANK_VOC_ADE),
    "table3_voc_ade_cutmix": (VOC_ADE, 48_100, BANK_VOC_ADE),
    "table3_voc_ade_mixup": (VOC_ADE, 48_100, BANK_VOC_ADE),
    "table3_voc_ade_both": (VOC_ADE, 48_100, BANK_VOC_ADE),
    "table4_without_csc": (VOC_ADE, 48_100, BANK_VOC_ADE),
    "table4_with_csc": (VOC_ADE, 48_100, BANK_VOC_ADE),
    "extra_csc1": (VOC_ADE, 48_100, BANK_VOC_ADE),
    "extra_voc_200ep": (VOC, 33_000, BANK_VOC),
    "extra_voc_400ep": (VOC, 66_000, BANK_VOC),
    "extra_voc_ade_200ep": (VOC_ADE, 96_200, BANK_VOC_ADE),
    "extra_pixel_to_pixel_voc_ade": (VOC_ADE, 48_100, 0),
    "extra_multi_head_voc_ade": (VOC_ADE, 48_100, 8 * 171),
    "extra_sequential": (COCO, 184_800, EPOCH_COCO),
    "extra_coco_only": (COCO, 184_800, EPOCH_COCO),
    "extra_coco_only_from_imagenet": (COCO, 184_800, EPOCH_COCO),
    "extra_voc_ade_100ep_from_imagenet": (VOC_ADE, 48_100, EPOCH_VOC_ADE),
    "extra_voc_ade_200ep_from_imagenet": (VOC_ADE, 96_200, EPOCH_VOC_ADE),
}


@pytest.fixture(autouse=True)
def in_the_root_of_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of dataset files in a recipe are relative to the folder that the command runs in."""
    monkeypatch.chdir(ROOT)


def recipe_of(name: str) -> Recipe:
    return resolve(config_layer(PAPER / f"{name}.yaml"))


def plan_of(name: str, root: Path, *others: Layer) -> dict[str, Any]:
    return describe_pretraining(
        Request(layers=(config_layer(PAPER / f"{name}.yaml"), {"data": {"root": str(root)}}, *others))
    )


def test_there_is_a_recipe_for_every_row_and_no_other() -> None:
    assert {path.stem for path in PAPER.iterdir()} == set(ROWS)
    assert {path.suffix for path in PAPER.iterdir()} == {".yaml"}
    assert set(PLANS) | set(ONLY_FINETUNED) == set(ROWS)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_resolves_with_the_schedule_of_its_target_and_without(path: Path) -> None:
    if "timm:" in path.read_text(encoding="utf-8"):
        library_or_skip("timm")
    layer = config_layer(path)
    target = str((layer.get("finetune") or {}).get("target", ""))
    resolve(layer, source=str(path))
    resolve(schedule_layer(target), layer, source=str(path))


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_of_a_row_is_that_of_hand_arithmetic(name: str, tmp_path: Path) -> None:
    (images, an_epoch), steps, state = PLANS[name]
    # images, steps and state do not depend on the network: a small one is built sooner
    small = {"model": {"backbone": "resnet18", "width": 8, "channels": 8}}
    plan = plan_of(name, tmp_path, small)
    assert sum(plan["images"].values()) == images
    assert (plan["steps_an_epoch"], plan["steps"]) == (an_epoch, steps)
    assert plan["images_seen"] == steps * plan["batch_size"]
    assert plan["state_bytes"] == state


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # ResNet-50 23,508,032 + ASPP 42,211,328 + projection head 920,832
        ("table1_mdp_voc_ade_200ep", 66_640_192),
        # ResNet-50 + 2048 x 2048 + 2048 + 2048 x 128 + 128
        ("table1_moco_v2", 27_966_656),
        # ResNet-50 + ASPP + 171 classes x 513
        ("extra_multi_head_voc_ade", 65_807_083),
    ],
)
def test_the_networks_are_those_of_the_paper(name: str, parameters: int, tmp_path: Path) -> None:
    assert plan_of(name, tmp_path)["parameters"] == parameters


def test_a_plan_without_the_datasets_says_so(tmp_path: Path) -> None:
    lines = plan_of("table1_mdp_voc_ade_coco_200ep", tmp_path)["found"]
    assert [line.split(":")[0] for line in lines] == ["voc trainaug", "ade20k train", "coco_stuff train"]
    assert all(line.endswith("not there; counted as published") for line in lines)
    assert plan_of("table1_moco_v2", tmp_path)["found"] == ["imagenet train: not there; counted as published"]


@pytest.mark.parametrize("name", ONLY_FINETUNED)
def test_a_row_that_does_not_pretrain_has_a_target_and_no_datasets(name: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no datasets"):
        plan_of(name, tmp_path)
    recipe, weights = finetune_recipe(Request(layers=(config_layer(PAPER / f"{name}.yaml"),), init="scratch"))
    assert weights is None
    assert recipe.finetune.target == ONLY_FINETUNED[name]
    assert recipe.finetune.steps == {"voc": 40_000, "coco_stuff": 80_000}[recipe.finetune.target]


def test_rows_differ_in_what_their_tables_are_about() -> None:
    mixings = {name: recipe_of(name).method.settings.mix for name in TABLES if name.startswith("table3")}
    assert {name: (mix.region, mix.pixel) for name, mix in mixings.items()} == {
        "table3_voc": (False, False),
        "table3_voc_cutmix": (True, False),
        "table3_voc_mixup": (False, True),
        "table3_voc_ade": (False, False),
        "table3_voc_ade_cutmix": (True, False),
        "table3_voc_ade_mixup": (False, True),
        "table3_voc_ade_both": (True, True),
    }
    sparse = {name: recipe_of(name).method.settings.sparse.variant for name in ("table4_with_csc", "extra_csc1")}
    assert sparse == {"table4_with_csc": "csc2", "extra_csc1": "csc1"}
    assert recipe_of("table4_without_csc").method == recipe_of("table3_voc_ade").method
    for name in ("table1_mdp_voc_ade_100ep", "table1_mdp_voc_ade_200ep", "table1_mdp_voc_ade_coco_200ep"):
        settings = recipe_of(name).method.settings
        assert (settings.mix.region, settings.mix.pixel, settings.sparse.variant) == (True, True, "off")
    methods = {"table1_moco_v2": "moco", "table2_pixel_to_pixel": "pixel_pairs", "table2_region_4096": "region_bank"}
    assert {name: recipe_of(name).method.name for name in methods} == methods
    assert recipe_of("extra_multi_head_voc_ade").method.settings.heads == "datasets"
    temperatures = {name: recipe_of(name).method.settings.temperature for name in TABLES if name.startswith("table2")}
    assert {name: tau for name, tau in temperatures.items() if tau != 0.07} == {
        "table2_class_4096_tau0.3": 0.3,
        "table2_class_4096_tau0.5": 0.5,
    }


@pytest.mark.parametrize("name", ROWS)
def test_the_comments_of_a_row_say_what_it_is_what_to_expect_and_how_to_run_it(name: str) -> None:
    about, expected, *rest = (PAPER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    table = re.match(r"table(\d)", name)
    assert about.startswith(f"# Table {table[1]}, " if table else "# Extra, ")
    assert expected.startswith(f"# expected: mIoU {ROWS[name]}")
    assert (f"(Table {table[1]} of the paper)" if table else "(authors' notes)") in expected
    commands = [line.removeprefix("#").strip() for line in rest if line.startswith("#   mdp ")]
    first = "finetune" if name in ONLY_FINETUNED else "pretrain"
    assert commands[0].startswith(f"mdp {first} --config paper/{name}")
    assert any(command.startswith("mdp finetune ") for command in commands)
    assert commands[-1] == "mdp eval"


@pytest.mark.parametrize("name", ROWS)
def test_the_options_in_the_comments_of_a_row_exist(name: str) -> None:
    for line in (PAPER / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        if line.startswith("#   mdp "):
            command, *words = line.partition("   # ")[0].split()[2:]
            known = {option for parameter in cli.commands[command].params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known, line


# mdp recipe list, and recipes by their names


def test_the_list_has_a_row_for_every_recipe_at_any_depth() -> None:
    rows = {Path(row["path"]).stem: row for row in recipe_rows()}
    assert [row["path"] for row in rows.values()] == [str(path) for path in RECIPES]
    tiny = "A recipe for two CPU cores: a half-width ResNet-18, small crops, short schedules"
    place = str(ROOT / "examples" / "recipes")
    assert rows["tiny"] == {"name": "tiny", "path": f"{place}/tiny.yaml", "about": tiny, "expected": None}
    assert rows["table3_voc"] == {
        "name": "paper/table3_voc",
        "path": f"{place}/paper/table3_voc.yaml",
        "about": "Table 3, VOC, 100 epochs, no mixing",
        "expected": "mIoU voc 69.72 (Table 3 of the paper)",
    }
    assert all(rows[name]["expected"] for name in ROWS)


def test_the_table_has_a_line_for_each_row() -> None:
    for rows in (recipe_rows(), recipe_rows(PAPER)):
        table = recipe_table(rows).splitlines()
        assert len(table) == len(rows)
        for line, row in zip(table, rows, strict=True):
            assert line.startswith(row["name"] or row["path"])
            assert row["about"] in line
            assert line.endswith(row["expected"] or row["about"])


def test_a_recipe_needs_no_comments_to_be_listed(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "plain.yml").write_text("pretrain: {epochs: 1}\n# expected: not among the opening comments\n")
    (tmp_path / "latin.yaml").write_bytes(b"# caf\xe9. More\n")
    (tmp_path / "notes.txt").write_text("# no recipe\n")
    plain, latin = recipe_rows(tmp_path)
    assert plain == {"name": None, "path": str(tmp_path / "deep" / "plain.yml"), "about": "", "expected": None}
    assert latin["about"] == "caf�"
    assert recipe_table([plain]) == plain["path"]
    assert "no recipes" in recipe_table([])


def test_recipe_list_prints_lines_or_json() -> None:
    lines = CliRunner().invoke(cli, ["recipe", "list"]).output.splitlines()
    assert len(lines) == len(RECIPES)
    rows = json.loads(CliRunner().invoke(cli, ["recipe", "list", str(PAPER), "--json"]).output)
    assert rows == recipe_rows(PAPER)
    assert len(rows) == len(ROWS)


@pytest.mark.parametrize("folder", [Path("examples/nowhere"), ROOT / "README.md"])
def test_a_missing_folder_is_one_line_that_asks_for_the_folder(folder: Path) -> None:
    with pytest.raises(RecipeError, match=f"^{folder}: expected a folder of recipes; `mdp recipe list` lists"):
        recipe_rows(folder)


@pytest.mark.parametrize(
    ("given", "meant"), [("tiny", "tiny"), ("paper/table3_voc", "paper/table3_voc"), ("table3_voc", "paper/table3_voc")]
)
def test_a_recipe_is_meant_by_its_name(given: str, meant: str) -> None:
    assert recipe_path(Path(given)) == ROOT / "examples" / "recipes" / f"{meant}.yaml"
    assert config_layer(Path(given)) == config_layer(ROOT / "examples" / "recipes" / f"{meant}.yaml")


def test_a_file_that_is_there_is_meant_before_a_recipe_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny").write_text("run: {seed: 7}\n")
    monkeypatch.chdir(tmp_path)
    assert config_layer(Path("tiny")) == {"run": {"seed": 7}}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("tinny", "tinny: expected a YAML file or the name of a recipe; did you mean 'tiny'?"),
        ("nothing", "nothing: expected a YAML file or the name of a recipe; `mdp recipe list` lists them"),
        ("mine/tiny.yaml", "mine/tiny.yaml: the YAML file is missing; the recipe of that name is tiny, without"),
        ("mine.yaml", "mine.yaml: the YAML file is missing"),
    ],
)
def test_what_is_neither_a_file_nor_a_recipe_is_one_line(given: str, words: str) -> None:
    with pytest.raises(RecipeError, match=f"^{re.escape(words)}"):
        config_layer(Path(given))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_shown_with_its_text_and_gives_itself_again(path: Path) -> None:
    shown = recipe_yaml(path, "", "")
    assert resolve(parse_yaml(shown, "shown")) == resolve(schedule_layer(""), config_layer(path))
    first, *rest = shown.splitlines()
    assert first == f"# {path}:"
    for line, copy in zip(path.read_text(encoding="utf-8").splitlines(), rest, strict=False):
        assert copy == (line if line.startswith("#") else f"#   {line}".rstrip())


def test_settings_are_shown_with_what_they_mean_and_another_value_with_the_default() -> None:
    lines = recipe_yaml(Path("tiny"), "", "").splitlines()
    assert "  epochs: 10  # default 100; passes over the training images; stated; 200 in the longer runs" in lines
    assert "  temperature: 0.07  # stated: 0.07 beats 0.3 and 0.5 (Table 2)" in lines
    assert any(line.startswith("    variant: 'off'  # off | csc2") for line in lines)
    assert "  name: multi_dataset" in lines


def test_a_package_that_was_built_has_the_recipes_in_it(tmp_path: Path) -> None:
    """As in a wheel, which has what this step builds; run in a folder that has nothing."""
    built, empty = tmp_path / "built", tmp_path / "empty"
    empty.mkdir()
    words = ["-c", "exec(open('setup.py').read())", "-q", "build_py", "--build-lib", str(built)]
    made = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    there = sorted(path.relative_to(built / "mdp" / "recipes") for path in (built / "mdp" / "recipes").rglob("*.yaml"))
    assert there == [path.relative_to(ROOT / "examples" / "recipes") for path in RECIPES]
    done = subprocess.run(
        [sys.executable, "-m", "mdp", "recipe", "show", "table3_voc"],
        cwd=empty, env={**os.environ, "PYTHONPATH": str(built)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["method"]["bank_images"] == 4096
