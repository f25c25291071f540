"""Raw values of a dataset of one's own: lists of classes, ranges with open ends, negative and wide values."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mdp.core.labels import IGNORE, LabelUnion
from mdp.io.datasets import load
from mdp.io.datasets._dataset import labels_of, open_training
from mdp.io.datasets.own.description import describe
from mdp.io.errors import DatasetError, MdpError, RecipeError
from mdp.io.evaluation import server_formats
from mdp.io.inference import folder
from mdp.io.run.checkpoint import load as load_checkpoint
from mdp.io.run.checkpoint import save
from mdp.io.run.record import labels_of as spaces_of
from mdp.io.run.record import space_json
from mdp.label_space import LabelSpace
from tests.trees import grey, own_yaml, photo

SITE = "name: site\nsplits: {train: {images: images, labels: labels}}\n"


def site(root: Path, text: str) -> Path:
    return own_yaml(root, SITE + text)


def classes_of(yaml: Path, raw: NDArray[np.integer]) -> list[int]:
    """The classes that training has of a label map with these raw values."""
    dataset = load(str(yaml))
    root = yaml.parent
    photo(root / "images" / "a.png", 0, (1, raw.size))
    (root / "labels").mkdir(exist_ok=True)
    np.save(root / "labels" / "a.npy", raw.reshape(1, -1))
    (sample,), _ = open_training(dataset, root)
    labels = labels_of(LabelUnion([dataset.labels]), sample, dataset.read(sample)[1], dataset.source)
    classes: list[int] = labels[0].tolist()
    return classes


def refusal(yaml: Path) -> str:
    with pytest.raises(MdpError) as caught:
        load(str(yaml))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, RecipeError | DatasetError)
    return str(caught.value)


RANGES = {
    "one range": ("{0: a, 1: {name: b, values: 128-254}}", {0: 0, 128: 1, 200: 1, 254: 1}),
    "dots": ("{0: a, 1: {name: b, values: 128..254}}", {0: 0, 128: 1, 254: 1}),
    "a list of both": ('{0: a, 1: {name: b, values: [3, "5-7", 9..10]}}', {0: 0, 3: 1, 6: 1, 10: 1}),
    "a range alone in a list": ("{0: a, 1: {name: b, values: [1-254]}}", {0: 0, 1: 1, 254: 1}),
    "one number": ("{0: a, 1: {name: b, values: 7}}", {0: 0, 7: 1}),
    "no upper end": ("{0: a, 1: {name: b, values: 1-}}\nignore_index: null", {0: 0, 1: 1, 255: 1, 65535: 1, 70000: 1}),
    "keys": ("{0: a, 1..: b}\nignore_index: null", {0: 0, 1: 1, 4_000_000_000: 1}),
    "no lower end": ("{..-1: a, 0: b, 1..: c}\nignore_index: null", {-5: 0, -1: 0, 0: 1, 1: 2, 60000: 2, 60001: 2}),
    "negative": ("{-5..-2: a, 0: b}\nignore: [-1]", {-5: 0, -2: 0, -1: IGNORE, 0: 1, 255: IGNORE}),
    "threshold": ("{0-127: a, 128-: b}\nignore_index: null", {0: 0, 127: 0, 128: 1, 255: 1}),
    "ignored range": ("{0: a, 1..: b}\nignore: [10..20]\nignore_index: null", {9: 1, 10: IGNORE, 20: IGNORE, 21: 1}),
    "ignored end": ("{0..: a}\nignore: [250..]", {249: 0, 250: IGNORE, 70000: IGNORE}),
    "ignore_index": ("{0: a, 1: b}\nignore_index: -1", {0: 0, 1: 1, -1: IGNORE}),
    "wide": ("{0: a, 100000: b}", {0: 0, 100000: 1, 255: IGNORE}),
    "wide ignore_index": ("{0: a, 70000: b}\nignore_index: 65535", {0: 0, 70000: 1, 65535: IGNORE}),
}  # fmt: skip


@pytest.mark.parametrize("name", RANGES)
def test_values_may_be_ranges_with_open_ends_and_signs(tmp_path: Path, name: str) -> None:
    text, expected = RANGES[name]
    yaml = site(tmp_path, f"classes: {text}\n")
    for dtype in (np.uint8, np.uint16, np.int16, np.int32, np.int64):
        limits = np.iinfo(dtype)
        some = {raw: label for raw, label in expected.items() if limits.min <= raw <= limits.max}
        assert classes_of(yaml, np.array(list(some), dtype=dtype)) == list(some.values()), dtype
    assert len(describe(yaml).labels.lookup or {}) < 10


UNKNOWN = {
    "one range": (127, 255 * 300),
    "negative": (-6, 1, 60000, 65535),
    "wide": (1, 60000, 60001, 65535, 99999, 100001, -1),
    "no upper end": (-1,),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_value_in_no_range_is_refused_also_one_that_stands_for_another(tmp_path: Path, name: str) -> None:
    yaml = site(tmp_path, f"classes: {RANGES[name][0]}\n")
    for raw in UNKNOWN[name]:
        with pytest.raises(DatasetError, match=rf"outside .*: {raw} \(1 pixels\)"):
            classes_of(yaml, np.array([0, raw], dtype=np.int64))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{0: a, 1: {name: b, values: "-5"}}', "classes.1.values: '-5' may be a number or a range; write -5 or ..5"),
        ("{0: a, 1: {name: b, values: 9-3}}", "whose first end is no larger, got '9-3'"),
        ("{0: a, 1: {name: b, values: ..}}", "such as 128..255, got '..'"),
        ("{0: a, 1: {name: b, values: high}}", "such as 128..255, got 'high'"),
        ("{0: a, 1: {name: b, values: 0..5}}", "classes.1: 0 is already taken by another class"),
        ("{0..9: a, 2: b, 4..5: c}", "classes.2: 2 is already taken"),
        ("{0: a, 1..: b}", "ignore_index: 255 is also a value of class 'b'; use `ignore_index: null`"),
        ("{0: a, 1: b}\nignore: [0..9]", "every class is also under ignore"),
        ("{0: a, 1..99999999999: b}", "such as 128..255, got '1..99999999999'"),
    ],
)
def test_a_range_that_means_nothing_or_another_s_values_is_refused(tmp_path: Path, text: str, says: str) -> None:
    assert says in refusal(site(tmp_path, f"classes: {text}\n"))


def test_instance_ids_are_read_and_trained_as_one_class(tmp_path: Path) -> None:
    raw = np.zeros((64, 96), dtype=np.uint8)
    raw[:10], raw[20:30], raw[40:] = 1, 2, 254
    photo(tmp_path / "images" / "a.jpg", 0)
    grey(tmp_path / "labels" / "a.png", raw)
    dataset = load(str(site(tmp_path, "classes: {0: background, 1..: person}\nignore_index: null\n")))
    (sample,), _ = open_training(dataset, tmp_path)
    labels = labels_of(LabelUnion([dataset.labels]), sample, dataset.read(sample)[1], dataset.source)
    assert torch.equal(labels, torch.from_numpy((raw > 0).astype(np.int16)))


def test_a_wide_range_costs_no_memory_and_survives_a_checkpoint(tmp_path: Path) -> None:
    space = describe(site(tmp_path, "classes: {..-1: a, 0..59: b, 60..: c}\nignore_index: null\n")).labels
    about = {"kind": "pretrain", "step": 1, "labels": [space_json(space)]}
    save(tmp_path / "a.safetensors", {"query.weight": torch.zeros(2, 3)}, about)
    _, read = load_checkpoint(tmp_path / "a.safetensors")
    assert spaces_of(tmp_path, read["labels"]) == (space,)
    assert sys.getsizeof(space.lookup) + sys.getsizeof(space.ranges) < 1000
    assert np.array_equal(space.table, spaces_of(tmp_path, read["labels"])[0].table)
    plain = LabelSpace(name="a", classes=("x",), lookup={3: 0})
    assert set(space_json(plain)) == {"name", "classes", "ignore_index", "lookup", "colors"}  # as older versions wrote


def test_there_is_no_one_way_back_from_a_class_to_a_range(tmp_path: Path) -> None:
    space = describe(site(tmp_path, "classes: {0: a, 5..9: b}\n")).labels
    with pytest.raises(DatasetError, match=r"class 'b' of site stands for 5\.\.9; there is no one way back"):
        folder.raw_values(space)
    assert server_formats.raw_values(space).tolist() == [0, 5]


# Lists of classes


@pytest.mark.parametrize(
    "data",
    [
        b"ground\ntree\ncar\n",
        b"ground\r\ntree\r\ncar",
        b"\xef\xbb\xbfground\ntree\ncar\n\n\n",
        b"# ids from 0\n\nground\ntree\n car \n",
    ],
)
def test_a_file_of_names_gives_ids_by_place_whatever_its_line_ends(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "classes.txt").write_bytes(data)
    listed = describe(site(tmp_path, "classes: classes.txt\n")).labels
    assert listed == describe(site(tmp_path, "classes: [ground, tree, car]\n")).labels
    assert listed == describe(site(tmp_path, "classes: {0: ground, 1: tree, 2: car}\n")).labels


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"ground\n\ncar\n", "classes.txt: line 2: an empty line"),
        (b"ground\n# tree\ncar\n", "classes.txt: line 2: a comment among names"),
        (b"0 ground\n1 tree\n", "classes.txt: line 1: a number before the name"),
        (b"0: ground\n5: tree\n", "classes.txt: line 1: a number before the name"),
        (b"ground\ntree\nground\n", "class names given twice: ground"),
        (b"", "expected names of classes, found none"),
        ("ground\n".encode("utf-16"), "UTF-8"),
    ],
)
def test_a_file_whose_names_may_be_counted_wrong_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "classes.txt").write_bytes(data)
    assert says in refusal(site(tmp_path, "classes: classes.txt\n"))


def test_a_class_of_a_list_may_be_described_further_and_stays_within_the_dataset(tmp_path: Path) -> None:
    space = describe(site(tmp_path, "classes: [ground, {name: tree, values: [1, 7]}]\n")).labels
    assert (space.classes, space.lookup) == (("ground", "tree"), {0: 0, 1: 1, 7: 1})
    assert "classes: '../classes.txt' leads out" in refusal(site(tmp_path, "classes: ../classes.txt\n"))
