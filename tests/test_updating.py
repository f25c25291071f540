"""An update, a loop, a score and a fine-tuning step of several processes, played by threads; and what ends them."""

import json
import math
import os
import re
import signal
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from mdp.core.geometry import Grid
from mdp.core.methods import Loss
from mdp.core.networks.pair import EncoderPair
from mdp.core.processes import even_parts
from mdp.io.data.crops import CropItem, FinetuneItems, stack_crops
from mdp.io.data.loader import own_parts
from mdp.io.data.pool import Pool
from mdp.io.data.selection import Plan, pool_of
from mdp.io.datasets import load
from mdp.io.datasets._dataset import open_split
from mdp.io.errors import Diverged, Preempted, ProcessError
from mdp.io.journal.journal import Journal
from mdp.io.processes.peers import reason
from mdp.io.processes.signals import Stop, stop_on_signals
from mdp.io.processes.world import ALONE, World
from mdp.io.recipe.layers import merge, nest, resolve
from mdp.io.recipe.settings import OptimizationSettings, PretrainSettings, RunSettings
from mdp.io.run.opened import new_segmentor
from mdp.io.run.record import Position
from mdp.io.training.context import RunContext
from mdp.io.training.finetuning import Finetuning
from mdp.io.training.job import _ended
from mdp.io.training.loop import Schedule, loop
from mdp.io.training.optimizers import build_optimizer
from mdp.io.training.update import Trainee, new_trainee, part_key, seed_dropout, update_
from mdp.io.training.validation import Looker, probe
from tests.small_runs import TINY
from tests.tensors import rng_of
from tests.together import worlds

CPU = torch.device("cpu")
ROWS = torch.randn(6, 3, generator=rng_of(0))


def learner(world: World, **settings: Any) -> Trainee:
    """A small network with running statistics, the same in every world."""
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=rng_of(number)))
    run = RunSettings(**{"gradients": "flat", **settings})
    make = partial(build_optimizer, settings=OptimizationSettings(lr=0.1, weight_decay=0.01))
    return new_trainee(EncoderPair(network, network), make, run, CPU, world, sync=False)[0]


def own_rows(world: World) -> Tensor:
    return torch.split(ROWS, even_parts(len(ROWS), world.size))[world.rank]


def update(trainee: Trainee, parts: int = 1) -> dict[str, float]:
    """One step down the mean square over all rows, this process's taken in so many parts."""

    def loss(rows: Tensor) -> Loss:
        value = trainee.network(rows).square().sum() / len(ROWS)
        return Loss(value, {"twice": 2 * value.detach()})

    rows = own_rows(trainee.world)
    return update_(
        trainee, [partial(loss, part) for part in torch.split(rows, len(rows) // parts)], 0.1, "step 1"
    ).values


@pytest.mark.parametrize(("size", "parts"), [(1, 2), (1, 3), (2, 1), (3, 2)])
def test_parts_and_processes_change_the_weights_as_the_whole_batch_does(size: int, parts: int) -> None:
    """With fixed statistics."""

    def work(world: World) -> tuple[dict[str, float], list[Tensor]]:
        trainee = learner(world)
        trainee.network.eval()
        values = update(trainee, parts)
        return values, [parameter.detach() for parameter in trainee.network.parameters()]

    whole = learner(ALONE)
    whole.network.eval()
    expected = update(whole)
    for values, weights in worlds(size, work):
        assert values == pytest.approx(expected)
        torch.testing.assert_close(weights, list(whole.network.parameters()), check_stride=False)


def test_what_the_losses_of_the_parts_keep_comes_back_side_by_side() -> None:
    trainee = learner(ALONE)
    trainee.network.eval()

    def loss(rows: Tensor) -> Loss:
        found = trainee.network(rows)
        return Loss(found.square().sum(), {}, kept=(rows, found.detach()[:, 0]))

    rows, found = update_(trainee, [partial(loss, part) for part in ROWS.split([3, 2, 1])], 0.1, "step 1").kept
    assert torch.equal(rows, ROWS)
    assert found.shape == (6,)
    assert not found.requires_grad


def test_running_statistics_are_the_mean_over_processes() -> None:
    def work(world: World) -> Tensor:
        trainee = learner(world)
        update(trainee)
        return trainee.network[1].running_mean

    own = []
    for rank in range(3):
        trainee = learner(ALONE)
        trainee.network(own_rows(World(rank, 3)))
        own.append(trainee.network[1].running_mean)
    assert not torch.allclose(own[0], own[1])
    for mean in worlds(3, work):
        torch.testing.assert_close(mean, torch.stack(own).mean(0))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_gradient_that_is_clipped_is_the_one_without_the_scale(precision: str) -> None:
    trainee, free = learner(ALONE, precision=precision, clip_norm=0.01), learner(ALONE, precision=precision)
    for each in (trainee, free):
        if precision == "fp16":
            each.scaler.load_state_dict({**each.scaler.state_dict(), "scale": 2.0**6})  # that does not overflow
        update(each)
    lengths = [
        float(torch.stack([p.grad.norm() for p in each.network.parameters() if p.grad is not None]).norm())
        for each in (trainee, free)
    ]
    assert lengths[0] == pytest.approx(0.01, rel=1e-4)
    assert 0.1 < lengths[1] < 1000, lengths
    cosine = sum(
        float((p.grad * q.grad).sum())  # type: ignore[operator]
        for p, q in zip(trainee.network.parameters(), free.network.parameters(), strict=True)
    )
    assert cosine == pytest.approx(lengths[0] * lengths[1], rel=1e-3)  # shorter, in the same direction


def test_dropout_differs_between_parts_and_processes_and_is_that_of_one_in_the_first() -> None:
    draws = {}
    for rank in range(3):
        for part in range(3):
            seed_dropout(0, 7, *part_key(World(rank, 3), part))
            draws[rank, part] = torch.rand(()).item()
    assert len(set(draws.values())) == 9
    seed_dropout(0, 7)
    assert torch.rand(()).item() == draws[0, 0]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_the_parts_of_all_processes_make_up_each_batch(size: int) -> None:
    batches = [[(0, index) for index in range(start, start + 7)] for start in (0, 7)]
    owns = [own_parts(iter(batches), World(rank, size).share(7).own) for rank in range(size)]
    assert [list(chain(*parts)) for parts in zip(*owns, strict=True)] == batches


# The loop


class Steps:
    """A run that does nothing, in which the process of that rank is asked to stop in its third step."""

    advice = ""

    def __init__(self, rank: int, stop: Stop, asked: int, schedule: Schedule) -> None:
        self.schedule = schedule
        self.stop, self.asked = stop if rank == asked else None, asked
        self.done: list[str] = []

    def advance(self, items: list[Any], step: int) -> dict[str, float]:
        self.done.append("step")
        if self.stop is not None and step == 2:
            self.stop.name = "SIGTERM"
        return {"loss": 1.0, "lr": 0.0}

    def validate(self, step: int, stop: Stop) -> float | None:
        return 0.0

    def checkpoint(self, name: str, position: Position) -> None:
        self.done.append(f"{name} {position.step}")

    def samples(self, step: int) -> list[str]:
        return []


def nothing() -> Iterator[list[Any]]:
    while True:
        yield []


@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_to_one_process_stops_all_after_the_same_step(asked: int, tmp_path: Path) -> None:
    def work(world: World) -> tuple[list[str], str]:
        stop = Stop()
        run = Steps(world.rank, stop, asked, Schedule(20, 8, 0, 1e9))
        journal = Journal(tmp_path, 20, 10.0, quiet=True, main=world.main)
        context = RunContext(folder=tmp_path, journal=journal, device=CPU, world=world)
        with pytest.raises(Preempted, match="after step 3 of 20") as error:
            loop(run, nothing(), Position(), context, stop)
        return run.done, str(error.value)

    (done, words), (others, _) = worlds(2, work)
    assert done == others == ["last 0", "step", "step", "step", "last 3"]
    assert words.startswith("stopped by SIGTERM" if asked == 0 else "stopped by a signal to another process")
    steps = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(record["images_per_second"] > 0 for record in steps)  # of the whole batch: this part has none


def test_the_best_checkpoint_is_of_the_highest_score_and_never_of_one_that_is_not_a_number(tmp_path: Path) -> None:
    scores = {2: 0.1, 4: 0.3, 6: 0.2, 8: 0.3, 10: math.nan, 12: 0.1}
    run = Steps(0, Stop(), asked=1, schedule=Schedule(12, 8, 2, 1e9))
    run.validate = lambda step, stop: scores[step]  # type: ignore[method-assign]
    journal = Journal(tmp_path, 12, 10.0, quiet=True)
    loop(run, nothing(), Position(), RunContext(folder=tmp_path, journal=journal, device=CPU, world=ALONE), Stop())
    assert [entry for entry in run.done if entry.startswith("best")] == ["best 2", "best 4", "best 8"]


def test_the_first_signal_is_the_one_that_is_told() -> None:
    with stop_on_signals() as stop:
        stop.patient = True
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.name == "SIGUSR1"


# Scores and fine-tuning


def shapes(name: str, split: str, count: int) -> Pool:
    dataset = load(name)
    return pool_of([(dataset, open_split(dataset, Path(), split)[0][:count])])


def test_the_score_while_pretraining_is_over_the_images_of_all_processes() -> None:
    pool = shapes("shapes-coarse", "val", 7)
    settings = PretrainSettings(crop=32, validate_images=7)

    def classify(images: Tensor) -> Tensor:
        return torch.stack([images[:, 0] * k % 1 for k in range(1, 6)], 1)[:, :, ::8, ::8]

    def work(world: World) -> dict[str, float]:
        return probe(nn.Identity(), Looker(classify, pool, settings, Grid(8), CPU), None, Stop(), world).iou

    expected = work(ALONE)
    assert 0 < expected["shapes-coarse"] < 1
    assert worlds(3, work) == [expected] * 3


@pytest.mark.parametrize("ignored", [True, False], ids=["valid pixels", "all pixels"])
def test_fine_tuning_divides_its_loss_by_the_pixels_of_all_processes(ignored: bool, tmp_path: Path) -> None:
    pool = shapes("shapes-target", "train", 9)
    layer = merge(TINY, nest("finetune.avg_non_ignore", ignored), nest("finetune.batch_size", 5))
    recipe = resolve(
        layer, nest("finetune.crop", [48, 48]), nest("finetune.ratio", [0.2, 0.6])
    )  # some crops are padded
    items = FinetuneItems(pool, recipe.finetune, seed=0)

    def work(world: World) -> tuple[float, Tensor]:
        network = new_segmentor(recipe, pool.union.size)
        context = RunContext(folder=tmp_path, journal=Journal(tmp_path, 1, 1.0, main=False), device=CPU, world=world)
        run = Finetuning(Plan(recipe=recipe, pool=pool, validation=None), network, context, None)
        network.eval()
        own = [item for key in next(run.keys(0, 1)) if isinstance(item := items[key], CropItem)][run.processes.own]
        return run.advance(stack_crops(own), 0)["loss"], network.decode_head.conv_seg.weight.detach()

    loss, weight = work(ALONE)
    for found, other in worlds(2, work):
        assert found == pytest.approx(loss, rel=1e-5)
        torch.testing.assert_close(other, weight)


# Other processes


def test_samples_that_were_left_out_are_counted_over_all_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(world: World) -> None:
        journal = Journal(tmp_path, 1, 1.0, main=world.main)
        _ended(RunContext(folder=tmp_path, journal=journal, device=CPU, world=world, skipped=world.rank + 1))

    worlds(3, work)
    assert capsys.readouterr().err.startswith("6 samples could not be read")


def test_processes_that_say_different_things_all_hear_what_differs() -> None:
    def work(world: World) -> str:
        world.require_equal(settings="equal", files="equal")
        with pytest.raises(ProcessError) as error:
            world.require_equal(settings="equal", files=f"of {world.rank}" if world.rank == 2 else "equal")
        return str(error.value)

    assert all("files is not the same on all processes" in words for words in worlds(3, work))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("[gloo/pair.cc:537] Read error [::1]:1: Connection reset by peer. GLHF"), "process has failed$"),
        (RuntimeError("[gloo/pair.cc:547] Connection closed by peer [127.0.0.1]:2"), "process has failed$"),
        (
            RuntimeError("[gloo/buffer.cc:81] Timed out waiting 600000ms for recv"),
            "not answered for 10 minutes",
        ),
        (RuntimeError("[gloo/pair.cc:446] op.preamble.length <= op.nbytes. 8 vs 4"), "failed: .* 8 vs 4"),
        (dist.DistBackendError("NCCL error"), "failed: NCCL error"),
    ],
)
def test_what_is_lost_with_another_process_is_told_in_one_line(error: RuntimeError, words: str) -> None:
    assert re.search(words, f"another process {reason(error, 600)}")


def test_an_error_of_ones_own_is_not_blamed_on_others() -> None:
    assert reason(RuntimeError("shapes differ"), 600) is None
    with pytest.raises(RuntimeError, match="shapes differ"), World(0, 2).answered():
        raise RuntimeError("shapes differ")


def test_a_loss_that_is_not_finite_on_one_process_stops_all_before_weights_change() -> None:
    def work(world: World) -> bool:
        trainee = learner(world)
        before = [parameter.detach().clone() for parameter in trainee.network.parameters()]
        bad = math.nan if world.rank == 1 else 1.0
        with pytest.raises(Diverged, match="the loss is nan"):
            update_(trainee, [lambda: Loss(bad * trainee.network(own_rows(world)).sum(), {})], 0.1, "step 1")
        return all(map(torch.equal, before, trainee.network.parameters()))

    assert worlds(3, work) == [True] * 3
