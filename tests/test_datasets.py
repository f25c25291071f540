"""Every dataset module under the same laws, then what is particular to each, then the real files."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mdp.core.labels import IGNORE, LabelUnion
from mdp.io.datasets import load, names
from mdp.io.datasets._dataset import Dataset, Sample, labels_of, open_split, open_training
from mdp.io.datasets._imagenet_s import categories
from mdp.io.datasets.coco_stuff import NEVER
from mdp.io.datasets.pascal_context import CLASSES as CONTEXT
from mdp.io.datasets.pascal_context import NUMBERS, VOC_FIRST
from mdp.io.errors import DatasetError, RecipeError
from mdp.io.files.label_maps import read_labels
from tests.trees import (
    TREES,
    ade20k_tree,
    aug_tree,
    camvid_tree,
    cityscapes_tree,
    coco_stuff10k_mats,
    coco_stuff10k_tree,
    coco_stuff_tree,
    grey,
    imagenet_s_tree,
    label_mat,
    labels_array,
    mapillary_tree,
    mapillary_v2_tree,
    nyudv2_tree,
    pascal_context_tree,
    photo,
    relabel,
    sbd_tree,
    voc_tree,
)

OFFICIAL = {
    "voc": (21, {"trainaug": 10582, "train": 1464, "val": 1449}),
    "ade20k": (150, {"train": 20210, "val": 2000}),
    "cityscapes": (19, {"train": 2975, "val": 500}),
    "coco_stuff": (171, {"train": 118287, "val": 5000}),
    "camvid": (11, {"train": 367, "val": 101, "test": 233}),
    "pascal_context": (60, {"train": 4998, "val": 5105}),
    "pascal_context59": (59, {"train": 4998, "val": 5105}),
    "nyudv2": (40, {"train": 795, "test": 654}),
    "bdd100k": (19, {"train": 7000, "val": 1000}),
    "mapillary": (65, {"train": 18000, "val": 2000}),
    "mapillary_v2": (116, {"train": 18000, "val": 2000}),
    "coco_stuff10k": (171, {"train": 9000, "test": 1000}),
    "sbd": (21, {"train": 8498, "val": 2857}),
    "sunrgbd": (37, {"train": 5285, "test": 5050}),
    "imagenet_s50": (51, {"train-semi": 500, "validation": 752, "train": 64431, "test": 1682}),
    "imagenet_s300": (301, {"train-semi": 3000, "validation": 4097, "train": 384862, "test": 9088}),
    "imagenet_s919": (
        920,
        {"train-semi": 9190, "validation": 12419, "train": 1183322, "train-full": 1281167, "test": 27423},
    ),
}
UNKNOWN = {"imagenet_s300": 777, "imagenet_s919": 999}  # a value that is none of the dataset's; 222 for all others


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
    assert dataset.unlabelled <= set(dataset.splits) - {*dataset.train, dataset.val}
    assert len(dataset.home) > 20
    assert len(dataset.terms) > 20
    assert dataset.terms.endswith(".")
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
            assert len(labels.unique()) >= (2 if name == "shapes-objects" else 3)  # there, "other" and one object


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
    relabel(name, Path(sample.labels), labels_array([1, 2], 0, (96, 64)))
    with pytest.raises(DatasetError, match=r"64 x 96.*96 x 64.*turned") as caught:
        dataset.read(sample)
    assert sample.image in str(caught.value)
    assert sample.labels in str(caught.value)


@pytest.mark.parametrize("name", TREES)
def test_a_value_outside_the_label_space_is_refused_with_file_value_and_count(name: str, tmp_path: Path) -> None:
    dataset = built(name, tmp_path)
    sample = open_training(dataset, tmp_path)[0][0]
    values = labels_array([1, 2], 0).astype(np.uint16)
    values[0, :7] = unknown = UNKNOWN.get(name, 222)
    relabel(name, Path(sample.labels), values)
    with pytest.raises(DatasetError, match=rf"{unknown} \(7 pixels\)") as caught:
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
    with pytest.raises(RecipeError, match=r"known: ade20k, bdd100k, camvid.*\.yaml"):
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


# PASCAL-Context: three editions of one folder


@pytest.mark.parametrize("folder", ["SegmentationClassContext", "59_context_labels", "trainval"])
def test_all_three_editions_of_pascal_context_name_the_same_classes(tmp_path: Path, folder: str) -> None:
    pascal_context_tree(tmp_path, folder)
    seen = {"background", "sky", "grass", "person"}
    _, line = open_training(load("pascal_context"), tmp_path)
    assert line == f"pascal_context train: 2 of 4,998 images (labels: {folder})"
    for name, expected in (("pascal_context", seen), ("pascal_context59", seen - {"background"})):
        dataset = load(name)
        assert class_names(dataset, open_training(dataset, tmp_path)[0][0]) == expected


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(("right", "wrong"), [("SegmentationClassContext", "59_context_labels"),
                                              ("59_context_labels", "SegmentationClassContext")])  # fmt: skip
def test_the_numbers_of_one_order_of_classes_are_refused_in_the_folder_of_the_other(
    tmp_path: Path, right: str, wrong: str, split: str
) -> None:
    voc = pascal_context_tree(tmp_path, right)
    (voc / right).rename(voc / wrong)
    for name in ("pascal_context", "pascal_context59"):
        with pytest.raises(DatasetError, match=rf"{wrong}: .* have the numbers of {right}, not of {wrong}"):
            open_split(load(name), tmp_path, split)


@pytest.mark.parametrize("folder", ["SegmentationClassContext", "59_context_labels"])
def test_label_maps_of_pascal_context_that_count_from_zero_are_refused(tmp_path: Path, folder: str) -> None:
    voc = pascal_context_tree(tmp_path, folder)
    for path in (voc / folder).iterdir():
        grey(path, read_labels(str(path)) - np.uint8(1))  # background becomes 255
    with pytest.raises(DatasetError, match=f"have the numbers of {folder} less 1"):
        open_training(load("pascal_context"), tmp_path)
    assert load("pascal_context").labels.table[255] == -2


def test_the_makers_order_of_pascal_context_is_vocs_and_then_their_list() -> None:
    names = [CONTEXT[label] for label in VOC_FIRST]
    assert sorted(names) == sorted(CONTEXT)
    assert names[:21] == ["table" if name == "diningtable" else name for name in load("voc").labels.classes]
    rest = """bag bed bench book building cabinet ceiling cloth computer cup door fence floor flower food grass ground
    keyboard light mountain mouse curtain platform sign plate road rock shelves sidewalk sky snow bedclothes track tree
    truck wall water window wood"""
    assert names[21:] == rest.split()


def test_classes_and_numbers_of_pascal_context_are_both_in_alphabetical_order() -> None:
    assert list(CONTEXT[1:]) == sorted(CONTEXT[1:])
    assert list(NUMBERS) == sorted(set(NUMBERS))
    assert len(NUMBERS) == 59
    some = {2: "aeroplane", 23: "bicycle", 187: "grass", 284: "person", 360: "sky", 458: "wood"}
    assert {number: CONTEXT[1 + NUMBERS.index(number)] for number in some} == some


def test_without_any_edition_of_its_label_maps_pascal_context_says_which_there_are(tmp_path: Path) -> None:
    voc = pascal_context_tree(tmp_path)
    (voc / "SegmentationClassContext").rename(voc / "SegmentationClass")
    with pytest.raises(DatasetError, match=r"none of SegmentationClassContext, .*trainval .*VOC2010 has .*JPEGImages"):
        open_training(load("pascal_context"), tmp_path)


def test_a_number_that_none_of_the_459_classes_has_is_refused(tmp_path: Path) -> None:
    pascal_context_tree(tmp_path, "trainval")
    dataset = load("pascal_context")
    sample = open_training(dataset, tmp_path)[0][0]
    label_mat(Path(sample.labels), "LabelMap", np.full((64, 96), 460, dtype=np.uint16))
    with pytest.raises(DatasetError, match=r"460 \(6144 pixels\).*0\.\.459"):
        dataset.read(sample)


# ImageNet-S


@pytest.mark.parametrize(("size", "first", "last"), [(50, "goldfish", "agaric"), (300, "tench", "bolete"),
                                                     (919, "tench", "toilet tissue")])  # fmt: skip
def test_ids_of_imagenet_s_are_two_channels_and_other_is_a_class(
    tmp_path: Path, size: int, first: str, last: str
) -> None:
    imagenet_s_tree(tmp_path, size)
    dataset = load(f"imagenet_s{size}")
    sample = open_training(dataset, tmp_path)[0][0]
    _, raw = dataset.read(sample)
    assert set(np.unique(raw).tolist()) == {0, 1, size, 1000}
    assert dataset.labels.classes[0] == "other"
    assert (dataset.labels.classes[1], dataset.labels.classes[size]) == (first, last)
    assert dataset.labels.to_classes(np.array([0, 1, size, 1000])).tolist() == [0, 1, size, IGNORE]


def test_a_label_map_of_imagenet_s_that_is_a_picture_or_grey_is_refused(tmp_path: Path) -> None:
    imagenet_s_tree(tmp_path)
    dataset = load("imagenet_s50")
    sample = open_training(dataset, tmp_path)[0][0]
    grey(Path(sample.labels), np.full((64, 96, 3), 7, dtype=np.uint8))
    with pytest.raises(DatasetError, match="blue is used"):
        dataset.read(sample)
    grey(Path(sample.labels), labels_array([0, 1], 0))
    with pytest.raises(DatasetError, match=r"expected RGB with ids of red \+ 256"):
        dataset.read(sample)


def test_the_folders_of_another_edition_of_imagenet_s_are_refused_since_its_ids_mean_other_things(
    tmp_path: Path,
) -> None:
    home = imagenet_s_tree(tmp_path, 300)
    (home / "train-semi" / "n01443537").rename(home / "train-semi" / "n01440764")
    home.rename(tmp_path / "ImageNetS50")
    with pytest.raises(DatasetError, match="1 folders such as n01440764 are no category of ImageNet-S50"):
        open_training(load("imagenet_s50"), tmp_path)


def test_the_editions_of_imagenet_s_are_sorted_by_wordnet_id_and_lie_within_each_other() -> None:
    small, middle, large = (categories(size) for size in (50, 300, 919))
    assert [len(small), len(middle), len(large)] == [50, 300, 919]
    assert set(small) < set(middle) < set(large)
    for edition in (small, middle, large):
        assert [category.wordnet for category in edition] == sorted(category.wordnet for category in edition)
    merged = {"n04356056", "n04493381", "n03642806", "n04008634", "n03887697"}
    assert not merged & {category.wordnet for category in large}


# Layouts in use beside the first


def test_coco_stuff_10k_is_the_same_from_its_mat_files_and_from_converted_ones(tmp_path: Path) -> None:
    dataset, seen = load("coco_stuff10k"), {"person", "stop sign", "blanket", "wood"}
    for tree, kind in ((coco_stuff10k_mats, ".mat"), (coco_stuff10k_tree, "labelTrainIds")):
        tree(tmp_path / kind)
        samples, line = open_training(dataset, tmp_path / kind)
        assert line.endswith(f"of 9,000 images (labels: {kind})")
        assert class_names(dataset, samples[0]) == seen
        assert int((dataset.read(samples[0])[1] == 0).sum()) > 0
    label_mat(Path(samples[0].labels).with_suffix(".mat"), "S", np.full((64, 96), 12, dtype=np.uint16))
    with pytest.raises(DatasetError, match=r"12 \(6144 pixels\).*0\.\.182"):
        dataset.read(samples[0]._replace(labels=str(Path(samples[0].labels).with_suffix(".mat"))))


def test_coco_stuff_10k_takes_no_other_matrix_for_its_labels(tmp_path: Path) -> None:
    coco_stuff10k_mats(tmp_path)
    dataset = load("coco_stuff10k")
    sample = open_training(dataset, tmp_path)[0][0]
    label_mat(Path(sample.labels), "regionMapStuff", np.full((64, 96), 1, dtype=np.uint16))
    with pytest.raises(DatasetError, match="expected the label matrix S, found regionMapStuff"):
        dataset.read(sample)


def test_nyudv2_is_found_in_all_three_layouts(tmp_path: Path) -> None:
    dataset, home = load("nyudv2"), nyudv2_tree(tmp_path)
    raw = [dataset.read(sample)[1] for sample in open_training(dataset, tmp_path)[0]]
    for photos, labels in (("train/rgb", "train/labels_40"), ("images/train", "annotations/train")):
        place = tmp_path / photos.replace("/", "-") / "nyudv2"
        for name in ("3", "4"):
            for new, old in (
                (f"{photos}/{name}.jpg", f"RGB/{name}.jpg"),
                (f"{labels}/{name}.png", f"Label/{name}.png"),
            ):
                (place / new).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(home / old, place / new)
        found = [dataset.read(sample)[1] for sample in open_training(dataset, place.parent)[0]]
        assert all(np.array_equal(a, b) for a, b in zip(raw, found, strict=True))
    assert class_names(dataset, open_training(dataset, tmp_path)[0][0]) == {"wall", "chair", "otherprop"}
    assert dataset.labels.table[255] == -2, "ids less 1 come with 255, which must not be ignored"


def test_bdd100k_is_found_in_the_layout_of_2018(tmp_path: Path) -> None:
    for split in ("train", "val"):
        photo(tmp_path / "bdd100k" / "seg" / "images" / split / "0004-d4.jpg", 0)
        grey(tmp_path / "bdd100k" / "seg" / "labels" / split / "0004-d4_train_id.png", labels_array([0, 18, 255], 0))
    dataset = load("bdd100k")
    assert class_names(dataset, open_training(dataset, tmp_path)[0][0]) == {"road", "bicycle"}


def test_the_two_versions_of_mapillary_vistas_do_not_take_each_others_label_maps(tmp_path: Path) -> None:
    mapillary_v2_tree(tmp_path)
    mapillary = load("mapillary_v2")
    assert class_names(mapillary, open_training(mapillary, tmp_path)[0][0]) == {"Bird", "Road", "Sky", "Static"}
    ignored = np.array([2, 31, 38, 79, 86, 96, 115, 123])
    assert (mapillary.labels.to_classes(ignored) == IGNORE).all()
    assert int((mapillary.labels.to_classes(np.arange(124)) == IGNORE).sum()) == len(ignored)
    with pytest.raises(DatasetError, match=r"no .*v1\.2/labels or .*training/labels \(.*training has images, v2\.0\)"):
        open_training(load("mapillary"), tmp_path)
    shutil.rmtree(tmp_path / "mapillary")
    mapillary_tree(tmp_path, "labels")
    assert len(open_training(load("mapillary"), tmp_path)[0]) == 2, "version 1.1"
    with pytest.raises(DatasetError, match=r"no .*v2\.0/labels"):
        open_training(load("mapillary_v2"), tmp_path)


# Real files


@pytest.mark.parametrize(
    ("name", "split", "count"),
    [
        ("voc", "trainaug", 4),
        ("voc", "val", 1),
        ("ade20k", "train", 1),
        ("ade20k", "val", 3),
        ("sunrgbd", "train", 1),
        ("sunrgbd", "test", 1),
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
        ("sunrgbd", "train", "img-000001", {"floor", "wall", "table", "chair", "window", "cabinet"}),
        ("sunrgbd", "test", "img-000001", {"dresser", "floor", "wall", "bed", "ceiling", "mirror"}),
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


# Generated photos of single objects


def test_an_object_covers_3_to_60_percent_of_its_photo_and_8_percent_of_them_have_a_smaller_one_besides() -> None:
    dataset, twice, photos = load("shapes-objects"), 0, 0
    for split in ("validation", "train-semi"):
        for sample in dataset.samples(Path(), split):
            labels = dataset.read(sample)[1]
            shares = np.bincount(labels.ravel(), minlength=7)[1:] / labels.size
            shape = sample.image.split("/")[2]
            assert dataset.labels.classes[1 + int(shares.argmax())] == shape
            assert 0.03 <= shares.max() <= 0.6
            twice, photos = twice + int((shares > 0).sum() - 1), photos + 1
    assert 0.04 < twice / photos < 0.13


def test_photos_alone_are_those_of_another_split_and_every_label_of_theirs_is_ignored() -> None:
    dataset = load("shapes-objects")
    (first, *_), (semi, *_) = (dataset.samples(Path(), split) for split in ("train", "train-semi"))
    assert first.labels == ""
    assert (dataset.read(first)[1] == 1000).all()
    assert not np.array_equal(dataset.photo(first), dataset.photo(semi))
    dataset.photo(semi)[:] = 0  # the caller's own
    assert dataset.photo(semi).any()
