"""The average of weights, and parts that are not trained: as functions, in checkpoints, and asked for by commands."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mdp.core.networks.exponential_moving_average import average_, ema_decay, new_average
from mdp.core.networks.freezing import evaluating, freeze_, frozen_names
from mdp.core.networks.resnet import ResNet
from mdp.io.errors import CheckpointError, Preempted, RecipeError
from mdp.io.evaluation.job import refuse_early, run_evaluation
from mdp.io.files.images import write_rgb
from mdp.io.inference.asked import Wanted
from mdp.io.inference.job import run_predictions
from mdp.io.inference.photos import INDEX
from mdp.io.processes.world import ALONE, World
from mdp.io.recipe.layers import merge
from mdp.io.recipe.settings import OptimizationSettings
from mdp.io.run.checkpoint import load, save
from mdp.io.run.opened import open_run, trained_network
from mdp.io.training.job import run_finetuning
from mdp.io.training.optimizers import parameter_groups
from tests.laws import pure_call
from tests.peers import library_or_skip
from tests.small_runs import TINY, assert_resumes_exactly, assert_same, request, signal_after, tensors_of
from tests.tensors import rng_of
from tests.test_updating import learner, update
from tests.together import worlds

pytestmark = pytest.mark.usefixtures("bare_runs")

ASKED = [("finetune.ema", 0.9), ("finetune.freeze", ["backbone.layer1", "backbone.bn1"]), ("eval.images", 5)]


class Small(nn.Module):
    """A network as all are: a backbone, and a head after it."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet("resnet18", 8, 16)
        self.head = nn.Conv2d(64, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(images))
        return logits


IMAGES = torch.randn(2, 3, 32, 32, generator=rng_of(0))


def step(network: nn.Module, rate: float = 0.01) -> None:
    """One step of gradient descent on made images, statistics included."""
    network(IMAGES).square().mean().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=rate)
                parameter.grad = None


# The average


@given(st.integers(1, 10**6), st.floats(0, 0.999999))
def test_the_decay_rises_to_what_is_asked_for_and_takes_the_first_weights_whole(update: int, decay: float) -> None:
    assert pure_call(ema_decay, 0, decay, True) == ema_decay(0, decay, False) == 0
    assert ema_decay(update - 1, decay, True) <= ema_decay(update, decay, True) <= decay
    assert ema_decay(update, decay, False) == decay
    assert ema_decay(10**12, decay, True) == decay


def test_the_average_of_three_numbers_by_hand() -> None:
    network = nn.Linear(1, 1, bias=False)
    average = new_average(network)
    for number, value in enumerate([4.0, 2.0, 8.0]):
        nn.init.constant_(network.weight, value)
        average_(average, network, ema_decay(number, 0.75, False))
    assert average.weight.item() == 0.75 * (0.75 * 4 + 0.25 * 2) + 0.25 * 8


def test_the_average_has_the_bits_of_torchs_and_whole_numbers_are_copied() -> None:
    network = Small()
    ours = new_average(network)
    theirs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for number in range(4):
        step(network)
        average_(ours, network, ema_decay(number, 0.9, False))
        theirs.update_parameters(network)
    expected = theirs.module.state_dict()
    counters = {name for name in expected if name.endswith("num_batches_tracked")}  # torch averages and cuts them
    assert_same(*({n: t for n, t in tensors.items() if n not in counters} for tensors in (ours.state_dict(), expected)))
    assert {ours.state_dict()[name].item() for name in counters} == {4}
    assert not any(parameter.requires_grad for parameter in ours.parameters())


def test_the_warm_up_is_that_of_timm() -> None:
    timm = library_or_skip("timm")
    theirs = timm.utils.ModelEmaV3(nn.Linear(1, 1), decay=0.99, use_warmup=True)
    numbers = [0, 1, 2, 10, 100, 900, 1100]
    assert [ema_decay(number, 0.99, True) for number in numbers] == [theirs.get_decay(number + 1) for number in numbers]


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuning run with an average of its weights and frozen parts."""
    return run_finetuning(request(*ASKED, init="scratch", out=tmp_path_factory.mktemp("averaged") / "run"))


@pytest.mark.usefixtures("in_an_empty_folder")
def test_a_stopped_fine_tuning_with_an_average_and_frozen_parts_ends_in_the_same_bits(
    averaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        signal_after(patch, 3)
        with pytest.raises(Preempted):
            run_finetuning(request(*ASKED, init="scratch", out=Path("stopped")))
    run_finetuning(request(resume="stopped"))
    assert_same(tensors_of(averaged), tensors_of(Path("stopped")))


@pytest.mark.usefixtures("in_an_empty_folder")
def test_pretraining_with_an_average_resumes_exactly_and_fine_tuning_starts_from_it_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer = merge(TINY, {"pretrain": {"ema": 0.5, "freeze": ["backbone.layer1"]}})
    run = assert_resumes_exactly(monkeypatch, layer)
    tensors = tensors_of(run)
    own = {name.removeprefix("query."): tensor for name, tensor in tensors.items() if name.startswith("query.")}
    average = {name.removeprefix("ema."): tensor for name, tensor in tensors.items() if name.startswith("ema.")}
    assert own.keys() == average.keys()
    assert not torch.equal(own["backbone.conv1.weight"], average["backbone.conv1.weight"])
    still = [name for name in own if name.startswith("backbone.layer1.")]
    assert_same(*({name: some[name] for name in still} for some in (own, average)))
    key = {f"key.{name}": own[name] for name in still}  # statistics too: it is in evaluation mode there as well
    assert_same(key, {name: tensors[name] for name in key})
    tuned = run_finetuning(request(("finetune.steps", 1), ("finetune.lr", 0.0), init=str(run), out=Path("tuned")))
    assert "last.safetensors (EMA weights); " in (tuned / "log.txt").read_text()
    begun = tensors_of(tuned)
    assert torch.equal(begun["network.backbone.conv1.weight"], average["backbone.conv1.weight"])


def test_validations_score_the_average_and_commands_say_whose_scores_theirs_are(
    averaged: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = (averaged / "log.txt").read_text()
    assert "EMA of the weights: decay 0.9, reached in a warm-up; it is what validations score" in log
    assert log.count("(EMA weights)") == 2
    scores = {}
    for asked in (None, "ema", "raw"):
        told = request(init=str(averaged), quiet=False, out=tmp_path / "scores")
        scores[asked], _ = run_evaluation(told, "last", keep=False, weights=asked)
    assert [found["weights"] for found in scores.values()] == ["ema", "ema", "raw"]
    assert scores[None]["confusion"] == scores["ema"]["confusion"] != scores["raw"]["confusion"]
    recorded = [json.loads(line) for line in (averaged / "metrics.jsonl").read_text().splitlines()]
    assert recorded[-1]["miou"] == scores["ema"]["miou"]
    told = capsys.readouterr().err
    assert told.count("last.safetensors (step 6, EMA weights)") == 2
    assert told.count("last.safetensors (step 6, raw weights, not their EMA)") == 1


def test_photos_are_predicted_by_the_weights_that_are_asked_for(averaged: Path, tmp_path: Path) -> None:
    write_rgb(tmp_path / "photo.png", torch.randint(0, 255, (32, 40, 3), generator=rng_of(1)).byte().numpy())
    for weights in ("ema", "raw"):
        wanted = Wanted(photos=(str(tmp_path / "photo.png"),), weights=weights, existing="skip")
        run_predictions(request(init=str(averaged), out=tmp_path / weights), wanted)
        assert json.loads((tmp_path / weights / INDEX).read_text())["weights"] == weights
    with pytest.raises(RecipeError, match="weights"):  # files that the other weights made are no files to go on with
        run_predictions(request(init=str(averaged), out=tmp_path / "ema"), wanted)


def test_the_average_of_a_run_without_one_is_refused(averaged: Path, tmp_path: Path) -> None:
    tensors, about = load(averaged / "checkpoints" / "last.safetensors")
    plain = tmp_path / "plain.safetensors"
    save(plain, {name: tensor for name, tensor in tensors.items() if not name.startswith("ema.")}, about)
    for refused in (lambda: refuse_early(request(init=str(plain)), "last", "ema"),
                    lambda: run_evaluation(request(init=str(plain)), "last", keep=False, weights="ema")):  # fmt: skip
        with pytest.raises(CheckpointError, match="trained without an average of its weights"):
            refused()
    opened = open_run(plain)
    assert_same(*(dict(trained_network(opened, weights).state_dict()) for weights in (None, "raw")))


# Frozen parts


def test_names_take_modules_with_all_in_them_and_patterns_are_those_of_a_shell() -> None:
    network = Small()
    assert frozen_names(network, ["head"]) == ["head.weight", "head.bias"]
    assert frozen_names(network, ["backbone.bn1", "head.bias"]) == [
        "backbone.bn1.weight",
        "backbone.bn1.bias",
        "head.bias",
    ]
    stages = frozen_names(network, ["backbone.layer[12]"])
    assert {name.split(".")[1] for name in stages} == {"layer1", "layer2"}
    assert len(frozen_names(network, ["backbone.*.bn?"])) == 2 * 16
    assert len(frozen_names(network, ["backbone"])) == len(list(network.backbone.parameters()))


def test_a_pattern_that_names_nothing_is_refused_with_what_is_near() -> None:
    with pytest.raises(ValueError, match=r"'backbone.layr1' names no part of the network; near it: backbone.layer1, "):
        frozen_names(Small(), ["head", "backbone.layr1"])
    with pytest.raises(ValueError, match=r"'zzz' names no part of the network; near it: backbone, head"):
        frozen_names(Small(), ["zzz"])
    with pytest.raises(ValueError, match=r"freeze: backbone, head leaves nothing to train"):
        frozen_names(Small(), ["backbone", "head"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            [("finetune.freeze", ["backbon"])],
            "finetune.freeze: 'backbon' names no part of the network; near it: backbone",
        ),
        ([("finetune.freeze", ["*"])], r"finetune.freeze: \* leaves nothing to train"),
        ([("finetune.ema", 1.0)], r"finetune.ema: expected a number in \[0, 0.999999\]"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("in_an_empty_folder")
def test_what_cannot_be_is_refused_before_there_is_a_run_folder(changes: list[tuple[str, Any]], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        run_finetuning(request(*changes, init="scratch", out=Path("run")))
    assert not Path("run").exists()


def test_frozen_parts_keep_weights_and_statistics_and_are_in_no_group_of_an_optimizer() -> None:
    network = Small().train()
    freeze_(network, ["backbone.layer1", "backbone.bn1"])
    frozen = [name for name in network.state_dict() if name.startswith(("backbone.layer1.", "backbone.bn1."))]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    step(network)
    with evaluating(network):
        network(IMAGES)
    step(network)
    after = network.state_dict()
    assert {name for name in after if torch.equal(after[name], before[name])} == {*frozen}
    grouped = {id(p) for group in parameter_groups(network, OptimizationSettings(), True) for p in group["params"]}
    assert grouped == {id(p) for name, p in network.named_parameters() if name not in frozen}


def test_processes_sum_the_gradients_that_there_are_and_leave_frozen_statistics_to_the_bit() -> None:
    odd = torch.tensor([0.1, 0.7, 1.3, 0.3])  # three times which, and a third of that, is something else

    def work(world: World) -> tuple[Tensor, Tensor, Tensor]:
        trainee = learner(world)
        trainee.network[1].running_mean.copy_(odd)
        freeze_(trainee.network, ["1"])
        update(trainee)
        return trainee.network[1].running_mean, trainee.network[1].weight.detach(), trainee.network[2].weight.detach()

    alone = work(ALONE)
    for mean, weight, last in worlds(3, work):
        assert torch.equal(mean, odd)
        assert torch.equal(weight, alone[1])
        torch.testing.assert_close(last, alone[2])
