"""What an evaluation reports and keeps: files, tables, rules, formats of servers."""

import csv
import json
import os
import signal
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

from mdp.cli import cli
from mdp.core.boundaries import boundary_counts
from mdp.core.chance import generator
from mdp.core.comparison import block_counts, count_miou, miou_interval
from mdp.core.labels import IGNORE, LabelSpace
from mdp.core.metrics import class_iou, confusion_matrix, mean_iou
from mdp.core.protocols import Counts
from mdp.core.protocols.segmentation import group_count, interval
from mdp.io.data.pool import Pool
from mdp.io.data.selection import plan_finetuning
from mdp.io.datasets import ade20k, cityscapes, coco_stuff
from mdp.io.datasets._dataset import Sample
from mdp.io.errors import DatasetError, Preempted, RecipeError
from mdp.io.evaluation.job import run_evaluation
from mdp.io.evaluation.other_rules import category_groups, conventions
from mdp.io.evaluation.saved import kinds_of, save, saved
from mdp.io.evaluation.scores import summary, table, write_report
from mdp.io.evaluation.server_formats import cityscapes_format, imagenet_s_format, raw_values, relative_paths
from mdp.io.inference import predict as inference
from mdp.io.pictures.confusion import confusion_picture
from mdp.io.processes.world import ALONE
from mdp.io.recipe.layers import resolve
from mdp.io.training.finetuning import finetune_recipe
from mdp.io.training.job import run_finetuning
from tests.small_runs import PlainRuns, request
from tests.tensors import rng_of

pytestmark = pytest.mark.usefixtures("bare_runs")

SPACE = LabelSpace(name="site", classes=("background", "road, wet", "car"), colors=((0, 0, 0), (9, 9, 9), (0, 0, 200)))


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def tally_of(matrix: list[list[int]], images: int = 3) -> Counts:
    """Counts of so many images that all look alike."""
    confusion = torch.tensor(matrix)
    matrices = confusion.expand(images, *confusion.shape).clone()
    sums = {"confusion": matrices, "classes": block_counts(matrices), "boundary": 2 * block_counts(confusion)[None]}
    return Counts({**sums, "images": torch.tensor([images])}, {})


# The report


def test_a_summary_by_hand() -> None:
    scores = summary(tally_of([[6, 2, 0], [0, 4, 0], [0, 0, 0]]), SPACE)
    assert scores["miou"] == pytest.approx((6 / 8 + 4 / 6) / 2)
    assert scores["mdice"] == pytest.approx((12 / 14 + 8 / 10) / 2)
    assert scores["boundary_miou"] == pytest.approx(scores["miou"])
    assert scores["classes_counted"] == 2
    assert scores["majority"] == {"class": "background", "miou": pytest.approx(8 / 12 / 2)}
    road = scores["classes"][1]
    assert road == {
        "name": "road, wet",
        "iou": pytest.approx(4 / 6),
        "acc": 1.0,
        "dice": pytest.approx(0.8),
        "precision": pytest.approx(4 / 6),
        "boundary_iou": pytest.approx(4 / 6),
        "labelled_pixels": 12,
        "predicted_pixels": 18,
    }
    assert scores["classes"][2]["iou"] is None
    found = {row["name"]: row["value"] for row in scores["conventions"]}
    assert found == {
        "labelled": pytest.approx((6 / 8 + 4 / 6) / 2),
        "all": pytest.approx((6 / 8 + 4 / 6) / 3),
        "foreground": pytest.approx(4 / 6),
    }
    assert scores["miou_interval"]["low"] == pytest.approx(scores["miou"])
    json.dumps(scores, allow_nan=False)


def test_the_table_has_the_interval_and_the_other_rules_when_asked() -> None:
    scores = summary(tally_of([[6, 2, 0], [0, 4, 0], [0, 0, 0]]), SPACE)
    lines = table(scores).splitlines()
    assert lines[0].split() == ["class", "IoU", "Acc", "Dice", "boundary", "pixels"]
    assert lines[3].split() == ["car", "-", "-", "-", "-", "0"]
    assert lines[-1].startswith(
        "mIoU 70.83 [70.83, 70.83]   mAcc 87.50   aAcc 83.33   mDice 82.86   boundary mIoU 70.83"
    )
    assert "95 % interval over 3 images; 2 of 3 classes counted" in lines[-2]
    assert "foreground" not in table(scores)
    wordy = table(scores, verbose=True)
    rows = {tuple(line.split()[:2]): line for line in wordy.splitlines() if line}
    assert "mean IoU without class 0, background" in rows["foreground", "66.67"]
    assert "mean IoU over all classes, absent ones as 0" in rows["all", "47.22"]
    assert max(map(len, wordy.splitlines())) <= 120
    counts = tally_of([[6, 2, 0], [0, 4, 0], [0, 0, 0]])
    plain = table(summary(Counts({name: counts.sums[name] for name in ("confusion", "classes", "images")}, {}), SPACE))
    assert "boundary" not in plain


def test_one_image_has_no_interval_and_nothing_counted_no_score() -> None:
    scores = summary(tally_of([[0, 0, 0]] * 3, images=1), SPACE)
    assert scores["miou"] is None
    assert scores["miou_interval"] is None
    assert "[" not in table(scores)


def test_many_images_are_counted_in_groups_and_that_is_said() -> None:
    assert group_count(100_000, 171) * 171 * 24 <= 2**27
    assert group_count(100_000, 5000) * 5000 * 24 <= 2**27
    assert group_count(3, 10**9) == 1
    found = interval(torch.tensor([[[3, 4, 4]], [[2, 4, 4]]]), images=7)
    assert found
    assert "over 2 groups of 4 images at most" in found["rule"]
    assert found["groups"] == 2


def test_written_files_hold_the_scores() -> None:
    matrix = [[6, 2, 0], [0, 4, 0], [0, 0, 0]]
    scores = summary(tally_of(matrix), SPACE)
    write_report(Path(), scores, json.dumps(scores))
    rows = list(csv.DictReader(Path("results.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == list(SPACE.classes)
    assert float(rows[1]["iou"]) == scores["classes"][1]["iou"]
    assert rows[2]["iou"] == ""
    head, *lines = list(csv.reader(Path("confusion.csv").read_text().splitlines()))
    assert head[1:] == list(SPACE.classes)
    assert [line[0] for line in lines] == list(SPACE.classes)
    assert [[int(cell) for cell in line[1:]] for line in lines] == [[3 * cell for cell in row] for row in matrix]
    with Image.open("confusion.png") as picture:
        assert picture.mode == "RGB"


def test_the_cells_of_the_picture_are_shares_of_rows() -> None:
    for classes in (3, 40, 100):
        confusion = torch.diag(torch.arange(classes)) * 5
        confusion[2] = 0
        confusion[2, 0] = 7  # all of row 2 is taken for class 0
        picture = confusion_picture(confusion, [f"class {i}" for i in range(classes)])
        dark = np.argwhere((picture == (8, 48, 107)).all(-1))  # a share of one
        cells = picture[(picture == (225, 225, 225)).all(-1)]
        assert len(cells) > 0  # row 0 has no pixels
        left = dark[dark[:, 1] < dark[:, 1].min() + 3]
        assert len(left) > 0
        assert len(dark) > 20


def test_names_are_drawn_up_to_sixty_classes() -> None:
    def margin(classes: int) -> int:
        picture = confusion_picture(torch.eye(classes), [f"a name of class {i}" for i in range(classes)])
        return int(np.argmax((picture[60] == (30, 30, 30)).all(-1)))

    assert margin(60) > 80
    assert margin(61) < 60
    assert confusion_picture(torch.eye(1), ["日本"]).shape[1] > 100


# Rules of datasets


def confusion_of(classes: int) -> Tensor:
    return torch.randint(0, 50, (classes, classes), generator=rng_of(0))


def test_benchmarks_add_their_own_means() -> None:
    coco = {row["name"]: row["value"] for row in conventions(confusion_of(171), coco_stuff.LABELS)}
    iou = class_iou(confusion_of(171))
    assert coco["things"] == pytest.approx(float(iou[:80].mean()))
    assert coco["stuff"] == pytest.approx(float(iou[80:].mean()))
    assert coco_stuff.CLASSES[79:81] == ("toothbrush", "banner")
    ade = confusion_of(150)
    ade[7], ade[:, 7] = 0, 0  # a class that is nowhere counts as 0
    found = {row["name"]: row["value"] for row in conventions(ade, ade20k.LABELS)}
    accuracy = float(ade.diagonal().sum() / ade.sum())
    assert found["ade20k score"] == pytest.approx((accuracy + float(class_iou(ade).nansum()) / 150) / 2)
    assert "foreground" not in found


def test_categories_of_cityscapes_by_hand() -> None:
    groups = dict(zip(cityscapes.CLASSES, category_groups().tolist(), strict=True))
    assert len(set(groups.values())) == 7
    assert groups["road"] == groups["sidewalk"] != groups["terrain"]
    assert groups["rider"] == groups["person"] != groups["bicycle"] == groups["car"]
    confusion = torch.zeros(19, 19, dtype=torch.int64)
    confusion[0, 1], confusion[1, 1], confusion[13, 0] = 5, 3, 2  # road as sidewalk is right; car as road is not
    found = {row["name"]: row["value"] for row in conventions(confusion, cityscapes.LABELS)}
    assert found["categories"] == pytest.approx((8 / 10 + 0) / 2)


# Predictions as files


def pool_of_photos(*photos: str, space: LabelSpace = SPACE) -> Any:
    union = type("Union", (), {"spaces": (space,)})()
    return Pool([Sample(photo, "", space.name) for photo in photos], {}, union)


def one_saved(pool: Any, names: tuple[str, ...], pictures: bool = False, guess: Tensor | None = None) -> list[str]:
    """The files that come of saving the same prediction of every photo."""
    (space,) = pool.union.spaces
    guess = torch.tensor([[0, 1], [2, 0]]) if guess is None else guess
    with saved(Path("out"), pool, kinds_of(pictures, names, space), ALONE) as place:
        assert place
        for index in range(len(pool.samples)):
            save(place, index, torch.zeros(3, *guess.shape, dtype=torch.uint8), guess, guess.to(torch.int16))
    return sorted(str(path.relative_to("out")) for path in Path("out").rglob("*") if path.is_file())


def test_photos_of_one_stem_in_different_folders_keep_their_folders() -> None:
    found = one_saved(pool_of_photos("/data/val/a/1.jpg", "/data/val/b/1.jpg"), (), pictures=True)
    assert found == ["overlays/a/1.png", "overlays/b/1.png", "predictions/a/1.png", "predictions/b/1.png"]
    with Image.open("out/predictions/b/1.png") as picture:
        assert np.array(picture).tolist() == [[0, 1], [2, 0]]


def test_paths_never_leave_the_folder() -> None:
    places = relative_paths(["/data/x/../../etc/1.jpg", "/data/y/1.jpg", "../z.png"])
    assert all(".." not in place.parts and not place.is_absolute() for place in places)
    assert relative_paths(["00000", "00001"]) == [PurePath("00000"), PurePath("00001")]


def test_photos_that_would_share_a_file_are_refused_by_name() -> None:
    with pytest.raises(DatasetError, match=r"a/1\.jpg and .*a/1\.png would share the file predictions/1\.png"):
        one_saved(pool_of_photos("a/1.jpg", "a/1.png"), (), pictures=True)
    assert not Path("out").exists()


def test_predictions_for_cityscapes_are_label_ids_under_the_servers_names() -> None:
    guess = torch.arange(19).view(1, 19)
    pool = pool_of_photos(
        *(f"leftImg8bit/val/{city}/{city}_000001_000019_leftImg8bit.png" for city in ("ulm", "bonn")),
        space=cityscapes.LABELS,
    )
    found = one_saved(pool, ("cityscapes",), guess=guess)
    assert found == [f"cityscapes/{city}/{city}_000001_000019_pred_labelIds.png" for city in ("bonn", "ulm")]
    with Image.open(f"out/{found[0]}") as picture:
        assert picture.mode == "L"
        raw = np.array(picture)
    assert raw[0].tolist() == [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    back = {label_id: label for label, label_id in enumerate(cityscapes.LABEL_IDS)}
    assert [back[value] for value in raw[0].tolist()] == guess[0].tolist()


def test_the_cityscapes_server_is_not_sent_what_it_does_not_know() -> None:
    with pytest.raises(RecipeError, match=r"2 of the 3 classes of site are not Cityscapes'.*'background'"):
        cityscapes_format(SPACE)
    with pytest.raises(DatasetError, match=r"img_1\.png: the Cityscapes server knows photos by names such as"):
        one_saved(pool_of_photos("a/img_1.png", space=cityscapes.LABELS), ("cityscapes",))
    some = LabelSpace(name="mine", classes=("car", "road"))  # in another order
    assert np.array(cityscapes_format(some).encode(np.array([[0, 1]]))).tolist() == [[26, 7]]


def test_predictions_for_imagenet_s_are_two_bytes_that_read_back() -> None:
    space = LabelSpace(name="imagenet_s", classes=tuple(f"n{i}" for i in range(920)), ignore_index=1000)
    guess = torch.tensor([[0, 1, 255, 256, 257, 919]])
    found = one_saved(pool_of_photos("v/n01/a.JPEG", "v/n02/a.JPEG", space=space), ("imagenet-s",), guess=guess)
    assert found == ["imagenet-s/n01/a.png", "imagenet-s/n02/a.png"]
    with Image.open(f"out/{found[1]}") as picture:
        assert picture.mode == "RGB"
        raw = np.array(picture).astype(int)
    assert (raw[..., 0] + 256 * raw[..., 1]).tolist() == guess.tolist()
    assert not raw[..., 2].any()


def test_raw_values_are_those_of_the_label_files() -> None:
    space = LabelSpace(name="a", classes=("road", "car"), lookup={7: 0, 500: 1, 0: IGNORE, 600: 1})
    assert raw_values(space).tolist() == [7, 500]
    coded = np.array(imagenet_s_format(space).encode(np.array([[0, 1]])))
    assert coded.tolist() == [[[7, 0, 0], [500 - 256, 1, 0]]]
    with pytest.raises(RecipeError, match="no value for car"):
        raw_values(LabelSpace(name="a", classes=("road", "car"), lookup={7: 0}))


def test_predictions_appear_together_or_not_at_all() -> None:
    pool = pool_of_photos("a/1.jpg", "a/2.jpg")
    one_saved(pool, (), pictures=True, guess=torch.ones(2, 2, dtype=torch.int64))
    before = Path("out/predictions/1.png").read_bytes()
    with pytest.raises(IndexError, match="out of range"):
        half_saved(pool)
    assert Path("out/predictions/1.png").read_bytes() == before
    assert sorted(path.name for path in Path("out").iterdir()) == ["overlays", "predictions"]


def half_saved(pool: Any) -> None:
    """Saves a prediction for the first photo and fails at the second."""
    with saved(Path("out"), pool, kinds_of(True, (), SPACE), ALONE) as place:
        assert place
        guess = torch.zeros(2, 2, dtype=torch.int64)
        save(place, 0, torch.zeros(3, 2, 2, dtype=torch.uint8), guess, guess)
        save(place, len(pool.samples), torch.zeros(3, 2, 2, dtype=torch.uint8), guess, guess)


# Whole evaluations


def test_an_evaluation_counts_blocks_images_and_boundaries_of_the_saved_predictions(plain_runs: PlainRuns) -> None:
    tuned = str(plain_runs("finetune", Path("tuned")))
    asked = request(("eval.images", 23), init=tuned)
    scores, folder = run_evaluation(asked, "last", keep=True, save_as=("imagenet-s",))
    assert {path.name for path in folder.iterdir()} == {
        "scores.json", "results.csv", "confusion.csv", "confusion.png", "predictions", "overlays", "imagenet-s",
    }  # fmt: skip
    validation = plan_finetuning(finetune_recipe(request(init="scratch"))[0]).validation
    assert validation
    blocks, edges = torch.zeros(20, 8, 3, dtype=torch.int64), torch.zeros(8, 3, dtype=torch.int64)
    single = []
    for index in range(23):
        labels = validation.read(index)[1]
        guess, coded = (
            np.array(Image.open(folder / kind / f"{index:05d}.png")) for kind in ("predictions", "imagenet-s")
        )
        assert np.array_equal(guess, coded[..., 0])
        seen = torch.from_numpy(guess).long()
        single.append(block_counts(confusion_matrix(seen, labels, 8)))
        blocks[index * 20 // 23] += single[-1]
        edges += boundary_counts(seen, labels, 8)
    assert scores["blocks"] == blocks.tolist()
    found = miou_interval(torch.stack(single), generator(0, "interval"))
    assert [scores["miou_interval"][key] for key in ("low", "high")] == list(found)
    assert scores["boundary_miou"] == float(count_miou(edges))
    assert scores["images"] == scores["miou_interval"]["images"] == scores["miou_interval"]["groups"] == 23
    plain, _ = run_evaluation(request(("eval.images", 23), ("eval.boundary", False), init=tuned), "last", keep=False)
    assert plain["confusion"] == scores["confusion"]
    assert plain["boundary_miou"] is None


def test_several_scales_are_said_and_change_the_counts() -> None:
    tuned = str(run_finetuning(request(("finetune.steps", 30), ("finetune.lr", 0.1), init="scratch")))
    one, _ = run_evaluation(request(init=tuned), "last", keep=False)
    asked = request(("eval.scales", [0.5, 1.0, 2.0]), ("eval.flip", True), init=tuned)
    several, _ = run_evaluation(asked, "last", keep=False)
    assert (several["scales"], several["flip"]) == ((0.5, 1.0, 2.0), True)
    assert sum(map(sum, several["confusion"])) == sum(map(sum, one["confusion"]))
    assert several["confusion"] != one["confusion"]


def test_an_interrupted_evaluation_leaves_what_was_there(
    monkeypatch: pytest.MonkeyPatch, plain_runs: PlainRuns
) -> None:
    tuned = str(plain_runs("finetune", Path("run")))
    _, folder = run_evaluation(request(("eval.images", 2), init=tuned), "last", keep=True)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    original = inference.predict

    def interrupted(*arguments: Any, **options: Any) -> Tensor:
        if interrupted.calls == 3:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGTERM)
        interrupted.calls += 1  # type: ignore[attr-defined]
        return 0 * original(*arguments, **options)

    interrupted.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(inference, "predict", interrupted)
    with pytest.raises(Preempted):
        run_evaluation(request(init=tuned), "last", keep=True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("scales", [], "expected one ratio or more"),
        ("scales", [0.0], r"expected numbers of 0\.05 or more, got \[0\.0\]"),
        ("scales", [1.0, 1.0], "expected different ratios"),
        ("scales", [float("nan")], r"expected numbers of 0\.05 or more, got \[nan\]"),
        ("max_memory", "2", "expected a number and a unit, such as 2GB"),
        ("max_memory", "0GB", "expected 1 or more"),
        ("max_memory", "1iB", "expected a number and a unit"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(key: str, value: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=rf"eval\.{key}: {message}"):
        resolve({"eval": {key: value}})


def test_the_counts_of_an_evaluation_are_those_of_its_predictions() -> None:
    labels, guess = (torch.randint(0, 3, (8, 9), generator=rng_of(i)) for i in range(2))
    counts = tally_of(confusion_matrix(guess, labels, 3).tolist(), images=1)
    assert summary(counts, SPACE)["miou"] == pytest.approx(mean_iou(confusion_matrix(guess, labels, 3)))


def test_scores_of_a_part_do_not_replace_those_of_more_images(tmp_path: Path, plain_runs: PlainRuns) -> None:
    tuned = str(plain_runs("finetune", Path("tuned")))
    common = ["eval", tuned, "--device", "cpu", "--workers", "0", "-q", "--json", "--out", str(tmp_path / "out")]
    for count, told in ((3, ""), (2, "it has the scores of 3 images, which those of 2 would replace"), (4, "")):
        done = CliRunner().invoke(cli, [*common, "--images", str(count)])
        assert isinstance(done.exception, RecipeError) == bool(told), done.output
        assert told in str(done.exception)
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["images"] == 4


def test_flags_reach_the_settings_and_a_bad_list_is_refused(plain_runs: PlainRuns) -> None:
    tuned = str(plain_runs("finetune", Path("tuned")))
    runner = CliRunner()
    command = ["eval", tuned, "--images", "2", "--scales", "0.5,1", "--flip", "--max-memory", "1GB", "-v"]
    done = runner.invoke(cli, [*command, "--device", "cpu", "--workers", "0"])
    assert done.exit_code == 0, done.output
    assert "mean IoU over all classes, absent ones as 0" in done.output
    path = Path(tuned, "eval", "shapes-target-val-first-2", "scores.json")  # not where the scores of all images go
    scores = json.loads(path.read_text())
    assert (scores["scales"], scores["flip"], scores["images"]) == ([0.5, 1.0], True, 2)
    wrong = runner.invoke(cli, ["eval", tuned, "--scales", "0.5,x"])
    assert wrong.exit_code == 2
    assert "expected numbers such as 0.5,1,1.5, got '0.5,x'" in wrong.output
