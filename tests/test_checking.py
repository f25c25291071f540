"""The data check: valid data pass with exact figures, every fault and trap is named, nothing is read twice."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from mdp.cli import cli
from mdp.io.check import objects
from mdp.io.check.job import check_before_training, run_check
from mdp.io.check.problem import Problem
from mdp.io.check.remembered import fingerprint
from mdp.io.check.report import Report, expect_sound, judge, lines_of_report, refuse_errors, report_text
from mdp.io.check.scan import _grey, check_samples, difference_hash, has_ramps
from mdp.io.datasets import load
from mdp.io.datasets._dataset import Dataset, Pair, Sample, open_split
from mdp.io.datasets.coco_stuff import NEVER
from mdp.io.errors import DatasetError, Preempted, ResourceError
from mdp.label_space import LabelSpace
from tests import preloaded, trees
from tests.laws import pure_call
from tests.patience import LONG, wait_until
from tests.trees import grey, labels_array, own_yaml, photo


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mdp" / "checks"


def own(
    root: Path,
    masks: Sequence[NDArray[np.integer]],
    classes: str = "{0: road, 1: car, 2: tree}",
    more: str = "",
    split: str = "train",
) -> Path:
    """A dataset of one's own with these label maps.  Returns its YAML file."""
    for seed, mask in enumerate(masks):
        height, width = mask.shape[:2]
        photo(root / split / "images" / f"{seed:02d}.png", seed + (100 if split == "val" else 0), (height, width))
        grey(root / split / "labels" / f"{seed:02d}.png", mask)
    splits = "".join(
        f", {name}: {{images: {name}/images, labels: {name}/labels}}"
        for name in ("train", "val")
        if (root / name).is_dir()
    )
    return own_yaml(root, f"name: site\nsplits: {{{splits[2:]}}}\nclasses: {classes}\n{more}", "site.yaml")


def checked(name: str | Path, root: Path, split: str = "") -> Report:
    """The report on one split; by default the one that is trained on."""
    return run_check([f"{name}:{split}" if split else str(name)], root, 0, None, True)[0]


def kinds(report: Report, error: bool | None = None) -> set[str]:
    return {problem.kind for problem in report.problems if error in (None, problem.error)}


def problem_of(report: Report, kind: str) -> Problem:
    (found,) = [problem for problem in report.problems if problem.kind == kind]
    return found


def parts_of(*yamls: Path) -> list[tuple[Dataset, list[Sample], str]]:
    found = []
    for path in yamls:
        dataset = load(str(path))
        found += [(dataset, open_split(dataset, path.parent, split)[0], split) for split in dataset.splits]
    return found


# What is valid


@pytest.mark.parametrize("name", sorted(trees.TREES))
def test_official_layouts_pass(name: str, tmp_path: Path) -> None:
    trees.TREES[name](tmp_path)
    reports = run_check([name], tmp_path, 0, None, True)
    dataset = load(name)
    assert [report.split for report in reports] == [dataset.train[-1], dataset.val]
    assert not any(kinds(report, error=True) for report in reports)
    # some of the trees use a photo twice, or have many values that are ignored
    assert kinds(reports[1]) - {"leak", "mostly_ignored"} == {"count"}


def test_figures_are_those_of_the_files(tmp_path: Path) -> None:
    masks = [labels_array([0, 2, 255], seed) for seed in range(3)] + [np.full((40, 50), 255, dtype=np.uint8)]
    report = checked(own(tmp_path, masks), tmp_path)
    total = sum(mask.size for mask in masks)
    share = {
        name: sum(int((mask == value).sum()) for mask in masks) / total for value, name in ((0, "road"), (2, "tree"))
    }
    assert report.classes == tuple(
        (name, pytest.approx(share[name]), 3) for name in sorted(share, key=lambda name: -share[name])
    )
    assert report.ignored == pytest.approx(sum(int((mask == 255).sum()) for mask in masks) / total)
    assert report.never == ("car",)
    assert (report.images, report.all_ignored) == (4, 1)
    assert report.sizes == {"min": (50, 40), "median": (96, 64), "max": (96, 64)}
    assert report.kinds == {"PNG RGB + PNG grey": 4}
    assert kinds(report) >= {"image_ignored", "class_absent"}


def test_photos_without_labels_are_checked_as_photos(tmp_path: Path) -> None:
    for seed in range(3):
        photo(tmp_path / "photos" / f"{seed}.jpg", seed)
    report = checked(tmp_path / "photos", tmp_path)
    assert not report.problems
    assert not report.labelled
    cut = tmp_path / "photos" / "1.jpg"
    cut.write_bytes(cut.read_bytes()[:500])
    assert str(cut) in problem_of(checked(tmp_path / "photos", tmp_path), "damaged").files[0]


def test_only_so_many_images_are_looked_at_and_that_is_not_remembered(tmp_path: Path, cache: Path) -> None:
    path = own(tmp_path, [labels_array([0, 1], 0), *[labels_array([2], seed) for seed in range(5)]])
    (report,) = run_check([str(path)], tmp_path, 0, 2, True)
    assert report.images == 2
    assert "class_absent" not in kinds(report)
    assert not cache.exists()


# Files that cannot be used


def _cut(root: Path) -> Path:
    path = root / "train/images/01.png"
    path.write_bytes(path.read_bytes()[:-40])
    return path


def _flip(root: Path) -> Path:
    path = root / "train/labels/01.png"
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 12] ^= 4
    path.write_bytes(bytes(data))
    return path


def _turn(root: Path) -> Path:
    return grey(root / "train/labels/01.png", labels_array([0, 1, 2], 1, (96, 64)))


def _lossy(root: Path) -> Path:
    path = root / "train/labels/01.png"
    Image.fromarray(labels_array([0, 1, 2], 1)).save(path, "JPEG")
    return path


def _empty(root: Path) -> Path:
    path = root / "train/labels/01.png"
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("spoil", "kind"), [(_cut, "damaged"), (_flip, "damaged"), (_turn, "size"), (_lossy, "lossy"), (_empty, "damaged")]
)
def test_a_file_that_cannot_be_used_is_named(spoil: Callable[[Path], Path], kind: str, tmp_path: Path) -> None:
    path = own(tmp_path, [labels_array([0, 1, 2], seed) for seed in range(3)])
    spoilt = spoil(tmp_path)
    report = checked(path, tmp_path)
    found = problem_of(report, kind)
    assert found.error
    assert found.count == 1
    assert str(spoilt) in found.files[0]
    with pytest.raises(DatasetError, match=spoilt.name):
        refuse_errors([report])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = own(tmp_path, [labels_array([0, 1, 2], seed) for seed in range(3)])
    (tmp_path / "train/labels/01.png").unlink()
    assert "labels/01.png" in problem_of(checked(path, tmp_path), "missing").text


def test_an_error_message_names_ten_files_and_has_forty_lines_at_most(tmp_path: Path) -> None:
    wrong = np.arange(64 * 96).reshape(64, 96) % 32 + 100
    path = own(tmp_path, [wrong.astype(np.uint8)] * 14)
    for seed in range(12):
        (tmp_path / f"train/images/{seed:02d}.png").write_bytes(b"")
    with pytest.raises(DatasetError) as caught:
        refuse_errors([checked(path, tmp_path)])
    lines = str(caught.value).splitlines()
    assert len(lines) <= 40
    assert sum("/images/" in line or "/labels/" in line for line in lines) == 10
    assert "12 files" in lines[1]
    assert "and 2 more" in lines[12]


def test_errors_on_warnings_only_when_strict(tmp_path: Path) -> None:
    report = checked(own(tmp_path, [labels_array([0, 1], seed) for seed in range(2)]), tmp_path)
    assert kinds(report) == {"class_absent"}
    refuse_errors([report])
    expect_sound([report], strict=False)
    with pytest.raises(DatasetError, match=r"^1 warning in site train; the report says which$"):
        expect_sound([report], strict=True)


def test_a_class_has_one_row_whatever_the_split_has_of_it(tmp_path: Path) -> None:
    halves, third = labels_array([0, 1], 0), labels_array([0, 1, 2], 1)
    train = checked(own(tmp_path, [halves, halves]), tmp_path)
    val = replace(checked(own(tmp_path / "other", [third]), tmp_path / "other"), split="val")
    text = report_text([train, val])
    assert text.count("site: classes\n") == 1
    head, *rows = text.partition("site: classes\n")[2].split("\n\n")[0].splitlines()
    assert head.split() == ["class", "train", "pixels", "images", "val", "pixels", "images"]
    assert sorted(row.split()[0] for row in rows) == sorted(val_name for val_name, _, _ in val.classes)
    cells = {row.split()[0]: row.split()[1:] for row in rows}
    for name, share, images in val.classes:
        assert cells[name][2:] == [f"{share:.3%}", str(images)]
    (only,) = {name for name, _, _ in val.classes} - {name for name, _, _ in train.classes}
    assert cells[only][:2] == ["-", "-"]
    assert len({len(row) for row in (head, *rows)}) == 1


# Traps


def mended(path: Path, report: Report) -> Report:
    """The report after the proposed lines were put into the YAML file."""
    given, lines = yaml.safe_load(path.read_text()), yaml.safe_load("\n".join(report.yaml))
    path.write_text(yaml.safe_dump({**given, **lines}))
    return checked(path, path.parent)


@pytest.mark.parametrize("values", [[1, 2, 3], [0, 1, 2, 3], [1, 2, 3, 255]])
def test_classes_that_start_at_one_are_recognised_and_the_proposed_lines_mend_it(
    values: list[int], tmp_path: Path
) -> None:
    path = own(tmp_path, [labels_array(values, seed) for seed in range(3)])
    report = checked(path, tmp_path)
    assert problem_of(report, "off_by_one").error
    after = mended(path, report)
    assert not kinds(after, error=True)
    assert {name for name, _, _ in after.classes} == {"road", "car", "tree"}


def test_classes_that_start_at_zero_are_recognised_and_the_proposed_lines_mend_it(tmp_path: Path) -> None:
    path = own(tmp_path, [labels_array([0, 1, 2], seed) for seed in range(3)], "{1: road, 2: car, 3: tree}")
    report = checked(path, tmp_path)
    assert problem_of(report, "off_by_one").error
    assert not kinds(mended(path, report))


@pytest.mark.parametrize("more", ["", "ignore_index: null"])
def test_a_binary_mask_is_recognised_and_the_proposed_lines_mend_it(more: str, tmp_path: Path) -> None:
    path = own(tmp_path, [labels_array([0, 255], seed) for seed in range(3)], "{0: ground, 1: road}", more)
    report = checked(path, tmp_path)
    assert problem_of(report, "binary_mask").error
    after = mended(path, report)
    assert not kinds(after)
    assert [name for name, _, _ in sorted(after.classes)] == ["ground", "road"]


def test_values_that_are_not_named_are_counted_and_the_proposed_ignore_line_keeps_the_old_one(tmp_path: Path) -> None:
    path = own(tmp_path, [labels_array([0, 1, 2, 5, 7, 9], seed) for seed in range(3)], more="ignore: [5]")
    report = checked(path, tmp_path)
    found = problem_of(report, "unknown_values")
    assert (found.count, "7, 9" in found.text) == (3, True)
    seven = int((labels_array([0, 1, 2, 5, 7, 9], 0) == 7).sum())
    assert f"00.png: 7 ({seven:,} pixels)" in found.files[0]
    assert report.yaml[-1] == "ignore: [5, 7, 9]"
    path.write_text(path.read_text().replace("ignore: [5]", report.yaml[-1]))
    assert not kinds(checked(path, tmp_path), error=True)


def test_colour_label_maps_get_a_table_that_mends_them(tmp_path: Path) -> None:
    colors = np.array([(128, 64, 128), (0, 0, 142), (10, 20, 30)], dtype=np.uint8)
    masks = [colors[labels_array([0, 1] if seed else [1, 2], seed)] for seed in range(3)]
    path = own(tmp_path, masks)
    report = checked(path, tmp_path)
    assert problem_of(report, "colors").count == 3
    after = mended(path, report)
    assert not kinds(after, error=True)
    assert len(after.classes) == 3


def test_an_interpolated_label_map_is_recognised_though_every_value_is_a_class(tmp_path: Path) -> None:
    classes = "{" + ", ".join(f"{value}: c{value}" for value in range(21)) + "}"
    sharp = [labels_array([0, 15, 20], seed, (32, 48)) for seed in range(3)]
    soft = [np.array(Image.fromarray(mask).resize((96, 64), Image.Resampling.BILINEAR)) for mask in sharp]
    larger = [np.array(Image.fromarray(mask).resize((96, 64), Image.Resampling.NEAREST)) for mask in sharp]
    assert problem_of(checked(own(tmp_path / "soft", soft, classes), tmp_path), "interpolated").error
    assert "interpolated" not in kinds(checked(own(tmp_path / "sharp", larger, classes), tmp_path))


def test_ranges_of_values_that_grow_gradually_are_no_interpolation(tmp_path: Path) -> None:
    lines = "{0: {name: ground, values: [" + ", ".join(map(str, range(120))) + "]}, 1: {name: hill, values: ["
    lines += ", ".join(map(str, range(120, 240))) + "]}}"
    y, x = np.mgrid[:64, :96]
    masks = [((x + y * seed) % 240).astype(np.uint8) for seed in (1, 2, 3)]
    report = checked(own(tmp_path, masks, lines), tmp_path)
    assert not kinds(report)
    assert has_ramps(masks[0])  # as numbers they are


def test_a_stray_pixel_shifts_no_class(tmp_path: Path) -> None:
    masks = [labels_array([0, 1, 2], seed) for seed in range(20)]
    masks[7][3, 3] = 3
    report = checked(own(tmp_path, masks), tmp_path)
    found = problem_of(report, "unknown_values")
    assert "off by one" not in found.text
    assert "0.00% of the pixels" in found.text
    assert report.yaml[-1] == "ignore: [3]"


def test_where_two_guesses_fit_both_are_printed_and_the_second_is_commented_out(tmp_path: Path) -> None:
    path = own(tmp_path, [labels_array([0, 1, 2, 3], seed) for seed in range(3)])
    report = checked(path, tmp_path)
    assert "off by one" in problem_of(report, "off_by_one").text
    assert "; or name them under classes, or list them under ignore (25.00% of the pixels)" in report.problems[0].text
    assert "# ignore: [3]" in report.yaml
    assert set(yaml.safe_load("\n".join(report.yaml))) == {"ignore_index", "classes"}


def test_a_smooth_mask_gets_two_ranges_and_no_class_for_each_shade(tmp_path: Path) -> None:
    masks = []
    for seed in range(3):
        sharp = Image.fromarray(np.where(labels_array([0, 1], seed, (256, 384)) > 0, np.uint8(255), np.uint8(0)))
        masks.append(np.array(sharp.resize((128, 96), Image.Resampling.LANCZOS)))
    report = checked(own(tmp_path, masks, "{0: ground, 255: hill}", "ignore_index: null"), tmp_path)
    assert "smooth mask" in problem_of(report, "binary_mask").text
    assert '  1: {name: "hill", values: 128-255}' in report.yaml
    assert not any("NAME" in line for line in report.yaml if not line.startswith("#"))


def test_numbers_of_objects_get_one_range(tmp_path: Path) -> None:
    report = checked(
        own(tmp_path, [labels_array([0, 4 * seed, 9], seed) for seed in range(3)], "{0: no, 1: person}"), tmp_path
    )
    assert "each object has a number of its own (up to 9)" in problem_of(report, "instance_ids").text
    assert '  1: {name: "person", values: 1-254}' in report.yaml


def by_color(colors: Sequence[Sequence[int]]) -> str:
    """The lines of classes c0, c1, ... by their colours."""
    lines = (f'{i}: {{name: c{i}, colors: ["#{bytes(color).hex()}"]}}' for i, color in enumerate(colors))
    return "{" + ", ".join(lines) + "}"


def painted(path: Path, values: NDArray[np.uint8], colors: Sequence[tuple[int, int, int]]) -> None:
    """A palette file."""
    image = Image.fromarray(values)
    image.putpalette([channel for color in colors for channel in color])
    image.save(path)


def test_palettes_that_say_different_things_of_a_value_are_an_error_and_grey_ones_say_nothing(tmp_path: Path) -> None:
    masks = [labels_array([0, 1, 2], seed) for seed in range(3)]
    colors = [(0, 0, 0), (0, 128, 0), (128, 0, 0), (9, 9, 9)]
    path = own(tmp_path, masks)
    files = [tmp_path / "train" / "labels" / f"{seed:02d}.png" for seed in range(3)]
    for file, mask in zip(files[:2], masks, strict=False):
        painted(file, mask, colors[:3])
    painted(files[2], masks[2], [(value,) * 3 for value in range(4)])
    assert not kinds(checked(path, tmp_path))
    painted(files[2], masks[2], [colors[0], colors[1], colors[2], (1, 2, 3)])  # an entry that nothing uses
    assert not kinds(checked(path, tmp_path))
    painted(files[1], masks[1], [colors[2], colors[1], colors[0]])
    found = problem_of(checked(path, tmp_path), "palettes")
    assert found.error
    assert found.count == 1
    assert f"{files[1]}: 0 is #800000, in {files[0]} #000000; 2 is #000000" in found.files[0]
    with pytest.raises(DatasetError, match="palettes"):
        check_before_training(parts_of(path), 0, lambda line: None)
    declared = path.read_text().split("classes:")[0] + f"classes: {by_color(colors)}"
    report = checked(own_yaml(tmp_path, declared), tmp_path)
    assert not kinds(report, error=True)


def test_smooth_edges_get_one_line_with_their_share_and_a_forgotten_class_its_own(tmp_path: Path) -> None:
    colors = np.array([(127, 0, 0), (255, 255, 0), (0, 0, 255)], dtype=np.uint8)
    masks = []
    for seed in range(3):
        sharp = Image.fromarray(colors[labels_array([0, 1, 2], seed, (256, 384))])
        masks.append(np.array(sharp.resize((101, 67), Image.Resampling.BOX)))
    path = own(tmp_path, masks, by_color(colors.tolist()))
    report = checked(path, tmp_path)
    assert report.yaml == ("edges: nearest  # or: ignore",)
    assert "lie between those of classes" in problem_of(report, "colors").text
    assert not kinds(mended(path, report), error=True)
    masks[1][20:40, 20:40] = (1, 2, 3)
    report = checked(own(tmp_path, masks, by_color(colors.tolist())), tmp_path)
    proposed = [line for line in report.yaml if "class_" in line]
    assert proposed == ['  3: {name: class_3, colors: ["#010203"]}  # 400 pixels']


def test_several_pictures_in_a_file_are_told_with_how_many_are_left_out(tmp_path: Path) -> None:
    path = own(tmp_path, [labels_array([0, 1, 2], seed) for seed in range(3)])
    folder = tmp_path / "train" / "images"
    first = Image.open(folder / "00.png")
    frames = [first.rotate(10 * turn) for turn in range(1, 6)]
    for name, more in (("00.png", 4), ("01.png", 3)):
        first.save(folder / name, save_all=True, append_images=frames[:more])
    first.save(folder / "02.tif", save_all=True, append_images=frames)
    (folder / "02.png").unlink()
    found = problem_of(checked(path, tmp_path), "pages")
    assert found.count == 3
    assert f"{4 + 3 + 5} are left out" in found.text


def test_photos_whose_line_ends_were_converted_are_told_by_what_chance_would_have_left(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / "photos" / f"{number:02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (400, 400, 3), dtype=np.uint8)).save(path, quality=90)
    assert "line_ends" not in kinds(checked(tmp_path / "photos", tmp_path))
    for path in (tmp_path / "photos").iterdir():
        data = path.read_bytes()
        head = data.index(b"\xff\xda")
        path.write_bytes(data[:head] + data[head:].replace(b"\r\n", b"\n"))
    found = problem_of(checked(tmp_path / "photos", tmp_path), "line_ends")
    assert "none of 12 files holds the bytes CR LF" in found.text
    (tmp_path / "dos").mkdir()
    (tmp_path / "dos" / "a.jpg").write_bytes(re.sub(rb"(?<!\r)\n", b"\r\n", data))
    report = checked(tmp_path / "dos", tmp_path)
    assert kinds(report) & {"line_ends", "damaged"}


def test_the_strict_decoders_objection_is_told(tmp_path: Path) -> None:
    pytest.importorskip("simplejpeg")
    data = photo(tmp_path / "photos" / "a.jpg", 0, (200, 300)).read_bytes()
    photo(tmp_path / "photos" / "b.jpg", 1)
    middle = len(data) * 2 // 3
    (tmp_path / "photos" / "a.jpg").write_bytes(data[:middle] + data[middle + 40 :])
    found = problem_of(checked(tmp_path / "photos", tmp_path), "strict")
    assert found.count == 1
    assert "a.jpg: " in found.files[0]


def test_a_plain_stripe_pattern_is_no_interpolation() -> None:
    assert not has_ramps(np.tile(np.array([0, 7, 3, 9, 1, 12], dtype=np.uint8), (30, 20)))


def test_an_ignored_third_is_told(tmp_path: Path) -> None:
    more = labels_array([0, 1, 2, 255, 255], 0)
    less = labels_array([0, 1, 2, 0, 1, 255], 0)
    assert "mostly_ignored" in kinds(checked(own(tmp_path / "more", [more]), tmp_path), error=False)
    assert not kinds(checked(own(tmp_path / "less", [less]), tmp_path))


def test_a_set_without_a_labelled_pixel_is_an_error(tmp_path: Path) -> None:
    report = checked(own(tmp_path, [np.full((64, 96), 255, dtype=np.uint8)] * 2), tmp_path)
    assert "all_ignored" in kinds(report, error=True)


def test_turned_photos_are_told(tmp_path: Path) -> None:
    path = own(tmp_path, [labels_array([0, 1, 2], seed) for seed in range(2)])
    exif = Image.Exif()
    exif[274] = 6
    turned = tmp_path / "train/images/01.png"
    Image.open(turned).save(turned, exif=exif)
    report = checked(path, tmp_path)
    assert report.rotated == 1
    assert problem_of(report, "exif_orientation").files == (f"{turned}: orientation 6",)


def test_cityscapes_label_ids_named_train_ids_are_recognised_and_the_reverse(tmp_path: Path) -> None:
    trees.cityscapes_tree(tmp_path)
    for path in tmp_path.rglob("*_gtFine_*.png"):
        grey(path.with_name(path.name.replace("labelIds", "labelTrainIds")), labels_array([0, 7, 8, 26, 33], 0))
    assert problem_of(checked("cityscapes", tmp_path), "cityscapes_label_ids").error
    for path in tmp_path.rglob("*_labelTrainIds.png"):
        path.unlink()
    for path in tmp_path.rglob("*_leftImg8bit.png"):
        stem = path.name.replace("leftImg8bit", "gtFine_labelIds")
        grey(tmp_path.joinpath(*_label_place(path, tmp_path), stem), labels_array([0, 1, 8, 13, 18, 255], 0))
    assert "cityscapes_train_ids" in kinds(checked("cityscapes", tmp_path))


def _label_place(path: Path, root: Path) -> tuple[str, ...]:
    return tuple("gtFine" if part == "leftImg8bit" else part for part in path.parent.relative_to(root).parts)


def test_cityscapes_label_ids_under_a_yaml_of_train_ids_are_recognised(tmp_path: Path) -> None:
    classes = "{" + ", ".join(f"{value}: c{value}" for value in range(19)) + "}"
    path = own(tmp_path, [labels_array([7, 8, 11, 26, 33], seed) for seed in range(2)], classes)
    assert "cityscapes_label_ids" in kinds(checked(path, tmp_path), error=True)


_LABEL_IDS = [value + 1 for value in range(182) if value not in NEVER]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, *_LABEL_IDS], "coco_stuff_10k"),
        ([0, *_LABEL_IDS[:-1]], "coco_stuff_10k"),
        (list(range(171)), "coco_stuff_contiguous"),
        ([0, 92, 150, 182, 183], "coco_stuff_only"),
        ([0, 11, 181, 255, 240], "coco_stuff_edition"),
    ],
)
def test_other_editions_of_coco_stuff_are_recognised(values: list[int], kind: str, tmp_path: Path) -> None:
    home = trees.coco_stuff_tree(tmp_path)
    for seed, path in enumerate(sorted((home / "annotations").rglob("*.png"))):
        grey(path, labels_array(values, seed, (200, 210)))
        photo(home / "images" / path.parent.name / f"{path.stem}.jpg", seed, (200, 210))
    assert problem_of(checked("coco_stuff", tmp_path), kind).error


def test_pixelmaps_of_coco_stuff_under_contiguous_ids_are_recognised(tmp_path: Path) -> None:
    classes = "{" + ", ".join(f"{value}: c{value}" for value in range(171)) + "}"
    path = own(tmp_path, [labels_array([0, 5, 175, 181], seed) for seed in range(2)], classes)
    assert "coco_stuff_pixelmaps" in kinds(checked(path, tmp_path), error=True)


@pytest.mark.parametrize(("values", "kind"), [([0, 3, 151, 200], "ade20k_full"), ([0, 3, 149, 255], "ade20k_shifted")])
def test_other_editions_of_ade20k_are_recognised(values: list[int], kind: str, tmp_path: Path) -> None:
    home = trees.ade20k_tree(tmp_path)
    for seed, path in enumerate(sorted((home / "annotations" / "training").glob("*.png"))):
        grey(path, labels_array(values, seed))
    assert problem_of(checked("ade20k", tmp_path), kind).error


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [("nyudv2", [0, 5, 39, 255], "nyudv2_shifted"), ("bdd100k", [0, 7, 30, 40], "bdd100k_ids")],
)
def test_other_numbers_of_nyudv2_and_bdd100k_are_recognised(
    name: str, values: list[int], kind: str, tmp_path: Path
) -> None:
    for seed, path in enumerate(sorted(trees.TREES[name](tmp_path).rglob("*.png"))):
        grey(path, labels_array(values, seed))
    assert problem_of(checked(name, tmp_path), kind).error


def test_the_colour_maps_of_the_full_ade20k_are_recognised(tmp_path: Path) -> None:
    home = trees.ade20k_tree(tmp_path)
    for path in (home / "annotations" / "training").glob("*.png"):
        Image.open(path).convert("RGB").save(path)
    assert "SceneParsing" in problem_of(checked("ade20k", tmp_path), "colors").text


def test_a_folder_of_another_edition_is_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "ADE20K_2021_17_01").mkdir()
    assert "full ADE20K" in problem_of(checked("ade20k", tmp_path), "missing").text
    (tmp_path / "bdd100k_images_10k.zip").write_bytes(b"")
    assert "COCO-Stuff 10k" not in problem_of(checked("coco_stuff", tmp_path), "missing").text
    (tmp_path / "cocostuff-10k-v1.1").mkdir()
    assert "COCO-Stuff 10k" in problem_of(checked("coco_stuff", tmp_path), "missing").text


def test_voc_without_sbd_is_told_and_with_sbd_is_not(tmp_path: Path) -> None:
    trees.voc_tree(tmp_path / "plain")
    trees.sbd_tree(tmp_path / "sbd")
    report = checked("voc", tmp_path / "plain")
    assert "10,582" in problem_of(report, "voc_without_sbd").text
    assert problem_of(report, "count").text.startswith("3 images where there should be 1,464")
    assert "voc_without_sbd" not in kinds(checked("voc", tmp_path / "sbd"))


# In training and validation alike


def test_copies_between_splits_are_found_exact_and_near_but_blank_photos_are_not(tmp_path: Path) -> None:
    masks = [labels_array([0, 1, 2], seed) for seed in range(4)]
    own(tmp_path, masks)
    path = own(tmp_path, masks, split="val")
    train, val = tmp_path / "train/images", tmp_path / "val/images"
    Image.open(train / "00.png").save(val / "01.png", compress_level=1)
    smaller = Image.open(train / "02.png").resize((192, 128), Image.Resampling.BICUBIC)
    (val / "02.png").unlink()
    smaller.save(val / "02.jpg", quality=60)
    grey(tmp_path / "val/labels/02.png", labels_array([0, 1, 2], 2, (128, 192)))
    for place, level in ((train, 200), (val, 201)):
        Image.fromarray(np.full((64, 96, 3), level, dtype=np.uint8)).save(place / "03.png")
    report = run_check([str(path)], tmp_path, 0, None, True)[1]
    assert problem_of(report, "leak").files == (f"{val / '01.png'} is {train / '00.png'}",)
    assert problem_of(report, "near_leak").files == (f"{val / '02.jpg'} is like {train / '02.png'}",)


def test_a_photo_that_is_in_a_split_twice_is_told(tmp_path: Path) -> None:
    path = own(tmp_path, [labels_array([0, 1, 2], seed) for seed in range(3)])
    (tmp_path / "train/images/02.png").write_bytes((tmp_path / "train/images/00.png").read_bytes())
    assert problem_of(checked(path, tmp_path), "repeated").count == 1


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_grey_is_the_mean_of_the_channels_to_the_bit(channels: int) -> None:
    rgb = np.random.default_rng(channels).integers(0, 256, (9, 7, channels), dtype=np.uint8)
    assert np.array_equal(_grey(rgb), rgb.mean(axis=2))
    assert np.array_equal(_grey((rgb / 255).astype(np.float32)), 255 * (rgb / 255).astype(np.float32).mean(axis=2))


@pytest.mark.parametrize("size", [(3, 3), (1, 200), (300, 7), (640, 480)])
def test_the_look_of_any_size_is_64_bits(size: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    look = difference_hash(rgb)
    assert look is None or 0 <= look < 2**64


# What is remembered


def heard(parts: list[tuple[Dataset, list[Sample], str]]) -> list[str]:
    lines: list[str] = []
    check_before_training(parts, 0, lines.append)
    return lines


def unread(part: tuple[Dataset, list[Sample], str]) -> tuple[Dataset, list[Sample], str]:
    """The part with a reader that must not be called."""

    def read(_: Sample) -> Pair:
        raise AssertionError("read again")

    return replace(part[0], read=read), part[1], part[2]


def test_nothing_is_read_again_until_a_file_changes(tmp_path: Path) -> None:
    masks = [labels_array([0, 1], seed) for seed in range(3)]
    own(tmp_path, masks)
    parts = parts_of(own(tmp_path, masks, split="val"))
    first = heard(parts)
    assert first[0].startswith("site train: 3 images checked in ")
    again = heard([unread(part) for part in parts])
    assert again[:2] == ["site train: 3 images checked (cached)", "site val: 3 images checked (cached)"]
    assert again[2:] == first[2:] == ["warning: site train: classes that never occur: tree"]
    os.utime(tmp_path / "val/labels/01.png", ns=(1, 1))
    with pytest.raises(AssertionError, match="read again"):
        heard([unread(part) for part in parts])
    third = heard([unread(parts[0]), parts[1]])
    assert third[0] == "site train: 3 images checked (cached)"
    assert "cached" not in third[1]
    assert third[2:] == first[2:]


def test_a_leak_is_found_with_a_remembered_training_split(tmp_path: Path) -> None:
    masks = [labels_array([0, 1, 2], seed) for seed in range(2)]
    own(tmp_path, masks)
    parts = parts_of(own(tmp_path, masks, split="val"))
    assert not [line for line in heard(parts) if line.startswith("warning")]
    (tmp_path / "val/images/00.png").write_bytes((tmp_path / "train/images/01.png").read_bytes())
    (line,) = [line for line in heard([unread(parts[0]), parts[1]]) if line.startswith("warning")]
    assert line.startswith("warning: site val: 1 of 2 images are also trained on")


def test_the_fingerprint_depends_on_description_files_and_role(tmp_path: Path) -> None:
    path = own(tmp_path, [labels_array([0, 1, 2], seed) for seed in range(2)])
    ((dataset, samples, _),) = parts_of(path)
    before = fingerprint(dataset, samples, "train")
    assert before == fingerprint(dataset, samples, "train")
    assert before != fingerprint(dataset, samples, "val")
    assert before != fingerprint(dataset, samples[:1], "train")
    path.write_text(path.read_text().replace("tree", "bush"))
    assert before != fingerprint(load(str(path)), samples, "train")


def test_what_was_checked_by_itself_is_not_checked_again_before_training(tmp_path: Path) -> None:
    path = own(tmp_path, [labels_array([0, 1, 2], seed) for seed in range(2)])
    run_check([str(path)], tmp_path, 0, None, True)
    assert heard([unread(part) for part in parts_of(path)]) == ["site train: 2 images checked (cached)"]


def test_what_has_errors_is_refused_every_time_and_not_remembered(tmp_path: Path, cache: Path) -> None:
    parts = parts_of(own(tmp_path, [labels_array([0, 1, 2, 9], seed) for seed in range(2)]))
    for _ in range(2):
        with pytest.raises(DatasetError, match="9"):
            heard(parts)
    assert not cache.exists()


def test_a_damaged_memory_is_a_missing_one(tmp_path: Path, cache: Path) -> None:
    parts = parts_of(own(tmp_path, [labels_array([0, 1, 2], seed) for seed in range(2)]))
    heard(parts)
    remembered = sorted(cache.iterdir())
    assert len(remembered) == 2
    manifest = next(found for found in map(json.loads, map(Path.read_text, remembered)) if "files" in found)
    assert [row["image"] for row in manifest["files"]] == [sample.image for sample in parts[0][1]]
    for path in remembered:
        path.write_text(path.read_text()[:-9])
    assert "cached" not in heard(parts)[0]


def test_without_a_place_to_remember_it_goes_on_and_says_so_once(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    lines = heard(parts_of(own(tmp_path, [labels_array([0, 1, 2], seed) for seed in range(2)])))
    assert [line.startswith("note: the check cannot be remembered") for line in lines].count(True) == 1


def test_generated_datasets_are_not_checked_before_training() -> None:
    dataset = load("shapes-fine")
    assert heard([unread((dataset, open_split(dataset, Path(), "val")[0], "val"))]) == []


# Worker processes


def gone(pid: int) -> bool:
    """Whether a process is no more."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def wait_until_gone(pids: list[int]) -> None:
    """What is killed may take a moment."""
    wait_until(lambda: all(gone(pid) for pid in pids), f"the end of {pids}")


def test_workers_see_what_one_process_sees(tmp_path: Path) -> None:
    ((dataset, samples, _),) = parts_of(own(tmp_path, [labels_array([0, 1, 2, seed], seed) for seed in range(20)]))
    told: list[tuple[int, int]] = []
    reports = [
        judge(
            dataset, samples, check_samples(dataset, samples, workers, tell=lambda *pair: told.append(pair)), "a", True
        )
        for workers in (0, 3)
    ]
    assert report_text(reports[:1]) == report_text(reports[1:])
    assert told[19] == told[-1] == (20, 20)
    assert not multiprocessing.active_children()


def test_a_worker_that_is_killed_is_an_error_and_no_hang(tmp_path: Path) -> None:
    ((dataset, samples, _),) = parts_of(own(tmp_path, [labels_array([0, 1, 2], seed) for seed in range(18)]))
    parent = os.getpid()

    def read(sample: Sample) -> Pair:
        if sample.image.endswith("12.png") and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return dataset.read(sample)

    with pytest.raises(ResourceError, match="died"):
        check_samples(replace(dataset, read=read), samples, 2)
    assert not multiprocessing.active_children()


def test_an_exception_in_a_worker_is_raised_here(tmp_path: Path) -> None:
    part = parts_of(own(tmp_path, [labels_array([0, 1, 2], 0)]))[0]
    with pytest.raises(AssertionError, match="read again"):
        check_samples(unread(part)[0], part[1], 1)
    assert not multiprocessing.active_children()


def test_a_signal_handler_that_raises_leaves_no_worker(tmp_path: Path) -> None:
    ((dataset, samples, _),) = parts_of(own(tmp_path, [labels_array([0, 1, 2], seed) for seed in range(18)]))
    parent, held = os.getpid(), tmp_path / "held"
    held.mkdir()

    def read(sample: Sample) -> Pair:
        """Once both workers hold an image, and never let go of it, the signal comes."""
        if sample.image.endswith("00.png"):
            return dataset.read(sample)
        (held / str(os.getpid())).touch()
        if len(list(held.iterdir())) == 2:
            with suppress(FileExistsError):
                (tmp_path / "sent").touch(exist_ok=False)
                os.kill(parent, signal.SIGALRM)
        time.sleep(10 * LONG)
        return dataset.read(sample)

    def handler(number: int, frame: FrameType | None) -> None:
        pids.extend(process.pid or 0 for process in multiprocessing.active_children())
        raise Preempted("stopped")

    pids: list[int] = []
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(Preempted):
            check_samples(replace(dataset, read=read), samples, 2)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(pids) == 2
    wait_until_gone(pids)


@pytest.mark.parametrize("workers", [0, 1])
def test_it_stops_between_images_when_asked_to(workers: int, tmp_path: Path) -> None:
    ((dataset, samples, _),) = parts_of(own(tmp_path, [labels_array([0, 1, 2], seed) for seed in range(18)]))
    done: list[int] = []
    with pytest.raises(Preempted):
        check_samples(dataset, samples, workers, lambda: bool(done), lambda count, _: done.append(count))
    assert len(done) == 1
    assert not multiprocessing.active_children()


# The command


def test_the_command_prints_json_and_leaves_with_the_code_for_data(tmp_path: Path) -> None:
    path = own(tmp_path, [labels_array([0, 1, 2, 7], seed) for seed in range(2)])
    done = preloaded.run(["-m", "mdp", "check", str(path), "--workers", "2", "--json"], tmp_path)
    assert done.code == 3, done.err
    found = json.loads(done.out)
    assert (found["errors"], found["datasets"][0]["problems"][0]["kind"]) == (1, "unknown_values")
    assert done.err.splitlines()[-1] == "error: 1 error in site train; the report says which"
    assert "Traceback" not in done.err


def test_sigterm_ends_the_command_and_its_workers(tmp_path: Path) -> None:
    path = own(tmp_path, [labels_array([0, 1, 2], seed) for seed in range(18)])
    code = (
        "import sys, time\nfrom mdp.io.datasets.own import reading\nread = reading.read\n"
        "def slow(sample, **more):\n    time.sleep(0 if sample.image.endswith('00.png') else 9999)\n"
        "    return read(sample, **more)\n"
        "reading.read = slow\nfrom mdp.cli import main\nmain()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "check", str(path), "--workers", "2"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert "checking site train" in process.stderr.readline()
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: len(listed.read_text().split()) >= 2, "two workers")
    children = [int(pid) for pid in listed.read_text().split()]
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=LONG)[1]
    assert process.returncode == 75, error
    assert "Traceback" not in error
    assert len(children) == 2
    wait_until_gone(children)


def test_the_command_prints_a_report_and_takes_warnings_for_errors_when_strict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = own(tmp_path, [labels_array([0, 1], seed) for seed in range(2)])
    cli.main(["check", "--datasets", str(path), "--workers", "0", "-q"], standalone_mode=False)
    out, err = capsys.readouterr()
    assert "site train: 2 images" in out
    assert "errors: 0, warnings: 1" in out
    assert not err
    with pytest.raises(DatasetError):
        cli.main(["check", str(path), "--workers", "0", "-q", "--strict"], standalone_mode=False)


@pytest.mark.parametrize("name", ["camvid", "msrc", "clothing", "labelmefacade"])
def test_real_photos_pass(name: str, real_data: Path) -> None:
    path = Path(__file__).parent.parent / "examples" / "datasets" / f"{name}.yaml"
    for report in run_check([str(path)], real_data, 0, 12, True):
        assert not kinds(report, error=True)
        assert not kinds(report) & {"interpolated", "near_leak", "mostly_ignored"}


def test_the_statistics_of_objects_are_those_of_their_pixels() -> None:
    """Two images: an object of 5 % at the top left, and two of 6 % and 75 % whose last column is ignored."""
    space = LabelSpace(name="a", classes=("other", "cup", "dog"), lookup={0: 0, 7: 1, 9: 2, 1000: -1})
    maps = [np.zeros((10, 10), dtype=np.int64), np.zeros((10, 10), dtype=np.int64)]
    maps[0][:1, :5] = 7
    maps[1][:, 9] = 1000
    maps[1][:8, :8], maps[1][9, :6] = 9, 7
    kinds = objects.objects_table(space)
    assert kinds is not None
    seen = []
    for raw in maps:
        counts = np.bincount(raw.ravel())
        values = np.flatnonzero(counts)
        seen.append((values, counts[values], pure_call(objects.places_of, kinds[raw])))
    found = objects.figures_of(space, seen)
    assert found["categories_per_image"] == {"1": 1, "2": 1}
    assert found["sizes"] == {"small": 1, "medium_small": 1, "medium_large": 0, "large": 1}  # 5, 7 and 72 %, rounded up
    assert found["places"][0] == [0.75, 0.75, 0.625, 0.5, 0.0]
    assert found["places"][4] == [0.25, 0.25, 0.25, 0.0, 0.0]
    assert objects.lines_of(found)[0] == "categories an image: 1 in 50.0%, 2 in 50.0% of the images"
    assert objects.objects_table(LabelSpace(name="b", classes=("road", "car"))) is None


def test_the_check_of_a_dataset_with_other_prints_its_objects() -> None:
    (report,) = run_check(["shapes-objects:train-semi"], Path(), 0, 12, quiet=True)
    text = "\n".join(lines_of_report(report))
    assert "objects by their share of the image: small (up to 5 %)" in text
    assert sum(report.as_json()["objects"]["categories_per_image"].values()) == 12
