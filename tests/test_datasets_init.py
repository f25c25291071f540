"""`mdp datasets init`: folders of many layouts become YAML files that `mdp check` takes as they are."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from mdp.cli import cli
from mdp.io.check.job import run_check
from mdp.io.datasets import load
from mdp.io.datasets._dataset import open_split
from mdp.io.datasets.draft.job import run_init
from mdp.io.errors import DatasetError
from tests.annotated_trees import coco_tree, label_studio_tree, labelme_tree, nnunet_tree, yolo_tree
from tests.trees import cityscapes_tree, grey, labels_array, lines, photo

ROAD, SKY = (250, 50, 83), (0, 100, 200)


def colored(path: Path, values: np.ndarray, colors: Sequence[tuple[int, int, int]], mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    image.putpalette([part for color in colors for part in color])
    image.convert(mode).save(path)


# A builder for each layout


def side_by_side(root: Path) -> None:
    for i in range(4):
        photo(root / f"shot_{i}.jpg", i)
        grey(root / f"shot_{i}_mask.png", labels_array([0, 1, 2], i))


def parallel(root: Path) -> None:
    for i in range(4):
        photo(root / "photos" / f"{i:03}.jpg", i)
        grey(root / "masks" / f"{i:03}.png", labels_array([0, 1, 2, 255], i))


def split_within(root: Path) -> None:
    for number, split in enumerate(("training", "validation")):
        for i in range(3):
            photo(root / split / "image" / f"img_{i}.png", 10 * number + i)
            grey(root / split / "gt" / f"gt_{i}.png", (labels_array([0, 1], i) * 255).astype(np.uint8))


def devkit(root: Path) -> None:
    names = [f"2010_{i:06}" for i in range(5)]
    for i, name in enumerate(names):
        photo(root / "JPEGImages" / f"{name}.jpg", i)
        for folder in ("SegmentationClass", "SegmentationObject"):
            colored(root / folder / f"{name}.png", labels_array([0, 1, 2], i), [(0, 0, 0), ROAD, SKY], "P")
        photo(root / "SegmentationClassVisualization" / f"{name}.jpg", 50 + i)
    lines(root / "ImageSets" / "Segmentation" / "train.txt", names[:3])
    lines(root / "ImageSets" / "Segmentation" / "val.txt", names[3:])
    lines(root / "class_names.txt", ["_background_", "road", "sky"])


def nested(root: Path) -> None:
    cityscapes_tree(root)
    for seed, path in enumerate(sorted(root.rglob("*_leftImg8bit.png"))):
        photo(path, seed)  # each its own


def roboflow_masks(root: Path) -> None:
    for number, split in enumerate(("train", "valid")):
        for i in range(3):
            photo(root / split / f"a-{i}_jpg.rf.{number}{i}f.jpg", 10 * number + i)
            grey(root / split / f"a-{i}_jpg.rf.{number}{i}f_mask.png", labels_array([0, 1, 2], i))
        (root / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, car\n2, road\n")


def cvat(root: Path) -> None:
    for i in range(3):
        photo(root / "JPEGImages" / f"p{i}.jpg", i)
        mode = "RGB" if i else "P"
        colored(root / "SegmentationClass" / f"p{i}.png", labels_array([0, 1], i), [(0, 0, 0), ROAD], mode)
        colored(root / "SegmentationObject" / f"p{i}.png", labels_array([0, 1], i), [(0, 0, 0), SKY])
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:250,50,83::\n")
    lines(root / "ImageSets" / "Segmentation" / "default.txt", ["p0", "p1", "p2"])


def colors_only(root: Path) -> None:
    for i in range(3):
        photo(root / "images" / f"{i}.jpg", i)
        colored(root / "labels" / f"{i}.png", labels_array([0, 1, 2], i), [(0, 0, 0), ROAD, SKY])


def photos_only(root: Path) -> None:
    for i in range(3):
        photo(root / "walk" / f"{i}.jpg", i)


def photos_of_other_places(root: Path) -> None:
    """Label maps of one folder of photos, named otherwise, beside photos that have none."""
    for i in range(3):
        photo(root / "shots" / f"{i}_rgb.jpg", i)
        grey(root / "gt" / f"{i}_gt.png", labels_array([0, 1], i))
    for i in range(2):
        photo(root / "walk" / f"{i}.jpg", 10 + i)


def one_coco(root: Path) -> None:
    """Photos below a folder of their own, the JSON in another, as COCO itself has them."""
    coco_tree(root / "x", ["train"])
    (root / "annotations").mkdir()
    shutil.move(root / "x" / "train", root / "train2017")
    shutil.move(root / "train2017" / "_annotations.coco.json", root / "annotations" / "instances_train2017.json")
    (root / "annotations" / "captions_train2017.json").write_text(json.dumps({"images": [], "annotations": []}))


class Expected(NamedTuple):
    """What the YAML file of a layout holds."""

    images: dict[str, int]  # of each split
    classes: list[str]
    words: Sequence[str] = ()


def cut(*values: int) -> list[str]:
    """Names that are made up."""
    return [f"class_{value}" for value in values]


LAYOUTS: dict[str, tuple[Callable[[Path], object], Expected]] = {
    "coco": (coco_tree, Expected({"train": 2, "val": 2}, ["background", "car", "road", "sky"], ["# background:"])),
    "one-coco": (one_coco, Expected({"train": 2}, ["background", "car", "road", "sky"], ["car  # 2 annotations"])),
    "labelme": (labelme_tree, Expected({"train": 3}, ["_background_", "car", "road", "sun", "wire"], ["labels.txt"])),
    "studio": (label_studio_tree, Expected({"train": 2}, ["background", "car", "street-lamp"], ["overlap: ignore"])),
    "yolo": (yolo_tree, Expected({"train": 2, "val": 2}, ["background", "car", "road"], ["data.yaml"])),
    "nnunet": (nnunet_tree, Expected({"train": 3}, ["background", "road"], ["ignore_index: 2  # 33.2%", "imagesTs"])),
    "others": (photos_of_other_places, Expected({"train": 3}, ["background", "foreground"], ["2 such as walk/0.jpg"])),
    "side by side": (side_by_side, Expected({"train": 4}, cut(0, 1, 2), ["33.3% of the pixels", "No split"])),
    "parallel": (parallel, Expected({"train": 4}, cut(0, 1, 2), ["ignore_index: 255  # 25.0%"])),
    "split within": (split_within, Expected({"train": 3, "val": 3}, ["background", "foreground"], ["null"])),
    "devkit": (devkit, Expected({"train": 3, "val": 2}, ["_background_", "road", "sky"], ["SegmentationObject"])),
    "nested": (nested, Expected({"train": 2, "val": 1}, cut(0, 3, 7, 11, 26, 33), ["{id}_leftImg8bit"])),
    "roboflow": (roboflow_masks, Expected({"train": 3, "val": 3}, ["background", "car", "road"], ["_classes.csv"])),
    "cvat": (cvat, Expected({"train": 3}, ["background", "road"], ["#fa3253", "labelmap.txt", "SegmentationObject"])),
    "colours": (colors_only, Expected({"train": 3}, cut(0, 1, 2), ["#fa3253"])),
    "photos": (photos_only, Expected({"train": 3}, [], ["3 photos and no label maps that go by their names"])),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_written_for_a_folder_passes_the_check_without_an_edit(tmp_path: Path, layout: str) -> None:
    build, expected = LAYOUTS[layout]
    root = tmp_path / "site"
    build(root)
    path = Path(run_init(root, None, overwrite=False))
    text = path.read_text()
    dataset = load(str(path))
    assert path == root / "site.yaml"
    assert list(dataset.labels.classes) == expected.classes
    assert {split: len(open_split(dataset, tmp_path, split)[0]) for split in dataset.splits} == expected.images
    for word in expected.words:
        assert word in text, text
    for report in run_check([str(path)], tmp_path, 0, None, quiet=True):
        assert not report.problems, report.problems
        assert not report.never


def test_comments_that_offer_another_reading_are_yaml_when_they_take_its_place(tmp_path: Path) -> None:
    parallel(tmp_path / "site")
    text = run_init(tmp_path / "site", "-", overwrite=False)
    offers = [line for line in text.splitlines() if line.startswith(("# ignore", "# background", "# classes"))]
    assert len(offers) == 2
    for line in offers:
        assert isinstance(yaml.safe_load(line.removeprefix("# ")), dict)


def test_values_that_count_objects_are_told_from_classes(tmp_path: Path) -> None:
    for i, count in enumerate((2, 4, 3)):
        photo(tmp_path / "images" / f"{i}.png", i)
        grey(tmp_path / "masks" / f"{i}.png", labels_array(range(count), i))
    assert "may count objects" in run_init(tmp_path, "-", overwrite=False)
    grey(tmp_path / "masks" / "1.png", labels_array([0, 1, 3], 1))
    assert "may count objects" not in run_init(tmp_path, "-", overwrite=False)


def test_palettes_that_differ_are_read_by_their_colours(tmp_path: Path) -> None:
    for i, colors in enumerate([[(0, 0, 0), ROAD], [ROAD, (0, 0, 0)]]):
        photo(tmp_path / "images" / f"{i}.png", i)
        colored(tmp_path / "masks" / f"{i}.png", labels_array([0, 1], i), colors, "P")
    text = run_init(tmp_path, "-", overwrite=False)
    assert 'colors: ["#fa3253"]' in text
    assert "palettes of the label maps differ" in text


def test_colours_of_smooth_edges_are_no_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(3):
        photo(tmp_path / "images" / f"{i}.png", i, (200, 300))
        small = Image.fromarray(np.array([(0, 0, 0), ROAD], dtype=np.uint8)[rng.integers(0, 2, (4, 6))])
        (tmp_path / "masks").mkdir(exist_ok=True)
        flat = small.resize((300, 200), Image.Resampling.NEAREST)
        smooth = np.array(flat.reduce(2).resize((300, 200), Image.Resampling.BILINEAR))
        smooth[60:90, 40:80] = ROAD
        Image.fromarray(smooth).save(tmp_path / "masks" / f"{i}.png")
    path = run_init(tmp_path, None, overwrite=False)
    assert "edges: ignore" in Path(path).read_text()
    (report,) = run_check([path], tmp_path, 0, None, quiet=True)
    assert not [problem for problem in report.problems if problem.error], report.problems
    assert len(load(path).labels.classes) == 2


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    roboflow_masks(tmp_path)
    photo(tmp_path / "test" / "lonely.jpg", 99)
    (tmp_path / "valid" / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, road\n2, car\n")
    text = run_init(tmp_path, "-", overwrite=False)
    assert "# 1 such as test/lonely.jpg have no label maps and are left out." in text
    assert "# valid/_classes.csv says something else than train/_classes.csv" in text


# The command


def call(*args: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["datasets", "init", *map(str, args)])
    return (getattr(done.exception, "exit_code", done.exit_code), f"{done.output}{done.exception or ''}")


def test_a_folder_of_nnunets_that_cannot_be_read_is_refused_with_file_and_key(tmp_path: Path) -> None:
    nnunet_tree(tmp_path / "a")
    nnunet_tree(tmp_path / "b")
    with pytest.raises(DatasetError, match="2 datasets of nnU-Net; give the folder of one, such as a"):
        run_init(tmp_path, "-", overwrite=False)
    shutil.rmtree(tmp_path / "b")
    file = tmp_path / "a" / "dataset.json"
    file.write_text(file.read_text().replace('".png"', '".nii.gz"'))
    with pytest.raises(
        DatasetError, match=r"a/dataset.json: file_ending: photos and label maps in .nii.gz are not read"
    ):
        run_init(tmp_path, "-", overwrite=False)


def test_the_command_writes_prints_and_replaces_only_when_told(tmp_path: Path) -> None:
    parallel(tmp_path / "site a")
    code, printed = call(tmp_path / "site a", "--out", "-")
    assert code == 0
    assert printed.startswith("# Written by `mdp datasets init`")
    assert not list(tmp_path.rglob("*.yaml"))
    path = tmp_path / "site a" / "site-a.yaml"
    assert call(tmp_path / "site a") == (0, f"{path}\n")
    path.write_text("mine")
    code, said = call(tmp_path / "site a")
    assert (code, path.read_text()) == (2, "mine")
    assert f"{path}: is there already; --overwrite replaces it" in said
    assert call(tmp_path / "site a", "--overwrite") == (0, f"{path}\n")
    assert path.read_text().startswith("# Written by")


def test_a_file_elsewhere_leads_back_to_the_folder(tmp_path: Path) -> None:
    parallel(tmp_path / "data" / "site")
    for out in (tmp_path / "data" / "a.yaml", tmp_path / "other" / "b.yaml"):
        out.parent.mkdir(exist_ok=True)
        assert call(tmp_path / "data" / "site", "--out", out) == (0, f"{out}\n")
        (report,) = run_check([str(out)], tmp_path, 0, None, quiet=True)
        assert (report.images, report.problems) == (4, ())


@pytest.mark.parametrize(("build", "words"), [
    (lambda root: None, "expected a folder of photos"),
    (lambda root: root.mkdir(), "there are no files in it"),
    (lambda root: (root.mkdir(), (root / "a.txt").write_text("a")), "no photos in it"),
])  # fmt: skip
def test_a_folder_without_photos_is_refused_in_a_line(
    tmp_path: Path, build: Callable[[Path], object], words: str
) -> None:
    build(tmp_path / "site")
    with pytest.raises(DatasetError, match=words) as caught:
        run_init(tmp_path / "site", None, overwrite=False)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.yaml"))


def test_the_command_answers_without_torch(tmp_path: Path) -> None:
    coco_tree(tmp_path)
    code = (
        "import sys\nfrom mdp.cli import cli\n"
        f"cli.main(['datasets', 'init', {str(tmp_path)!r}, '--out', '-'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
