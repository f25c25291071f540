"""What `best` is chosen by, and when a fine-tuning ends because it gets no better."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from mdp.core.labels import LabelSpace
from mdp.core.protocols import Counts, segmentation
from mdp.io.errors import Preempted, RecipeError
from mdp.io.evaluation.named_score import expect_class, named_score
from mdp.io.journal.journal import Journal
from mdp.io.processes.signals import Stop
from mdp.io.processes.world import ALONE, World
from mdp.io.recipe.layers import resolve
from mdp.io.recipe.request import Request
from mdp.io.recipe.settings import CLASS_SCORES, SCORES
from mdp.io.run import folder as run_folder
from mdp.io.run.checkpoint import load
from mdp.io.run.record import Position
from mdp.io.training import finetuning
from mdp.io.training.context import RunContext
from mdp.io.training.job import run_finetuning
from mdp.io.training.loop import Schedule, loop
from tests.small_runs import assert_same, losses, request, signal_after, tensors_of
from tests.tensors import rng_of
from tests.test_updating import CPU, Steps, nothing
from tests.together import worlds

pytestmark = pytest.mark.usefixtures("bare_runs")

SPACE = LabelSpace(name="town", classes=("road", "car", "traffic light"))


def test_every_score_is_the_one_that_an_evaluation_reports_under_its_name() -> None:
    sums = {
        "confusion": torch.randint(0, 50, (4, 3, 3), generator=rng_of(0)),
        "classes": torch.zeros(1, 3, 3, dtype=torch.int64),
        "images": torch.tensor(4),
        "boundary": torch.tensor([[[3, 5, 4], [0, 0, 0], [1, 7, 2]]]),
    }
    counts = Counts(sums, {})
    reported = segmentation.scores(counts, None, SPACE, segmentation.Settings())
    for name in SCORES:
        assert named_score(name, counts, SPACE) == reported[name], name
    for number, label in enumerate(SPACE.classes):
        for name in CLASS_SCORES:
            found = named_score(f"{name}:{label}", counts, SPACE)
            assert (None if math.isnan(found) else found) == reported["classes"][number][name]


def test_a_score_that_is_none_is_refused_by_its_name() -> None:
    for name in ("mIoU", "iou", "iou:", "miou:car", "loss"):
        with pytest.raises(RecipeError, match=rf"finetune.best: expected one of miou, .*iou:CLASS, .*got '{name}'"):
            resolve({"finetune": {"best": name}})
    expect_class("iou:traffic light", SPACE)
    with pytest.raises(ValueError, match=r"best: 'iou:cars': town has no class 'cars' among its 3; near it: car"):
        expect_class("iou:cars", SPACE)


def run_with(
    scores: Mapping[int, float], patience: int, folder: Path, start: Position | None = None
) -> tuple[Any, ...]:
    """Where a run with these scores ends, and which checkpoints it wrote, on one process or several."""

    def work(world: World) -> tuple[Position, list[str]]:
        run = Steps(world.rank, Stop(), asked=-1, schedule=Schedule(12, 8, 2, 1e9, patience=patience))
        run.validate = lambda step, stop: scores[step]  # type: ignore[method-assign]
        journal = Journal(folder, 12, 10.0, quiet=True, main=world.main)
        context = RunContext(folder=folder, journal=journal, device=CPU, world=world)
        end = loop(run, nothing(), start or Position(), context, Stop())
        return end, [entry for entry in run.done if entry != "step"]

    alone = work(ALONE)
    assert worlds(2, work) == [alone, alone]
    return alone


def test_a_run_ends_after_so_many_validations_without_a_better_score(tmp_path: Path) -> None:
    scores = {2: 0.1, 4: 0.3, 6: 0.3, 8: math.nan, 10: 0.2, 12: 0.4}
    end, done = run_with(scores, 2, tmp_path)
    assert (end.step, end.stale, end.best) == (8, 2, 0.3)  # as good is no better, and no number is no score
    assert [entry for entry in done if entry.startswith("best")] == ["best 2", "best 4", "best 6"]
    assert done[-1] == "last 8"
    assert run_with(scores, 2, tmp_path, start=end)[0] == end
    assert run_with(scores, 4, tmp_path)[0].step == 12
    end, _ = run_with(scores, 0, tmp_path, start=end)
    assert (end.step, end.stale, end.best) == (12, 0, 0.4)
    assert run_with(dict.fromkeys(scores, math.nan), 1, tmp_path)[0].step == 4  # the first is the best so far


FALLING = {2: 0.1, 4: 0.3, 6: 0.2, 8: 0.2, 10: 0.2}
PATIENT = (("finetune.steps", 10), ("finetune.validate_steps", 2), ("finetune.best", "macc"), ("finetune.patience", 2))


@pytest.mark.usefixtures("in_an_empty_folder")
@pytest.mark.whole_runs
def test_a_fine_tuning_that_stops_early_is_done_says_so_and_goes_on_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    validate = finetuning.Finetuning.validate

    def falling(self: finetuning.Finetuning, step: int, stop: Stop) -> float | None:
        return None if validate(self, step, stop) is None else FALLING[step]

    monkeypatch.setattr(finetuning.Finetuning, "validate", falling)
    run = run_finetuning(request(*PATIENT, init="scratch", out=Path("whole")))
    with monkeypatch.context() as patch:
        signal_after(patch, 7)
        with pytest.raises(Preempted):
            run_finetuning(request(*PATIENT, init="scratch", out=Path("stopped")))
    assert load(Path("stopped/checkpoints/last.safetensors")).about["stale"] == 1
    run_finetuning(Request(resume="stopped", quiet=True))
    assert_same(tensors_of(run), tensors_of(Path("stopped")))
    ended = run_folder.ending_of(run)
    assert (ended["state"], ended["exit_code"], ended["step"]) == ("done", 0, 8)
    assert ended["message"].startswith("stopped early after step 8 of 10: 2 validations without a better score")
    assert run_folder.unfinished(run / "checkpoints" / "last.safetensors") == ""
    assert (run / "predictions" / "shapes-target.png").is_file()
    about = load(run / "checkpoints" / "best.safetensors").about
    assert (about["step"], about["best"], about["recipe"]["finetune"]["best"]) == (4, 0.3, "macc")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < record["macc"] < 1 for record in records if record["kind"] == "validate")
    capsys.readouterr()
    run_finetuning(Request(resume="stopped"))  # it is done, and stays so
    assert "stopped early after step 8 of 10" in capsys.readouterr().err
    assert [step for step, _ in losses(Path("stopped"))][-1] == 8
    run_finetuning(Request(layers=({"finetune": {"patience": None}},), resume="stopped", quiet=True))
    assert run_folder.ending_of(Path("stopped"))["step"] == 10
    assert run_folder.ending_of(Path("stopped"))["message"] == ""


@pytest.mark.usefixtures("in_an_empty_folder")
def test_best_by_a_class_at_its_boundaries_is_counted_and_a_class_that_is_not_there_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "boundary_iou:background"
    few = [("finetune.steps", 1), ("finetune.best", name)]
    with pytest.raises(RecipeError, match=r"finetune.best: 'iou:sky': shapes-target has no class 'sky' among its"):
        run_finetuning(request(("finetune.best", "iou:sky"), init="scratch", out=Path("run")))
    assert not Path("run").exists()
    run = run_finetuning(request(*few, init="scratch", out=Path("run"), quiet=False))
    assert f", {name} " in capsys.readouterr().err
    (record,) = [
        r for r in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if r["kind"] == "validate"
    ]
    assert record[name] == load(run / "checkpoints" / "best.safetensors").about["best"]
