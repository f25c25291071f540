"""Subsets of a pool, by chance or as a long tail over folders: as numbers, and as runs that keep to them."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mdp.core.subsets import draw_images, draw_long_tail, pareto_sizes
from mdp.io.data.manifest import read_manifest
from mdp.io.data.selection import Plan, draw_by_name, expect_pretraining, plan_pretraining
from mdp.io.errors import RecipeError
from mdp.io.recipe.layers import Recipe, resolve
from mdp.io.recipe.request import Request
from mdp.io.run.same_data import data_of_run
from mdp.io.training.job import run_pretraining
from tests.laws import pure_call
from tests.small_runs import TINY
from tests.tensors import rng_of, seeds
from tests.trees import photo

categories = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=40)


@given(st.integers(1, 50), st.floats(0.5, 20))
@settings(max_examples=20)
def test_sizes_of_a_long_tail_are_quantiles_of_torchs_pareto_distribution(count: int, power: float) -> None:
    exact = torch.distributions.Pareto(torch.tensor(1.0), torch.tensor(power))
    ranks = torch.arange(1, count + 1)
    expected = exact.icdf(1 - ranks / (count + 1)) - 1
    torch.testing.assert_close(torch.tensor(pareto_sizes(count, power)), expected, rtol=1e-3, atol=1e-4)


def test_power_six_over_imagenets_thousand_categories_makes_the_papers_118_000_images() -> None:
    sizes = pareto_sizes(1000, 6)
    assert 117_000 < 1280 / sizes[0] * sum(sizes) < 119_000


def test_three_categories_of_nine_images_have_nine_three_and_one_of_them_at_power_one() -> None:
    chosen = draw_long_tail(list("abc" * 9), 1, None, rng_of(0))
    assert sorted(sum(i % 3 == k for i in chosen) for k in range(3)) == [1, 3, 9]


@given(categories, st.floats(0.5, 10), st.integers(1, 45), seeds)
@settings(max_examples=30)
def test_a_long_tail_has_as_many_images_as_asked_for_and_fewer_are_a_subset_of_more(
    names: list[str], power: float, images: int, seed: int
) -> None:
    chosen = pure_call(lambda: draw_long_tail(names, power, images, rng_of(seed)))
    assert len(set(chosen)) == len(chosen) == min(images, len(names))
    assert chosen == sorted(chosen)
    assert set(chosen) <= set(draw_long_tail(names, power, images + 3, rng_of(seed)))
    if images >= len(set(names)):
        assert {names[i] for i in chosen} == set(names)  # each has one at least
    assert set(draw_images(len(names), images, rng_of(seed))) <= set(draw_images(len(names), images + 3, rng_of(seed)))


@given(st.lists(st.text(), unique=True, max_size=30), st.floats(0, 1), st.floats(0, 1), st.integers(0, 9))
def test_a_share_drawn_by_names_is_the_same_in_any_order_and_within_a_larger_one(
    names: list[str], low: float, high: float, seed: int
) -> None:
    low, high = sorted((low, high))
    found = [names[i] for i in pure_call(draw_by_name, names, low, seed)]
    assert abs(len(found) - low * len(names)) <= 0.5
    backwards = names[::-1]
    assert set(found) == {backwards[i] for i in draw_by_name(backwards, low, seed)}
    assert set(found) <= {names[i] for i in draw_by_name(names, high, seed)}


def tree(root: Path, folders: int = 4, images: int = 6) -> Path:
    """Photos without labels, in folders that are categories."""
    for folder, number in ((folder, number) for folder in range(folders) for number in range(images)):
        photo(root / f"n0{folder}" / f"{number}.jpg", 10 * folder + number, (40, 48))
    return root


def of_photos(folder: Path, seed: int = 0, **pretrain: object) -> Recipe:
    layer = {"pretrain": {"datasets": [str(folder)], "batch_size": 2, **pretrain}}
    return resolve({"run": {"seed": seed}, "method": {"name": "moco"}, **layer})


def drawn(plan: Plan) -> list[str]:
    return [f"{Path(sample.image).parent.name}/{Path(sample.image).name}" for sample in plan.pool.samples]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("photos"))


def test_the_seed_decides_which_images_of_a_pool_are_pretrained_on_and_a_line_says_so(photos: Path) -> None:
    plan = plan_pretraining(of_photos(photos, images=7))
    assert plan.lines[1] == "pretraining on 7 of 24 images, drawn by seed 0"
    assert set(drawn(plan)) < set(drawn(plan_pretraining(of_photos(photos, images=9))))
    others = plan_pretraining(of_photos(photos, seed=1, images=7))
    assert drawn(others) != drawn(plan)
    whole = plan_pretraining(of_photos(photos, images=99))
    assert len(drawn(whole)) == 24
    assert not any("drawn by" in line for line in whole.lines)


def test_a_long_tail_is_over_folders_and_a_dry_run_counts_it(photos: Path) -> None:
    plan = plan_pretraining(of_photos(photos, long_tail=6))
    counts = sorted(sum(name.startswith(f"n0{folder}") for name in drawn(plan)) for folder in range(4))
    assert counts == [1, 1, 3, 6]  # (5 / r) ^ (1 / 6) - 1 is 1, 0.54, 0.29 and 0.12 of the first, rounded down
    assert "a long tail of power 6 over their folders" in plan.lines[1]
    assert expect_pretraining(of_photos(photos, long_tail=6)).images == {photos.name: 11}
    assert len(drawn(plan_pretraining(of_photos(photos, long_tail=6, images=5)))) == 5


def test_a_dry_run_without_the_images_shares_out_as_many_as_are_asked_for(tmp_path: Path) -> None:
    layer = {"datasets": ["voc:trainaug", "ade20k"], "images": 1000}
    expected = expect_pretraining(resolve({"data": {"root": str(tmp_path)}, "pretrain": layer}))
    assert expected.images == {"voc": 344, "ade20k": 656}  # of 10,582 and 20,210


def test_subsets_that_leave_a_dataset_empty_or_have_no_folders_are_refused(photos: Path) -> None:
    shapes = {"datasets": ["shapes-coarse", "shapes-fine"], "batch_size": 2}
    with pytest.raises(RecipeError, match=r"pretrain.images: of shapes-(coarse|fine) there is none among the 1 images"):
        plan_pretraining(resolve({"pretrain": {**shapes, "images": 1}}))
    with pytest.raises(RecipeError, match=r"pretrain.long_tail: expected folders that are categories.*shapes-coarse"):
        plan_pretraining(resolve({"pretrain": {**shapes, "long_tail": 6}}))
    with pytest.raises(RecipeError, match=r"pretrain.long_tail: expected 0.1 or more, got 0"):
        of_photos(photos, long_tail=0)


def test_a_run_on_a_subset_keeps_its_images_when_others_come(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", 3, 4)
    own = {"datasets": [str(root)], "images": 6, "steps": 1, "batch_size": 4, "crop": 32}
    layer = {**TINY, "pretrain": own, "method": {"name": "moco", "embedding": 8, "queue": 8, "groups": 2}}
    run = run_pretraining(Request(layers=(layer,), quiet=True, out=tmp_path / "run"))
    recipe = of_photos(root, images=6)
    before = read_manifest(run)[0].photos.names
    assert len(before) == 6
    photo(root / "n00" / "new.jpg", 99, (40, 48))
    plan = data_of_run(plan_pretraining, recipe, run)
    assert [part.photos.names for part in plan.data if part.role == "train"] == [before]
