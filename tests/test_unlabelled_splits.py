"""Splits without label maps inside labelled datasets, and the listing of their many files."""

import os
from pathlib import Path

import pytest

from mdp.core.labels import IGNORE
from mdp.io.check.report import judge
from mdp.io.check.scan import check_samples
from mdp.io.data.class_shares import class_shares
from mdp.io.data.selection import plan_finetuning, plan_pretraining, pool_of
from mdp.io.datasets import _listing, load
from mdp.io.datasets._dataset import open_split, refuse_unlabelled
from mdp.io.errors import DatasetError, RecipeError
from mdp.io.recipe.layers import Recipe, resolve
from tests.trees import imagenet_s_tree, photo


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mdp" / "listings"


def tree(root: Path, size: int = 50) -> Path:
    home = imagenet_s_tree(root, size)
    for split in ("train", "test"):
        for seed, name in enumerate(("n02165456/b", "n01443537/z", "n01443537/a")):
            photo((home / split / name).with_suffix(".JPEG"), seed)
    return home


def recipe(root: Path, method: str, split: str) -> Recipe:
    target = f"imagenet_s50:{split}"
    layer = {"data": {"root": str(root)}, "pretrain": {"datasets": [target]}, "finetune": {"target": target}}
    return resolve({**layer, "method": {"name": method}})


def test_photos_of_a_split_without_label_maps_are_read_with_every_pixel_ignored(tmp_path: Path) -> None:
    tree(tmp_path)
    dataset = load("imagenet_s50")
    samples, line = open_split(dataset, tmp_path, "train")
    assert line == "imagenet_s50 train: 3 of 64,431 images"
    names = ["n01443537/a.JPEG", "n01443537/z.JPEG", "n02165456/b.JPEG"]
    assert [sample.image for sample in samples] == [str(tmp_path / "ImageNetS50/train" / name) for name in names]
    assert {sample.labels for sample in samples} == {""}
    pool = pool_of([(dataset, samples)])
    image, labels = pool.read(0)
    assert labels.shape == image.shape[1:]
    assert (labels == IGNORE).all()
    assert (pool.photo(0) == image).all()
    assert not class_shares(pool)
    report = judge(dataset, samples, check_samples(dataset, samples, 0), "train", True)
    assert not report.labelled
    assert not report.problems


def test_methods_that_need_labels_ask_the_split_and_not_the_dataset(tmp_path: Path) -> None:
    tree(tmp_path)
    assert len(plan_pretraining(recipe(tmp_path, "moco", "train")).pool.samples) == 3
    assert plan_pretraining(recipe(tmp_path, "multi_dataset", "train-semi")).pool.samples[0].labels
    with pytest.raises(RecipeError, match=r"imagenet_s50:train: no labels, and the method multi_dataset needs them"):
        plan_pretraining(recipe(tmp_path, "multi_dataset", "train"))
    with pytest.raises(RecipeError, match=r"the split train has no label maps to fine-tune on; .* train-semi"):
        plan_finetuning(recipe(tmp_path, "moco", "train"))
    with pytest.raises(RecipeError, match=r"the split test has no label maps to score with"):
        refuse_unlabelled(load("imagenet_s50"), "test", "score with")


def test_all_of_imagenet_is_a_split_of_the_largest_edition_whatever_its_folders(tmp_path: Path) -> None:
    home = tree(tmp_path, 919)
    photo(home / "train" / "n04356056" / "merged.JPEG", 1)  # lies with another category in this edition
    assert len(open_split(load("imagenet_s919"), tmp_path, "train")[0]) == 4
    photo(home / "train-full" / "n00000001" / "a.JPEG", 1)
    assert len(open_split(load("imagenet_s919"), tmp_path, "train-full")[0]) == 1
    photo(home / "test" / "n00000001" / "a.JPEG", 1)
    with pytest.raises(DatasetError, match="folders such as n00000001 are no category of ImageNet-S919"):
        open_split(load("imagenet_s919"), tmp_path, "test")


# The listing


def listed(folder: Path) -> dict[str, list[str]]:
    return dict(_listing.folders_of(folder, (".jpeg",)))


def test_a_folder_is_listed_again_only_when_it_changed(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, asked = tmp_path / "train", []
    for name in ("b/2.JPEG", "b/1.jpeg", "b/x.txt", "b/.hidden.JPEG", "a/3.JPEG", "file.JPEG"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "empty").mkdir()
    original = _listing.names_of
    monkeypatch.setattr(_listing, "names_of", lambda path: asked.append(path.name) or original(path))
    wanted = {"a": ["3.JPEG"], "b": ["1.jpeg", "2.JPEG"], "empty": []}
    assert listed(folder) == wanted
    asked.clear()
    assert listed(folder) == wanted
    assert asked == ["train", "a", "b", "empty"]  # changed a moment ago: their times tell nothing
    for name in wanted:
        os.utime(folder / name, (1e9, 1e9))
    assert listed(folder) == wanted
    asked.clear()
    assert listed(folder) == wanted
    assert asked == ["train"]
    (folder / "b" / "4.JPEG").touch()
    (folder / "empty").rmdir()
    asked.clear()
    assert listed(folder) == {"a": ["3.JPEG"], "b": ["1.jpeg", "2.JPEG", "4.JPEG"]}
    assert asked == ["train", "b"]
    (kept,) = cache.glob("*.txt")
    for damaged in ("", "mdp listing 1", kept.read_text()[:-1], "mdp listing 1\n/x a\n3.JPEG\n/"):
        kept.write_text(damaged)
        assert list(listed(folder)) == ["a", "b"]


def test_without_a_place_to_keep_it_photos_are_listed_all_the_same(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "1.JPEG").touch()
    cache.parent.mkdir(parents=True)
    cache.touch()  # a file where the folder should be
    assert listed(tmp_path / "train") == {"a": ["1.JPEG"]}
    with pytest.raises(DatasetError, match="the folder is missing"):
        listed(tmp_path / "nothing")
