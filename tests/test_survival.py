"""What a run does when numbers, files, disks and signals fail it."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from mdp.core.batches import Batch
from mdp.io.data.crops import crop_batch
from mdp.io.data.loader import Forgiving
from mdp.io.data.pool import Pool
from mdp.io.data.views import view_batches
from mdp.io.errors import CheckpointError, DatasetError, Diverged, MdpError, Preempted, RecipeError, ResourceError
from mdp.io.evaluation.job import run_evaluation
from mdp.io.journal.journal import Journal
from mdp.io.recipe.request import Request
from mdp.io.run.checkpoint import load, save
from mdp.io.run.checkpoints import checkpoints_in
from mdp.io.training import context, finetuning, pretraining
from mdp.io.training import job as training_job
from mdp.io.training.finetuning import Finetuning
from mdp.io.training.job import run_finetuning, run_pretraining
from tests.small_runs import PlainRuns, assert_same, losses, request, signal_after, tensors_of
from tests.stress.disturbed import IN_PLACE, KILLED, Event, watched

pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")


def records(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]


def poison(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """One pixel of one image of that step is not a number."""
    calls = iter(range(1000))

    def poisoned(items: list[Any], device: torch.device, *statistics: Any) -> list[Batch]:
        views = view_batches(items, device)
        if next(calls) == step:
            views[0].images[1, 0, 3, 3] = math.nan
        return views

    monkeypatch.setattr(pretraining, "view_batches", poisoned)


# Numbers


def test_one_pixel_that_is_not_a_number_changes_nothing_and_is_recorded(
    monkeypatch: pytest.MonkeyPatch, plain_runs: PlainRuns
) -> None:
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
    plain_runs("pretrain", Path("whole"))
    assert_same(tensors_of(Path("whole")), tensors_of(Path("poisoned")))


def everything(run: pretraining.Pretraining) -> dict[str, Tensor]:
    """All that a step may change, but for momentum."""
    networks = {**run.pair.query.state_dict(prefix="query."), **run.pair.key.state_dict(prefix="key.")}
    return {**networks, **run.method.pack(run.state)}


def test_an_fp16_overflow_halves_the_scale_and_changes_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    advance = pretraining.Pretraining.advance

    def scaled(self: pretraining.Pretraining, items: list[Any], step: int) -> dict[str, float]:
        if step in (0, 2):
            self.trainee.scaler.load_state_dict(
                {**self.trainee.scaler.state_dict(), "scale": 2.0 ** (10 if step == 0 else 100)}
            )
        before = {name: tensor.clone() for name, tensor in everything(self).items()}
        metrics = advance(self, items, step)
        same = all(
            tensor.shape == before[name].shape and torch.equal(tensor, before[name])
            for name, tensor in everything(self).items()
        )
        assert same == ("overflow" in metrics)
        if step == 2:
            assert self.trainee.scaler.get_scale() == 2.0**99
            self.trainee.scaler.load_state_dict({**self.trainee.scaler.state_dict(), "scale": 2.0**10})
        return metrics

    monkeypatch.setattr(pretraining.Pretraining, "advance", scaled)
    run_pretraining(request(("run.precision", "fp16"), ("pretrain.steps", 4), out=Path("run")))
    assert [record["step"] for record in records("run") if record.get("overflow")] == [3]
    about = load(Path("run/checkpoints/last.safetensors")).about
    assert about["scaler"]["scale"] == 2.0**10


def test_an_fp16_overflow_in_fine_tuning_changes_the_scale_only_and_the_scale_is_resumed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    advance = Finetuning.advance

    def scaled(self: Finetuning, items: list[Any], step: int) -> dict[str, float]:
        scaler, scales = self.trainee.scaler, {0: 2.0**10, 1: 2.0**100, 2: 2.0**9}
        scaler.load_state_dict({**scaler.state_dict(), "scale": scales.get(step, scaler.get_scale())})
        before = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        metrics = advance(self, items, step)
        same = all(torch.equal(tensor, before[name]) for name, tensor in self.network.state_dict().items())
        assert same == ("overflow" in metrics) == (step == 1)
        return metrics

    monkeypatch.setattr(Finetuning, "advance", scaled)
    changes = [("run.precision", "fp16"), ("finetune.validate_steps", 0)]
    run_finetuning(request(*changes, init="scratch", out=Path("whole")))
    with monkeypatch.context() as patch:
        signal_after(patch, 3)
        with pytest.raises(Preempted):
            run_finetuning(request(*changes, init="scratch", out=Path("stopped")))
    run_finetuning(request(*changes, resume="stopped"))
    assert_same(tensors_of(Path("whole")), tensors_of(Path("stopped")))
    abouts = [load(Path(folder, "checkpoints/last.safetensors")).about for folder in ("whole", "stopped")]
    assert abouts[0]["scaler"] == abouts[1]["scaler"]
    assert abouts[0]["scaler"]["scale"] == 2.0**9


def test_one_pixel_that_is_not_a_number_leaves_fine_tuning_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        signal_after(patch, 2)
        with pytest.raises(Preempted):
            run_finetuning(request(init="scratch", out=Path("stopped")))
    calls = iter(range(1000))

    def poisoned(items: list[Any], device: torch.device, *statistics: Any) -> Batch:
        batch = crop_batch(items, device)
        if next(calls) == 2:
            batch.images[1, 0, 3, 3] = math.nan
        return batch

    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "crop_batch", poisoned)
        with pytest.raises(Diverged, match="step 3: the loss is nan"):
            run_finetuning(request(init="scratch", out=Path("poisoned")))
    assert_same(tensors_of(Path("stopped")), tensors_of(Path("poisoned")))
    assert json.loads(Path("poisoned/diverged.json").read_text())["step"] == 3


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_computes_nearly_the_same_and_resumes_exactly(
    precision: str, monkeypatch: pytest.MonkeyPatch, plain_runs: PlainRuns
) -> None:
    changes = [("run.precision", precision)]
    run_pretraining(request(*changes, out=Path("whole")))
    (_, full), (_, reduced) = losses(plain_runs("pretrain", Path("fp32")))[0], losses(Path("whole"))[0]
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
        patch.setattr(context, "save", full)
        with pytest.raises(ResourceError, match="No space left"):
            run_pretraining(request(out=Path("first")))
    assert not Path("first/metrics.jsonl").exists()
    saves = iter(range(1000))
    original = context.save

    def full_later(*arguments: Any) -> None:
        (original if next(saves) < 3 else full)(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(context, "save", full_later)
        with pytest.raises(ResourceError, match="No space left"):
            run_pretraining(request(("run.checkpoint_minutes", 0.0), out=Path("later")))
    assert json.loads(Path("later/status.json").read_text())["exit_code"] == 6
    assert load(Path("later/checkpoints/last.safetensors")).about["step"] == 2


def killed_at(name: str, nth: int, *changes: tuple[str, Any], **others: Any) -> None:
    """Pretraining in a forked process that is gone before it puts a file of that name in its place for the nth time."""
    process = os.fork()
    if process == 0:
        seen: list[str] = []

        def hook(number: int, event: Event, do_it: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
            if event.name == "replace":
                seen.append(event.target.split()[-1])
                if seen[-1] == name and seen.count(name) == nth:
                    os._exit(KILLED)
            return do_it()

        with watched(hook):
            run_pretraining(request(*changes, **others))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == KILLED


@pytest.mark.whole_runs
def test_a_run_killed_anywhere_after_its_last_validation_is_not_taken_for_done_and_resume_ends_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context.RunContext, "picture", lambda *_: None)  # all are drawn before
    with watched(lambda number, event, do_it, arguments: do_it()) as events:
        run_pretraining(request(("pretrain.steps", 3), out=Path("whole")))
    names = [event.target.split()[-1] for event in events if event.name == "replace"]
    validated = names.index("best.safetensors")
    assert names[validated:] == [
        "best.safetensors", "previous.safetensors", "last.safetensors", "status.json", "report.html",
    ]  # fmt: skip
    there = {"best": {"last": 0}, "previous": {"last": 0, "best": 3}, "last": {"previous": 0, "best": 3}}
    for place, name in list(enumerate(names))[validated:]:
        out = Path(name.partition(".")[0])
        killed_at(name, names[: place + 1].count(name), ("pretrain.steps", 3), out=out)
        state = json.loads((out / "status.json").read_text())["state"]
        assert state == ("done" if name == "report.html" else "running")
        if out.name in there:
            assert {path.stem: load(path).about["step"] for path in checkpoints_in(out)} == there[out.name]
        if out.name == "previous":
            with pytest.raises(CheckpointError, match=r"of step 0, older than best\.safetensors of step 3"):
                run_finetuning(request(init=str(out), out=Path("later")))
        elif out.name == "best":
            run_finetuning(request(("finetune.steps", 1), init=str(out), out=Path("later"), quiet=False))
            warning = "warning: best: this run is not finished (running); its weights are those of step 0 of 3"
            assert warning in capsys.readouterr().err
        run_pretraining(request(("pretrain.steps", 3), resume=str(out)))
        assert json.loads((out / "status.json").read_text())["state"] == "done"
        for checkpoint in ("last", "best"):
            assert_same(tensors_of(out, checkpoint), tensors_of(Path("whole"), checkpoint))
        assert losses(out) == losses(Path("whole"))
        assert not list(out.rglob(".*.tmp"))


def test_a_full_disk_is_told_by_the_file_that_found_it_and_status_says_so() -> None:
    saves: list[str] = []

    def full_from_the_last_save_on(number: int, event: Event, do_it: Callable[[], Any], arguments: Any) -> Any:
        if event.name == "open" and event.target.startswith(".last.safetensors"):
            saves.append(event.target)
        if len(saves) < 2 or event.name.endswith(IN_PLACE) or event.name == "unlink":
            return do_it()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with watched(full_from_the_last_save_on), pytest.raises(ResourceError) as error:
        run_pretraining(request(("pretrain.steps", 2), out=Path("run")))
    assert str(error.value).startswith("run/checkpoints/last.safetensors: cannot be written")
    status = json.loads(Path("run/status.json").read_text())
    assert (status["state"], status["exit_code"], status["message"]) == ("failed", 6, str(error.value))


def test_two_runs_never_share_a_folder(plain_runs: PlainRuns) -> None:
    plain_runs("pretrain", Path("run"))
    script = (
        "import pathlib, time, mdp.io.run.lock\n"
        "with mdp.io.run.lock.locked(pathlib.Path('run')): print('held', flush=True); time.sleep(9999)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        for changes in ({"resume": "run"}, {"out": Path("run"), "overwrite": True}):
            with pytest.raises(ResourceError, match=f"run is in use by process {other.pid}"):
                run_pretraining(request(**changes))
        other.kill()
    run_pretraining(request(resume="run"))


def test_the_same_command_starts_a_run_and_goes_on_with_it(
    monkeypatch: pytest.MonkeyPatch, plain_runs: PlainRuns
) -> None:
    same = {"out": Path("run"), "resume": ""}
    with monkeypatch.context() as patch:
        patch.setattr(context, "save", lambda *_: os.kill(os.getpid(), signal.SIGTERM))  # before the first checkpoint
        with pytest.raises(Preempted):
            run_pretraining(request(**same))
    with monkeypatch.context() as patch:
        signal_after(patch, 3)
        with pytest.raises(Preempted):
            run_pretraining(request(**same))
    run_pretraining(request(**same))
    plain_runs("pretrain", Path("whole"))
    assert_same(tensors_of(Path("whole")), tensors_of(Path("run")))


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def under_torchrun(monkeypatch: pytest.MonkeyPatch, launch: str, restarts: int) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", launch)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(restarts))


def stopped_after(step: int, changes: tuple[tuple[str, Any], ...] = (), **others: Any) -> None:
    """Pretraining that ends by a signal after so many steps."""
    with pytest.MonkeyPatch.context() as patch:
        signal_after(patch, step)
        with pytest.raises(Preempted, match=f"after step {step}"):
            run_pretraining(request(*changes, **others))


def test_a_restart_goes_on_with_what_its_launch_began_and_never_replaces_what_another_did(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    under_torchrun(monkeypatch, "first", 0)
    stopped_after(2, out=Path("run"))
    before = files_of(Path("run"))
    under_torchrun(monkeypatch, "second", 1)  # before it was restarted, it failed because the folder is not empty
    with pytest.raises(RecipeError, match="the folder is not empty"):
        run_pretraining(request(out=Path("run")))
    assert files_of(Path("run")) == before
    stopped_after(4, out=Path("run"), resume="")  # before it was restarted, it had gone on with the run
    under_torchrun(monkeypatch, "first", 1)
    run_pretraining(request(out=Path("run")))
    assert [step for step, _ in losses(Path("run"))] == [1, 2, 3, 4, 5, 6, 7]


def test_a_restart_replaces_a_run_of_its_own_launch_that_has_no_checkpoint_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    under_torchrun(monkeypatch, "first", 0)
    with monkeypatch.context() as patch:
        patch.setattr(training_job, "loop", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_pretraining(request(out=Path("run")))
    under_torchrun(monkeypatch, "first", 1)
    run_pretraining(request(out=Path("run")))
    assert [step for step, _ in losses(Path("run"))] == [1, 2, 3, 4, 5, 6, 7]


def test_a_change_of_threads_is_told_when_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many torch has been given is all that counts here: with more than one they mostly wait for each other."""
    given = [1]
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: given[-1])
    two = (("run.threads", 2),)
    stopped_after(2, two, out=Path("run"))
    torch.set_num_threads(1)  # as another process may begin
    stopped_after(4, two, resume="run")
    assert "threads:" not in Path("run/log.txt").read_text()
    path = Path("run/checkpoints/last.safetensors")
    tensors, about = load(path)
    save(path, tensors, {**about, "threads": 3})
    run_pretraining(request(*two, resume="run"))
    assert "note: threads: 3 before, 2 now" in Path("run/log.txt").read_text()


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT], ids=lambda n: n.name)
def test_a_signal_while_data_are_opened_ends_the_run_before_it_has_a_folder(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = pretraining.plan_pretraining

    def interrupted(recipe: Any) -> Any:
        os.kill(os.getpid(), number)
        return original(recipe)

    monkeypatch.setattr(pretraining, "plan_pretraining", interrupted)
    with pytest.raises(Preempted, match="before the first step"):
        run_pretraining(request(out=Path("run")))
    assert not Path("run").exists()


def test_a_signal_while_scoring_ends_it_with_nothing_written(
    monkeypatch: pytest.MonkeyPatch, plain_runs: PlainRuns
) -> None:
    plain_runs("finetune", Path("run"))
    original = Pool.read

    def interrupted(self: Pool, index: int) -> Any:
        if index == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, index)

    monkeypatch.setattr(Pool, "read", interrupted)
    with pytest.raises(Preempted):
        run_evaluation(request(init="run"), "last", keep=False)
    assert not list(Path("run/eval").rglob("scores.json"))


@pytest.mark.parametrize(("kind", "run", "step"), [("pretrain", run_pretraining, 7), ("finetune", run_finetuning, 4)])
def test_a_validation_that_a_signal_cuts_short_is_not_recorded_and_done_again(
    kind: str, run: Callable[[Request], Path], step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Pool.read

    def interrupted(self: Pool, index: int) -> Any:
        if "/val/" in self.samples[index].image:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(Pool, "read", interrupted)
        with pytest.raises(Preempted, match=f"after step {step}"):
            run(request(init="scratch" if kind == "finetune" else None, out=Path("run")))
    assert not [record for record in records("run") if record["kind"] == "validate"]
    run(request(resume="run"))
    validated = [record["step"] for record in records("run") if record["kind"] == "validate"]
    assert validated == ([7] if kind == "pretrain" else [4, 6])


def test_a_validation_that_a_signal_follows_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Journal.record

    def record(self: Journal, kind: str, step: int, **values: Any) -> None:
        original(self, kind, step, **values)
        if kind == "validate":
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "record", record)
        with pytest.raises(Preempted, match="after step 4"):
            run_finetuning(request(init="scratch", out=Path("run")))
    assert load(Path("run/checkpoints/last.safetensors")).about["validated"] == 4
    run_finetuning(request(resume="run"))
    assert [record["step"] for record in records("run") if record["kind"] == "validate"] == [4, 6]


def test_the_last_score_of_fine_tuning_is_known_through_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = []
    for step, changes in ((5, {"init": "scratch", "out": Path("run")}), (6, {"resume": "run"})):
        with monkeypatch.context() as patch:
            signal_after(patch, step)
            with pytest.raises(Preempted):
                run_finetuning(request(("finetune.steps", 9), **changes))
        scores.append(load(Path("run/checkpoints/last.safetensors")).about["last"])
    assert scores[0] == scores[1] > 0


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


def test_a_bad_sample_is_replaced_by_the_next_good_one() -> None:
    bad = [DatasetError(f"{index}") for index in range(4)]
    items = Forgiving({(7, 0): "first", (7, 1): bad[1], (7, 2): "third", (7, 3): bad[3]}, count=4)
    assert [items[7, index] for index in (0, 2)] == ["first", "third"]
    assert [items[7, index] for index in (1, 3)] == [("third", bad[1]), ("first", bad[3])]


def test_the_sample_that_stands_in_for_a_bad_one_is_the_same_in_a_resumed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, *range(0, 800, 3))
    skip = (("run.on_bad_sample", "skip"), ("pretrain.validate_images", 0))
    run_pretraining(request(*skip, out=Path("whole")))
    stopped_after(3, skip, out=Path("stopped"))
    run_pretraining(request(*skip, resume="stopped"))
    assert_same(tensors_of(Path("whole")), tensors_of(Path("stopped")))


def test_data_of_which_nothing_can_be_read_any_more_stop_the_run_even_when_bad_samples_are_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil(monkeypatch, *range(800))
    with pytest.raises(DatasetError, match=r"10 samples in a row cannot be read, the first: .*damaged"):
        run_pretraining(request(("run.on_bad_sample", "skip"), out=Path("run")))


def test_samples_that_other_processes_leave_out_are_told_unless_all_is_to_be_quiet(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for quiet in (False, True):
        Journal(tmp_path, 1, 1.0, quiet=quiet, main=False).warn("left out: a.jpg")
    assert capsys.readouterr().err == "left out: a.jpg\n"


def test_a_photo_that_cannot_be_read_is_found_before_training_and_stops_it_unless_it_may_be_skipped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("photos").mkdir()
    Path("labels").mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGB", (40, 40), (90, 90, 90)).save(f"photos/{name}.jpg")
        labels = Image.new("L", (40, 40), 1)
        labels.paste(0, (0, 0, 20, 40))
        labels.save(f"labels/{name}.png")
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
