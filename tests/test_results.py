"""results.csv of a run, and the event files of TensorBoard: the numbers of metrics.jsonl again, through stops too."""

import csv
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mdp.io.errors import Preempted, RecipeError, ResourceError
from mdp.io.journal.journal import Journal
from mdp.io.journal.results_csv import Results, Since, columns, noted, row
from mdp.io.journal.tensorboard import expect_tensorboard, tag_of
from mdp.io.recipe.layers import Recipe
from mdp.io.training import pretraining
from mdp.io.training.job import run_finetuning, run_pretraining
from mdp.io.training.loop import Schedule
from mdp.io.training.pretraining import Pretraining
from tests.small_runs import PlainRuns, request, signal_after

pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")

TIMES = ("images_per_second", "data_wait", "communication")


def read(folder: str | Path) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(folder, "results.csv").read_text().splitlines()))


def timeless(folder: str | Path) -> list[dict[str, str]]:
    return [{name: cell for name, cell in found.items() if name not in TIMES} for found in read(folder)]


def records(folder: str | Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    return [record for record in found if record["kind"] == kind]


# Rows


def test_a_row_has_the_mean_loss_the_last_rate_and_the_shares_of_the_time_since_the_row_before() -> None:
    """Worked out by hand: two images a second for half a second an image, of which a fifth is waiting, then one."""
    first = {"step": 1, "epoch": 0, "loss": 3.0, "lr": 0.5, "images_per_second": 2.0, "data_wait": 0.2}
    second = {"step": 2, "epoch": 1, "loss": 1.0, "lr": 0.25, "images_per_second": 1.0, "data_wait": 0.5}
    since = noted(noted(Since(), first), second)
    scores = {
        "miou": {"a": 0.5, "b": 0.25},
        "majority_miou": {"a": 0.1},
        "prototype_rank": 3.5,
        "classes_unseen": ["x"],
    }
    names = columns("pretrain", ["a", "b", "c"])
    found = dict(zip(names, row(since, {"kind": "validate", "step": 2, **scores}, names), strict=True))
    assert found == {
        "step": 2, "epoch": 1, "loss": 2.0, "lr": 0.25, "images_per_second": 2 / 1.5, "data_wait": 0.6 / 1.5,
        "communication": None, "miou": 0.375, "miou/a": 0.5, "miou/b": 0.25, "miou/c": None, "majority_miou/a": 0.1,
        "majority_miou/b": None, "majority_miou/c": None, "prototype_cosine": None, "prototype_rank": 3.5,
        "classes_unseen": 1,
    }  # fmt: skip


def test_communication_is_a_share_of_the_time_too() -> None:
    since = Since()
    for speed, share in ((10.0, 0.5), (30.0, 0.1)):
        since = noted(since, {"loss": 1.0, "images_per_second": speed, "data_wait": 0.0, "communication": share})
    (found,) = row(since, {"miou": 0.5}, ["communication"])
    assert found == pytest.approx((0.05 + 0.1 / 30) / (0.1 + 1 / 30))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), min_size=1, max_size=5))
def test_every_number_of_a_row_reads_back_as_it_was(values: list[float]) -> None:
    folder = Path("law")
    folder.mkdir(exist_ok=True)
    names = ("step", *(f"miou/{place}" for place in range(len(values))))
    journal = Journal(folder, 1, 1.0, quiet=True, columns=names)
    journal.record("validate", 1, miou=dict(zip("01234", values, strict=False)))
    (found,) = read(folder)
    assert [float(found[name]) for name in names[1:]] == values


def test_a_loss_that_is_not_a_number_is_left_out_of_the_mean_and_a_row_without_steps_is_empty() -> None:
    results = Results(["loss", "lr", "images_per_second", "data_wait", "miou"])
    for loss in (None, 2.0, 4.0):
        results.note({"kind": "train", "loss": loss, "lr": 0.1, "images_per_second": 4.0, "data_wait": 0.0})
    assert results.note({"kind": "validate", "miou": None})
    results.note({"kind": "validate", "miou": {}})
    assert results.rows == [(3.0, 0.1, 4.0, 0.0, None), (None,) * 5]


# Whole runs


def test_a_pretraining_run_has_a_row_for_each_validation_of_what_its_journal_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    schedule_of = pretraining.schedule_of

    def often(recipe: Recipe, images: int) -> tuple[Schedule, int]:
        return schedule_of(recipe, images)[0]._replace(validate_every=4), 3

    monkeypatch.setattr(pretraining, "schedule_of", often)
    run_pretraining(request(out=Path("run")))
    found, scored = read("run"), records("run", "validate")
    assert tuple(found[0]) == columns("pretrain", ["shapes-coarse", "shapes-fine"])
    assert [int(cells["step"]) for cells in found] == [record["step"] for record in scored] == [4, 7]
    steps_done = records("run", "train")
    for cells, record, steps in zip(found, scored, (steps_done[:4], steps_done[4:]), strict=True):
        assert float(cells["loss"]) == pytest.approx(np.mean([step["loss"] for step in steps]), rel=1e-12)
        assert float(cells["lr"]) == steps[-1]["lr"]
        assert int(cells["epoch"]) == steps[-1]["epoch"]
        took = [1 / step["images_per_second"] for step in steps]
        waited = np.average([step["data_wait"] for step in steps], weights=took)
        assert float(cells["images_per_second"]) == pytest.approx(len(steps) / sum(took))
        assert float(cells["data_wait"]) == pytest.approx(waited)
        assert float(cells["miou/shapes-fine"]) == record["miou"]["shapes-fine"]
        assert float(cells["miou"]) == pytest.approx(np.mean(list(record["miou"].values())))
        assert float(cells["prototype_cosine"]) == record["prototype_cosine"]
        assert int(cells["classes_unseen"]) == len(record["classes_unseen"])
        assert cells["communication"] == ""
        assert "communication" not in steps_done[0]


def test_a_fine_tuning_run_that_is_stopped_twice_ends_with_the_rows_of_one_that_was_not() -> None:
    often = ("finetune.validate_steps", 2)
    run_finetuning(request(often, init="scratch", out=Path("whole")))
    for step, others in ((3, {"init": "scratch", "out": Path("run")}), (5, {"resume": "run"})):
        with pytest.MonkeyPatch.context() as patch:
            signal_after(patch, step)
            with pytest.raises(Preempted):
                run_finetuning(request(often, **others))
    run_finetuning(request(often, resume="run"))
    assert [cells["step"] for cells in timeless("run")] == ["2", "4", "6"]
    assert timeless("run") == timeless("whole")


def test_a_validation_that_no_checkpoint_knows_of_is_dropped_with_its_row(tmp_path: Path) -> None:
    """A run that is killed between a validation and its checkpoint may have a kept one of the same step."""
    columns = ("step", "loss", "miou")
    journal = Journal(tmp_path, 9, 1.0, quiet=True, columns=columns)
    journal.begin()
    assert read(tmp_path) == []
    for step in (1, 2, 3, 4):
        journal.record("train", step, loss=float(step), lr=0.1, images_per_second=1.0, data_wait=0.0)
        if step % 2 == 0:
            journal.record("validate", step, miou=0.1 * step)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tra')
    again = Journal(tmp_path, 9, 1.0, quiet=True, columns=columns)
    again.begin(4, validated=2)
    assert [cells["step"] for cells in read(tmp_path)] == ["2"]
    again.record("validate", 4, miou=0.5)
    assert read(tmp_path) == [{"step": "2", "loss": "1.5", "miou": "0.2"}, {"step": "4", "loss": "3.5", "miou": "0.5"}]
    assert [record["step"] for record in records(tmp_path, "validate")] == [2, 4]


def test_a_run_that_was_killed_before_its_second_checkpoint_begins_again_from_nothing(plain_runs: PlainRuns) -> None:
    plain_runs("pretrain", Path("whole"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pretraining, "validate", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_pretraining(request(out=Path("run")))
    assert len(records("run", "train")) == 7
    run_pretraining(request(resume="run"))
    assert [record["step"] for record in records("run", "train")] == [1, 2, 3, 4, 5, 6, 7]
    assert timeless("run") == timeless("whole")


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "other", 9, 1.0, main=False, columns=("step",), tensorboard=True)
    journal.begin()
    journal.record("validate", 1, miou=0.5)
    journal.picture(1, tmp_path / "other" / "samples" / "a.png")
    journal.status("done")
    assert not (tmp_path / "other").exists()


# TensorBoard


def scalars(folder: str | Path) -> dict[str, list[tuple[int, float]]]:
    """By tag, as TensorBoard's own reader gives them."""
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="the extra tensorboard is not installed"
    )
    events = reader.EventAccumulator(str(Path(folder, "tensorboard")), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def expected(folder: str | Path) -> dict[str, list[tuple[int, float]]]:
    """The same from metrics.jsonl, rounded to float32."""
    found: dict[str, list[tuple[int, float]]] = {}
    for kind in ("train", "validate"):
        for record in records(folder, kind):
            for tag, value in flat(kind, record):
                found.setdefault(tag, []).append((record["step"], float(np.float32(value))))
    return found


def flat(tag: str, values: Mapping[str, Any]) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += flat(f"{tag}/{name}", value)
        elif isinstance(value, list):
            found.append((f"{tag}/{name}", len(value)))
        elif isinstance(value, int | float) and name != "step":
            found.append((f"{tag}/{name}", value))
    return found


def test_event_files_hold_exactly_the_numbers_of_the_journal_also_of_a_run_that_was_stopped() -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    on = ("run.tensorboard", True)
    with pytest.MonkeyPatch.context() as patch:
        signal_after(patch, 4)
        with pytest.raises(Preempted):
            run_pretraining(request(on, ("run.checkpoint_minutes", 0.0), out=Path("run")))
    for name in ("last", "best"):
        Path(f"run/checkpoints/{name}.safetensors").unlink(missing_ok=True)  # as if it had been killed
    run_pretraining(request(resume="run"))
    found = scalars("run")
    assert found == expected("run")
    assert [step for step, _ in found["train/loss"]] == [1, 2, 3, 4, 5, 6, 7]
    assert {"train/lr", "train/epoch", "validate/miou/shapes-fine", "validate/classes_unseen"} <= found.keys()


def test_event_files_that_are_asked_for_later_tell_of_the_whole_run() -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    with pytest.MonkeyPatch.context() as patch:
        signal_after(patch, 5)
        with pytest.raises(Preempted):
            run_finetuning(request(init="scratch", out=Path("run")))
    run_finetuning(request(("run.tensorboard", True), resume="run"))
    assert scalars("run") == expected("run")
    assert len(scalars("run")["train/loss"]) == 6


def test_a_validation_that_is_done_again_is_in_the_event_files_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    for start, validated, steps in ((0, 0, (1, 2, 3)), (2, 0, (3, 4))):
        journal = Journal(tmp_path, 4, 1.0, quiet=True, tensorboard=True)
        journal.begin(start, validated)
        if start:
            journal.record("validate", 2, miou=0.75)
        for step in steps:
            journal.record("train", step, loss=step / (1 + start), lr=0.1, nothing=math.nan)
            if step == 2:
                journal.record("validate", step, miou=0.5)
        journal.status("done")
    found = scalars(tmp_path)
    assert found["train/loss"] == [(1, 1.0), (2, 2.0), (3, 1.0), (4, float(np.float32(4 / 3)))]
    assert found["validate/miou"] == [(2, 0.75)]
    assert "train/nothing" not in found


def test_a_picture_is_kept_as_the_file_it_is_under_a_name_that_is_the_same_at_all_steps(tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="the extra tensorboard is not installed"
    )
    (tmp_path / "samples").mkdir()
    journal = Journal(tmp_path, 4, 1.0, quiet=True, tensorboard=True)
    journal.begin()
    paths = {step: tmp_path / "samples" / f"step_{step:08d}.png" for step in (1, 2)}
    for step, path in paths.items():
        Image.new("RGB", (30, 20), (step, 90, 90)).save(path)
        journal.picture(step, path)
    journal.status("done")
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    found = events.Images("samples")
    assert [(one.step, one.width, one.height) for one in found] == [(1, 30, 20), (2, 30, 20)]
    assert [one.encoded_image_string for one in found] == [path.read_bytes() for path in paths.values()]


@pytest.mark.parametrize(
    ("path", "tag"),
    [
        ("samples/step_00000100.png", "samples"),
        ("predictions/step_12_best.png", "predictions/best"),
        ("predictions/worst-step7.png", "predictions/worst"),
        ("predictions/0017.png", "predictions/0017"),
        ("eval/a/b.png", "eval/a/b"),
    ],
)
def test_pictures_are_named_by_their_place_without_the_step(path: str, tag: str) -> None:
    assert tag_of(Path("run") / path, Path("run")) == tag


def test_without_the_extra_one_line_names_it_before_there_is_a_run_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for run, others in ((run_pretraining, {}), (run_finetuning, {"init": "scratch"})):
        with pytest.raises(RecipeError, match=r"pip install 'mdp-segmentation\[tensorboard\]'") as caught:
            run(request(("run.tensorboard", True), out=Path("run"), **others))
        assert "\n" not in str(caught.value)
    assert not Path("run").exists()
    with pytest.raises(RecipeError):
        expect_tensorboard()


def test_event_files_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    (tmp_path / "tensorboard").touch()
    with pytest.raises(ResourceError, match="tensorboard: event files cannot be written: File exists"):
        Journal(tmp_path, 1, 1.0, quiet=True, tensorboard=True).begin()


def test_nothing_of_tensorboard_is_imported_when_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it would fail
    run_finetuning(request(init="scratch", out=Path("run")))
    assert not Path("run/tensorboard").exists()


@pytest.mark.whole_runs
def test_the_pictures_that_a_run_writes_are_in_its_event_files_with_the_step_they_were_drawn_at() -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="the extra tensorboard is not installed"
    )
    run_pretraining(request(("run.tensorboard", True), out=Path("run")))
    events = reader.EventAccumulator("run/tensorboard", size_guidance={"images": 0})
    events.Reload()
    written = {f"{path.parent.name}/{path.stem}": path for path in Path("run").glob("[sp]*/*.png")}
    assert set(events.Tags()["images"]) == written.keys() >= {"samples/first", "predictions/shapes-fine"}
    assert {tag: [one.step for one in events.Images(tag)] for tag in written} == {
        "samples/first": [0], "predictions/shapes-coarse": [7], "predictions/shapes-fine": [7],
    }  # fmt: skip
    for tag, path in written.items():
        assert events.Images(tag)[-1].encoded_image_string == path.read_bytes()
