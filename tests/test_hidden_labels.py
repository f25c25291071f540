"""Photos without labels, and with hidden ones, in whole runs of `multi_dataset` that mines them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mdp.core.labels import IGNORE
from mdp.core.pixel_mining import given, withheld
from mdp.io.data.selection import hidden_labels, plan_pretraining, without_labels
from mdp.io.data.views import PretrainItems, stack_views, usual_views, view_batches
from mdp.io.errors import RecipeError
from mdp.io.recipe.layers import Layer, merge, resolve
from mdp.io.recipe.request import Request
from mdp.io.recipe.settings import PretrainSettings
from mdp.io.training.job import run_pretraining
from mdp.io.training.pretraining import describe_pretraining
from tests.small_runs import TINY, assert_resumes_exactly, assert_same, losses, tensors_of
from tests.trees import grey, photo

pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")

EAGER: Layer = {"threshold": 0, "margin": 0.01, "warmup_epochs": 0, "weight": 0.5}
MINED: Layer = merge(TINY, {"method": {"mining": EAGER}, "pretrain": {"hide_labels": 0.5}})
BANDS = (np.arange(40 * 48).reshape(40, 48) // (48 * 10) % 3).astype(np.uint8)
YAML = "name: site\nsplits: {train: {images: photos, labels: maps}}\nclasses: [sky, wall, car]\n"


def site(images: int = 8) -> Layer:
    """A dataset of one's own, and a recipe that hides half of its labels."""
    for number in range(images):
        photo(Path("photos") / f"{number}.png", number, (40, 48))
        grey(Path("maps") / f"{number}.png", BANDS)
    Path("site.yaml").write_text(YAML)
    return merge(MINED, {"pretrain": {"datasets": ["site.yaml"], "steps": 4}})


def trained(layer: Layer, **others: Any) -> Path:
    return run_pretraining(Request(layers=(layer,), quiet=True, **others))


def metrics(run: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == "train"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "method": {
                "mix": {"region": True, "pixel": True},
                "prototypes": "both",
                "rivals": "dataset",
                "softmax_weight": 1,
            }
        },
    ],
    ids=["plain", "all"],
)
def test_a_run_that_mines_is_resumed_to_the_same_bits(changes: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    run = assert_resumes_exactly(monkeypatch, merge(MINED, {"method": {"mining": {"warmup_epochs": 0.01}}}, changes))
    assert metrics(run)[-1]["mined_share"] > 0
    with pytest.raises(RecipeError, match=r"pretrain.hide_labels differ from the run's"):
        run_pretraining(Request(layers=({"pretrain": {"hide_labels": 0.25}},), quiet=True, resume=str(run)))


def test_a_run_whose_hidden_label_maps_are_others_learns_the_same_bits_and_scores_them_otherwise() -> None:
    layer = merge(site(), {"run": {"accumulate": 2}})
    pool = plan_pretraining(resolve(layer)).pool
    hidden = hidden_labels(pool, resolve(layer))["site"]
    assert len(hidden) == 4
    first = trained(layer, out=Path("first"))
    for index in hidden:
        grey(Path(pool.samples[index].labels), BANDS % 2)
    second = trained(layer, out=Path("second"))
    assert losses(first) == losses(second)
    assert_same(tensors_of(first), tensors_of(second))
    found, others = ([record["mined_purity"] for record in metrics(run)] for run in (first, second))
    assert found != others
    assert all(0 <= purity <= 1 for purity in found)
    given_map = Path(pool.samples[next(i for i in range(8) if i not in hidden)].labels)
    cached = trained(merge(layer, {"run": {"cache": "device"}}), out=Path("cached"))
    assert losses(cached) == losses(second)
    assert [record["mined_purity"] for record in metrics(cached)] == others
    grey(given_map, np.zeros((40, 48), dtype=np.uint8))
    assert losses(trained(layer, out=Path("third"))) != losses(first)


def test_hidden_labels_are_the_same_ones_whatever_the_runs_seed_and_a_line_says_how_many() -> None:
    layer = site()
    plans = [plan_pretraining(resolve(merge(layer, {"run": {"seed": seed}}))) for seed in (0, 1)]
    first, second = (hidden_labels(plan.pool, plan.recipe) for plan in plans)
    assert first == second
    assert plans[0].lines[1] == "labels hidden from training: 4 of 8 of site; drawn by their names and seed 0"
    assert plans[0].lines[1] in describe_pretraining(Request(layers=(layer,)))["found"]
    other = resolve(merge(layer, {"pretrain": {"hide_seed": 3}}))
    assert hidden_labels(plan_pretraining(other).pool, other) != first


def test_views_of_hidden_labels_are_ignored_where_nothing_is_mined() -> None:
    recipe = resolve(site())
    pool = plan_pretraining(recipe).pool
    hidden = without_labels(pool, recipe)
    plan = usual_views(PretrainSettings(crop=32))
    whole, mined, plain = (
        PretrainItems(pool, plan, 0, hidden=which, mined=mines)
        for which, mines in ((frozenset[int](), False), (hidden, True), (hidden, False))
    )
    for index in range(len(pool.samples)):
        maps, marked, shown = (
            view_batches(stack_views([items[0, index]]), torch.device("cpu"))[0].labels
            for items in (whole, mined, plain)
        )
        assert torch.equal(given(marked), shown)
        assert torch.equal(marked, withheld(maps) if index in hidden else maps)
        assert (shown == IGNORE).all() == (index in hidden)


def test_a_folder_of_photos_is_mined_beside_labelled_sets_and_nothing_is_known_of_its_purity() -> None:
    for index in range(6):
        photo(Path("more") / f"{index}.png", index, (40, 50))
    data = {"pretrain": {"datasets": ["more", "shapes-coarse"], "steps": 3, "hide_labels": 0, "balance": True}}
    run = trained(merge(MINED, data))
    assert any(record["mined_share"] > 0 for record in metrics(run))
    assert all(record["mined_purity"] is None for record in metrics(run))
    assert any(record["valid_share"] < 1 for record in metrics(run))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pretrain": {"hide_labels": 0}}, "method.mining: every photo has labels, so there is nothing to mine"),
        (
            {"pretrain": {"datasets": ["photos"]}},
            "photos: no labels, and method.mining compares pixels with prototypes",
        ),
        ({"pretrain": {"hide_labels": 0.99}}, "pretrain.hide_labels: 0.99 hides those of all 8 images of site"),
        ({"pretrain": {"hide_labels": 1}}, "pretrain.hide_labels: expected less than 1"),
        ({"method": {"mining": {"threshold": 2}}}, r"method.mining.threshold: expected a number in \[-1, 1\], got 2"),
        ({"method": {"mining": {"treshold": 0}}}, r"unknown setting method.mining.treshold; did you mean 'threshold'"),
    ],
    ids=["nothing to mine", "no labels", "all hidden", "share 1", "threshold", "typo"],
)
def test_what_cannot_be_mined_is_refused_in_a_line(changes: Layer, words: str) -> None:
    layer = site()
    with pytest.raises(RecipeError, match=words):
        plan_pretraining(resolve(merge(layer, changes)))


def test_a_method_that_looks_at_no_labels_has_none_to_hide() -> None:
    layer: Layer = {"method": {"name": "moco"}, "pretrain": {"datasets": ["shapes-fine"], "hide_labels": 0.5}}
    with pytest.raises(RecipeError, match=r"pretrain.hide_labels: the method moco looks at no labels"):
        plan_pretraining(resolve(layer))
