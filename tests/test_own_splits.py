"""Datasets of one's own: splits that are drawn, sets of one class, and paths with commas."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mdp.cli import cli
from mdp.io.check.job import run_check
from mdp.io.datasets import load
from mdp.io.datasets._dataset import Dataset, open_split, open_training
from mdp.io.errors import DatasetError, RecipeError
from tests.conftest import ROOT
from tests.trees import grey, labels_array, own_yaml, photo

pytestmark = pytest.mark.usefixtures("bare_runs")

TINY = str(ROOT / "examples" / "recipes" / "tiny.yaml")
SITE = "name: site\nsplits: {{train: {{images: img, labels: lab}}{more}}}\nclasses: {{0: road, 1: car}}\n"


def site(root: Path, count: int, more: str = ", val: 20%", text: str = SITE) -> Path:
    for i in range(count):
        photo(root / "img" / f"{i:03}.jpg", i)
        grey(root / "lab" / f"{i:03}.png", labels_array([0, 1], i))
    return own_yaml(root, text.format(more=more))


def stems(dataset: Dataset, root: Path, split: str) -> list[str]:
    return [Path(sample.image).stem for sample in open_split(dataset, root, split)[0]]


def run(arguments: Sequence[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.chdir(folder)
    return CliRunner().invoke(cli, [*arguments])


def test_a_share_is_drawn_the_same_way_wherever_the_files_lie_and_its_line_says_so(tmp_path: Path) -> None:
    yaml = site(tmp_path / "one", 20)
    dataset, other = load(str(yaml)), load(str(site(tmp_path / "two", 20)))
    train, val = (stems(dataset, yaml.parent, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (16, 4)
    assert sorted(train + val) == [f"{i:03}" for i in range(20)]
    assert (train, val) == (sorted(train), sorted(val))
    assert val == stems(other, tmp_path / "two", "val")
    assert val != [f"{i:03}" for i in range(4)]
    assert open_split(dataset, yaml.parent, "val")[1] == "site val: 4 images (of train, 20% drawn by seed 0)"
    line = open_training(dataset, yaml.parent)[1]
    assert line == "site train: 16 images (without those of val, 20% drawn by seed 0)"


def test_another_seed_draws_others_and_more_files_change_little(tmp_path: Path) -> None:
    yaml = site(tmp_path, 40)
    val = stems(load(str(yaml)), tmp_path, "val")
    reseeded = load(str(own_yaml(tmp_path, SITE.format(more=", val: {share: 20%, seed: 1}"))))
    assert len(stems(reseeded, tmp_path, "val")) == 8
    assert stems(reseeded, tmp_path, "val") != val
    yaml = site(tmp_path, 45)
    assert len(set(val) & set(stems(load(str(yaml)), tmp_path, "val"))) >= 6


def test_several_shares_have_nothing_in_common_and_counts_are_shared_out(tmp_path: Path) -> None:
    text = SITE.replace("labels: lab}", "labels: lab, count: 20}")
    dataset = load(str(site(tmp_path, 20, ", val: 20%, test: 7.5%", text)))
    parts = [stems(dataset, tmp_path, split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [14, 4, 2]
    assert len({stem for part in parts for stem in part}) == 20
    assert list(dataset.splits.values()) == [14, 4, 2]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (", val: 0%", "splits.val: expected a share of the training images such as 20%, got '0%'"),
        (", val: 100%", "splits.val: expected a share"),
        (", val: {share: 20%, seed: -1}", "splits.val.seed: expected a whole number"),
        (", val: {share: 20%, sed: 1}", "splits.val.sed; did you mean 'seed'"),
    ],
)
def test_a_share_that_is_none_is_refused(tmp_path: Path, more: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(str(site(tmp_path, 1, more)))
    assert says in str(caught.value)


def test_a_share_of_nothing_or_of_unlabelled_photos_or_of_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no other split"):
        load(str(own_yaml(tmp_path, "splits: {val: 20%}\nclasses: {0: road, 1: car}\n")))
    with pytest.raises(RecipeError, match="unlabelled photos are not scored"):
        load(str(own_yaml(tmp_path, "splits: {train: {images: img}, val: 20%}\n")))
    with pytest.raises(DatasetError, match="of 1 images none is left to train on"):
        open_training(load(str(site(tmp_path, 1))), tmp_path)


def test_fine_tuning_and_eval_score_the_drawn_images_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yaml = site(tmp_path, 10)
    start = ["finetune", "--target", str(yaml), "--init", "scratch", "--config", TINY, "--steps", "1"]
    done = run([*start, "--batch-size", "4", "--seed", "3", "--out", "run"], tmp_path, monkeypatch)
    assert done.exit_code == 0, done.output
    assert "site val: 2 images (of train, 20% drawn by seed 0)" in done.stderr
    done = run(["eval", "run", "--json"], tmp_path, monkeypatch)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["images"] == 2


@pytest.mark.parametrize("command", ["eval", "compare"])
def test_without_a_validation_split_the_refusal_says_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    yaml = site(tmp_path, 8, "")
    if command == "eval":
        start = ["finetune", "--target", str(yaml), "--init", "scratch", "--config", TINY, "--steps", "1"]
        done = run([*start, "--batch-size", "4", "--out", "run"], tmp_path, monkeypatch)
        assert f"note: site has no split `val` (`val: 20%` under `splits` in {yaml} draws" in done.stderr
        done = run(["eval", "run"], tmp_path, monkeypatch)
    else:
        asked = ["compare", "--target", str(yaml), "--start", "scratch", "--steps", "1", "--config", TINY]
        done = run([*asked, "--seeds", "1", "--fractions", "1", "--out", "cmp"], tmp_path, monkeypatch)
        assert not (tmp_path / "cmp" / "cells").exists()
    assert isinstance(done.exception, RecipeError)
    assert f"`val: 20%` under `splits` in {yaml}" in str(done.exception)


@pytest.mark.parametrize("command", ["finetune --init scratch --target", "pretrain --datasets"])
def test_a_set_of_one_class_is_refused_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    yaml = own_yaml(
        tmp_path, "name: site\nsplits: {train: {images: img, labels: lab}}\nignore: [0]\nclasses: {1: crack}\n"
    )
    site(tmp_path / "other", 2)
    for i in range(2):
        photo(tmp_path / "img" / f"{i}.jpg", i)
        grey(tmp_path / "lab" / f"{i}.png", labels_array([0, 1], i))
    done = run([*command.split(), str(yaml), "--config", TINY, "--out", "run"], tmp_path, monkeypatch)
    assert isinstance(done.exception, RecipeError)
    assert "site: 'crack' is the only class, and nothing can be told from it" in str(done.exception)
    (report,) = run_check([str(yaml)], tmp_path, 0, None, True)
    assert [problem.kind for problem in report.problems if problem.error] == ["one_class"]


@pytest.mark.parametrize(
    "names",
    [
        ["a,b/d.yaml"],
        ["a,b/d.yaml:train"],
        ["a,b/d.yaml,c/d.yaml"],
        ['"a,b/d.yaml",c/d.yaml'],
        ["c/d.yaml", "a,b/d.yaml"],
    ],
)
def test_a_path_with_a_comma_is_one_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]) -> None:
    for folder in ("a,b", "c"):
        site(tmp_path / folder, 2, "").rename(tmp_path / folder / "d.yaml")
        text = (tmp_path / folder / "d.yaml").read_text()
        (tmp_path / folder / "d.yaml").write_text(text.replace("name: site", f"name: {folder[0]}"))
    expected = ["a", "c"] if any("c/d" in name for name in names) else ["a"]
    for arguments in (names, [part for name in names for part in ("--datasets", name)]):
        done = run(["check", *arguments, "--json", "-q"], tmp_path, monkeypatch)
        assert done.exit_code == 0, done.output
        assert sorted(report["dataset"] for report in json.loads(done.stdout)["datasets"]) == expected
