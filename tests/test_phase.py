"""A kind of run that mdp does not have, made here in one piece: it is trained, stopped and resumed like the others."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mdp.core.batches import Batch
from mdp.core.methods import Loss
from mdp.core.networks.pair import EncoderPair
from mdp.core.processes import Processes
from mdp.io.data.crops import Crops, FinetuneItems, crop_batch, stack_crops
from mdp.io.data.order import stream_batches
from mdp.io.data.pool import Key
from mdp.io.data.selection import Plan, plan_finetuning
from mdp.io.errors import CheckpointError, Preempted
from mdp.io.processes.signals import Stop
from mdp.io.recipe.settings import OptimizationSettings
from mdp.io.run.checkpoint import load
from mdp.io.run.opened import OpenedRun
from mdp.io.run.restore import prefixed, restore_, section
from mdp.io.training.context import RunContext
from mdp.io.training.finetuning import finetune_recipe
from mdp.io.training.job import run_phase
from mdp.io.training.loop import Schedule
from mdp.io.training.optimizers import build_optimizer
from mdp.io.training.phase import Beginning, Phase, Prepared
from mdp.io.training.run import TrainingRun
from mdp.io.training.update import new_trainee, unharmed, update_
from tests.small_runs import assert_same, losses, request, signal_after, tensors_of

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")

SCHEDULE = Schedule(steps=5, batch=4, validate_every=0, checkpoint_seconds=1e9)


class Fading(TrainingRun):
    """A linear map of pixels that learns to give nothing."""

    kind = "fading"
    stack = staticmethod(stack_crops)

    def __init__(self, plan: Plan, context: RunContext, resumed: OpenedRun | None) -> None:
        super().__init__(plan, SCHEDULE, context)
        self.items = FinetuneItems(plan.pool, plan.recipe.finetune, plan.recipe.run.seed, finish=context.finish)
        self.network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 1, bias=False))
        nn.init.constant_(self.network[1].weight, 0.5)
        make = partial(build_optimizer, settings=OptimizationSettings(lr=0.1, weight_decay=0.0))
        pair = EncoderPair(self.network, self.network)
        self.trainee, _ = new_trainee(pair, make, plan.recipe.run, context.device, context.world, sync=False)
        if resumed:
            restore_(self.network, section(resumed.tensors, "network"), "map")
            self.restore_training_(resumed)

    def tensors(self) -> dict[str, Tensor]:
        return prefixed("network", self.network.state_dict())

    def keys(self, start: int, steps: int) -> Iterator[list[Key]]:
        return stream_batches(self.recipe.run.seed, len(self.pool.samples), self.schedule.batch, start, steps)

    def advance(self, items: Crops, step: int) -> dict[str, float]:
        batch = crop_batch(items, self.context.device)
        parts = self.losses(batch, step, self._loss)
        with self.pictured([batch], step), unharmed(self.trainee, [batch]):
            values = update_(self.trainee, parts, 0.1, f"step {step + 1}").values
        return {**values, "lr": 0.1}

    def _loss(self, part: Batch, processes: Processes) -> Loss:
        return Loss(self.network(part.images).square().mean(), {})

    def validate(self, step: int, stop: Stop) -> float | None:
        self.context.journal.record("validate", step, size=float(self.network[1].weight.detach().norm()))
        return -math.inf


def prepare(beginning: Beginning) -> Prepared:
    line = f"fading on {beginning.where(SCHEDULE.batch)}"
    return Prepared([line], lambda context: Fading(beginning.plan, context, beginning.resumed))


FADING = Phase(
    kind="fading",
    least=1,
    recipe=lambda request: (finetune_recipe(request)[0], None),
    plan=plan_finetuning,
    schedule=lambda plan: SCHEDULE,
    columns=lambda datasets: ("step", "loss", "size"),
    prepare=prepare,
    describe=lambda request: {"steps": SCHEDULE.steps},
    sections=("run", "data"),
)


def test_a_new_kind_of_run_needs_no_other_file(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_phase(FADING, request(init="scratch"))
    assert whole.parent == Path("runs/fading")
    with monkeypatch.context() as patch:
        signal_after(patch, 2)
        with pytest.raises(Preempted, match="go on with: mdp fading --resume stopped"):
            run_phase(FADING, request(init="scratch", out=Path("stopped")))
    with pytest.raises(CheckpointError, match="a fading run; resume it with `mdp fading`"):
        run_phase(FADING._replace(kind="pretrain"), request(resume="stopped"))
    resumed = run_phase(FADING, request(resume="stopped"))
    assert_same(tensors_of(resumed), tensors_of(whole))
    steps = losses(whole)
    assert [step for step, _ in steps] == [1, 2, 3, 4, 5]
    assert losses(resumed) == steps
    assert steps[-1][1] < steps[0][1] / 2
    assert load(whole / "checkpoints" / "last.safetensors").about["kind"] == "fading"
    assert (whole / "results.csv").read_text().startswith("step,loss,size\n5,")
    assert (whole / "samples" / "first.png").exists()
    assert "fading on cpu" in (whole / "log.txt").read_text()
    assert torch.equal(tensors_of(whole)["momentum.1.weight"], tensors_of(resumed)["momentum.1.weight"])
