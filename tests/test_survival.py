"""What a run does when numbers, files, disks and signals fail it."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from mdp.core.batches import Batch
from mdp.io import jobs, place, training
from mdp.io.checkpoint import checkpoints_in, load
from mdp.io.errors import DatasetError, Diverged, MdpError, Preempted, RecipeError, ResourceError
from mdp.io.jobs import run_evaluation, run_finetuning, run_pretraining
from mdp.io.loading import Pool, view_batches
from tests.small_runs import assert_same, losses, request, signal_after, tensors_of

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


def records(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]


def poison(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """One pixel of one image of that step is not a number."""
    calls = iter(range(1000))

    def poisoned(items: list[Any], device: torch.device) -> list[Batch]:
        views = view_batches(items, device)
        if next(calls) == step:
            views[0].images[1, 0, 3, 3] = math.nan
        return views

    monkeypatch.setattr(training, "view_batches", poisoned)


# Numbers


def test_one_pixel_that_is_not_a_number_changes_nothing_and_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        signal_after(patch, 4)
        with pytest.raises(Preempted):
            run_pretraining(request(out=Path("stopped")))
    with monkeypatch.context() as patch:
        poison(patch, 4)
        with pytest.raises(Diverged, match="step 5: the loss is nan"):
            run_pretraining(request(out=Path("poisoned")))
    assert_same(tensors_of(Path("stopped")), tensors_of(Path("poisoned")))  # weights, statistics, momentum, bank
    record = json.loads(Path("poisoned/diverged.json").read_text())
    assert record["step"] == 5
    assert record["loss"] is None  # JSON has no NaN
    assert len(record["samples"]) == 4
    assert all(name.startswith("shapes-") for name in record["samples"])
    assert [view["finite"] for view in record["views"]] == [False, True]
    run_pretraining(request(resume="poisoned"))  # the pixel is mended: the run goes on as if nothing had been
    run_pretraining(request(out=Path("whole")))
    assert_same(tensors_of(Path("whole")), tensors_of(Path("poisoned")))


def everything(run: training.Pretraining) -> dict[str, Tensor]:
    """All that a step may change, but for momentum."""
    networks = {**run.pair.query.state_dict(prefix="query."), **run.pair.key.state_dict(prefix="key.")}
    return {**networks, **run.method.pack(run.state)}


def test_an_fp16_overflow_halves_the_scale_and_changes_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    advance = training.Pretraining.advance

    def scaled(self: training.Pretraining, items: list[Any], step: int) -> dict[str, float]:
        if step in (0, 2):
            self.one.scaler.load_state_dict(
                {**self.one.scaler.state_dict(), "scale": 2.0 ** (10 if step == 0 else 100)}
            )
        before = {name: tensor.clone() for name, tensor in everything(self).items()}
        metrics = advance(self, items, step)
        same = all(
            tensor.shape == before[name].shape and torch.equal(tensor, before[name])
            for name, tensor in everything(self).items()
        )
        assert same == ("overflow" in metrics)
        if step == 2:
            assert self.one.scaler.get_scale() == 2.0**99
            self.one.scaler.load_state_dict({**self.one.scaler.state_dict(), "scale": 2.0**10})
        return metrics

    monkeypatch.setattr(training.Pretraining, "advance", scaled)
    run_pretraining(request(("run.precision", "fp16"), ("pretrain.steps", 4), out=Path("run")))
    assert [record["step"] for record in records("run") if record.get("overflow")] == [3]
    about = load(Path("run/checkpoints/last.safetensors")).about
    assert about["scaler"]["scale"] == 2.0**10


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_computes_nearly_the_same_and_resumes_exactly(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = [("run.precision", precision), ("pretrain.steps", 6)]
    run_pretraining(request(("pretrain.steps", 6), out=Path("fp32")))
    run_pretraining(request(*changes, out=Path("whole")))
    (_, full), (_, reduced) = losses(Path("fp32"))[0], losses(Path("whole"))[0]
    assert full != reduced
    assert abs(full - reduced) < 0.03 * full
    assert all(t.dtype not in (torch.bfloat16, torch.float16) for t in tensors_of(Path("whole")).values())
    with monkeypatch.context() as patch:
        signal_after(patch, 3)
        with pytest.raises(Preempted):
            run_pretraining(request(*changes, out=Path("stopped")))
    run_pretraining(request(*changes, resume="stopped"))
    assert_same(tensors_of(Path("whole")), tensors_of(Path("stopped")))


def test_the_gradient_is_clipped_to_the_norm_asked_for() -> None:
    run_pretraining(
        request(("pretrain.steps", 1), ("run.clip_norm", 1e-3), ("pretrain.weight_decay", 0.0), out=Path("a"))
    )
    momentum = [t for name, t in tensors_of(Path("a")).items() if name.startswith("momentum.")]
    assert torch.stack([t.norm() for t in momentum]).norm() == pytest.approx(1e-3, rel=1e-4)  # the first gradient


def test_fine_tuning_in_parts_is_fine_tuning_but_for_batch_norm() -> None:
    """With a learning rate of nearly nothing, the first losses of both differ by the statistics only."""
    small = [("finetune.steps", 2), ("finetune.validate_steps", 0)]
    run_finetuning(request(*small, init="scratch", out=Path("whole")))
    run_finetuning(request(*small, ("run.accumulate", 2), init="scratch", out=Path("parts")))
    (_, whole), (_, parts) = losses(Path("whole"))[0], losses(Path("parts"))[0]
    assert whole != parts
    assert abs(whole - parts) < 0.02 * whole


def test_parts_too_small_for_batch_norm_are_refused() -> None:
    with pytest.raises(RecipeError, match="leaves fewer than 2 image"):
        run_finetuning(request(("run.accumulate", 3), init="scratch"))


def test_deterministic_algorithms_give_the_run_that_one_thread_gives() -> None:
    run_pretraining(request(("run.deterministic", True), out=Path("a")))
    run_pretraining(request(("run.deterministic", True), out=Path("b")))
    assert torch.are_deterministic_algorithms_enabled()
    assert_same(tensors_of(Path("a")), tensors_of(Path("b")))


# Checkpoints


def test_the_last_two_the_best_and_every_so_many_are_kept() -> None:
    run_pretraining(request(("run.keep_steps", 3), ("run.checkpoint_minutes", 0.0), out=Path("run")))
    steps = {path.stem: load(path).about["step"] for path in checkpoints_in(Path("run"))}
    assert steps == {"last": 7, "previous": 6, "best": 7, "step_00000003": 3, "step_00000006": 6}


def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_goes_on_to_the_same_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_pretraining(request(("run.checkpoint_minutes", 0.0), out=Path("run")))
    whole = tensors_of(Path("run"))
    for name in ("last", "best"):
        path = Path("run/checkpoints", f"{name}.safetensors")
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)
    run_pretraining(request(resume="run", quiet=False))
    told = capsys.readouterr().err
    assert "warning: run/checkpoints/last.safetensors: damaged" in told
    assert "going on from run/checkpoints/previous.safetensors" in told
    assert_same(whole, tensors_of(Path("run")))
    assert Path("run/checkpoints/damaged_last.safetensors").is_file()
    assert [step for step, _ in losses(Path("run"))] == [1, 2, 3, 4, 5, 6, 7]


def test_a_full_disk_stops_before_the_first_step_and_later_leaves_the_last_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(path: Path, *_: Any) -> None:
        raise ResourceError(f"{path}: cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(place, "save", full)
        with pytest.raises(ResourceError, match="No space left"):
            run_pretraining(request(out=Path("first")))
    assert not Path("first/metrics.jsonl").exists()
    saves = iter(range(1000))
    original = place.save

    def full_later(*arguments: Any) -> None:
        (original if next(saves) < 3 else full)(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(place, "save", full_later)
        with pytest.raises(ResourceError, match="No space left"):
            run_pretraining(request(("run.checkpoint_minutes", 0.0), out=Path("later")))
    assert json.loads(Path("later/status.json").read_text())["exit_code"] == 6
    assert load(Path("later/checkpoints/last.safetensors")).about["step"] == 2


def test_two_runs_never_share_a_folder() -> None:
    run_pretraining(request(out=Path("run")))
    script = (
        "import pathlib, time, mdp.io.locks\n"
        "with mdp.io.locks.locked(pathlib.Path('run')): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        for changes in ({"resume": "run"}, {"out": Path("run"), "overwrite": True}):
            with pytest.raises(ResourceError, match=f"run is in use by process {other.pid}"):
                run_pretraining(request(**changes))
        other.kill()
    run_pretraining(request(resume="run"))


def test_the_same_command_starts_a_run_and_goes_on_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    same = {"out": Path("run"), "resume": ""}
    with monkeypatch.context() as patch:
        patch.setattr(place, "save", lambda *_: os.kill(os.getpid(), signal.SIGTERM))  # before the first checkpoint
        with pytest.raises(Preempted):
            run_pretraining(request(**same))
    with monkeypatch.context() as patch:
        signal_after(patch, 3)
        with pytest.raises(Preempted):
            run_pretraining(request(**same))
    run_pretraining(request(**same))
    run_pretraining(request(out=Path("whole")))
    assert_same(tensors_of(Path("whole")), tensors_of(Path("run")))


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT], ids=lambda n: n.name)
def test_a_signal_while_data_are_opened_ends_the_run_before_it_has_a_folder(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = jobs.plan_pretraining

    def interrupted(recipe: Any) -> Any:
        os.kill(os.getpid(), number)
        return original(recipe)

    monkeypatch.setattr(jobs, "plan_pretraining", interrupted)
    with pytest.raises(Preempted, match="before the first step"):
        run_pretraining(request(out=Path("run")))
    assert not Path("run").exists()


def test_a_signal_while_scoring_ends_it_with_nothing_written(monkeypatch: pytest.MonkeyPatch) -> None:
    run_finetuning(request(init="scratch", out=Path("run")))
    original = Pool.read

    def interrupted(self: Pool, index: int) -> Any:
        if index == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, index)

    monkeypatch.setattr(Pool, "read", interrupted)
    with pytest.raises(Preempted):
        run_evaluation(request(init="run"), "last", keep=False)
    assert not list(Path("run/eval").rglob("scores.json"))


# Samples


def spoil(monkeypatch: pytest.MonkeyPatch, *broken: int) -> None:
    """Samples of these numbers cannot be read."""
    original = Pool.read

    def read(self: Pool, index: int) -> Any:
        if index in broken:
            raise DatasetError(f"{self.samples[index].image}: damaged")
        return original(self, index)

    monkeypatch.setattr(Pool, "read", read)


def test_a_bad_sample_stops_the_run_by_its_name_or_is_left_out_and_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch, *range(0, 800, 7))
    with pytest.raises(DatasetError, match="damaged"):
        run_pretraining(request(out=Path("stop")))
    changes = [("run.on_bad_sample", "skip"), ("pretrain.validate_images", 0)]
    run_pretraining(request(*changes, out=Path("skip"), quiet=False))
    told = capsys.readouterr().err
    left_out = told.count("left out: ")
    assert left_out > 0
    assert f"{left_out} samples could not be read" in told
    assert [step for step, _ in losses(Path("skip"))] == [1, 2, 3, 4, 5, 6, 7]


def test_a_photo_that_cannot_be_read_is_found_before_training_and_stops_it_unless_it_may_be_skipped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("photos").mkdir()
    Path("labels").mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGB", (40, 40), (90, 90, 90)).save(f"photos/{name}.jpg")
        Image.new("L", (40, 40), 1).save(f"labels/{name}.png")
    Path("photos/b.jpg").write_bytes(Path("photos/b.jpg").read_bytes()[:-300])
    Path("mine.yaml").write_text("splits: {train: {images: photos, labels: labels}}\nclasses: {0: floor, 1: wall}\n")
    asked = request(("pretrain.datasets", ["mine.yaml"]), ("pretrain.batch_size", 2), out=Path("run"))
    with pytest.raises(DatasetError, match=r"b\.jpg"):
        run_pretraining(asked)
    assert not Path("run").exists()
    changes = [("pretrain.datasets", ["mine.yaml"]), ("pretrain.batch_size", 2), ("run.on_bad_sample", "skip")]
    run_pretraining(request(*changes, out=Path("run"), quiet=False))
    told = capsys.readouterr().err
    assert "warning: " in told
    assert "b.jpg" in told.partition("left out: ")[2]


def test_every_error_says_what_it_is_by_its_exit_code() -> None:
    found = {kind.__name__: kind.exit_code for kind in MdpError.__subclasses__()}
    assert found == {
        "RecipeError": 2, "DatasetError": 3, "Diverged": 4, "CheckpointError": 5, "ResourceError": 6, "ProcessError": 8,
        "Preempted": 75,
    }  # fmt: skip
