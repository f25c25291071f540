"""Criteria in fine-tuning: the same however a batch is split, sums with weights, exact resume, wrong settings."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mdp.core.chance import generator
from mdp.core.class_weights import weights_of
from mdp.core.criteria import Criterion, Part
from mdp.core.criteria.cross_entropy import cross_entropy
from mdp.core.criteria.dice import dice, dice_sums
from mdp.core.criteria.lovasz import lovasz_softmax
from mdp.core.geometry import Grid
from mdp.core.labels import IGNORE
from mdp.core.methods import Progress
from mdp.core.networks import Grids, Look, NetworkSettings
from mdp.core.photometry import PhotometrySettings
from mdp.core.processes import Processes, alone
from mdp.core.rare_classes import class_chances, image_chances
from mdp.io.check.class_counts import as_table, class_counts
from mdp.io.check.job import check_before_training
from mdp.io.data.crops import CropItem, FinetuneItems, stack_crops
from mdp.io.data.order import drawn_batches
from mdp.io.data.selection import Plan, named, pool_of
from mdp.io.datasets._dataset import open_split
from mdp.io.errors import Preempted, RecipeError
from mdp.io.evaluation.job import run_evaluation
from mdp.io.journal.journal import Journal
from mdp.io.processes.world import ALONE, World
from mdp.io.recipe.criteria import criterion_names, find_criterion
from mdp.io.recipe.layers import Layer, as_layer, merge, resolve
from mdp.io.recipe.request import Request
from mdp.io.recipe.settings import FinetuneSettings
from mdp.io.run.opened import new_segmentor
from mdp.io.training.context import RunContext
from mdp.io.training.criterion import absent_lines, combined, refuse_misfits
from mdp.io.training.finetuning import Finetuning
from mdp.io.training.job import run_finetuning
from tests.laws import pure_call
from tests.small_runs import TINY, assert_same, losses, signal_after, tensors_of
from tests.tensors import rng_of, seeds
from tests.together import together, worlds
from tests.trees import camvid_tree

pytestmark = pytest.mark.usefixtures("bare_runs")

CLASSES = 4
START = Progress(0, 10, 5)
NARROW = NetworkSettings(backbone="resnet18", width=8, channels=8)
WEIGHTS = (0.5, 2.0, 0.0, 1.0)
OHEM = {"threshold": 0.4, "least": 3}
# every criterion, in those forms that do not depend on how a batch is split
FORMS: dict[str, Layer] = {
    "cross_entropy": {"class_weights": list(WEIGHTS), "smoothing": 0.1, "ohem": OHEM},
    "focal": {"class_weights": list(WEIGHTS), "ohem": OHEM},
    "dice": {},
    "lovasz": {"per_image": True},
    "pixel_contrast": {"warmup_steps": 0, "max_views": 1, "embedding": 8},
}


def of_parts(layer: Layer, logits: Tensor, labels: Tensor, processes: Processes, parts: int) -> tuple[Tensor, Tensor]:
    """This process's share of a loss that is taken in so many parts, and its gradient by its own logits."""
    criterion = combined(resolve({"criterion": layer}), [str(index) for index in range(CLASSES)])
    state = criterion.initial_state(CLASSES, torch.device("cpu"))
    shared = criterion.prepare(state, labels, processes, START, Grids(Grid(1), Grid(1)))
    built = criterion.build(NARROW, CLASSES, CLASSES, rng_of(0))
    leaf, value, start = logits.clone().requires_grad_(), torch.zeros(()), 0
    pixels = processes.all_sum((labels != IGNORE).sum())
    for number in range(parts):
        among = processes.part(number, parts)
        rows = slice(start, start + among.images[among.rank])
        part = Part(labels[rows], leaf[rows], pixels, processes.total, labels[rows])
        look = Look(leaf[rows], leaf[rows], leaf[rows])
        found = criterion.loss(look, built.eval()(look) if built else None, shared, part, generator, among)
        found.value.backward()
        value, start = value + found.value.detach(), rows.stop
    assert leaf.grad is not None
    return value, leaf.grad


def scene(seed: int, images: int = 5) -> tuple[Tensor, Tensor]:
    rng = rng_of(seed)
    labels = torch.randint(IGNORE, CLASSES, (images, 3, 4), generator=rng)
    return 2 * torch.randn(images, CLASSES, 3, 4, generator=rng), labels


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("sizes", "parts"), [((5,), 2), ((3, 2), 1), ((2, 2, 1), 1), ((3, 2), 2)], ids=str)
def test_processes_and_parts_have_loss_and_gradient_of_the_whole_batch(
    name: str, sizes: tuple[int, ...], parts: int
) -> None:
    assert set(FORMS) == set(criterion_names())
    if name == "dice" and parts > 1:
        pytest.skip("a loss of each part: the next test")
    logits, labels = scene(1)
    layer = {"name": name, **FORMS[name]}
    value, gradient = of_parts(layer, logits, labels, alone(5), 1)
    assert gradient.abs().sum() > 0

    def work(processes: Processes) -> tuple[Tensor, Tensor]:
        return of_parts(layer, logits[processes.own], labels[processes.own], processes, parts)

    found = together(sizes, work)
    torch.testing.assert_close(torch.stack([share for share, _ in found]).sum(), value)
    torch.testing.assert_close(torch.cat([own for _, own in found]), gradient)


@pytest.mark.parametrize(
    ("name", "loss"), [("dice", lambda x, y: dice(dice_sums(x, y))), ("lovasz", lovasz_softmax)], ids=["dice", "lovasz"]
)
def test_parts_that_follow_each_other_have_the_mean_of_their_losses_by_images(name: str, loss: Any) -> None:
    logits, labels = scene(2)
    rows = [slice(0, 3), slice(3, 5)]
    expected = sum(len(labels[own]) / 5 * loss(logits[own], labels[own]) for own in rows)
    torch.testing.assert_close(of_parts({"name": name}, logits, labels, alone(5), 2)[0], expected)


@given(seeds, st.floats(0, 5))
@settings(max_examples=20)
def test_a_sum_is_the_terms_by_their_weights(seed: int, weight: float) -> None:
    logits, labels = scene(seed)
    layer = {"name": "cross_entropy", "weight": 2, "plus": {"dice": weight}}
    value, _ = of_parts(layer, logits, labels, alone(5), 1)
    terms = cross_entropy(logits, labels, (labels != IGNORE).sum()), dice(dice_sums(logits, labels))
    torch.testing.assert_close(value, 2 * terms[0] + weight * terms[1])


# Settings


def test_a_recipe_of_a_sum_reads_back_and_layers_change_single_terms() -> None:
    base = {"criterion": {"name": "focal", "gamma": 3, "plus": {"dice": {"weight": 3, "smooth": 0}}}}
    found = resolve(base, {"criterion": {"plus": {"dice": 2, "lovasz": 1}}}).criterion
    assert (found.name, found.settings.gamma) == ("focal", 3)
    assert {name: term.weight for name, term in found.plus.items()} == {"dice": 2, "lovasz": 1}
    assert found.plus["dice"].smooth == 0  # a number in another layer changes the weight only
    assert resolve(as_layer(resolve(base))) == resolve(base)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"name": "dise"}, r"criterion.name: unknown criterion 'dise'; did you mean 'dice'\?"),
        ({"plus": {"dise": 1}}, r"criterion.plus.dise: unknown criterion 'dise'; did you mean 'dice'\?"),
        ({"plus": {"dice": -1}}, "criterion.plus.dice.weight: expected 0 or more, got -1"),
        ({"plus": {"cross_entropy": 1}}, "criterion.plus.cross_entropy: the criterion cross_entropy is there already"),
        ({"weight": 0}, "criterion.weight: expected a criterion with a weight above 0"),
        ({"smothing": 1}, r"unknown setting criterion.smothing; did you mean 'smoothing'\? \(criterion cross_ent"),
        ({"class_weights": "even"}, "criterion.class_weights: expected balanced, a list .*, got 'even'"),
        ({"class_weights": [1, -2]}, r"criterion.class_weights: expected numbers of 0 or more, got \[1.0, -2.0\]"),
        ({"class_weights": {"sky": -2}}, r"criterion.class_weights: expected numbers of 0 or more, got \{sky: -2.0\}"),
        ({"class_weights": [0, 0]}, r"criterion.class_weights: expected a number above 0 among them, got \[0.0, 0.0\]"),
        ({"class_weights": [1, 2]}, "criterion.class_weights: expected 4 numbers, one for each class, got 2; by name"),
        ({"class_weights": {"rod": 2}}, r"criterion.class_weights: no class 'rod' among the 4; did you mean 'road'\?"),
        ({"plus": {"focal": {"class_weights": {9: 2}}}}, "criterion.plus.focal.class_weights: no class '9' among the"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_a_line_that_names_it(layer: Layer, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as error:
        combined(resolve({"criterion": layer}), ["sky", "road", "car", "tree"])
    assert "\n" not in str(error.value)


def test_class_weights_go_by_name_or_number_and_others_weigh_one() -> None:
    classes = ["sky", "road", "7"]
    assert weights_of({"road": 2.0, "7": 3.0, "0": 0.5}, classes, None) == (0.5, 2.0, 3.0)
    assert weights_of("balanced", classes, torch.tensor([6, 2, 0])) == pytest.approx((2 / 3, 2, 0))


def test_classes_that_balanced_weights_leave_out_are_told() -> None:
    recipe, classes = resolve({"criterion": {"class_weights": "balanced"}}), ["sky", "road", "rider"]
    (line,) = absent_lines(recipe, classes, torch.tensor([6, 2, 0]))
    assert "1 of 3 classes have no pixel in the training images and weigh 0: rider; nothing teaches" in line
    assert absent_lines(recipe, classes, torch.tensor([6, 2, 1])) == []
    assert absent_lines(resolve({}), classes, torch.tensor([6, 2, 0])) == []


# Rare classes


@given(seeds, st.floats(0.01, 5))
def test_chances_of_two_classes_are_in_proportion_to_e_to_their_shares_over_the_temperature(
    seed: int, temperature: float
) -> None:
    pixels = torch.randint(1, 100, (3,), generator=rng_of(seed))
    found = pure_call(class_chances, pixels, temperature)
    shares = pixels.double() / pixels.sum()
    torch.testing.assert_close(found[0] / found[1], ((shares[1] - shares[0]) / temperature).exp())
    torch.testing.assert_close(found.sum(), torch.tensor(1.0, dtype=torch.float64))


def test_images_of_a_class_share_its_chance_and_those_with_too_few_pixels_come_only_where_there_are_no_others() -> None:
    counts = torch.tensor([[50, 10, 0], [40, 0, 0], [50, 2, 1], [0, 0, 0]])
    rare = class_chances(counts.sum(0), 0.3)
    expected = [rare[0] / 3 + rare[1], rare[0] / 3, rare[0] / 3 + rare[2], 0]
    torch.testing.assert_close(pure_call(image_chances, counts, 0.3, 10), torch.tensor(expected, dtype=torch.float64))


def test_images_are_drawn_as_often_as_their_chances_say_from_any_step_on() -> None:
    chances = np.array([0.0, 0.7, 0.3, 0.0])
    batches = list(drawn_batches(0, chances, 4, 0, 500))
    keys = [key for batch in batches for key in batch]
    assert [position for position, _ in keys] == list(range(2000))
    drawn = np.bincount([index for _, index in keys], minlength=4)
    assert drawn[[0, 3]].tolist() == [0, 0]
    assert drawn[1] == pytest.approx(1400, abs=80)  # four standard deviations
    assert list(drawn_batches(0, chances, 4, 400, 403)) == batches[400:403]


def test_pixels_of_classes_are_those_of_the_label_maps_and_remembered_from_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    camvid_tree(tmp_path)
    dataset = named("camvid").dataset
    samples = open_split(dataset, tmp_path, "train")[0]
    pool = pool_of([(dataset, samples)])
    lines: list[str] = []
    counted = class_counts(dataset, samples, 0, lines.append)
    assert lines == [f"counting the pixels of each class in {len(samples)} label maps"]
    table = as_table(counted, len(dataset.labels.classes))
    for index, row in enumerate(table):
        labels = pool.read(index)[1]
        assert row.tolist() == torch.bincount(labels[labels != IGNORE].long(), minlength=len(row)).tolist()
    check_before_training([(dataset, samples, "train")], 0, lines.append)
    again = class_counts(dataset, samples, 0, pytest.fail)
    assert (as_table(again, len(dataset.labels.classes)) == table).all()


# Crops


def test_a_random_resized_crop_fills_the_crop_and_photometry_replaces_distortion() -> None:
    dataset = named("shapes-target").dataset
    pool = pool_of([(dataset, open_split(dataset, Path(), "train")[0][:3])])
    chosen = FinetuneSettings(crop=(32, 64), crop_area=(0.3, 0.5), photometry=PhotometrySettings(blur=1.0))
    items, finished = FinetuneItems(pool, chosen, 0), FinetuneItems(pool, chosen, 0, finish=True)
    for index in range(3):
        item, whole = items[0, index], finished[0, index]
        assert isinstance(item, CropItem)
        assert isinstance(whole, CropItem)
        assert item.image.shape == (3, 32, 64)
        assert (item.labels != IGNORE).float().mean() > 0.5  # nothing is padded
        assert item.inside == (32, 64)
        assert torch.equal(item.labels, whole.labels)
        assert whole.image.dtype == torch.float32


# Whole runs


def run_of(layer: Layer, world: World, folder: Path) -> Finetuning:
    """A fine-tuning run with fixed normalisation, in a world of some processes."""
    recipe = resolve(TINY, layer)
    dataset = named("shapes-target").dataset
    pool = pool_of([(dataset, open_split(dataset, Path(), "train")[0][:9])])
    context = RunContext(
        folder=folder, journal=Journal(folder, 1, 1.0, main=False), device=torch.device("cpu"), world=world
    )
    network = new_segmentor(recipe, pool.union.size)
    run = Finetuning(Plan(recipe=recipe, pool=pool, validation=None), network, context, None)
    network.eval()
    return run


SUM: Layer = {
    "criterion": {"class_weights": {"disc": 3}, "ohem": {"threshold": 0.3, "least": 20}, "plus": {"dice": 3}},
    "finetune": {"batch_size": 5, "loss_stride": 3},
}


@pytest.mark.parametrize(("size", "accumulate"), [(2, 1), (1, 1)])
def test_a_step_of_processes_has_loss_terms_and_weights_of_one(size: int, accumulate: int, tmp_path: Path) -> None:
    def work(world: World) -> tuple[dict[str, float], Tensor]:
        run = run_of(merge(SUM, {"run": {"accumulate": accumulate}}), world, tmp_path)
        items = [run.items[key] for key in next(run.keys(0, 1))]
        own = [item for item in items if isinstance(item, CropItem)][run.processes.own]
        values = run.advance(stack_crops(own), 0)
        return values, run.network.decode_head.conv_seg.weight.detach()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "float", Tensor.double)  # in float32 a ReLU at its kink may fall to either side of it
        torch.set_default_dtype(torch.float64)
        try:
            (values, weight), found = work(ALONE), worlds(size, work)
        finally:
            torch.set_default_dtype(torch.float32)
    assert values["loss"] == pytest.approx(values["cross_entropy"] + 3 * values["dice"], rel=1e-9)
    for others, other in found:
        assert others == pytest.approx(values, rel=1e-9)
        torch.testing.assert_close(other, weight, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("in_an_empty_folder")
def test_a_run_with_all_of_it_is_resumed_exactly_and_scored_without_knowing_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rare = {"rare_temperature": 0.05, "rare_pixels": 50}
    views = {"crop_area": [0.3, 1], "photometry": {}, "steps": 4}
    layer = merge(
        TINY, SUM, {"criterion": {"class_weights": "balanced"}, "finetune": {**rare, **views}, "eval": {"images": 3}}
    )
    run = run_finetuning
    whole = run(Request(layers=(layer,), quiet=True, out=Path("whole"), init="scratch"))
    with monkeypatch.context() as patch:
        signal_after(patch, 2)
        with pytest.raises(Preempted):
            run(Request(layers=(layer,), quiet=True, out=Path("stopped"), init="scratch"))
    resumed = run(Request(resume="stopped", quiet=True))
    assert_same(tensors_of(whole), tensors_of(resumed))
    assert losses(whole) == losses(resumed)
    assert "counting the pixels of each class" in (whole / "log.txt").read_text()
    scores, _ = run_evaluation(Request(init=str(whole), quiet=True), "last", keep=False)
    assert 0 <= scores["miou"] <= 1
    record = json.loads((whole / "metrics.jsonl").read_text().splitlines()[0])
    assert {"loss", "cross_entropy", "dice"} <= record.keys()


def test_misfits_are_told_before_there_is_a_folder() -> None:
    dataset = named("shapes-target").dataset
    pool = pool_of([(dataset, open_split(dataset, Path(), "train")[0][:2])])
    recipe = resolve({"criterion": {"class_weights": {"nothing": 2}}})
    with pytest.raises(RecipeError, match=r"criterion\.class_weights: no class 'nothing' among the 8"):
        refuse_misfits(Plan(recipe=recipe, pool=pool, validation=None))


@pytest.mark.parametrize("name", criterion_names())
def test_every_criterion_offers_what_the_protocol_says(name: str) -> None:
    found = find_criterion(name)
    for wanted in (member for member in vars(Criterion) if not member.startswith("_")):
        assert hasattr(found, wanted), wanted
    assert "arXiv" in (found.__doc__ or "") or "et al." in (found.__doc__ or "")
    assert found.Settings().weight == 1 or found.SUPPLEMENT
