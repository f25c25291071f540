"""Data are part of what a run and a comparison are: what has changed is named, and nothing old stands beside new."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mdp.io.data.changes import changes
from mdp.io.data.identity import Change, label_change, reading_digest
from mdp.io.data.manifest import FILE, DataPart, look_at, packed, read_manifest, unpacked
from mdp.io.datasets import load
from mdp.io.datasets._dataset import open_split
from mdp.io.errors import CheckpointError, DatasetError, Preempted
from mdp.io.evaluation.job import run_evaluation
from mdp.io.recipe.request import Request
from mdp.io.report.compared import read_comparison
from mdp.io.run.checkpoint import load as load_checkpoint
from mdp.io.run.checkpoint import save as save_checkpoint
from mdp.io.run.header import read_about
from mdp.io.run.record import record_of
from mdp.io.studies.asked import CompareQuestion
from mdp.io.studies.compare import Comparison, parse_comparison, run_comparison
from mdp.io.training.job import run_finetuning, run_pretraining
from mdp.label_space import LabelSpace
from tests.small_runs import assert_same, losses, request, signal_after, tensors_of
from tests.trees import grey, labels_array, photo, zipped

pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")

CLASSES = "{0: ground, 1: tree, 2: car}"


def site(root: Path, train: int = 8, val: int = 4, classes: str = CLASSES) -> str:
    """A dataset below `root`, described by a YAML file beside it.  Returns the file's path."""
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            pair(root / "site" / split, f"{number:02d}", number + 100 * (split == "val"))
    path = root.parent / f"{root.name}.yaml"
    path.write_text(
        f"name: site\nroot: site\nclasses: {classes}\nsplits:\n"
        "  train: {images: train/img, labels: train/lab}\n  val: {images: val/img, labels: val/lab}\n"
    )
    return str(path)


def pair(folder: Path, stem: str, seed: int) -> None:
    photo(folder / "img" / f"{stem}.png", seed, (32, 48))
    grey(folder / "lab" / f"{stem}.png", labels_array((0, 1, 2), seed, (32, 48)))


def invert(*label_maps: Path) -> None:
    for path in label_maps:
        grey(path, 2 - np.asarray(Image.open(path)))


def part(path: str, root: Path, split: str = "train") -> DataPart:
    dataset = load(path)
    return look_at(dataset, open_split(dataset, root, split)[0], split, str(root))


# What counts as a change


def test_a_copy_with_other_times_is_the_same_data(tmp_path: Path) -> None:
    path = site(tmp_path / "a")
    before = part(path, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for file in (tmp_path / "b").rglob("*.png"):
        os.utime(file, (1, 1))
    assert part(path, tmp_path / "b").digest() == before.digest()
    assert changes([before], [part(path, tmp_path / "b")]) == []


def test_files_that_were_packed_into_an_archive_or_out_of_it_are_the_same_data(tmp_path: Path) -> None:
    loose, archived = site(tmp_path / "a"), tmp_path / "b.yaml"
    rng = np.random.default_rng(0)
    for suffix in ("bmp", "png"):  # longer than what is looked at of either format
        noise = Image.fromarray(rng.integers(0, 256, (96, 64, 3), dtype=np.uint8))
        noise.save(tmp_path / "a" / "site" / "train" / "img" / f"big_{suffix}.{suffix}")
        grey(tmp_path / "a" / "site" / "train" / "lab" / f"big_{suffix}.png", np.zeros((96, 64), dtype=np.uint8))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for folder in ("img", "lab"):
        zipped(tmp_path / "b" / "site" / "train" / folder, tmp_path / "b" / "site" / "train" / f"{folder}.zip")
    archived.write_text(
        Path(loose).read_text().replace("train/img", "train/img.zip").replace("train/lab", "train/lab.zip")
    )
    before, now = part(loose, tmp_path / "a"), part(str(archived), tmp_path / "b")
    assert changes([before], [now]) == []
    assert changes([now], [before]) == []
    assert now.photos.names != before.photos.names


def rewritten_with_old_times(path: Path) -> None:
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-20] ^= 1  # of the same length, near the end, where the checksums are
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_file_of_the_same_length_and_time_that_holds_something_else_is_found(tmp_path: Path) -> None:
    path, root = site(tmp_path / "a"), tmp_path / "a"
    before = part(path, root)
    rewritten_with_old_times(root / "site" / "train" / "lab" / "03.png")
    dataset = load(path)
    now = look_at(dataset, open_split(dataset, root, "train")[0], "train", str(root), before)  # as a resumed run looks
    (change,) = changes([before], [now])
    assert change == Change("site train", 8, 8, labels=["site/train/lab/03.png"], photos=[])
    assert str(change) == "site train: 1 label map (site/train/lab/03.png) changed"


def test_only_what_has_another_size_or_time_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, root = site(tmp_path / "a"), tmp_path / "a"
    before, dataset = part(path, root), load(path)
    samples = open_split(dataset, root, "train")[0]
    (root / "site" / "train" / "lab" / "03.png").touch()
    opened: list[str] = []
    original = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: opened.append(str(path)) or original(path, *rest))
    assert look_at(dataset, samples, "train", str(root), before).digest() == before.digest()
    assert [Path(name).name for name in opened if name.endswith(".png")] == ["03.png"]


def test_what_came_went_changed_or_moved_is_named_and_counted(tmp_path: Path) -> None:
    path, root = site(tmp_path / "a"), tmp_path / "a"
    before, folder = part(path, root), root / "site" / "train"
    for stem in ("00", "01", "02"):
        (folder / "img" / f"{stem}.png").unlink()
    for number in range(20, 24):
        pair(folder, str(number), number)
    photo(folder / "img" / "05.png", 99, (32, 48))
    invert(folder / "lab" / "06.png")
    (change,) = changes([before], [part(path, root)])
    assert str(change) == (
        "site train: 4 images (site/train/img/20.png, site/train/img/21.png, ...) added; "
        "3 images (site/train/img/00.png, site/train/img/01.png, ...) removed; "
        "1 photo (site/train/img/05.png) changed; 1 label map (site/train/lab/06.png) changed (8 images before, 9 now)"
    )
    assert change.other_images
    turned = replace(before, **{  # type: ignore[arg-type]
        what: files._replace(names=files.names[::-1], marks=files.marks[::-1], contents=files.contents[::-1])
        for what, files in (("photos", before.photos), ("labels", before.labels))
    })  # fmt: skip
    assert str(*changes([before], [turned])) == "site train: the same images in another order"


def test_a_manifest_is_read_back_as_it_was_written_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    found = part(site(tmp_path / "a"), tmp_path / "a")
    shapes = load("shapes-target")
    drawn = look_at(shapes, open_split(shapes, tmp_path, "val")[0], "val", "data")  # pictures that are no files
    data = packed([found, drawn])
    for again, first in zip(unpacked(data), (found, drawn), strict=True):
        assert (again.digest(), again.photos.names) == (first.digest(), first.photos.names)
        assert changes([again], [first]) == []
    assert read_manifest(tmp_path) == []
    for damage in (b"", data[:-30], data[:200] + bytes(40) + data[240:]):
        (tmp_path / FILE).write_bytes(damage)
        assert read_manifest(tmp_path) == []


SPACE = LabelSpace(name="a", classes=("ground", "tree", "car"), lookup={0: 0, 1: 1, 2: 2})


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (SPACE, ""),
        (replace(SPACE, colors=((1, 1, 1),) * 3), ""),
        (
            LabelSpace(name="a", classes=("ground", "car"), lookup={0: 0, 1: 0, 2: 1}),
            "2 classes now, 3 before: class 1 is 'car' now, 'tree' before",
        ),
        (
            LabelSpace(name="a", classes=("ground", "tree"), lookup={0: 0, 1: 1}),
            "2 classes now, 3 before: class 2, 'car', is gone",
        ),
        (replace(SPACE, classes=("ground", "tree", "car", "bus")), "4 classes now, 3 before: class 3, 'bus', is new"),
        (replace(SPACE, classes=("tree", "ground", "car")), "class 0 is 'tree' now, 'ground' before"),
        (replace(SPACE, lookup={0: 0, 1: 2, 2: 1}), "label value 1 is 'car' now, 'tree' before"),
        (replace(SPACE, lookup={0: 0, 1: 1, 2: 2, 9: 2}), "label value 9 is 'car' now, no class before"),
        (replace(SPACE, lookup={0: 0, 1: -1, 2: 2}), "label value 1 is ignored now, 'tree' before"),
        (replace(SPACE, ranges=((10, 99, 2),)), "label value 10 is 'car' now, no class before"),
        (replace(SPACE, ignore_index=254), "ignore_index is 254 now, 255 before"),
    ],
)  # fmt: skip
def test_the_first_class_or_value_that_means_something_else_is_named(now: LabelSpace, words: str) -> None:
    assert label_change(SPACE, now) == words
    assert (reading_digest(SPACE, {}) == reading_digest(now, {})) == (words == "")


def test_how_a_description_is_spelled_is_no_change_but_what_it_says_of_pixels_is() -> None:
    classes = {0: "a", 1: {"name": "b", "colors": ["#000001"]}}
    drawn_red = {0: "a", 1: {"color": "#ff0000", "colors": ["#000001"], "name": "b"}}
    plain = {"classes": classes, "ignore": [7], "splits": {"train": {"images": "x"}}}
    spelled = {"splits": {"train": {"images": "y", "list": "z"}}, "ignore": [7], "name": "z", "classes": drawn_red}
    assert reading_digest(SPACE, plain) == reading_digest(SPACE, spelled)
    for other in (
        {**plain, "ignore": [8]},
        {**plain, "image": {"range": [0, 3000]}},
        {**plain, "classes": {0: "a", 1: {"name": "b", "colors": ["#000002"]}}},
        {**plain, "splits": {"train": {"images": "x", "edges": "nearest"}}},
    ):
        assert reading_digest(SPACE, plain) != reading_digest(SPACE, other), other


# A run that goes on


SMALL: tuple[tuple[str, Any], ...] = (("pretrain.steps", None), ("pretrain.epochs", 3), ("pretrain.warmup_steps", 0))


def pretraining(path: str, root: Path, **others: Any) -> Request:
    return request(*SMALL, ("pretrain.datasets", [path]), ("data.root", str(root)), **others)


def finetuning(path: str, root: Path, *changes: tuple[str, Any], **others: Any) -> Request:
    return request(("finetune.target", path), ("data.root", str(root)), *changes, **{"init": "scratch", **others})


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data `a`, and a pretraining run on them: whole, and stopped after three of six steps."""
    home = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        path = site(home / "a")
        run_pretraining(pretraining(path, home / "a", out=Path("whole")))
        signal_after(patch, 3)
        with pytest.raises(Preempted):
            run_pretraining(pretraining(path, home / "a", out=Path("cut")))
    return home


@pytest.fixture
def home(stopped: Path, tmp_path: Path) -> Path:
    """A copy to change: the YAML file stays where the run says that it is, the files are found under another root."""
    shutil.copytree(stopped / "a", tmp_path / "a")
    shutil.copytree(stopped / "cut", tmp_path / "cut")
    return tmp_path


def resumed(home: Path) -> Path:
    return run_pretraining(from_root(home / "a", home / "cut"))


def from_root(root: Path, run: Path) -> Request:
    """The request that resumes a run with its data below another root."""
    return Request(layers=({"data": {"root": str(root)}},), resume=str(run), quiet=True)


def log_of(run: Path) -> str:
    return (run / "log.txt").read_text()


def test_a_run_goes_on_with_the_images_that_it_began_with_when_others_were_added(home: Path, stopped: Path) -> None:
    for number in (3, 30, 31, 32, 33):  # between those there are, and after them: two steps an epoch would be three
        pair(home / "a" / "site" / "train", f"{number:02d}_new", number)
    run = resumed(home)
    assert_same(tensors_of(run), tensors_of(stopped / "whole"))
    assert losses(run) == losses(stopped / "whole")
    assert "site train: 5 images (site/train/img/03_new.png, site/train/img/30_new.png, ...) added" in log_of(run)
    assert (
        "added (8 images before, 13 now), since the run began; it goes on with the images that it began with"
        in log_of(run)
    )


def test_a_run_is_not_resumed_when_images_of_it_are_gone(home: Path) -> None:
    (home / "a" / "site" / "train" / "img" / "05.png").unlink()
    pair(home / "a" / "site" / "train", "40", 40)
    before = (home / "cut" / "metrics.jsonl").read_bytes()
    with pytest.raises(DatasetError, match=r"site train: 1 image \(site/train/img/05.png\) removed.*Put them back, or"):
        resumed(home)
    assert (home / "cut" / "metrics.jsonl").read_bytes() == before


def test_a_run_is_not_resumed_when_label_values_mean_something_else(home: Path, stopped: Path) -> None:
    path = stopped / "a.yaml"
    text = path.read_text()
    try:
        path.write_text(text.replace("1: tree, 2: car", "1: car, 2: tree"))
        with pytest.raises(CheckpointError, match="class 1 is 'tree' there, 'car' here"):
            resumed(home)
        path.write_text(text.replace("1: tree, 2: car", "1: {name: tree, values: [2]}, 2: {name: car, values: [1]}"))
        with pytest.raises(DatasetError, match="site train: label value 1 is 'car' now, 'tree' before"):
            resumed(home)
    finally:
        path.write_text(text)


def test_a_run_says_once_that_files_were_changed_and_goes_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home / "a" / "site"
    invert(folder / "train" / "lab" / "02.png", folder / "val" / "lab" / "01.png")
    with monkeypatch.context() as patch:
        signal_after(patch, 5)
        with pytest.raises(Preempted):
            resumed(home)
    run = resumed(home)
    said = "site train: 1 label map (site/train/lab/02.png) changed, since the run began; it goes on with what is there"
    scored = "site val: 1 label map (site/val/lab/01.png) changed, since the run began; its scores from here on do not"
    assert [log_of(run).count(said), log_of(run).count(scored)] == [1, 1]


def test_a_run_on_a_copy_of_its_data_has_nothing_to_say(home: Path, stopped: Path) -> None:
    assert not {"note", "warning", "since"} & set(log_of(resumed(home)).split())
    assert_same(tensors_of(home / "cut"), tensors_of(stopped / "whole"))


def test_without_the_list_of_files_the_checkpoint_tells_what_kind_of_file_differs(home: Path) -> None:
    (home / "cut" / FILE).unlink()
    invert(home / "a" / "site" / "train" / "lab" / "02.png")
    with pytest.raises(DatasetError, match="site train: other label maps than before"):
        resumed(home)


def test_a_run_of_an_older_version_is_not_resumed_with_another_number_of_steps(home: Path) -> None:
    (home / "cut" / FILE).unlink()
    for path in (home / "cut" / "checkpoints").iterdir():
        without_data(path)
    folder = home / "b"
    shutil.copytree(home / "a", folder)
    for number in range(30, 34):
        pair(folder / "site" / "train", str(number), number)
    with pytest.raises(DatasetError, match="the run had 6 steps, with the images that are there now it would have 9"):
        run_pretraining(from_root(folder, home / "cut"))
    assert resumed(home)


def without_data(path: Path) -> None:
    """The checkpoint as a version of mdp wrote it that did not know of data."""
    tensors, about = load_checkpoint(path)
    assert about.pop("data")
    save_checkpoint(path, tensors, about)


def test_fine_tuning_on_a_drawn_share_goes_on_with_what_was_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = site(tmp_path / "a")
    share = ("finetune.images", 4), ("finetune.validate_images", 2)
    whole = run_finetuning(finetuning(path, tmp_path / "a", *share, out=Path("whole")))
    with monkeypatch.context() as patch:
        signal_after(patch, 3)
        with pytest.raises(Preempted):
            run_finetuning(finetuning(path, tmp_path / "a", *share, out=Path("cut")))
    for split in ("train", "val"):
        for number in range(50, 55):
            pair(tmp_path / "a" / "site" / split, f"{number - 45}_new", number)
    run = run_finetuning(Request(resume="cut", quiet=True))
    assert_same(tensors_of(run), tensors_of(whole))
    assert "site train: images came or went: others would be drawn now, since the run began" in log_of(run)


# Scores


def test_eval_says_which_files_of_the_target_changed_since_it_was_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = site(tmp_path / "a"), tmp_path / "a" / "site"
    run = run_finetuning(finetuning(path, tmp_path / "a"))
    asked = Request(init=str(run), report=False)
    assert "changed" not in run_evaluation(asked, "last", keep=False)[0]
    invert(folder / "train" / "lab" / "00.png", *(folder / "val" / "lab").iterdir())
    pair(folder / "train", "77", 77)
    scores = run_evaluation(asked, "last", keep=False)[0]
    told = "\n".join(scores["changed"])
    assert "site val: 4 label maps (site/val/lab/00.png, site/val/lab/01.png, ...) changed, since the run began" in told
    assert "site train: 1 label map (site/train/lab/00.png) changed" in told
    assert "site train: 1 image (site/train/img/77.png) added" in told
    assert all(f"warning: {line}" in capsys.readouterr().err for line in scores["changed"][:1])


# Comparisons


def comparison(*starts: str, shares: str = "1", **others: Any) -> Comparison:
    return parse_comparison(CompareQuestion(starts=starts or ("scratch",), shares=shares, seeds=1, **others))


def compared(path: str, root: Path, asked: Comparison) -> Path:
    steps = ("finetune.steps", 1), ("finetune.validate_steps", 1)
    return run_comparison(finetuning(path, root, *steps, out=Path("cmp"), init=None), asked)


@pytest.fixture(scope="module")
def compared_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data `a` and a comparison of two cells, half of the images and all of them."""
    home = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        compared(site(home / "a"), home / "a", comparison(shares="1/2,1"))
    return home


@pytest.fixture
def study(compared_once: Path, tmp_path: Path) -> Path:
    """A copy to change, in the present folder."""
    for name in ("a", "cmp"):
        shutil.copytree(compared_once / name, tmp_path / name)
    shutil.copy2(compared_once / "a.yaml", tmp_path / "a.yaml")
    return tmp_path


def scores_in(folder: Path) -> dict[tuple[str, str], float]:
    return {(cell["start"], cell["share"]): cell["miou"] for cell in read_comparison(folder / "compare.json")["cells"]}


def labels_inverted(root: Path) -> str:
    invert(*(path for split in ("train", "val") for path in (root / "site" / split / "lab").iterdir()))
    return r"site train: 8 label maps \(.*\) changed; site val: 4 label maps \(.*\) changed"


def one_label_repaired(root: Path) -> str:
    invert(root / "site" / "val" / "lab" / "02.png")
    return r"site val: 1 label map \(site/val/lab/02.png\) changed"


def images_added(root: Path) -> str:
    for number in (20, 21):
        pair(root / "site" / "train", str(number), number)
    return r"site train: 2 images \(site/train/img/20.png, site/train/img/21.png\) added \(8 images before, 10 now\)"


def an_image_removed(root: Path) -> str:
    (root / "site" / "val" / "img" / "00.png").unlink()
    return r"site val: 1 image \(site/val/img/00.png\) removed \(4 images before, 3 now\)"


def classes_merged(root: Path) -> str:
    path = root.parent / "a.yaml"
    path.write_text(path.read_text().replace(CLASSES, "{0: {name: ground, values: [0, 1]}, 2: car}"))
    return "2 classes now, 3 before: class 1 is 'car' now, 'tree' before"


def values_swapped(root: Path) -> str:
    path = root.parent / "a.yaml"
    swapped = "{0: {name: ground, values: [1]}, 1: {name: tree, values: [0]}, 2: car}"
    path.write_text(path.read_text().replace(CLASSES, swapped))
    return "label value 0 is 'tree' now, 'ground' before"


@pytest.mark.parametrize(
    "change",
    [labels_inverted, one_label_repaired, images_added, an_image_removed, classes_merged, values_swapped],
    ids=lambda change: change.__name__,
)
def test_scores_of_other_data_are_never_shown_beside_new_ones(
    change: Callable[[Path], str], study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = change(study / "a")
    before = (study / "cmp" / "compare.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("mdp.io.studies.compare.run_finetuning", lambda _: pytest.fail("a cell ran"))
        with pytest.raises(DatasetError, match=f"2 of 4 cells were made with other data: .*{told}.*--redo"):
            compared("a.yaml", study / "a", comparison("scratch", "two=scratch", shares="1/2,1"))
    assert (study / "cmp" / "compare.json").read_bytes() == before  # refused before anything was done


def test_cells_are_run_again_when_asked_to_and_the_old_ones_are_kept(study: Path) -> None:
    old = scores_in(study / "cmp")
    labels_inverted(study / "a")
    compared("a.yaml", study / "a", comparison("scratch", "two=scratch", shares="1/2,1", redo=True))
    new = scores_in(study / "cmp")
    assert {share: new["scratch", share] for share in ("1/2", "1")} == {
        share: new["two", share] for share in ("1/2", "1")
    }
    assert new["scratch", "1"] != old["scratch", "1"]
    assert scores_in(study / "cmp" / "outdated" / "1") == old
    assert len(list((study / "cmp" / "outdated" / "1" / "cells" / "scratch").glob("*.json"))) == 2
    compared("a.yaml", study / "a", comparison("scratch", "two=scratch", shares="1/2,1"))  # and now they fit
    assert scores_in(study / "cmp") == new


def test_a_cell_that_never_saw_what_changed_is_kept(study: Path) -> None:
    """Half of the images were drawn: a label map that is not among them is of no concern to that cell."""
    drawn = read_manifest(study / "cmp" / "cells" / "scratch" / "1-2_seed0")[0].photos.names
    other = next(stem for stem in (f"{i:02d}" for i in range(8)) if f"site/train/img/{stem}.png" not in drawn)
    invert(study / "a" / "site" / "train" / "lab" / f"{other}.png")
    with pytest.raises(DatasetError, match=rf"1 of 2 cells was made with other data: .*lab/{other}.png"):
        compared("a.yaml", study / "a", comparison(shares="1/2,1"))
    compared("a.yaml", study / "a", comparison(shares="1/2"))


def test_a_comparison_on_a_copy_of_its_data_runs_nothing_again(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdp.io.studies.compare.run_finetuning", lambda _: pytest.fail("a cell ran again"))
    before = (study / "cmp" / "compare.json").read_bytes()
    compared("a.yaml", study / "a", comparison(shares="1/2,1"))
    assert (study / "cmp" / "compare.json").read_bytes() == before


def test_cells_of_an_older_version_are_taken_unless_they_show_that_they_are_others(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (study / "cmp" / "cells" / "scratch").glob("*.json"):
        record = json.loads(path.read_text())
        assert record.pop("data")
        record["recipe"]["finetune"]["target"] = str(study / "a.yaml")
        path.write_text(json.dumps(record))
    (study / "cmp" / FILE).unlink()
    asked = finetuning(
        "a.yaml", study / "a", ("finetune.steps", 1), ("finetune.validate_steps", 1), out=Path("cmp"), init=None
    )
    run_comparison(replace(asked, quiet=False), comparison(shares="1/2,1"))
    assert "2 of 2 cells are of an older mdp and do not say what their data were" in capsys.readouterr().err
    classes_merged(study / "a")
    with pytest.raises(
        DatasetError, match=r"2 of 2 cells were made with other data: .*class 1 is 'car' now, 'tree' before"
    ):
        compared("a.yaml", study / "a", comparison(shares="1/2,1"))


def test_data_that_change_while_a_comparison_runs_stop_it(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mdp.io.studies import compare  # noqa: PLC0415 - its name for the function is replaced

    original = compare.run_finetuning

    def run(asked: Request) -> Path:
        folder = original(asked)
        invert(study / "a" / "site" / "train" / "lab" / "00.png")
        return folder

    monkeypatch.setattr(compare, "run_finetuning", run)
    with pytest.raises(DatasetError, match="the data changed while they were compared: site train: other label maps"):
        compared("a.yaml", study / "a", comparison("scratch", "two=scratch", "three=scratch", shares="1"))
    assert set(scores_in(study / "cmp")) == {("scratch", "1"), ("two", "1")}


# What checkpoints say


def test_a_checkpoint_says_what_its_data_were(stopped: Path) -> None:
    path = stopped / "whole" / "checkpoints" / "last.safetensors"
    train, val = record_of(path, read_about(path)).data
    assert (train.name, train.images, val.name, val.images) == ("site train", 8, "site val", 4)
    assert train == part(str(stopped / "a.yaml"), stopped / "a").digest()
