"""Apple's device: where it is there, runs end on it; where it is not, and for what it does not do, a line says so."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mdp.core.float64 import device_of_float64, in_float64
from mdp.io.errors import RecipeError, ResourceError
from mdp.io.evaluation.job import run_evaluation
from mdp.io.processes.device import pick_device, set_up
from mdp.io.processes.world import ALONE
from mdp.io.recipe.layers import resolve
from mdp.io.training.job import run_finetuning, run_pretraining
from tests.small_runs import losses, request

pytestmark = pytest.mark.usefixtures("bare_runs")


def test_float64_is_where_the_device_has_it() -> None:
    assert device_of_float64("mps") == device_of_float64("cpu") == torch.device("cpu")
    assert device_of_float64("cuda:1") == torch.device("cuda:1")
    assert in_float64(torch.tensor([1, 2])).dtype == torch.float64


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="the device is there")
def test_a_machine_without_it_says_so() -> None:
    with pytest.raises(ResourceError, match="--device mps: this machine has no device of Apple's"):
        pick_device("mps")
    with pytest.raises(ResourceError, match="--device xpu: expected auto, cpu, cuda, cuda:N or mps"):
        pick_device("xpu")


@pytest.mark.parametrize(
    ("run", "words"),
    [({"precision": "bf16"}, "no precision bf16 or fp16 there"),
     ({"precision": "fp16", "compile": True}, "no precision bf16 or fp16 and no compile there")],
    ids=str,
)  # fmt: skip
def test_what_it_does_not_do_is_refused_in_a_line(
    run: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(RecipeError, match=f"--device mps: there is {words}"):
        set_up(resolve({"run": {"device": "mps", **run}}), ALONE)
    assert set_up(resolve({"run": {"device": "mps"}}), ALONE).type == "mps"


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="there is no device of Apple's")
@pytest.mark.usefixtures("in_an_empty_folder")
def test_runs_on_it_end_near_those_of_the_cpu() -> None:
    found = {}
    for device in ("cpu", "mps"):
        asked = [("run.device", device), ("pretrain.steps", 3), ("finetune.steps", 3)]
        before = run_pretraining(request(*asked, out=Path(f"{device}-pretrain")))
        tuned = run_finetuning(request(*asked, init=str(before), out=Path(f"{device}-finetune")))
        scores, _ = run_evaluation(request(*asked, init=str(tuned)), "last", keep=False)
        assert math.isfinite(scores["aacc"])
        found[device] = [loss for _, loss in (*losses(before), *losses(tuned))]
    assert found["mps"] == pytest.approx(found["cpu"], rel=0.05)
