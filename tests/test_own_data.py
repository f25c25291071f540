"""Datasets described by a YAML file: what the format says, what it refuses, and the examples on the real files."""

import json
import pickle
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import mdp.io.datasets.own
from mdp.core.labels import IGNORE, LabelUnion
from mdp.io.data.selection import expect_pretraining, plan_finetuning, plan_pretraining
from mdp.io.datasets import load
from mdp.io.datasets._dataset import Sample, labels_of, open_split, open_training
from mdp.io.datasets.own import reading
from mdp.io.errors import DatasetError, RecipeError
from mdp.io.recipe.layers import Recipe, as_layer, resolve
from mdp.io.recipe.request import Request
from mdp.io.training.job import run_pretraining
from tests.conftest import ROOT
from tests.test_datasets import class_names
from tests.tiffs import tiff
from tests.trees import grey, labels_array, lines, own_tree, own_yaml, photo

pytestmark = pytest.mark.usefixtures("bare_runs")

EXAMPLES = {path.stem: path for path in sorted((ROOT / "examples" / "datasets").glob("*.yaml"))}
MINIMAL = """
name: site
splits: {train: {images: images, labels: labels}}
classes: {0: road, 1: car}
"""
UNLABELLED = """
name: walks
splits: {train: {images: photos}}
"""


def flat_tree(root: Path, stems: list[str], label: str = "{stem}.png") -> None:
    """Photos and label maps with values 0 and 1."""
    for seed, stem in enumerate(stems):
        photo(root / "images" / f"{stem}.jpg", seed)
        grey(root / "labels" / label.format(stem=stem), labels_array([0, 1], seed))


def opened(root: Path, text: str) -> list[str]:
    """Stems of the training images of the dataset that the YAML text describes."""
    samples, _ = open_training(load(str(own_yaml(root, text))), root)
    return [Path(sample.image).stem for sample in samples]


def read_first(root: Path, text: str) -> NDArray[np.int16]:
    """The classes of the first training image."""
    dataset = load(str(own_yaml(root, text)))
    return dataset.labels.to_classes(dataset.read(open_training(dataset, root)[0][0])[1])


def refusal(root: Path, text: str) -> str:
    """The one line with which a description is refused."""
    path = own_yaml(root, text)
    with pytest.raises(RecipeError) as caught:
        load(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What the format says


def test_a_dataset_of_ones_own_is_read_as_described(tmp_path: Path) -> None:
    dataset = load(str(own_tree(tmp_path)))
    samples, line = open_training(dataset, tmp_path / "elsewhere")
    assert line == "site_a train: 3 images"
    assert len(open_split(dataset, tmp_path, "val")[0]) == 2
    assert dataset.labels.classes == ("background", "vehicle")
    _, raw = dataset.read(samples[0])
    classes = labels_of(LabelUnion([dataset.labels]), samples[0], raw, dataset.source).numpy()
    assert np.array_equal(classes == 1, (raw == 1) | (raw == 2))
    assert np.array_equal(classes == IGNORE, (raw == 5) | (raw == 255))


def test_the_example_in_the_documentation_is_a_valid_description(tmp_path: Path) -> None:
    text = (mdp.io.datasets.own.__doc__ or "").split("\n\n")[1]
    dataset = load(str(own_yaml(tmp_path, text)))
    assert dataset.labels.classes == ("road", "vehicle", "tree", "sky")
    assert dataset.splits == {"train": None, "val": None, "test": None, "night": None, "all": 1200, "few": None}


def test_values_colours_and_ignored_classes_may_stand_side_by_side(tmp_path: Path) -> None:
    text = """
        name: site_a
        splits: {train: {images: images, labels: labels}}
        classes: {0: background, 1: {name: vehicle, values: [1, 2]}, 2: {name: road, colors: ["#804080"]}}
        ignore: [0, 2]
        """
    photo(tmp_path / "images" / "a.jpg", 0)
    photo(tmp_path / "images" / "b.jpg", 0)
    grey(tmp_path / "labels" / "a.png", labels_array([0, 1, 2], 0))
    grey(tmp_path / "labels" / "b.png", np.full((64, 96, 3), (128, 64, 128), dtype=np.uint8))
    dataset = load(str(own_yaml(tmp_path, text)))
    assert dataset.labels.classes == ("vehicle", "road")
    first, second = open_training(dataset, tmp_path)[0]
    assert class_names(dataset, first) == {"vehicle"}
    assert class_names(dataset, second) == {"road"}


def test_an_ignored_colour_is_no_class_and_another_colour_is_refused(tmp_path: Path) -> None:
    text = MINIMAL.replace("{0: road, 1: car}", '{0: {name: road, colors: ["#010203"]}}\nignore: ["#000000"]')
    pixels = np.zeros((64, 96, 3), dtype=np.uint8)
    pixels[:9] = (1, 2, 3)
    photo(tmp_path / "images" / "a.jpg", 0)
    grey(tmp_path / "labels" / "a.png", pixels)
    dataset = load(str(own_yaml(tmp_path, text)))
    (sample,), _ = open_training(dataset, tmp_path)
    assert np.array_equal(dataset.labels.to_classes(dataset.read(sample)[1]) == 0, pixels[..., 0] == 1)
    pixels[-1] = 77
    grey(tmp_path / "labels" / "a.png", pixels)
    with pytest.raises(DatasetError, match=r"a\.png: 1 colours.*\n.*\n.*#4d4d4d.*96 pixels"):
        dataset.read(sample)


@pytest.mark.parametrize("edges", ["nearest", "ignore"])
def test_smooth_edges_are_read_by_the_line_that_the_refusal_offers(tmp_path: Path, edges: str) -> None:
    colors = '{0: {name: road, colors: ["#000000"]}, 1: {name: car, colors: ["#ff8000"]}}'
    text = MINIMAL.replace("{0: road, 1: car}", colors)
    truth = labels_array([0, 1], 0) == 1
    pixels = np.where(truth[..., None], np.array([255, 128, 0], dtype=np.uint8), np.uint8(0))
    edge = np.zeros_like(truth)
    edge[:, 1:] = truth[:, 1:] != truth[:, :-1]
    pixels[edge] = (120, 60, 0)  # a little nearer to road
    photo(tmp_path / "images" / "a.jpg", 0)
    grey(tmp_path / "labels" / "a.png", pixels)
    with pytest.raises(DatasetError, match=f"edges: {edges}"):
        read_first(tmp_path, text)
    classes = read_first(tmp_path, f"{text}edges: {edges}\n")
    assert np.array_equal(classes[~edge], truth[~edge])
    assert set(classes[edge].tolist()) == {0 if edges == "nearest" else -1}


def test_photos_of_many_bands_are_read_as_declared_with_and_without_labels(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 3001, (64, 96, 4), dtype=np.uint16)
    tiff(tmp_path / "images" / "a.tif", values)
    grey(tmp_path / "labels" / "a.png", labels_array([0, 1], 0))
    wanted = np.rint(values[..., [2, 1, 0]] / 3000 * 255)
    rule = "image: {range: [0, 3000], bands: [3, 2, 1]}\n"
    unlabelled = "splits: {train: {images: images}}\n"
    for text in (MINIMAL, unlabelled):
        dataset = load(str(own_yaml(tmp_path, text + rule)))
        (sample,), _ = open_training(dataset, tmp_path)
        assert np.array_equal(dataset.read(sample)[0], wanted)
        dataset = load(str(own_yaml(tmp_path, text)))
        with pytest.raises(DatasetError, match=r"4 bands of 16 bits, values 0\.\.3000"):
            dataset.read(sample)


@pytest.mark.parametrize(("exif", "drawn_upright"), [("photo", True), ("both", False)])
def test_a_photo_is_turned_alone_or_with_its_label_map_as_declared(
    tmp_path: Path, exif: str, drawn_upright: bool
) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    values, tag = labels_array([0, 1], 0), Image.Exif()
    tag[274] = 6
    (tmp_path / "images").mkdir()
    Image.fromarray(rgb).save(tmp_path / "images" / "a.png", exif=tag)
    turned = np.rot90(values, -1)
    grey(tmp_path / "labels" / "a.png", np.ascontiguousarray(turned) if drawn_upright else values)
    dataset = load(str(own_yaml(tmp_path, f"{MINIMAL}image: {{exif: {exif}}}\n")))
    seen, raw = dataset.read(open_training(dataset, tmp_path)[0][0])
    assert np.array_equal(seen, np.rot90(rgb, -1))
    assert np.array_equal(raw, turned)
    if drawn_upright:
        dataset = load(str(own_yaml(tmp_path, MINIMAL)))
        with pytest.raises(DatasetError, match=r"image: \{exif: photo\}"):
            dataset.read(open_training(dataset, tmp_path)[0][0])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("image: 3", "image: expected such as"),
        ("image: {gamma: 2}", r"unknown key image\.gamma"),
        ("image: {range: [3, 3]}", r"image\.range: expected the values"),
        ("image: {range: [0, .nan]}", r"image\.range"),
        ("image: {range: [0, .inf]}", r"image\.range"),
        ("image: {range: [-.inf, 3]}", r"image\.range"),
        ("image: {range: 255}", r"image\.range"),
        ("image: {bands: [0, 1, 2]}", r"image\.bands: expected numbers of bands"),
        ("image: {bands: []}", r"image\.bands"),
        ("image: {mean: [3, 4]}", r"image\.std: expected beside image\.mean"),
        (
            "image: {bands: [1, 2], mean: [3], std: [1]}",
            r"image\.mean: expected 2 numbers, one for",
        ),
        ("image: {mean: [3, 4], std: [1]}", r"image\.std: expected as many numbers as image\.mean has"),
        ("image: {mean: [3000], std: [1]}", r"image\.mean: expected numbers from 0 to 255 by the range 0\.\.255"),
        ("image: {range: [0, 9], mean: [3], std: [0]}", r"image\.std: expected numbers from 9e-09 to 9"),
        ("image: {bands: [true, 1, 2]}", r"image\.bands"),
        ("image: {exif: rotate}", r"image\.exif: expected what is turned"),
        ("edges: soft", "edges: expected ignore or nearest"),
        ("edges: nearest", "no class names its `colors:`"),
    ],
)
def test_a_rule_for_pixels_that_makes_no_sense_is_refused_with_its_key(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        load(str(own_yaml(tmp_path, f"{MINIMAL}{line}\n")))


def test_the_proposal_for_colours_can_be_pasted(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.jpg", 0)
    pixels = np.zeros((64, 96, 3), dtype=np.uint8)
    pixels[:9] = (1, 2, 3)
    grey(tmp_path / "labels" / "a.png", pixels)
    dataset = load(str(own_yaml(tmp_path, MINIMAL)))
    with pytest.raises(DatasetError) as caught:
        dataset.read(open_training(dataset, tmp_path)[0][0])
    proposal = str(caught.value).split("\n", 1)[1]
    dataset = load(str(own_yaml(tmp_path, MINIMAL.split("classes:", maxsplit=1)[0] + proposal)))
    assert class_names(dataset, open_training(dataset, tmp_path)[0][0]) == {"class_0", "class_1"}


def test_with_root_the_files_lie_under_the_root_and_without_beside_the_yaml(tmp_path: Path) -> None:
    flat_tree(tmp_path / "data" / "site", ["a"])
    path = own_yaml(tmp_path / "descriptions", MINIMAL + "root: site\n")
    samples, _ = open_training(load(str(path)), tmp_path / "data")
    assert samples[0].image == str(tmp_path / "data" / "site" / "images" / "a.jpg")
    with pytest.raises(DatasetError, match=r"root: site, under --root"):
        open_training(load(str(path)), tmp_path)
    with pytest.raises(DatasetError, match="descriptions"):
        open_training(load(str(own_yaml(tmp_path / "descriptions", MINIMAL))), tmp_path / "data")


@pytest.mark.parametrize(
    "entries",
    [
        ["a", "b.v2"],
        ["a.jpg", "b.v2.jpg"],
        ["images/a.jpg", "images/b.v2.jpg"],
        ["images/a.jpg labels/a.png", "images/b.v2.jpg\tlabels/b.v2.png"],
        ["/somewhere/else/site/images/a.jpg", "./images/b.v2"],  # of another machine, down from the dataset's folder
        ["site/images/a", "b.v2"],
    ],
)
def test_a_list_may_hold_ids_names_paths_or_pairs(tmp_path: Path, entries: list[str]) -> None:
    flat_tree(tmp_path / "site", ["a", "b.v2", "c"])
    lines(tmp_path / "site" / "some.txt", entries)
    assert opened(tmp_path / "site", MINIMAL.replace("labels: labels", "labels: labels, list: some.txt")) == [
        "a",
        "b.v2",
    ]


def test_a_list_from_windows_is_read(tmp_path: Path) -> None:
    flat_tree(tmp_path, ["a", "b"])
    (tmp_path / "some.txt").write_bytes(b"\xef\xbb\xbfa\r\n\r\nb\r\n")
    assert opened(tmp_path, MINIMAL.replace("labels: labels", "labels: labels, list: some.txt")) == ["a", "b"]


def test_an_accented_name_is_found_in_either_spelling(tmp_path: Path) -> None:
    flat_tree(tmp_path, [unicodedata.normalize("NFD", "été")])
    lines(tmp_path / "some.txt", [unicodedata.normalize("NFC", "été")])
    assert len(opened(tmp_path, MINIMAL.replace("labels: labels", "labels: labels, list: some.txt"))) == 1


@pytest.mark.parametrize("folder", ["labels", "images"])
def test_label_maps_may_have_names_of_their_own_even_in_the_folder_of_the_photos(tmp_path: Path, folder: str) -> None:
    for seed, stem in enumerate("ab"):
        photo(tmp_path / "images" / f"{stem}.png", seed)
        grey(tmp_path / folder / f"{stem}_gt.png", labels_array([0, 1], seed))
    text = MINIMAL.replace("labels: labels", f'labels: {folder}, label: "{{stem}}_gt.png"')
    assert opened(tmp_path, text) == ["a", "b"]


def test_a_dataset_of_ones_own_can_be_sent_to_worker_processes(tmp_path: Path) -> None:
    dataset = pickle.loads(pickle.dumps(load(str(own_tree(tmp_path)))))
    assert len(open_training(dataset, tmp_path)[0]) == 3


def test_colours_for_display_are_ones_own_where_given_and_distinct_elsewhere(tmp_path: Path) -> None:
    text = MINIMAL.replace("0: road", '0: {name: road, color: "#010203"}')
    colors = load(str(own_yaml(tmp_path, text))).labels.colors
    assert colors[0] == (1, 2, 3)
    assert len(set(colors)) == 2


def test_the_terms_of_a_dataset_are_those_its_file_states(tmp_path: Path) -> None:
    assert load(str(own_yaml(tmp_path, MINIMAL + "terms: |\n  Photos are ours;\n  labels CC0.\n"))).terms == (
        "Photos are ours; labels CC0."
    )
    assert load(str(own_yaml(tmp_path, MINIMAL))).terms == ""


# What it refuses


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (MINIMAL + "ignore_indx: 3\n", "unknown key ignore_indx; did you mean 'ignore_index'"),
        (MINIMAL.replace("images: images", "imags: images"), "splits.train.imags; did you mean 'images'"),
        (MINIMAL.replace("0: road", "0: {name: road, value: [3]}"), "classes.0.value; did you mean 'values'"),
        (MINIMAL.replace("name: site\n", "name: two words\n"), "name: expected a word"),
        (MINIMAL.replace("name: site\n", "name: ../up\n"), "name: expected a word"),
        (MINIMAL.replace("1: car", "1: road"), "given twice: road"),
        (MINIMAL.replace("1: car", "0: car"), "line 4: key 0 is given twice"),
        (MINIMAL.replace("1: car", "1: {name: car, values: [0]}"), "classes.1: 0 is already taken"),
        (MINIMAL.replace("1: car", "-3000000000: car"), "-2147483648..4294967295 or a range"),
        (MINIMAL.replace("1: car", "x: car"), "got 'x'"),
        (MINIMAL.replace("1: car", "1: 7"), "classes.1: expected a name"),
        (MINIMAL.replace("1: car", "1: no"), ""),
        (MINIMAL.replace("1: car", "255: car"), "ignore_index: 255 is also a value of class 'car'"),
        (MINIMAL.replace("1: car", '1: {name: car, colors: ["red"]}'), "#804080"),
        (MINIMAL + "ignore: 3\n", "ignore: expected a list"),
        (MINIMAL + "ignore: [0, 1]\n", "classes: every class is also under ignore"),
        (MINIMAL.replace("{0: road, 1: car}", "[road, 7]"), "classes.1: expected a name"),
        (MINIMAL.replace("{0: road, 1: car}", "[]"), "classes: expected"),
        (MINIMAL.replace("{images: images, labels: labels}", "images"), "splits.train: expected"),
        (MINIMAL.replace(", labels: labels", ""), "splits.train: expected images and labels"),
        (MINIMAL.replace("labels: labels", "labels: labels, label: x.png"), "{stem}"),
        (MINIMAL.replace("labels: labels", "labels: 3"), "splits.train.labels: expected text"),
        (
            MINIMAL.replace("{0: road, 1: car}", '{0: {name: road, colors: ["#010203"]}}\nignore: ["#010203"]'),
            "classes: every class is also under ignore",
        ),
        (MINIMAL.replace("classes: {0: road, 1: car}", "classes: {}"), "classes: expected"),
        (MINIMAL.replace("classes: {0: road, 1: car}", "classes:"), "classes: expected"),
        (
            MINIMAL.replace("classes: {0: road, 1: car}", ""),
            "splits.train: without `classes` the photos are unlabelled",
        ),
        (UNLABELLED.replace("images: photos", "list: some.txt"), "a split is {images: FOLDER}; got list"),
        (UNLABELLED.replace("images: photos", "count: 3"), "a split is {images: FOLDER}; got count"),
        (UNLABELLED.replace("photos", "photos, imags: photos"), "splits.train.imags; did you mean 'images'"),
        (UNLABELLED.replace("photos", "3"), "splits.train.images: expected text, got 3"),
        (MINIMAL + "terms: 4\n", "terms: expected the licence in a sentence"),
        ("name: site\n", "splits: expected"),
        ("", "splits: expected"),
        ("name: [", "line 1"),
    ],
)
def test_a_wrong_description_is_refused_with_file_and_key(tmp_path: Path, text: str, says: str) -> None:
    if says:
        assert says in refusal(tmp_path, text)
    else:
        load(str(own_yaml(tmp_path, text)))  # `no` is a word here, not a truth value


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda root: (root / "labels" / "a.png").unlink(), "1 of 4 files are missing: .*labels/a.png"),
        (lambda root: photo(root / "images" / "a.png", 0), "share a stem"),
        (lambda root: grey(root / "labels" / "a.bmp", labels_array([0], 0)), "share a stem"),
        (lambda root: [path.unlink() for path in (root / "images").iterdir()], "split train is empty"),
        (lambda root: (root / "images").rename(root / "pictures"), "folder is missing; .* has labels, pictures"),
        (lambda root: (root / "labels").rename(root / "masks"), "folder is missing; .* has images, masks"),
    ],
)
def test_files_that_are_not_as_described_are_named(tmp_path: Path, change: Callable[[Path], object], says: str) -> None:
    flat_tree(tmp_path, ["a", "b"])
    dataset = load(str(own_yaml(tmp_path, MINIMAL)))
    change(tmp_path)
    with pytest.raises(DatasetError, match=says):
        open_training(dataset, tmp_path)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (["a", "b", "a"], "1 lines are there twice, such as 'a'"),
        (["a", "nosuch"], "2 of 4 files are missing: .*nosuch"),
        (["../outside.jpg labels/a.png"], "leads out of the dataset's folder"),
        (["/etc/hosts labels/a.png"], "leads out of the dataset's folder"),
        (["images/a.jpg ../../labels/a.png"], "leads out of the dataset's folder"),
        (["a b c"], "expected `id`"),
        ([], "is empty"),
    ],
)
def test_a_wrong_list_is_refused_with_its_name_or_its_entries(tmp_path: Path, entries: list[str], says: str) -> None:
    flat_tree(tmp_path, ["a", "b"])
    lines(tmp_path / "some.txt", entries)
    with pytest.raises(DatasetError, match=says):
        opened(tmp_path, MINIMAL.replace("labels: labels", "labels: labels, list: some.txt"))


def test_a_list_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    flat_tree(tmp_path, ["a"])
    text = MINIMAL.replace("labels: labels", "labels: labels, list: some.txt")
    with pytest.raises(DatasetError, match=r"some\.txt: the list file is missing"):
        opened(tmp_path, text)
    (tmp_path / "some.txt").write_bytes("a\n".encode("utf-16"))
    with pytest.raises(DatasetError, match=r"some\.txt: the list file is not UTF-8"):
        opened(tmp_path, text)


def test_a_link_out_of_the_folder_is_not_followed_from_a_list_of_pairs(tmp_path: Path) -> None:
    flat_tree(tmp_path / "site", ["a"])
    outside = photo(tmp_path / "outside.jpg", 0)
    (tmp_path / "site" / "images" / "link.jpg").symlink_to(outside)
    lines(tmp_path / "site" / "some.txt", ["images/link.jpg labels/a.png"])
    with pytest.raises(DatasetError, match="leads out"):
        opened(tmp_path / "site", MINIMAL.replace("labels: labels", "labels: labels, list: some.txt"))


def test_an_unknown_value_comes_with_the_line_to_add(tmp_path: Path) -> None:
    flat_tree(tmp_path, ["a"])
    values = labels_array([0, 1], 0)
    values[:2] = 7
    grey(tmp_path / "labels" / "a.png", values)
    path = own_yaml(tmp_path, MINIMAL)
    dataset = load(str(path))
    (sample,), _ = open_training(dataset, tmp_path)
    with pytest.raises(DatasetError) as caught:
        labels_of(LabelUnion([dataset.labels]), sample, dataset.read(sample)[1], dataset.source)
    message = str(caught.value)
    assert sample.labels in message
    assert "7 (192 pixels)" in message
    assert f"add to {path}: ignore: [7]" in message
    dataset = load(str(own_yaml(tmp_path, MINIMAL + "ignore: [7]\n")))
    assert int((dataset.labels.to_classes(values) == IGNORE).sum()) == 192


# Photos without labels, and how many there should be


def photo_tree(folder: Path) -> Path:
    """Three photos at several depths, beside what is no photo or hidden."""
    for seed, name in enumerate(["b.PNG", "n01/a.JPEG", "n01/deep/c.webp"]):
        photo(folder / name, seed)
    photo(folder / ".hidden.jpg", 9)
    lines(folder / "notes.txt", ["no photo"])
    return folder


def names_in(folder: Path, samples: list[Sample]) -> list[str]:
    return [Path(sample.image).relative_to(folder).as_posix() for sample in samples]


def recipe_with(root: Path, datasets: list[str], method: str, **settings: Any) -> Recipe:
    pretrain = {"datasets": datasets, "batch_size": 2, "crop": 32, "steps": 2, "validate_epochs": 0}
    return resolve(
        {
            "data": {"root": str(root)},
            "run": {"workers": 0, "device": "cpu"},
            "model": {"backbone": "resnet18", "width": 8, "output_stride": 16, "channels": 8, "dilations": [1, 2]},
            "method": {"name": method, **settings},
            "pretrain": pretrain,
        }
    )


def test_without_classes_all_photos_below_the_folder_are_taken_unlabelled(tmp_path: Path) -> None:
    photo_tree(tmp_path / "photos")
    dataset = load(str(own_yaml(tmp_path, UNLABELLED)))
    samples, line = open_training(dataset, tmp_path)
    assert line == "walks train: 3 images"
    assert names_in(tmp_path / "photos", samples) == ["b.PNG", "n01/a.JPEG", "n01/deep/c.webp"]
    assert dataset.labels.classes == ()
    assert {sample.labels for sample in samples} == {""}


def test_an_unlabelled_photo_is_read_with_every_pixel_ignored_also_beside_labelled_data(tmp_path: Path) -> None:
    photo_tree(tmp_path / "photos")
    flat_tree(tmp_path, ["a"])
    dataset = load(str(own_yaml(tmp_path, UNLABELLED)))
    labelled = load(str(own_yaml(tmp_path / "other", MINIMAL)))
    rgb, raw = dataset.read(sample := open_training(dataset, tmp_path)[0][0])
    assert rgb.shape == (64, 96, 3)
    union = LabelUnion([labelled.labels, dataset.labels])
    assert union.size == 2
    labels = labels_of(union, sample, raw, dataset.source)
    assert labels.shape == (64, 96)
    assert set(labels.flatten().tolist()) == {IGNORE}


def test_a_split_called_val_of_unlabelled_photos_is_not_scored(tmp_path: Path) -> None:
    text = UNLABELLED.replace("{images: photos}}", "{images: photos}, val: {images: photos}}")
    assert load(str(own_yaml(tmp_path, text))).val is None
    assert load(str(own_yaml(tmp_path, MINIMAL.replace("train:", "val:")))).val == "val"


def test_unlabelled_photos_may_lie_under_the_root(tmp_path: Path) -> None:
    photo_tree(tmp_path / "data" / "walks" / "photos")
    dataset = load(str(own_yaml(tmp_path, UNLABELLED + "root: walks\n")))
    assert len(open_training(dataset, tmp_path / "data")[0]) == 3
    with pytest.raises(DatasetError, match=r"root: walks, under --root"):
        open_training(dataset, tmp_path)
    (tmp_path / "data" / "walks" / "photos").rename(tmp_path / "gone")
    with pytest.raises(DatasetError, match=r"walks: the folder .*photos is missing"):
        open_training(dataset, tmp_path / "data")


@pytest.mark.parametrize("spelling", ["photos", "photos/", "./photos", "{}/photos"])
def test_a_plain_folder_is_a_dataset_of_unlabelled_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    photo_tree(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    dataset = load(spelling.format(tmp_path))
    samples, line = open_training(dataset, tmp_path / "elsewhere")
    assert (dataset.name, dataset.labels.classes, line) == ("photos", (), "photos train: 3 images")
    assert names_in(tmp_path / "photos", samples) == ["b.PNG", "n01/a.JPEG", "n01/deep/c.webp"]
    assert len(pickle.loads(pickle.dumps(samples))) == 3


def test_a_folder_without_photos_or_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(DatasetError, match="split train is empty"):
        open_training(load("photos"), tmp_path)
    with pytest.raises(RecipeError, match=r"unknown dataset 'fotos'.*folder of unlabelled photos"):
        load("fotos")


def test_a_folder_with_the_name_of_a_built_in_dataset_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo_tree(tmp_path / "voc")
    monkeypatch.chdir(tmp_path)
    assert len(load("voc").labels.classes) == 21
    assert load("./voc").labels.classes == ()


@pytest.mark.parametrize("count", ["0", "-3", "2.5", "true", '"3"', "many", "[3]"])
@pytest.mark.parametrize("text", [MINIMAL.replace("labels: labels", "labels: labels, count: N"),
                                  UNLABELLED.replace("photos", "photos, count: N")])  # fmt: skip
def test_a_count_that_is_no_number_of_images_is_refused(tmp_path: Path, text: str, count: str) -> None:
    assert "splits.train.count: expected a whole number of 1 or more" in refusal(
        tmp_path, text.replace("N}", count + "}")
    )


def test_images_are_counted_against_the_number_there_should_be(tmp_path: Path) -> None:
    flat_tree(tmp_path, ["a", "b"])
    photo_tree(tmp_path / "photos")
    text = MINIMAL.replace("labels: labels", "labels: labels, count: 1200")
    dataset = load(str(own_yaml(tmp_path, text)))
    assert dataset.splits == {"train": 1200}
    assert open_split(dataset, tmp_path, "train")[1] == "site train: 2 of 1,200 images"
    dataset = load(str(own_yaml(tmp_path, UNLABELLED.replace("photos", "photos, count: 3"))))
    assert open_split(dataset, tmp_path, "train")[1] == "walks train: 3 of 3 images"


def test_a_count_stands_in_for_images_that_are_not_there_yet(tmp_path: Path) -> None:
    text = UNLABELLED.replace("photos", "photos, count: 77") + "root: walks\n"
    path = str(own_yaml(tmp_path, text))
    expected = expect_pretraining(recipe_with(tmp_path, [path], "moco", groups=1))
    assert (expected.union.size, expected.images) == (0, {"walks": 77})
    assert expected.lines == ["walks train: not there; counted as published"]
    path = str(own_yaml(tmp_path, text.replace(", count: 77", "")))
    with pytest.raises(DatasetError, match=r"folder .*walks is missing"):
        expect_pretraining(recipe_with(tmp_path, [path], "moco", groups=1))


WITHOUT_LABELS = "knn_moco or moco or pass_s or pixel_attention or swav"


@pytest.mark.parametrize("method", ["multi_dataset", "pixel_pairs", "region_bank", "supervised"])
def test_a_method_that_needs_labels_refuses_unlabelled_data_in_one_line(tmp_path: Path, method: str) -> None:
    photos = str(photo_tree(tmp_path / "photos"))
    recipe = recipe_with(tmp_path, ["shapes-coarse", photos], method)
    for opened_by in (plan_pretraining, expect_pretraining):
        with pytest.raises(RecipeError) as caught:
            opened_by(recipe)
        assert str(caught.value) == (
            f"photos: no labels, and the method {method} needs them; leave it out, or use --method {WITHOUT_LABELS}"
        )


def test_moco_takes_labelled_and_unlabelled_data_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photo_tree(tmp_path / "photos")
    flat_tree(tmp_path / "site", ["a", "b"])
    names = [str(own_yaml(tmp_path / "site", MINIMAL)), "photos/"]
    recipe = recipe_with(tmp_path, names, "moco", groups=1, queue=8, embedding=8)
    plan = plan_pretraining(recipe)
    assert plan.lines == ["site train: 2 images", "photos train: 3 images"]
    assert (plan.pool.sizes(), plan.pool.union.size) == ({"site": 2, "photos": 3}, 2)
    folder = run_pretraining(Request(layers=(as_layer(recipe),), out=tmp_path / "run", quiet=True))
    assert json.loads((folder / "status.json").read_text())["state"] == "done"


def test_fine_tuning_on_unlabelled_data_is_refused_in_one_line(tmp_path: Path) -> None:
    photos = str(photo_tree(tmp_path / "photos"))
    with pytest.raises(RecipeError) as caught:
        plan_finetuning(resolve({"finetune": {"target": photos}}))
    assert str(caught.value) == "photos: no labels; fine-tuning needs a labelled target"


def test_imagenet_is_unlabelled_and_counted_against_its_official_number(tmp_path: Path) -> None:
    photo_tree(tmp_path / "imagenet" / "train")
    dataset = load(str(EXAMPLES["imagenet"]))
    assert (dataset.labels.classes, dataset.train, dataset.val) == ((), ("train",), None)
    samples, line = open_training(dataset, tmp_path)
    assert line == "imagenet train: 3 of 1,281,167 images"
    assert names_in(tmp_path / "imagenet" / "train", samples)[1] == "n01/a.JPEG"


# The examples, on the real files


PHOTOS_ALONE = ("imagenet", "open_images", "bdd100k_photos")


@pytest.mark.parametrize("name", PHOTOS_ALONE)
def test_an_example_of_photos_alone_has_no_classes(name: str) -> None:
    dataset = load(str(EXAMPLES[name]))
    assert (dataset.labels.classes, dataset.val) == ((), None)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in PHOTOS_ALONE])
def test_an_example_describes_classes_with_distinct_colours(name: str) -> None:
    labels = load(str(EXAMPLES[name])).labels
    assert len(set(labels.colors)) == len(labels.classes) == {
        "camvid": 11,
        "msrc": 21,
        "clothing": 59,
        "labelmefacade": 8,
    }[name]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "split", "count"),
    [
        ("camvid", "train", 367),
        ("camvid", "val", 101),
        ("camvid", "test", 233),
        ("msrc", "train", 276),
        ("msrc", "val", 58),
        ("msrc", "test", 257),
        ("clothing", "train", 400),
        ("clothing", "val", 100),
        ("labelmefacade", "train", 300),
        ("labelmefacade", "val", 100),
        ("labelmefacade", "official_train", 74),
        ("labelmefacade", "official_test", 326),
    ],
)
def test_all_real_label_maps_of_an_example_lie_within_its_label_space_and_fit_their_photos(
    real_data: Path, name: str, split: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unread(path: str, _: object) -> NDArray[np.uint8]:
        """A photo's size is in its first bytes; decoding 1,900 of them was most of this test."""
        with Image.open(path) as image:
            return np.zeros((image.height, image.width, 3), np.uint8)

    monkeypatch.setattr(reading, "read_photo", unread)
    dataset = load(str(EXAMPLES[name]))
    samples, line = open_split(dataset, real_data, split)
    assert line == f"{name} {split}: {count} images"
    union = LabelUnion([dataset.labels])
    # the official split of labelmefacade divides the same 400 pairs
    for sample in samples if not split.startswith("official") else samples[::50]:
        labels_of(union, sample, dataset.read(sample)[1], dataset.source)


@pytest.mark.parametrize(
    ("name", "split", "picture", "seen"),
    [
        ("camvid", "train", "0016E5_01500", {"road", "building", "sky", "tree", "car", "fence", "pavement"}),
        ("msrc", "train", "5_9_s", {"grass", "tree", "cow"}),
        ("msrc", "train", "9_18_s", {"grass", "sheep"}),
        ("msrc", "train", "13_20_s", {"book"}),
        ("clothing", "val", "0003", {"null", "coat", "pants", "boots", "hair", "skin"}),
        ("clothing", "val", "0539", {"null", "shirt", "pants", "skin", "purse", "hair"}),
        (
            "labelmefacade",
            "official_train",
            "static_palma_outdoor_august_2005__img_1257",
            {"building", "road", "car", "sky", "door", "pavement", "window"},
        ),
    ],
)
def test_the_names_of_an_example_are_those_of_what_is_in_the_real_pictures(
    real_data: Path, name: str, split: str, picture: str, seen: set[str]
) -> None:
    dataset = load(str(EXAMPLES[name]))
    sample = next(s for s in open_split(dataset, real_data, split)[0] if Path(s.image).stem == picture)
    assert seen <= class_names(dataset, sample, 0.004)


def test_the_official_colours_of_msrc_are_those_of_its_files(real_data: Path) -> None:
    labels = load(str(EXAMPLES["msrc"])).labels
    rows = (real_data / "MSRC_v2" / "classes.txt").read_text().split("\n")
    official = {name: tuple(map(int, rgb)) for _, name, *rgb in (row.split() for row in rows if row)}
    ours = dict(zip(labels.classes, labels.colors, strict=True))
    assert ours == {name: color for name, color in official.items() if name not in ("void", "horse", "mountain")}
    assert int(labels.table[5]) == int(labels.table[8]) == int(labels.table[0]) == IGNORE


def test_the_names_of_clothing_are_those_of_its_files(real_data: Path) -> None:
    rows = (real_data / "clothing-co-parsing" / "classes.txt").read_text().split("\n")
    official = tuple(re.split(r"\s+", row, maxsplit=1)[1] for row in rows if row)
    assert load(str(EXAMPLES["clothing"])).labels.classes == official
