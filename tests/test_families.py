"""Families of backbones out of timm, end to end: pretrained, fine-tuned from that run, and scored."""

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from mdp.cli import cli
from mdp.io.recipe.layers import Layer, merge
from mdp.io.recipe.request import Request
from mdp.io.training.job import run_finetuning, run_pretraining
from tests.peers import library_or_skip
from tests.small_runs import TINY, losses

FAMILIES = ("test_vit", "test_convnext", "test_efficientnet")
SMALL: Layer = {
    "run": {"check": False, "workers": 0, "threads": 1},
    "pretrain": {"steps": 1, "crop": 64, "batch_size": 2, "validate_images": 1},
    "finetune": {"steps": 1, "crop": [64, 64], "batch_size": 2, "validate_steps": 0},
    "eval": {"images": 1, "boundary": False},
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")
def test_a_backbone_goes_from_pretraining_through_fine_tuning_to_a_score(name: str) -> None:
    library_or_skip("timm")
    model: Layer = {"model": {"backbone": f"timm:{name}", "channels": 8, "dilations": [1, 2]}}
    tiny = {key: section for key, section in TINY.items() if key != "model"}
    pretrained = run_pretraining(Request(layers=(merge(tiny, SMALL, model),), quiet=True, out=Path("pre")))
    # nothing says the backbone here: it is the run's
    tuned = run_finetuning(Request(layers=(merge(tiny, SMALL),), quiet=True, out=Path("tuned"), init=str(pretrained)))
    log = (tuned / "log.txt").read_text()
    assert f"{name}" in (tuned / "config.yaml").read_text()
    assert "backbone" in log
    assert all(math.isfinite(loss) for run in (pretrained, tuned) for _, loss in losses(run))
    done = CliRunner().invoke(cli, ["eval", str(tuned), "--json"], catch_exceptions=False)
    assert 0 <= json.loads(done.stdout)["miou"] <= 1
