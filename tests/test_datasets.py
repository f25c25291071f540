"""Every dataset module under the same laws, then what is particular to each, then the real files."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mdp.core.labels import IGNORE, LabelUnion
from mdp.io.datasets import Dataset, Sample, labels_of, load, names, open_split, open_training
from mdp.io.datasets.coco_stuff import NEVER
from mdp.io.errors import DatasetError, RecipeError
from tests.trees import (
    TREES,
    ade20k_tree,
    aug_tree,
    camvid_tree,
    cityscapes_tree,
    coco_stuff_tree,
    grey,
    labels_array,
    photo,
    sbd_tree,
    voc_tree,
)

OFFICIAL = {
    "voc": (21, {"trainaug": 10582, "train": 1464, "val": 1449}),
    "ade20k": (150, {"train": 20210, "val": 2000}),
    "cityscapes": (19, {"train": 2975, "val": 500}),
    "coco_stuff": (171, {"train": 118287, "val": 5000}),
    "camvid": (11, {"train": 367, "val": 101, "test": 233}),
}


def built(name: str, root: Path) -> Dataset:
    """The dataset, with a miniature of its files under `root` where it has files."""
    if name in TREES:
        TREES[name](root)
    return load(name)


def class_names(dataset: Dataset, sample: Sample, share: float = 0.0) -> set[str]:
    """Names of the classes that cover more than `share` of a picture."""
    classes = dataset.labels.to_classes(dataset.read(sample)[1])
    found, counts = np.unique(classes, return_counts=True)
    return {
        dataset.labels.classes[label]
        for label, count in zip(found.tolist(), counts.tolist(), strict=True)
        if label != IGNORE and count > share * classes.size
    }


# Every module


def test_every_module_with_files_has_a_miniature_and_official_counts() -> None:
    generated = {name for name in names() if name.startswith("shapes-")}
    assert set(names()) == generated | set(TREES) == generated | set(OFFICIAL)


@pytest.mark.parametrize("name", names())
def test_a_module_describes_itself_completely(name: str) -> None:
    dataset = load(name)
    assert dataset.name == dataset.labels.name == name
    assert len(dataset.labels.colors) == len(set(dataset.labels.classes)) == len(dataset.labels.classes)
    assert set(dataset.train) <= set(dataset.splits)
    assert dataset.val in dataset.splits
    assert dataset.val not in dataset.train
    assert len(dataset.home) > 20
    reached = set(dataset.labels.table.tolist()) - {IGNORE, -2}
    assert reached == set(range(len(dataset.labels.classes))), "a class that no raw value reaches"


@pytest.mark.parametrize("name", names())
def test_pictures_and_label_maps_are_of_one_size_and_hold_only_known_classes(name: str, tmp_path: Path) -> None:
    dataset = built(name, tmp_path)
    union = LabelUnion([load("voc").labels, dataset.labels] if name != "voc" else [dataset.labels])
    for split in (dataset.train[-1], dataset.val or ""):
        samples, line = open_split(dataset, tmp_path, split)
        official = dataset.splits[split]
        assert line.startswith(f"{name} {split}: {len(samples)} of {official:,} images")
        assert len(samples) == len(set(samples)) > 0
        for sample in samples[:2]:
            assert sample.dataset == name
            rgb, raw = dataset.read(sample)
            assert rgb.dtype == np.uint8
            assert rgb.shape == (*raw.shape, 3)
            labels = labels_of(union, sample, raw, dataset.source)
            own = union.classes_of(name)
            assert ((labels == IGNORE) | ((labels >= own.start) & (labels < own.stop))).all()
            assert len(labels.unique()) >= 3


@pytest.mark.parametrize("name", names())
def test_reading_twice_gives_the_same(name: str, tmp_path: Path) -> None:
    dataset = built(name, tmp_path)
    samples, _ = open_training(dataset, tmp_path)
    assert samples == open_training(dataset, tmp_path)[0]
    for first, second in zip(dataset.read(samples[0]), dataset.read(samples[0]), strict=True):
        assert np.array_equal(first, second)


@pytest.mark.parametrize("name", TREES)
def test_an_absent_dataset_is_refused_with_the_places_looked_at_and_where_to_get_it(name: str, tmp_path: Path) -> None:
    dataset = load(name)
    (tmp_path / "photos").mkdir()
    with pytest.raises(DatasetError) as caught:
        open_training(dataset, tmp_path)
    message = str(caught.value)
    assert message.startswith(name)
    assert str(tmp_path) in message
    assert "has photos" in message
    assert message.endswith(dataset.home)
    with pytest.raises(DatasetError, match="set --root or MDP_DATA"):
        open_split(dataset, tmp_path / "nowhere", dataset.train[-1])


@pytest.mark.parametrize("name", TREES)
def test_the_layout_may_begin_at_the_root_itself(name: str, tmp_path: Path) -> None:
    dataset = built(name, tmp_path)
    samples, _ = open_training(dataset, tmp_path)
    places = [path for path in (*tmp_path.iterdir(), *tmp_path.glob("VOCdevkit/*")) if path.name != "VOCdevkit"]
    assert len(open_training(dataset, places[0])[0]) == len(samples)


@pytest.mark.parametrize("name", TREES)
def test_a_missing_label_map_is_listed_and_not_skipped(name: str, tmp_path: Path) -> None:
    dataset = built(name, tmp_path)
    lost = Path(open_training(dataset, tmp_path)[0][0].labels)
    lost.unlink()
    with pytest.raises(DatasetError, match=rf"{name}: 1 of \d+ files are missing: {re.escape(str(lost))}"):
        open_training(dataset, tmp_path)


@pytest.mark.parametrize("name", TREES)
def test_a_label_map_of_another_size_is_refused_with_both_files_and_sizes(name: str, tmp_path: Path) -> None:
    dataset = built(name, tmp_path)
    sample = open_training(dataset, tmp_path)[0][0]
    grey(Path(sample.labels), labels_array([1, 2], 0, (96, 64)))
    with pytest.raises(DatasetError, match=r"64 x 96.*96 x 64.*turned") as caught:
        dataset.read(sample)
    assert sample.image in str(caught.value)
    assert sample.labels in str(caught.value)


@pytest.mark.parametrize("name", TREES)
def test_a_value_outside_the_label_space_is_refused_with_file_value_and_count(name: str, tmp_path: Path) -> None:
    dataset = built(name, tmp_path)
    sample = open_training(dataset, tmp_path)[0][0]
    values = labels_array([1, 2], 0)
    values[0, :7] = 222
    grey(Path(sample.labels), values)
    with pytest.raises(DatasetError, match=r"222 \(7 pixels\)") as caught:
        labels_of(LabelUnion([dataset.labels]), sample, dataset.read(sample)[1], dataset.source)
    assert sample.labels in str(caught.value)


@pytest.mark.parametrize("name", TREES)
def test_a_split_of_which_nothing_is_there_is_refused(name: str, tmp_path: Path) -> None:
    dataset = built(name, tmp_path)
    for path in sorted(tmp_path.rglob("*")):
        if path.suffix == ".txt":
            path.write_text("")
        elif path.is_file():
            path.unlink()
    with pytest.raises(DatasetError, match=name):
        open_training(dataset, tmp_path)


# By name


def test_a_misspelt_dataset_gets_a_suggestion() -> None:
    with pytest.raises(RecipeError, match="'cityscape'; did you mean 'cityscapes'"):
        load("cityscape")
    with pytest.raises(RecipeError, match=r"known: ade20k, camvid.*\.yaml"):
        load("qqq")


def test_an_unknown_split_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="unknown split 'valid'; it has train, val"):
        open_split(load("ade20k"), tmp_path, "valid")


# VOC


def test_trainaug_is_vocs_own_labels_and_sbds_others_without_vocs_val(tmp_path: Path) -> None:
    sbd = sbd_tree(tmp_path)
    voc = load("voc")
    samples, line = open_training(voc, tmp_path)
    assert line == "voc trainaug: 6 of 10,582 images (labels: 3 in SegmentationClass, 3 in cls)"
    by_id = {Path(sample.image).stem: sample for sample in samples}
    assert "2007_000004" not in by_id, "an image of VOC's val that SBD labels too"
    assert by_id["2007_000001"].labels.endswith("SegmentationClass/2007_000001.png")
    assert by_id["2009_000001"].labels == str(sbd / "cls" / "2009_000001.mat")
    assert class_names(voc, by_id["2009_000001"]) == {"background", "bird", "car"}


@pytest.mark.parametrize("with_own", [True, False])
def test_the_augmented_folder_serves_only_images_that_voc_does_not_label(tmp_path: Path, with_own: bool) -> None:
    aug_tree(tmp_path, with_own)
    samples, line = open_training(load("voc"), tmp_path)
    assert line == "voc trainaug: 5 of 10,582 images (labels: 3 in SegmentationClass, 2 in SegmentationClassAug)"
    assert {Path(sample.labels).parent.name for sample in samples[3:]} == {"SegmentationClassAug"}


def test_without_sbd_voc_trains_on_train_and_says_so(tmp_path: Path) -> None:
    voc_tree(tmp_path)
    samples, line = open_training(load("voc"), tmp_path)
    assert len(samples) == 3
    assert line.startswith("voc train: 3 of 1,464 images")
    assert f"no trainaug under {tmp_path}" in line
    with pytest.raises(DatasetError, match=r"SBD.*benchmark_RELEASE"):
        open_split(load("voc"), tmp_path, "trainaug")


def test_an_incomplete_trainaug_is_an_error_and_no_reason_to_train_on_less(tmp_path: Path) -> None:
    sbd = sbd_tree(tmp_path)
    (sbd / "cls" / "2009_000001.mat").unlink()
    with pytest.raises(DatasetError, match="2009_000001"):
        open_training(load("voc"), tmp_path)


# The others


def test_ade20k_ignores_zero_and_its_first_class_is_one(tmp_path: Path) -> None:
    ade20k_tree(tmp_path)
    ade = load("ade20k")
    sample = open_training(ade, tmp_path)[0][0]
    assert class_names(ade, sample) == {"wall", "sky", "flag"}
    assert ade.labels.to_classes(np.array([0, 1, 150])).tolist() == [IGNORE, 0, 149]


def test_label_ids_and_train_ids_of_cityscapes_name_the_same_classes(tmp_path: Path) -> None:
    cityscapes = load("cityscapes")
    for label_ids, kind in ((True, "labelIds"), (False, "labelTrainIds")):
        cityscapes_tree(tmp_path / kind, label_ids)
        samples, line = open_training(cityscapes, tmp_path / kind)
        assert line == f"cityscapes train: 2 of 2,975 images ({kind})"
        assert class_names(cityscapes, samples[0]) == {"road", "building", "car", "bicycle"}


def test_cityscapes_without_label_maps_says_which_are_needed(tmp_path: Path) -> None:
    shutil.rmtree(cityscapes_tree(tmp_path) / "gtFine" / "train")
    with pytest.raises(DatasetError, match=r"_gtFine_labelIds\.png"):
        open_training(load("cityscapes"), tmp_path)


def test_coco_stuff_skips_the_eleven_values_that_are_never_used(tmp_path: Path) -> None:
    coco_stuff_tree(tmp_path)
    coco = load("coco_stuff")
    sample = open_training(coco, tmp_path)[0][0]
    assert class_names(coco, sample) == {"person", "stop sign", "blanket", "wood"}
    for value in NEVER:
        assert coco.labels.table[value] == -2
    around_the_gaps = {10: "fire hydrant", 24: "giraffe", 26: "backpack", 27: "umbrella", 30: "handbag", 43: "bottle"}
    around_the_gaps |= {45: "wine glass", 66: "dining table", 69: "toilet", 71: "tv", 83: "book", 91: "banner"}
    for value, label in around_the_gaps.items():
        assert coco.labels.classes[coco.labels.table[value]] == label


def test_coco_stuff_agrees_with_the_official_list_of_names(real_data: Path) -> None:
    lines = (real_data / "coco_stuff164k" / "labels.txt").read_text().split("\n")
    official = {int(number) - 1: name.strip() for number, name in (line.split(":") for line in lines if ":" in line)}
    coco = load("coco_stuff").labels
    for raw in range(182):
        label = int(coco.table[raw])
        assert label == -2 if raw in NEVER else coco.classes[label] == official[raw]


def test_ade20k_agrees_with_the_official_list_of_names(real_data: Path) -> None:
    rows = (real_data / "ADEChallengeData2016" / "objectInfo150.csv").read_text().strip().split("\n")[1:]
    synonyms = [row.split(",")[-1] for row in rows]  # their words are split by semicolons, like the synonyms
    for name, official in zip(load("ade20k").labels.classes, synonyms, strict=True):
        assert name.replace(" ", ";") in official


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_camvid_takes_either_kind_of_photo_and_ignores_eleven(tmp_path: Path, suffix: str) -> None:
    camvid_tree(tmp_path, suffix)
    camvid = load("camvid")
    samples, _ = open_split(camvid, tmp_path, "test")
    assert class_names(camvid, samples[0]) == {"Sky", "Road", "Bicyclist"}


def test_hidden_files_of_another_system_are_no_pictures(tmp_path: Path) -> None:
    home = camvid_tree(tmp_path)
    (home / "train" / "._0001TP_000000.png").write_bytes(b"\x00\x05\x16\x07")
    (home / "train" / "Thumbs.db").write_bytes(b"")
    assert len(open_training(load("camvid"), tmp_path)[0]) == 2


def test_a_damaged_photo_is_named(tmp_path: Path) -> None:
    coco_stuff_tree(tmp_path)
    sample = open_training(load("coco_stuff"), tmp_path)[0][0]
    path = Path(sample.image)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DatasetError, match=re.escape(sample.image)):
        load("coco_stuff").read(sample)


def test_a_rotated_photo_beside_an_upright_label_map_is_refused(tmp_path: Path) -> None:
    coco_stuff_tree(tmp_path)
    dataset = load("coco_stuff")
    sample = open_training(dataset, tmp_path)[0][0]
    exif = Image.Exif()
    exif[274] = 6
    with Image.open(photo(tmp_path / "turned.png", 0, (96, 64))) as turned:
        turned.save(sample.image, exif=exif)
    with pytest.raises(DatasetError, match="EXIF"):
        dataset.read(sample)


# Real files


@pytest.mark.parametrize(
    ("name", "split", "count"),
    [
        ("voc", "trainaug", 4),
        ("voc", "val", 1),
        ("ade20k", "train", 1),
        ("ade20k", "val", 3),
        ("coco_stuff", "train", 13),
        ("coco_stuff", "val", 8),
        ("camvid", "train", 367),
        ("camvid", "val", 101),
        ("camvid", "test", 233),
    ],
)
def test_real_label_maps_lie_within_their_label_space(real_data: Path, name: str, split: str, count: int) -> None:
    dataset = load(name)
    samples, _ = open_split(dataset, real_data, split)
    assert len(samples) == count
    union = LabelUnion([dataset.labels])
    for sample in samples[:: max(1, count // 40)]:
        labels_of(union, sample, dataset.read(sample)[1], dataset.source)


@pytest.mark.parametrize(
    ("name", "split", "picture", "seen"),
    [
        ("voc", "trainaug", "2008_001592", {"background", "cat"}),
        ("voc", "trainaug", "2008_001020", {"background", "bird"}),
        ("voc", "val", "2007_000129", {"background", "bicycle", "person"}),
        ("ade20k", "train", "ADE_train_00000001", {"ceiling", "wall", "floor", "column", "fountain", "plant"}),
        ("ade20k", "val", "ADE_val_00000001", {"sky", "building", "grass", "wall", "plant", "tree"}),
        ("ade20k", "val", "ADE_val_00000003", {"road", "sky", "sidewalk", "building", "car"}),
        ("coco_stuff", "val", "000000000785", {"person", "skis", "snow", "fog"}),
        ("coco_stuff", "val", "000000001490", {"person", "sea", "sky-other", "building-other"}),
        ("coco_stuff", "val", "000000001268", {"person", "bridge", "river", "handbag", "tree"}),
        ("camvid", "test", "0001TP_008550", {"Sky", "Building", "Road", "Tree", "Car", "Pavement", "Bicyclist"}),
    ],
)
def test_the_names_are_those_of_what_is_in_the_real_pictures(
    real_data: Path, name: str, split: str, picture: str, seen: set[str]
) -> None:
    dataset = load(name)
    sample = next(s for s in open_split(dataset, real_data, split)[0] if Path(s.image).stem == picture)
    assert seen <= class_names(dataset, sample, 0.009)


def test_vocs_own_real_label_map_has_the_void_rim_and_sbds_have_none(real_data: Path) -> None:
    voc = load("voc")
    for sample in open_split(voc, real_data, "trainaug")[0]:
        rim = bool((voc.read(sample)[1] == 255).any())
        assert rim == (Path(sample.labels).parent.name == "SegmentationClass")
