"""Annotations of other tools as label maps of a dataset: what is drawn, how it is kept, and what is refused."""

import json
import multiprocessing
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mdp.core.labels import IGNORE
from mdp.io.annotations import drawing
from mdp.io.annotations.class_tables import class_table
from mdp.io.check.job import run_check
from mdp.io.check.remembered import key_of, stamps_of_samples
from mdp.io.data.changes import changes
from mdp.io.data.manifest import look_at
from mdp.io.datasets import load
from mdp.io.datasets._dataset import Dataset, open_split
from mdp.io.errors import DatasetError, MdpError, RecipeError
from tests.annotated_trees import BOX, WITHIN, coco_tree, coco_values, label_studio_tree, labelme_tree, yolo_tree
from tests.trees import HEIGHT, WIDTH, grey, own_yaml, photo

COCO = """
name: shots
splits:
  train: {images: train, annotations: train/_annotations.coco.json}
  val: {images: valid, annotations: valid/_annotations.coco.json}
classes: {1: car, 2: road, 3: sky, 4: background}
background: background
"""
LABELME = """
name: shots
splits: {train: {images: photos, annotations: photos}}
classes: labels.txt
background: _background_
"""
YOLO = """
name: shots
splits: {train: {images: images/train, annotations: labels/train}}
classes: {0: background, 1: {name: car, labels: ["0"]}, 2: {name: road, labels: ["2"]}}
background: background
"""
STUDIO = """
name: shots
splits: {train: {images: photos, annotations: masks}}
classes: {0: car, 1: street-lamp, 2: rest}
background: rest
"""


def label_maps(root: Path, text: str, split: str = "train") -> list[NDArray[np.int16]]:
    """Classes (H, W) of each photo of a split."""
    dataset = load(str(own_yaml(root, text)))
    samples, _ = open_split(dataset, root, split)
    return [dataset.labels.to_classes(dataset.read(sample)[1]) for sample in samples]


def areas(labels: NDArray[np.int16]) -> dict[int, int]:
    return dict(zip(*(part.tolist() for part in np.unique(labels, return_counts=True)), strict=True))


# What is drawn


def test_polygons_and_run_lengths_of_coco_are_drawn_in_the_order_of_the_file(tmp_path: Path) -> None:
    first, _ = label_maps(coco_tree(tmp_path), COCO)
    car, road, sky = 32 * 32 - 16 * 16, 32 * 32, 4 * WIDTH
    assert areas(first) == {0: car, 1: road, 2: sky, 3: HEIGHT * WIDTH - car - road - sky}
    assert first[30, 30] == 1


@pytest.mark.parametrize(("overlap", "expected"), [("later", 0), ("smaller", 1), ("ignore", IGNORE)])
def test_the_rule_for_overlaps_is_chosen(tmp_path: Path, overlap: str, expected: int) -> None:
    coco_tree(tmp_path)
    edit(tmp_path, reorder_)
    first = label_maps(tmp_path, f"{COCO}\noverlap: {overlap}")[0]
    assert first[15, 15] == expected
    assert first[9, 9] == 0


def reorder_(values: dict[str, Any]) -> None:
    """A road on the car, which is in the file after it."""
    values["annotations"] = [
        {"id": 0, "image_id": 0, "category_id": 2, "segmentation": [WITHIN]},
        {"id": 1, "image_id": 0, "category_id": 1, "segmentation": [BOX]},
    ]


def edit(root: Path, change: Callable[[dict[str, Any]], object], file: str = "train/_annotations.coco.json") -> None:
    values = json.loads((root / file).read_text())
    change(values)
    (root / file).write_text(json.dumps(values))


def test_pixels_in_no_annotation_are_the_background_or_ignored(tmp_path: Path) -> None:
    coco_tree(tmp_path)
    ignored = COCO.replace(", 4: background}", "}").replace("background: background", "background: ignore")
    assert label_maps(tmp_path, ignored)[0][60, 90] == IGNORE
    assert label_maps(tmp_path, COCO)[0][60, 90] == 3


def test_classes_of_annotations_go_by_their_names_and_may_be_merged_or_ignored(tmp_path: Path) -> None:
    coco_tree(tmp_path)
    edit(tmp_path, lambda values: [entry.update(id=entry["id"] + 70) for entry in values["categories"]] and [
        entry.update(category_id=entry["category_id"] + 70) for entry in values["annotations"]
    ])  # fmt: skip
    text = COCO.replace(
        "{1: car, 2: road, 3: sky, 4: background}", "{0: {name: ground, labels: [car, road]}, 1: background}"
    )
    first = label_maps(tmp_path, text + "ignore: [sky]")[0]
    assert (first[30, 30], first[9, 9], first[0, 0], first[60, 90]) == (0, 0, IGNORE, 1)
    assert np.array_equal(first, label_maps(tmp_path, text + "ignore: [sky]", "val")[0])  # which has other ids


def test_shapes_of_labelme_are_drawn_and_its_ignore_label_is_no_class(tmp_path: Path) -> None:
    first, *_ = label_maps(labelme_tree(tmp_path), LABELME)  # _background_, car, road, sun, wire
    assert (first[9, 9], first[30, 30], first[12, 82], first[60, 40]) == (1, 2, 3, 4)
    assert [first[i, 60 + i] for i in range(4)] == [3] * 4
    assert first[0, 61] == 0
    assert first[60, 90] == IGNORE
    assert first[2, 2] == 0


def test_a_photo_of_labelme_that_was_not_named_after_its_json_is_found_by_image_path(tmp_path: Path) -> None:
    labelme_tree(tmp_path, 1)
    file = tmp_path / "photos" / "shot_0.json"
    values = json.loads(file.read_text()) | {"imagePath": "..\\elsewhere\\shot_0.jpg"}
    file.unlink()
    (tmp_path / "photos" / "a.json").write_text(json.dumps(values))
    assert label_maps(tmp_path, LABELME)[0][9, 9] == 1


def test_photos_may_lie_in_folders_below_and_have_dots_in_their_names(tmp_path: Path) -> None:
    train = coco_tree(tmp_path) / "train"
    (train / "more").mkdir()
    (train / "shot_01.jpg").rename(train / "more" / "shot_01.jpg")
    assert len(label_maps(tmp_path, COCO)) == 2
    shutil.copytree(train / "more", train / "again")
    refused(tmp_path, COCO, str(train / "again" / "shot_01.jpg"), "may mean either; remove one of them")
    labelme_tree(tmp_path / "site", 1)
    for ending in ("jpg", "json"):
        file = tmp_path / "site" / "photos" / f"shot_0.{ending}"
        file.rename(file.with_name(f"shot.rf.0a1b.{ending}"))
    assert label_maps(tmp_path / "site", LABELME)[0][9, 9] == 1


def test_masks_of_label_studio_are_one_label_map(tmp_path: Path) -> None:
    first, second = label_maps(label_studio_tree(tmp_path), STUDIO)
    assert areas(first) == {0: 20 * WIDTH, 1: 20 * WIDTH, 2: 24 * WIDTH}
    assert np.array_equal(first, second)


def test_outlines_of_yolo_are_shares_of_the_photo_in_the_order_of_the_file(tmp_path: Path) -> None:
    first, second = label_maps(yolo_tree(tmp_path), YOLO)
    box = 33 * 33  # from pixel 8 to pixel 40, the outline included
    assert areas(first) == {0: HEIGHT * WIDTH - 2 * box + 17 * 17, 1: box - 17 * 17, 2: box}
    assert first[8, 8] == 1
    assert first[24, 24] == 2  # the later one
    assert areas(second) == {0: HEIGHT * WIDTH}


def test_masks_that_overlap_have_no_order_so_a_rule_is_asked_for(tmp_path: Path) -> None:
    label_studio_tree(tmp_path)
    whole = np.full((HEIGHT, WIDTH), 255, dtype=np.uint8)
    grey(tmp_path / "masks" / "task-1-annotation-11-by-1-tag-street-lamp-0.png", whole)
    with pytest.raises(DatasetError, match=r"two classes overlap.*`overlap: smaller`"):
        label_maps(tmp_path, STUDIO)
    assert areas(label_maps(tmp_path, f"{STUDIO}overlap: smaller")[0]) == {0: 20 * WIDTH, 1: 44 * WIDTH}
    assert areas(label_maps(tmp_path, f"{STUDIO}overlap: ignore")[0]) == {IGNORE: 20 * WIDTH, 1: 44 * WIDTH}


@pytest.mark.parametrize(
    ("tree", "text"), [(coco_tree, COCO), (labelme_tree, LABELME), (label_studio_tree, STUDIO), (yolo_tree, YOLO)]
)
def test_check_reads_annotations_as_it_reads_label_maps(
    tmp_path: Path, tree: Callable[[Path], Path], text: str
) -> None:
    path = own_yaml(tree(tmp_path), text)
    for report in run_check([str(path)], tmp_path, 0, None, quiet=True):
        assert not [problem for problem in report.problems if problem.error], report.problems
        assert report.images >= 2
        assert not report.never


# Class tables


TABLES = {
    "_classes.csv": ("Pixel Value, Class\n0, background\n2, car\n", {0: "background", 2: "car"}),
    "labelmap.txt": (
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nbus:stop:128,0,64::\n",
        {0: {"name": "background", "colors": ["#000000"]}, 1: {"name": "bus:stop", "colors": ["#800040"]}},
    ),
    "labels.txt": ("__ignore__\n_background_\ncar\n", {0: "_background_", 1: "car"}),
    "dataset.json": (  # nnU-Net's; what its first version writes is below
        json.dumps({"channel_names": {"0": "R"}, "labels": {"rest": 0, "car": 2, "ignore": 3}, "file_ending": ".png"}),
        {0: "rest", 2: "car"},
    ),
    "_annotations.coco.json": (json.dumps(coco_values(["a.jpg"])), {1: "car", 2: "road", 3: "sky"}),
}


@pytest.mark.parametrize("name", TABLES)
def test_class_tables_of_tools_are_read_with_their_values_or_colours(tmp_path: Path, name: str) -> None:
    text, expected = TABLES[name]
    (tmp_path / name).write_text(text)
    assert class_table(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("_classes.csv", "Pixel Value, Class\n0, a\nx, b\n", "line 3: expected `value, name`"),
        ("_classes.csv", "Pixel Value, Class\n0, a\n0, b\n", "line 3: the value 0 is there twice"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nroad:0,0,300::\n", "line 2: expected `name:r,g,b"),
        ("labels.txt", "\n\n", "expected names of classes"),
        ("labels.txt", "a\x1b[31m\n", "line 1: control characters"),
        ("a.json", "{}", "not COCO: expected lists images, annotations and categories"),
        ("dataset.json", '{"modality": {}, "labels": {"x": "car"}}', "labels: expected a name and a value"),
        ("dataset.json", '{"channel_names": {}, "labels": {"a": [1, 2]}}', "labels.'a': a region of several values"),
        ("dataset.json", '{"channel_names": {}, "labels": {"a": 1, "b": 1}}', "'b' and 'a' have the value 1"),
        ("dataset.json", '{"channel_names": {}, "labels": {"ignore": 1}}', "labels: expected one or more"),
    ],
)
def test_a_class_table_that_is_not_understood_is_refused_by_file_and_line(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError) as caught:
        class_table(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert words in str(caught.value)


def test_the_first_version_of_nnunets_file_has_values_before_names(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"modality": {"0": "R"}, "labels": {"1": "road", "0": "rest"}}')
    assert class_table(tmp_path / "dataset.json") == {0: "rest", 1: "road"}


def test_colours_and_values_of_label_files_come_from_a_class_table(tmp_path: Path) -> None:
    photo(tmp_path / "JPEGImages" / "a.jpg", 1)
    (tmp_path / "labelmap.txt").write_text(TABLES["labelmap.txt"][0])
    colors = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    colors[:10] = (128, 0, 64)
    (tmp_path / "SegmentationClass").mkdir()
    Image.fromarray(colors).save(tmp_path / "SegmentationClass" / "a.png")
    text = "splits: {train: {images: JPEGImages, labels: SegmentationClass}}\nclasses: labelmap.txt"
    assert areas(label_maps(tmp_path, text)[0]) == {0: 54 * WIDTH, 1: 10 * WIDTH}


# What is kept


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "mdp" / "labels").rglob("*.png"))


@pytest.fixture
def coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return load(str(own_yaml(coco_tree(tmp_path / "set"), COCO)))


def test_a_label_map_is_drawn_once_and_again_where_what_is_kept_is_damaged_or_gone(
    tmp_path: Path, coco: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = open_split(coco, tmp_path, "train")[0][0]
    drawn = coco.read(sample)[1]
    (file,) = kept(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(drawing, "draw", None)
        assert np.array_equal(coco.read(sample)[1], drawn)
    for damage in (b"", file.read_bytes()[:-40], b"nothing like it"):
        file.write_bytes(damage)
        assert np.array_equal(coco.read(sample)[1], drawn)
        with Image.open(file) as again:
            assert again.size == (WIDTH, HEIGHT)
    shutil.rmtree(tmp_path / "cache")
    assert np.array_equal(coco.read(sample)[1], drawn)


def test_what_is_kept_goes_by_content_so_that_a_change_draws_anew_and_a_copy_does_not(
    tmp_path: Path, coco: Dataset
) -> None:
    before = coco.read(open_split(coco, tmp_path, "train")[0][0])[1]
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    copy = load(str(tmp_path / "copy" / "site_a.yaml"))
    assert np.array_equal(copy.read(open_split(copy, tmp_path, "train")[0][0])[1], before)
    assert len(kept(tmp_path)) == 1
    edit(tmp_path / "set", lambda values: values["annotations"][1].update(segmentation=[WITHIN]))
    after = coco.read(open_split(coco, tmp_path, "train")[0][0])[1]
    assert (after != before).sum() == 16 * 16 + (32 * 32 - 16 * 16) + 8 * 8
    text = (tmp_path / "set" / "site_a.yaml").read_text()
    (tmp_path / "set" / "site_a.yaml").write_text(text + "\noverlap: ignore")
    other = load(str(tmp_path / "set" / "site_a.yaml"))
    assert not np.array_equal(other.read(open_split(other, tmp_path, "train")[0][0])[1], after)
    assert len(kept(tmp_path)) == 3


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: Path, coco: Dataset) -> None:
    (tmp_path / "cache" / "mdp").mkdir(parents=True)
    (tmp_path / "cache" / "mdp" / "labels").write_text("a file in its place")
    assert coco.read(open_split(coco, tmp_path, "train")[0][0])[1].shape == (HEIGHT, WIDTH)


def test_what_is_kept_is_bounded_and_the_oldest_go(
    tmp_path: Path, coco: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = open_split(coco, tmp_path, "train")[0]
    monkeypatch.setattr(drawing, "_FOLDER_BYTES", 1)
    monkeypatch.setattr(drawing.hashlib, "sha256", FakeDigest)
    coco.read(samples[0])
    (first,) = kept(tmp_path)
    coco.read(samples[1])
    (second,) = kept(tmp_path)  # of one folder
    assert first != second


class FakeDigest:
    """A digest that puts everything into one folder."""

    def __init__(self, told: bytes) -> None:
        self.told = told

    def hexdigest(self) -> str:
        return f"00{hash(self.told) % 10**12}"


def _read_all(path: str, done: Any) -> None:
    dataset = load(path)
    samples = open_split(dataset, Path(path).parent, "train")[0]
    done.put([dataset.read(sample)[1].tobytes() for _ in range(5) for sample in samples])


def test_two_processes_draw_the_same_files_at_once(tmp_path: Path, coco: Dataset) -> None:
    context = multiprocessing.get_context("fork")
    done = context.Queue()
    crew = [context.Process(target=_read_all, args=(coco.source, done)) for _ in range(2)]
    for process in crew:
        process.start()
    results = [done.get(timeout=60) for _ in crew]
    for process in crew:
        process.join()
    assert results[0] == results[1]
    assert len(kept(tmp_path)) == 2
    assert not list((tmp_path / "cache").rglob(".*"))  # nothing half-written is left


# What is the same data


def test_a_change_of_one_photos_annotations_is_told_by_its_name(tmp_path: Path, coco: Dataset) -> None:
    samples, root = open_split(coco, tmp_path, "train")[0], str(tmp_path)
    before = look_at(coco, samples, "train", root)
    (tmp_path / "set" / "train" / "_annotations.coco.json").touch()
    assert not changes([before], [look_at(coco, samples, "train", root)])
    edit(tmp_path / "set", lambda values: values["annotations"][1].update(segmentation=[WITHIN]))
    (change,) = changes([before], [look_at(coco, samples, "train", root)])
    assert [Path(name).name for name in change.labels] == ["_annotations.coco.json#shot_00.jpg"]
    assert not change.photos


def test_a_mask_that_was_painted_over_is_another_label_map(tmp_path: Path) -> None:
    dataset = load(str(own_yaml(label_studio_tree(tmp_path), STUDIO)))
    samples = open_split(dataset, tmp_path, "train")[0]
    before, stamps = look_at(dataset, samples, "train", str(tmp_path)), stamps_of_samples(samples)
    path = tmp_path / "masks" / "task-2-annotation-12-by-1-tag-car-0.png"
    grey(path, np.full((HEIGHT, WIDTH), 255, dtype=np.uint8))
    (change,) = changes([before], [look_at(dataset, samples, "train", str(tmp_path))])
    assert change.labels == ["masks/task-2-annotation-12-by-1-*.png"]
    assert [a == b for a, b in zip(stamps, stamps_of_samples(samples), strict=True)] == [True, True, True, False]


def test_another_class_table_is_another_description(tmp_path: Path) -> None:
    path = own_yaml(labelme_tree(tmp_path), LABELME)
    dataset = load(str(path))
    samples = open_split(dataset, tmp_path, "train")[0]
    key = key_of((dataset, samples, "train"), stamps_of_samples(samples))
    (tmp_path / "labels.txt").write_text("_background_\ncar\nroad\nsun\nwire\n")  # the same classes
    assert key_of((dataset, samples, "train"), stamps_of_samples(samples)) == key
    (tmp_path / "labels.txt").write_text("_background_\nroad\ncar\nsun\nwire\n")
    assert key_of((dataset, samples, "train"), stamps_of_samples(samples)) != key


# What is refused


def _set(part: str, index: int, **values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda parsed: parsed[part][index].update(values)


COCO_REFUSED: Mapping[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no photo": (_set("images", 1, file_name="gone.jpg"), "image 1: the photo 'gone.jpg' is not in"),
    "a way out": (_set("images", 1, file_name="../valid/../../x.jpg"), "image 1: the photo 'x.jpg' is not in"),
    "no category": (_set("annotations", 4, category_id=9), "annotation 4: category_id: there is no category 9"),
    "no image": (_set("annotations", 4, image_id=9), "annotation 4: image_id: there is no image 9"),
    "two entries": (_set("images", 1, file_name="shot_00.jpg"), "images 0, 1 have one file_name, 'shot_00.jpg'"),
    "one id": (_set("images", 1, id=0), "images: there are two with id 0"),
    "no name": (_set("categories", 1, name=7), "categories: 1: expected a name, got 7"),
    "sizes": (_set("images", 0, width=64, height=96), "image 0 (shot_00.jpg): 64 x 96 pixels, its photo has 96 x 64"),
    "runs": (
        _set("annotations", 2, segmentation={"size": [HEIGHT, WIDTH], "counts": [5, 5]}),
        "annotation 2 of image 0 (shot_00.jpg): segmentation: its runs add up to 10 pixels; 96 x 64 are 6144",
    ),
    "size of runs": (
        _set("annotations", 2, segmentation={"size": [5, 2], "counts": [10]}),
        "annotation 2 of image 0 (shot_00.jpg): segmentation: run lengths of size [5, 2], the photo has [64, 96]",
    ),
    "compressed runs": (
        _set("annotations", 2, segmentation={"size": [HEIGHT, WIDTH], "counts": "5\x01"}),
        "annotation 2 of image 0 (shot_00.jpg): segmentation: damaged run lengths",
    ),
    "a box": (_set("annotations", 1, segmentation=[]), "annotation 1 of image 0 (shot_00.jpg): segmentation: there is"),
    "two corners": (_set("annotations", 1, segmentation=[[1, 2, 3, 4]]), "annotation 1 of image 0 (shot_00.jpg)"),
    "no class": (_set("categories", 1, name="lorry"), "the label 'lorry' is in no class"),
    "not COCO": (lambda values: values.pop("images"), "not COCO: expected lists images, annotations and categories"),
    "panoptic": (lambda values: values.update(annotations=[{"segments_info": []}]), "panoptic form"),
    "of LabelMe": (lambda values: (values.clear(), values.update(shapes=[])), "give the folder, `annotations: FOLDER`"),
}  # fmt: skip


@pytest.mark.parametrize("case", COCO_REFUSED)
def test_bad_coco_is_refused_in_a_line_with_file_and_key(tmp_path: Path, case: str) -> None:
    change, words = COCO_REFUSED[case]
    edit(coco_tree(tmp_path), change)
    refused(tmp_path, COCO, str(tmp_path / "train" / "_annotations.coco.json"), words)


def refused(root: Path, text: str, file: str, words: str) -> None:
    with pytest.raises(DatasetError) as caught:
        label_maps(root, text)
    assert str(caught.value).startswith(file)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "expected JSON: Expecting property name enclosed in double quotes in line 1, column 2"),
        (b"<!DOCTYPE html>", "expected JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "`git lfs pull`"),
        (b"[" * 100_000, "expected JSON"),
        (b"\xff\xfe\x00", "expected JSON"),
        (b"[1, 2]", "not COCO"),
    ],
)
def test_what_is_not_json_is_refused_in_a_line(tmp_path: Path, data: bytes, words: str) -> None:
    file = coco_tree(tmp_path) / "train" / "_annotations.coco.json"
    file.write_bytes(data)
    refused(tmp_path, COCO, str(file), words)


LABELME_REFUSED: Mapping[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a kind": (_set("shapes", 0, shape_type="star"), "shapes: entry 0 ('car'): shapes of type 'star' are not drawn"),
    "points": (_set("shapes", 2, points=[[1, 2]]), "shapes: entry 2 ('sun'): a circle has 2 points, got 1"),
    "no points": (_set("shapes", 2, points=None), "shapes: entry 2 ('sun'): expected shape_type and points"),
    "a mask": (_set("shapes", 5, mask="no base64"), "shapes: entry 5 ('sun'): mask: expected a PNG in base64"),
    "a damaged mask": (_set("shapes", 5, mask="aGVsbG8="), "damaged or not a mask"),
    "a mask's box": (_set("shapes", 5, points=[[60, 0], [70, 3]]), "shapes: entry 5 ('sun'): its mask has 4 x 4"),
    "sizes": (lambda values: values.update(imageHeight=96), "96 x 96, its photo has 96 x 64"),
    "a label": (_set("shapes", 1, label="lorry"), "the label 'lorry' is in no class"),
    "no label": (_set("shapes", 1, label=None), "shapes: entry 1: expected a label"),
    "not LabelMe": (lambda values: values.pop("shapes"), "not a file of LabelMe"),
}  # fmt: skip


@pytest.mark.parametrize("case", LABELME_REFUSED)
def test_bad_labelme_is_refused_in_a_line_with_file_and_shape(tmp_path: Path, case: str) -> None:
    change, words = LABELME_REFUSED[case]
    edit(labelme_tree(tmp_path), change, "photos/shot_1.json")
    refused(tmp_path, LABELME, str(tmp_path / "photos" / "shot_1.json"), words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0.5 0.5 0.2 0.2", "line 2: a box, where an outline"),
        ("0 0.1 0.1 0.2 0.2 0.3", "line 2: expected `class x y x y x y ...` with three corners or more, got 6 numbers"),
        ("car 0 0 1 0 1 1", "line 2: expected the number of a class, got 'car'"),
        ("0 0 0 96 0 96 64", "line 2: expected shares of the photo's width and height from 0 to 1, got '96'"),
        ("0 0 0 nan 0 1 1", "line 2: expected shares of the photo's width and height from 0 to 1, got 'nan'"),
        ("7 0 0 1 0 1 1", "the label '7' is in no class"),
    ],
)
def test_bad_yolo_is_refused_with_file_and_line(tmp_path: Path, line: str, words: str) -> None:
    file = yolo_tree(tmp_path) / "labels" / "train" / "shot_00.txt"
    file.write_text(f"0 0 0 1 0 1 1\n{line}\n")
    refused(tmp_path, YOLO, str(file), words)


def test_an_annotation_without_its_photo_or_two_of_one_photo_are_refused(tmp_path: Path) -> None:
    labelme_tree(tmp_path)
    shutil.copy(tmp_path / "photos" / "shot_1.json", tmp_path / "photos" / "shot_1 (copy).json")
    refused(tmp_path, LABELME, str(tmp_path / "photos" / "shot_1.jpg"), "annotated twice, by")
    (tmp_path / "photos" / "shot_1 (copy).json").unlink()
    (tmp_path / "photos" / "shot_1.jpg").unlink()
    refused(tmp_path, LABELME, str(tmp_path / "photos" / "shot_1.json"), "the photo 'shot_1.jpg' is not in")


def test_a_task_annotated_twice_or_without_a_photo_is_refused(tmp_path: Path) -> None:
    masks = label_studio_tree(tmp_path) / "masks"
    shutil.copy(masks / "task-1-annotation-11-by-1-tag-car-0.png", masks / "task-1-annotation-14-by-2-tag-car-0.png")
    refused(tmp_path, STUDIO, str(masks), "task 1 has two annotations, task-1-annotation-11-by-1 and")
    (masks / "task-1-annotation-14-by-2-tag-car-0.png").unlink()
    (masks / "project.json").unlink()
    refused(tmp_path, STUDIO, str(masks), "task 1 (name its photo 1.jpg, or lay the project's JSON export")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("background: background", ""), "background: pixels in no annotation have to be something"),
        (("background: background", "background: backgruond"), "is not among the classes; did you mean 'background'?"),
        (
            ("background: background", "background: background\noverlap: last"),
            "overlap: expected one of later, smaller",
        ),
        (("valid, annotations", "valid, labels: x, annotations"), "splits.val: annotations stand in place of labels"),
        (("1: car", "1: {name: car, labels: [road]}"), "the label 'road' is already taken by another class"),
    ],
)
def test_a_description_that_says_too_little_or_too_much_is_refused(
    tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    path = own_yaml(coco_tree(tmp_path), COCO.replace(*change))
    with pytest.raises(RecipeError) as caught:
        load(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


def test_background_and_overlap_are_for_annotations_only(tmp_path: Path) -> None:
    text = "splits: {train: {images: a, labels: b}}\nclasses: {0: x, 1: y}\noverlap: later"
    with pytest.raises(MdpError, match="overlap: is for splits with `annotations`"):
        load(str(own_yaml(tmp_path, text)))
