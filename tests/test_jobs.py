"""Whole runs in one process: exact resume, what a run folder holds, scores against a plain count."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mdp.core.labels import IGNORE
from mdp.core.metrics import mean_iou
from mdp.io.data.selection import plan_finetuning, plan_pretraining
from mdp.io.errors import CheckpointError, DatasetError, Diverged, Preempted, RecipeError
from mdp.io.evaluation.job import run_evaluation
from mdp.io.journal.journal import Journal
from mdp.io.recipe.layers import nest
from mdp.io.recipe.request import Request
from mdp.io.run import folder as run_folder
from mdp.io.run.checkpoint import load
from mdp.io.training.finetuning import finetune_recipe
from mdp.io.training.job import run_finetuning, run_pretraining
from mdp.io.training.pretraining import pretrain_recipe
from tests.small_runs import PlainRuns, assert_same, losses, request, signal_after, tensors_of
from tests.trees import grey, own_yaml, photo

pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")


PRETRAINED: dict[str, tuple[tuple[str, Any], ...]] = {
    "plain": (),
    "mixed and sparse": (("method.mix.region", True), ("method.mix.pixel", True), ("method.sparse.variant", "csc2")),
    "workers and balance": (("run.workers", 1), ("pretrain.balance", True), ("method.bank_batches", 2)),
}


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for runs that are never stopped, each made by the first test that looks at it."""
    return tmp_path_factory.mktemp("wholes")


@pytest.mark.parametrize("kind", PRETRAINED)
@pytest.mark.parametrize("step", [1, 4])
def test_resumed_pretraining_ends_bit_for_bit_as_if_never_stopped(
    kind: str, step: int, wholes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, whole = PRETRAINED[kind], wholes / kind
    if not whole.exists():
        run_pretraining(request(*changes, out=whole))
    with monkeypatch.context() as patch:
        signal_after(patch, step)
        with pytest.raises(Preempted, match=f"stopped by SIGTERM after step {step} of 7"):
            run_pretraining(request(*changes, out=Path("stopped")))
    status = json.loads(Path("stopped/status.json").read_text())
    assert (status["state"], status["step"], status["exit_code"]) == ("preempted", step, 75)
    torch.rand(7)  # whatever else the process did in between
    resumed = run_pretraining(Request(resume="stopped", quiet=True))
    assert_same(tensors_of(whole), tensors_of(resumed))
    assert_same(tensors_of(whole, "best"), tensors_of(resumed, "best"))
    assert losses(whole) == losses(resumed)
    overlaps = [json.loads((folder / "view_overlaps.json").read_text()) for folder in (whole, resumed)]
    assert overlaps[0] == overlaps[1]
    assert json.loads(Path("stopped/status.json").read_text())["state"] == "done"


@pytest.mark.parametrize("step", [1, 4, 5])
def test_resumed_fine_tuning_ends_bit_for_bit_as_if_never_stopped(
    step: int, monkeypatch: pytest.MonkeyPatch, plain_runs: PlainRuns
) -> None:
    whole = plain_runs("finetune", Path("whole"))
    with monkeypatch.context() as patch:
        signal_after(patch, step, signal.SIGUSR1)
        with pytest.raises(Preempted):
            run_finetuning(request(init="scratch", out=Path("stopped")))
    resumed = run_finetuning(Request(resume="stopped", quiet=True))
    assert_same(tensors_of(whole), tensors_of(resumed))
    assert losses(whole) == losses(resumed)
    first, second = (load(f / "checkpoints/last.safetensors").about for f in (whole, resumed))
    assert first == second


def test_a_second_ctrl_c_interrupts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Journal.progress

    def twice(self: Journal, *rest: Any) -> None:
        original(self, *rest)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Journal, "progress", twice)
    with pytest.raises(KeyboardInterrupt):
        run_pretraining(request(out=Path("run")))
    assert json.loads(Path("run/status.json").read_text())["exit_code"] == 130


def test_two_runs_of_one_recipe_are_the_same_run(plain_runs: PlainRuns) -> None:
    assert_same(tensors_of(plain_runs("pretrain", Path("first"))), tensors_of(run_pretraining(request())))


def test_another_seed_is_another_run(plain_runs: PlainRuns) -> None:
    first, second = plain_runs("pretrain", Path("first")), run_pretraining(request(("run.seed", 1)))
    first, second = tensors_of(first), tensors_of(second)
    assert not torch.equal(first["query.backbone.conv1.weight"], second["query.backbone.conv1.weight"])


def test_the_key_encoder_follows_the_query_encoder_as_slowly_as_asked() -> None:
    found = {}
    for momentum in (0.0, 0.25, 1.0):
        tensors = tensors_of(run_pretraining(request(("pretrain.steps", 1), ("method.key_momentum", momentum))))
        found[momentum] = tensors["key.backbone.conv1.weight"]
        query = tensors["query.backbone.conv1.weight"]  # the same after the first step, whatever the key does then
    assert torch.equal(found[0.0], query)
    assert not torch.equal(found[1.0], query)
    torch.testing.assert_close(found[0.25], 0.25 * found[1.0] + 0.75 * query)


def test_pretrained_weights_arrive_in_the_segmentor(plain_runs: PlainRuns) -> None:
    pretrained = plain_runs("pretrain", Path("runs/pretrain/plain"))
    recipe, weights = finetune_recipe(request())
    assert weights == pretrained / "checkpoints" / "last.safetensors"
    tuned = run_finetuning(request(("finetune.steps", 1), ("finetune.lr", 0.0), ("finetune.min_lr", 0.0)))
    before, after = tensors_of(pretrained), tensors_of(tuned)
    assert recipe.model.width == 8
    for part in ("backbone.layer4.1.conv2.weight", "decode_head.bottleneck.conv.weight"):
        assert torch.equal(before[f"query.{part}"], after[f"network.{part}"])
    log = (tuned / "log.txt").read_text()
    assert "loaded 120 of 120 backbone tensors, 24 of 24 decode_head tensors from" in log
    assert "starts at random: decode_head.conv_seg" in log


def test_backbone_only_leaves_the_head_at_random(plain_runs: PlainRuns) -> None:
    pretrained = plain_runs("pretrain", Path("runs/pretrain/plain"))
    tuned = run_finetuning(
        request(("finetune.steps", 1), ("finetune.lr", 0.0), ("finetune.min_lr", 0.0), ("finetune.load", ["backbone"]))
    )
    before, after = tensors_of(pretrained), tensors_of(tuned)
    assert torch.equal(before["query.backbone.conv1.weight"], after["network.backbone.conv1.weight"])
    name = "decode_head.bottleneck.conv.weight"
    assert not torch.equal(before[f"query.{name}"], after[f"network.{name}"])


def test_pretraining_goes_on_from_a_plain_state_dict(tmp_path: Path, plain_runs: PlainRuns) -> None:
    first = tensors_of(plain_runs("pretrain", Path("first")))
    bare = {n.removeprefix("query.backbone."): t for n, t in first.items() if n.startswith("query.backbone.")}
    torch.save({"state_dict": {f"module.{n}": t for n, t in bare.items()}}, tmp_path / "bare.pth")
    second = run_pretraining(
        request(
            ("pretrain.steps", 1), ("pretrain.lr", 0.0), ("pretrain.weight_decay", 0.0), init=str(tmp_path / "bare.pth")
        )
    )
    assert torch.equal(tensors_of(second)["query.backbone.layer1.0.conv1.weight"], bare["layer1.0.conv1.weight"])
    assert torch.equal(tensors_of(second)["key.backbone.layer1.0.conv1.weight"], bare["layer1.0.conv1.weight"])


@pytest.mark.whole_runs
def test_a_run_folder_says_what_the_run_was() -> None:
    folder = run_pretraining(request())
    assert folder.parent == Path("runs/pretrain")
    assert folder.name.endswith("_shapes-coarse+shapes-fine")
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.yaml",
        "command.txt",
        "files.npz",
        "env.json",
        "labels.json",
        "metrics.jsonl",
        "results.csv",
        "class_shares.json",
        "view_overlaps.json",
        "report.html",
        "samples",
        "photos_seen.npz",
        "predictions",
        "status.json",
        "log.txt",
        "checkpoints",
        ".lock",
    }
    labels = json.loads((folder / "labels.json").read_text())
    assert [(space["name"], len(space["classes"]), space["images"]) for space in labels] == [
        ("shapes-coarse", 5, 400),
        ("shapes-fine", 9, 400),
    ]
    validation = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()][-1]
    assert validation["kind"] == "validate"
    assert set(validation["miou"]) == {"shapes-coarse", "shapes-fine"}
    assert {"prototype_cosine", "prototype_rank", "classes_unseen"} <= set(validation)


def test_evaluation_equals_a_plain_count_over_the_saved_predictions(plain_runs: PlainRuns) -> None:
    tuned = plain_runs("finetune", Path("tuned"))
    scores, folder = run_evaluation(request(("eval.images", 4), init=str(tuned)), "last", keep=True)
    confusion = torch.zeros(8, 8, dtype=torch.int64)
    pool = plan_finetuning(finetune_recipe(request(init="scratch"))[0]).validation
    assert pool is not None
    for index in range(4):
        _, labels = pool.read(index)
        with Image.open(folder / "predictions" / f"{index:05d}.png") as picture:
            guess = np.array(picture)
        for truth, seen in zip(labels.flatten().tolist(), guess.flatten().tolist(), strict=True):
            if truth != IGNORE:
                confusion[truth, seen] += 1
    assert scores["confusion"] == confusion.tolist()
    assert scores["miou"] == pytest.approx(mean_iou(confusion))
    assert json.loads((folder / "scores.json").read_text())["miou"] == scores["miou"]
    with Image.open(folder / "overlays" / "00000.png") as picture:
        assert picture.size == (192, 96)


def test_sliding_windows_over_the_whole_image_are_the_whole_image(plain_runs: PlainRuns) -> None:
    tuned = plain_runs("finetune", Path("tuned"))
    whole, _ = run_evaluation(request(init=str(tuned)), "last", keep=False)
    one = request(("eval.mode", "slide"), ("eval.window", [96, 96]), init=str(tuned))
    assert run_evaluation(one, "last", keep=False)[0]["confusion"] == whole["confusion"]
    several = request(("eval.mode", "slide"), ("eval.window", [64, 64]), ("eval.stride", [32, 32]), init=str(tuned))
    assert sum(map(sum, run_evaluation(several, "last", keep=False)[0]["confusion"])) == 5 * 96 * 96


def test_a_loss_that_is_not_finite_stops_before_anything_changes() -> None:
    with pytest.raises(Diverged, match=r"step \d+: the (loss is|gradient of)"):
        run_pretraining(request(("pretrain.lr", 1e6), ("pretrain.steps", 40), out=Path("run")))
    assert json.loads(Path("run/status.json").read_text())["exit_code"] == 4


def test_only_what_does_not_change_the_result_may_change_on_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        signal_after(patch, 2)
        with pytest.raises(Preempted):
            run_pretraining(request(out=Path("run")))
    with pytest.raises(RecipeError, match=r"pretrain\.lr differ from the run's"):
        run_pretraining(Request(layers=(nest("pretrain.lr", 0.5),), resume="run", quiet=True))
    run_pretraining(Request(layers=(nest("run.workers", 1),), resume="run", quiet=True))


def test_weights_of_another_shape_are_refused_with_both_shapes(plain_runs: PlainRuns) -> None:
    plain_runs("pretrain", Path("runs/pretrain/plain"))
    with pytest.raises(
        CheckpointError,
        match=r"another shape, such as backbone\.conv1\.weight: \[8, 3, 7, 7\] in the file, \[12, 3, 7, 7\]",
    ):
        run_finetuning(request(("model.width", 12)))


def test_another_backbone_is_refused(plain_runs: PlainRuns) -> None:
    plain_runs("pretrain", Path("runs/pretrain/plain"))
    with pytest.raises(CheckpointError, match=r"backbone tensors are in the file|another shape"):
        run_finetuning(request(("model.backbone", "resnet50")))


def test_the_newest_run_is_the_one_started_last(plain_runs: PlainRuns) -> None:
    assert run_folder.newest("pretrain") is None
    first, second = plain_runs("pretrain", Path("runs/pretrain/plain")), run_pretraining(request())
    assert run_folder.newest("pretrain") == second
    assert first != second
    os.utime(second / "command.txt", (0, 0))
    assert run_folder.newest("pretrain") == first


def test_batches_shrink_to_the_images_there_are_and_say_so() -> None:
    folder = run_finetuning(request(("finetune.images", 3), ("finetune.steps", 2), init="scratch"))
    assert "training on 3 of them" in (folder / "log.txt").read_text()
    plan = plan_pretraining(pretrain_recipe(request(("pretrain.batch_size", 5000))))
    assert plan.recipe.pretrain.batch_size == 800
    assert "note: 800 images are fewer than a batch of 5000; batches have 800" in plan.lines


def test_the_classifier_of_another_training_is_never_taken_over(plain_runs: PlainRuns) -> None:
    first = plain_runs("finetune", Path("first"))
    second = run_finetuning(
        request(("finetune.steps", 1), ("finetune.lr", 0.0), ("finetune.min_lr", 0.0), init=str(first))
    )
    before, after = tensors_of(first), tensors_of(second)
    assert torch.equal(before["network.backbone.conv1.weight"], after["network.backbone.conv1.weight"])
    assert not torch.equal(before["network.decode_head.conv_seg.weight"], after["network.decode_head.conv_seg.weight"])
    log = (second / "log.txt").read_text()
    assert "starts at random: decode_head.conv_seg; in the file, not used: decode_head.conv_seg" in log


def test_labels_that_are_all_ignored_are_an_error_and_no_run_that_is_done() -> None:
    for split in ("train", "val"):
        for index in range(2):
            photo(Path(f"site/images/{split}/{index}.jpg"), index)
            grey(Path(f"site/labels/{split}/{index}.png"), np.full((64, 96), 255, np.uint8))
    yaml = own_yaml(
        Path("site"),
        """
        splits:
          train: {images: images/train, labels: labels/train}
          val: {images: images/val, labels: labels/val}
        classes: {0: sky, 1: road}
        """,
    )
    changes = (("finetune.target", str(yaml)), ("run.check", False), ("finetune.batch_size", 2))
    with pytest.raises(DatasetError, match="the loss was 0 in the first 3 steps: no pixel has a label that counts"):
        run_finetuning(request(*changes, ("finetune.steps", 3), out=Path("run"), init="scratch"))
    assert json.loads(Path("run/status.json").read_text())["exit_code"] == DatasetError.exit_code
