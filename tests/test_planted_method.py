"""A method of the tests' own (`planted`), which uses every seam of the Protocol: as whole runs, and split."""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from mdp.core.methods import Method
from mdp.io.data.selection import Plan, pool_of
from mdp.io.data.views import stack_views
from mdp.io.datasets import load
from mdp.io.datasets._dataset import open_split
from mdp.io.errors import Diverged, RecipeError
from mdp.io.processes.world import ALONE, World
from mdp.io.recipe import layers, methods
from mdp.io.recipe.layers import Layer, merge, resolve
from mdp.io.recipe.request import Request
from mdp.io.training.job import run_pretraining
from mdp.io.training.pretraining import Pretraining, describe_pretraining
from tests import planted
from tests.small_runs import assert_resumes_exactly, tensors_of
from tests.together import worlds
from tests.whole_steps import nowhere

METHOD: Method = planted
LAYER: Layer = {
    "run": {"workers": 0, "threads": 1, "check": False},
    "method": {"name": "planted"},
    "pretrain": {"datasets": ["shapes-coarse", "shapes-fine"], "validate_epochs": 0, "validate_images": 2},
}


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mdp.core.methods.planted", planted)
    for module in (methods, layers):
        monkeypatch.setattr(module, "method_names", lambda: ["planted"])


@pytest.mark.usefixtures("in_an_empty_folder")
def test_a_new_method_is_trained_stopped_and_resumed_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    run = assert_resumes_exactly(monkeypatch, LAYER)  # after three steps: the queue counts from the fifth on
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if record["kind"] == "train"]
    assert [step["queue_rows"] for step in steps] == [0, 0, 0, 0, 10, 10, 10]  # of 24 rows that were kept
    assert [step["of_steps"] for step in steps] == [7] * 7  # the preset's steps, not its epochs
    assert all(step["share"] == pytest.approx(1) for step in steps)
    assert all(0 < step["matched"] <= 6 for step in steps)
    assert 0 < sum(step["missed_views"] for step in steps) < 7 * 6 * 3
    tensors = tensors_of(run)
    torch.testing.assert_close(tensors["query.prototypes.weight"].norm(dim=1), torch.ones(9))
    torch.testing.assert_close(tensors["state.queue"].norm(dim=1), torch.ones(10))
    assert int(tensors["state.filled"]) == 7 * 6
    assert not torch.equal(tensors["query.backbone.weight"], tensors["key.backbone.weight"])
    assert yaml.safe_load((run / "config.yaml").read_text())["pretrain"]["batch_size"] == 6
    with Image.open(run / "samples" / "first.png") as sheet:
        assert sheet.width > 5 * 230  # five views, no labels
    plan = describe_pretraining(Request(layers=(LAYER,)))
    assert plan["views"] == ["2 of 24 x 24", "1 of 16 x 16", "2 of 16 x 16"]


def trained(world: World, accumulate: int = 1, balance: bool = True, steps: int = 6) -> dict[str, Tensor]:
    """Everything that a run of some steps has learnt."""
    return begun(accumulate, balance)(world, steps).tensors()


def begun(accumulate: int = 1, balance: bool = True) -> Callable[[World, int], Pretraining]:
    datasets = [load("shapes-coarse"), load("shapes-fine")]
    pool = pool_of([(dataset, open_split(dataset, Path(), "train")[0][:9]) for dataset in datasets])
    chosen: Layer = {"run": {"accumulate": accumulate}, "method": {"balance": balance, "late": 2}}
    recipe = resolve(merge(LAYER, chosen))

    def train(world: World, steps: int) -> Pretraining:
        plan = Plan(recipe=recipe, pool=pool, validation=pool)
        run = Pretraining(plan, replace(nowhere(torch.device("cpu")), world=world), None, {})
        for step, keys in enumerate(run.keys(0, steps)):
            run.advance(stack_views([item_of(run, key) for key in keys[run.processes.own]]), step)
        return run

    return train


def item_of(run: Pretraining, key: tuple[int, int]) -> Any:
    item = run.items[key]
    assert not isinstance(item, Exception)
    return item


SPLITS = [(2, 1, True), (3, 1, True), (1, 3, False), (2, 3, False), (2, 2, False)]


@pytest.mark.parametrize(("size", "accumulate", "balance"), SPLITS, ids=str)
def test_processes_and_parts_learn_and_remember_what_one_does(size: int, accumulate: int, balance: bool) -> None:
    """Parts see less of the batch in the middle of a loss, which `balance` asks for: without it they change nothing."""
    expected = trained(ALONE, balance=balance)
    found = worlds(size, lambda world: trained(world, accumulate, balance))
    for tensors in found:
        for name, tensor in expected.items():
            torch.testing.assert_close(tensors[name], tensor, rtol=1e-4, atol=1e-5)
        assert all(torch.equal(tensor, found[0][name]) for name, tensor in tensors.items() if name.startswith("state."))


def test_in_its_middle_a_loss_sees_one_part_of_all_processes() -> None:
    """The first image of each of two processes, then the second: as one process takes them in that order."""
    apart = worlds(2, lambda world: trained(world, accumulate=3, steps=1))
    run = begun(accumulate=3)(ALONE, 0)
    keys = next(run.keys(0, 1))
    run.advance(stack_views([item_of(run, keys[place]) for place in (0, 3, 1, 4, 2, 5)]), 0)
    learnt = {name: tensor for name, tensor in run.tensors().items() if name.startswith("query.")}
    whole = trained(ALONE, steps=1)
    for name, tensor in learnt.items():
        torch.testing.assert_close(apart[0][name], tensor, rtol=1e-4, atol=1e-6)
        assert torch.equal(apart[0][name], apart[1][name])
    assert not torch.allclose(whole["query.prototypes.weight"], learnt["query.prototypes.weight"], atol=1e-4)
    assert torch.equal(apart[0]["state.queue"], apart[1]["state.queue"])
    torch.testing.assert_close(apart[0]["state.queue"], whole["state.queue"])  # in the order of the images


def test_a_step_that_is_not_finite_leaves_neither_rows_nor_weights() -> None:
    run = begun()(ALONE, 2)
    before = {name: tensor.clone() for name, tensor in run.tensors().items()}
    keys = next(run.keys(2, 3))
    items = stack_views([item_of(run, key) for key in keys])
    items.images[1][0, 2, 0, 3, 3] = math.nan  # a small view of the third image
    with pytest.raises(Diverged, match="the loss is nan"):
        run.advance(items, 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.tensors().items())


def test_a_method_whose_settings_fit_no_plan_of_views_is_refused_by_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(settings: planted.Settings, default: object) -> object:
        raise ValueError("min_overlap: expected less")

    monkeypatch.setattr(planted, "view_plan", refuse)
    with pytest.raises(RecipeError, match=r"method\.min_overlap: expected less"):
        run_pretraining(Request(layers=(LAYER,), quiet=True, out=Path("none")))
    assert not Path("none").exists()
