"""Runs in Weights & Biases and MLflow: the real libraries, without a network."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mdp.io.errors import RecipeError
from mdp.io.journal import trackers
from mdp.io.journal.journal import Journal
from mdp.io.journal.trackers import NAMES, expect_tracker
from mdp.io.training.job import run_finetuning
from tests.small_runs import request

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the libraries are not ours to mend

Told = list[tuple[str, int, float]]  # name, step, value


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaves the folder of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


def library_or_skip(name: str) -> Any:
    return pytest.importorskip(name, reason=f"the extra {name} is not installed")


def told_wandb(run: Path) -> Told:
    """What stands in its files of all starts of the run, as its own description of records reads them."""
    kinds = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    found: Told = []
    for file in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        for raw in log_records(file.read_bytes()):
            record = kinds.Record()
            record.ParseFromString(raw)
            items = {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in record.history.item}
            found += [
                (key, items["step"], value)
                for key, value in items.items()
                if "step" in items and isinstance(value, int | float) and "/" in key
            ]
    return found


def log_records(data: bytes) -> Iterator[bytes]:
    """The records of a log of LevelDB's form: blocks of 32 KiB; checksum, length and kind before each piece."""
    place, whole = 7, b""  # behind the name of the format
    while place + 7 <= len(data):
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        if kind == 0 or 2**15 - place % 2**15 < 7:  # the rest of a block that nothing fits into
            place += 2**15 - place % 2**15
            continue
        whole = data[place + 7 : place + 7 + length] if kind in (1, 2) else whole + data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # all of it, or its last piece
            yield whole


def told_mlflow(run: Path) -> Told:
    """What its own client finds."""
    client = library_or_skip("mlflow").MlflowClient()
    name = json.loads((run / "tracked.json").read_text())["mlflow"]
    keys = client.get_run(name).data.metrics
    return [(key, metric.step, metric.value) for key in keys for metric in client.get_metric_history(name, key)]


TOLD: dict[str, Callable[[Path], Told]] = {"wandb": told_wandb, "mlflow": told_mlflow}


def steps(journal: Journal, *numbers: int) -> None:
    for step in numbers:
        journal.record("train", step, loss=1 / step, lr=0.5, nothing=math.nan)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_was_stopped_goes_on_in_the_same_tracked_run_and_tells_every_step_once(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library_or_skip(name)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("run: {seed: 3}\nfinetune: {crop: [8, 8]}\n")
    first = Journal(run, 4, 1e9, trackers=(name,))
    first.begin()
    steps(first, 1, 2, 3)
    first.record("validate", 2, miou={"voc": 0.25})
    first.status("preempted", "", 75)
    remembered = json.loads((run / "tracked.json").read_text())
    again = Journal(run, 4, 1e9, trackers=(name,))
    again.begin(2, 2)  # its last checkpoint was of step 2
    steps(again, 3, 4)
    again.status("done", "", 0)
    assert json.loads((run / "tracked.json").read_text()) == remembered
    expected = [("train/loss", step, 1 / step) for step in (1, 2, 3, 4)]
    expected += [("train/lr", step, 0.5) for step in (1, 2, 3, 4)]
    assert sorted(TOLD[name](run)) == sorted([*expected, ("validate/miou/voc", 2, 0.25)])
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if not line.startswith("step ")]
    assert [line.partition(":")[0] for line in lines] == [name, name]
    if name == "mlflow":
        found = library_or_skip("mlflow").MlflowClient().get_run(remembered["mlflow"])
        assert (found.info.status, found.data.params["finetune.crop"]) == ("FINISHED", "[8, 8]")


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_run_tells_its_numbers_and_pictures(name: str, tmp_path: Path) -> None:
    library_or_skip(name)
    run = run_finetuning(request((f"run.{name}", True), ("finetune.steps", 2), init="scratch", out=tmp_path / "run"))
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [("train/loss", record["step"], record["loss"]) for record in records if record["kind"] == "train"]
    assert [entry for entry in TOLD[name](run) if entry[0] == "train/loss"] == losses
    if name == "wandb":
        assert len(list(run.glob("wandb/offline-run-*/files/media/images/samples/*.png"))) == 1
    else:
        client = library_or_skip("mlflow").MlflowClient()
        remembered = json.loads((run / "tracked.json").read_text())["mlflow"]
        assert [file.path for file in client.list_artifacts(remembered, "samples")] == ["samples/first.png"]


class Fails:
    """A tracker that is lost after its first record."""

    name, place, told = "x", "nowhere", 0

    def record(self, step: int, values: dict[str, float]) -> None:
        if self.told:
            raise ConnectionError("the server\nis gone")
        self.told += 1

    picture = close = record


def test_a_run_that_loses_its_tracker_goes_on_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tracked = Fails()
    monkeypatch.setattr(trackers, "_tracker", lambda name: type("", (), {"start": lambda *_: tracked})())
    journal = Journal(tmp_path, 9, 1e9, trackers=("wandb",))
    journal.begin()
    steps(journal, 1, 2, 3)
    journal.status("done", "", 0)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "wandb: nowhere",
        "warning: wandb: ConnectionError: the server is gone; the run goes on without it",
    ]


def test_a_process_that_is_not_the_main_one_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "_tracker", lambda name: pytest.fail("it was asked for"))
    journal = Journal(tmp_path, 9, 1e9, main=False, trackers=NAMES)
    journal.begin()
    steps(journal, 1)
    journal.status("done", "", 0)


@pytest.mark.parametrize("name", NAMES)
def test_without_the_extra_one_line_names_it_before_there_is_a_run_folder(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RecipeError, match=rf"^--{name}: .*pip install 'mdp-segmentation\[{name}\]'$") as caught:
        run_finetuning(request((f"run.{name}", True), init="scratch", out=Path("run")))
    assert "\n" not in str(caught.value)
    assert not Path("run").exists()


def test_nobody_logged_in_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    library = library_or_skip("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(library, "login", lambda **_: False)
    with pytest.raises(RecipeError, match=r"^--wandb: nobody is logged in; run `wandb login`, set WANDB_API_KEY, or"):
        expect_tracker("wandb")
