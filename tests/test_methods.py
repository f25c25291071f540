"""Every method in mdp/core/methods goes through the same laws; then the laws of each."""

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from mdp.core.batches import Batch
from mdp.core.contrast import pixel_nce, prototype_nce, region_nce
from mdp.core.geometry import Grid
from mdp.core.labels import IGNORE, LabelSpace, LabelUnion
from mdp.core.methods import (
    Data,
    Method,
    Progress,
    Step,
    moco,
    multi_dataset,
    pass_s,
    pixel_attention,
    pixel_pairs,
    region_bank,
    split,
    supervised,
    swav,
)
from mdp.core.methods import step as one_step
from mdp.core.mixing import MixSettings
from mdp.core.networks import NetworkSettings, follow_
from mdp.core.networks.pair import EncoderPair
from mdp.core.processes import Processes, even_parts, join_rows, rows_of
from mdp.core.prototype_bank import class_means, class_sums
from mdp.core.queues import empty_queues, enqueue_classes
from mdp.core.targets import hard_targets
from mdp.io.recipe.layers import Layer, resolve
from mdp.io.recipe.methods import find_method, method_names
from mdp.io.recipe.published import recipe_yaml
from tests.laws import pure_call
from tests.tensors import rng_of, seeds
from tests.together import together

NAMES = method_names()
LABELLED = [name for name in NAMES if find_method(name).NEEDS_LABELS]
NETWORK = NetworkSettings(backbone="resnet18", width=8, output_stride=8, channels=8, dilations=(1, 2))
CPU = torch.device("cpu")
SPACES = [LabelSpace(name="a", classes=("wall", "sky")), LabelSpace(name="b", classes=("wall", "car", "cat"))]
DATA = Data(LabelUnion(SPACES), batch_size=4, epoch_batches=3, channels=64)
CLASSES = DATA.union.size
SMALL = {"embedding": 8, "hidden": 16, "queue": 32, "groups": 2, "frozen_steps": 0}
CLUSTERING = ("swav", "pass_s", "pixel_attention")  # their `prototypes` is a number


@pytest.fixture(autouse=True)
def seeded_dropout() -> Iterator[None]:
    """A segmentor in training draws its dropout from torch's global generator, as the shell seeds it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def views_of(seed: int, count: int = 4, size: int = 32) -> list[Batch]:
    """Two noisy views of the same images, whose colour says the class: learnable in a few steps.

    Both show all of an image.  The networks' 16 hidden numbers are enough for not all of them to be 0 at a pixel.
    """
    rng = rng_of(seed)
    palette = torch.linspace(-2, 2, CLASSES)
    labels = torch.randint(0, CLASSES, (count, 2, 2), generator=rng)
    labels = labels.repeat_interleave(size // 2, 1).repeat_interleave(size // 2, 2)
    labels[0, :8] = IGNORE
    images = palette[labels.clamp(min=0)][:, None].expand(-1, 3, -1, -1)
    frames = torch.tensor([[0, 0, size, size, 0]]).expand(count, -1)
    noise = [0.1 * torch.randn(count, 3, size, size, generator=rng) for _ in range(2)]
    return [Batch(images + one, labels, frames) for one in noise]


def part_of(views: list[Batch], part: slice) -> list[Batch]:
    return [rows_of(view, part) for view in views]


def small(method: Method, **changes: Any) -> Any:
    names = {field.name for field in fields(method.Settings)}
    if method.__name__.endswith(CLUSTERING):
        changes = {"prototypes": 4, **changes}
    return method.Settings(**({name: value for name, value in SMALL.items() if name in names} | changes))


def trained_two_steps(name: str, model: NetworkSettings) -> nn.Module:
    """The query encoder of a method after two steps, in which loss and gradients were finite."""
    method = find_method(name)
    settings = small(method)
    pair = method.build(settings, model, DATA, rng_of(0))
    state = method.initial_state(settings, DATA, rng_of(1), CPU)
    optimizer = torch.optim.SGD(pair.query.parameters(), lr=0.01)
    for number in range(2):
        done = one_step(method, pair, state, views_of(number), settings, rng_of(number))
        optimizer.zero_grad()
        done.loss.backward()
        assert done.loss.isfinite()
        learnt = [p for p in pair.query.parameters() if p.requires_grad]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in learnt)
        optimizer.step()
        state = done.state
    query: nn.Module = pair.query
    return query


def fresh(method: Method, settings: Any) -> tuple[EncoderPair, Any]:
    pair = method.build(settings, NETWORK, DATA, rng_of(0))
    return pair, method.initial_state(settings, DATA, rng_of(1), CPU)


def frozen(method: Method, settings: Any) -> tuple[EncoderPair, Any]:
    """In training mode BatchNorm's running statistics are written, and dropout is drawn."""
    pair, state = fresh(method, settings)
    pair.query.eval()
    pair.key.eval()
    return pair, state


def train(method: Method, steps: int, lr: float) -> list[float]:
    """The losses of some steps, each with other images."""
    settings = small(method)
    pair, state = fresh(method, settings)
    optimizer = torch.optim.SGD(pair.query.parameters(), lr=lr, momentum=0.9)
    torch.manual_seed(0)  # dropout
    losses = []
    for number in range(steps):
        step = one_step(method, pair, state, views_of(number), settings, rng_of(number))
        if lr:  # without, all that a step changes are running statistics and the state
            optimizer.zero_grad()
            step.loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        follow_(pair, 0.9)
        state = step.state
        losses.append(step.loss.item())
    return losses


@pytest.mark.parametrize("name", NAMES)
def test_networks_and_first_state_are_functions_of_the_generator(name: str) -> None:
    method = find_method(name)
    settings = small(method)
    pair = pure_call(method.build, settings, NETWORK, DATA, rng_of(0))
    pure_call(method.initial_state, settings, DATA, rng_of(1), CPU)
    if name != "pixel_attention":  # which learns only that
        assert all(parameter.requires_grad for parameter in pair.query.parameters())
    for key, query in zip(pair.key.parameters(), pair.query.parameters(), strict=True):
        assert torch.equal(key, query)
        assert key is query or not key.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_a_function_of_its_arguments(name: str) -> None:
    method = find_method(name)
    settings = small(method)
    pair, state = frozen(method, settings)
    step = pure_call(one_step, method, pair, state, views_of(1), settings, rng_of(2))
    assert step.loss.requires_grad
    assert step.loss.isfinite()
    assert all(value.shape == () and not value.requires_grad for value in step.metrics.values())
    assert torch.equal(step.metrics["loss"], step.loss.detach())
    assert not any(tensor.requires_grad for tensor in method.pack(step.state).values())


@pytest.mark.parametrize("name", NAMES)
def test_training_on_one_batch_lowers_its_loss(name: str) -> None:
    method = find_method(name)
    settings = small(method)
    pair, state = fresh(method, settings)
    optimizer = torch.optim.SGD(pair.query.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for number in range(25):
        loss = one_step(method, pair, state, views_of(0), settings, rng_of(number)).loss
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        follow_(pair, 0.9)
        losses.append(loss.item())
    assert max(losses[-3:]) < 0.6 * losses[0]


@pytest.mark.parametrize("name", LABELLED)
def test_training_on_others_lowers_the_loss_of_images_never_seen(name: str) -> None:
    method = find_method(name)
    trained, untrained = train(method, 25, lr=0.1), train(method, 25, lr=0.0)
    assert trained[0] == untrained[0]
    assert sum(trained[-5:]) < 0.8 * sum(untrained[-5:])


@pytest.mark.parametrize("name", NAMES)
def test_a_packed_state_gives_the_same_next_step(name: str) -> None:
    method = find_method(name)
    settings = small(method)
    pair, state = fresh(method, settings)
    for number in range(4):
        state = one_step(method, pair, state, views_of(number), settings, rng_of(number)).state
    back = method.unpack(method.pack(state), settings, DATA)
    pair.query.eval()
    pair.key.eval()
    first = one_step(method, pair, state, views_of(9), settings, rng_of(9))
    second = one_step(method, pair, back, views_of(9), settings, rng_of(9))
    assert torch.equal(first.loss, second.loss)
    packed, again = method.pack(first.state), method.pack(second.state)
    assert packed.keys() == again.keys()
    assert all(torch.equal(packed[name], again[name]) for name in packed)


@pytest.mark.parametrize("name", LABELLED)
def test_a_batch_of_ignored_pixels_gives_zero_loss_and_finite_gradients(name: str) -> None:
    method = find_method(name)
    settings = small(method)
    pair, state = fresh(method, settings)
    views = [view._replace(labels=torch.full_like(view.labels, IGNORE)) for view in views_of(0)]
    step = one_step(method, pair, state, views, settings, rng_of(0))
    step.loss.backward()  # type: ignore[no-untyped-call]
    assert step.loss.item() == 0
    assert all(value.isfinite() for value in step.metrics.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in pair.query.parameters())


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LABELLED])
def test_a_method_that_needs_no_labels_looks_at_none(name: str) -> None:
    method = find_method(name)
    settings = small(method)
    pair, state = frozen(method, settings)
    views = views_of(0)
    without = [view._replace(labels=view.labels[:, :0, :0]) for view in views]
    losses = [one_step(method, pair, state, some, settings, rng_of(0)).loss for some in (views, without)]
    assert torch.equal(*losses)


@pytest.mark.parametrize("name", NAMES)
def test_only_the_query_encoder_receives_gradients(name: str) -> None:
    method = find_method(name)
    settings = small(method)
    pair, state = fresh(method, settings)
    step = one_step(method, pair, state, views_of(0), settings, rng_of(0))
    step.loss.backward()  # type: ignore[no-untyped-call]
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in pair.query.parameters())
    if pair.key is not pair.query:
        assert all(parameter.grad is None for parameter in pair.key.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_full_state_takes_the_memory_that_was_planned(name: str) -> None:
    method = find_method(name)
    settings = small(method)
    pair, state = fresh(method, settings)
    for number in range(5):
        state = one_step(method, pair, state, views_of(number), settings, rng_of(number)).state
    packed = sum(tensor.numel() * tensor.element_size() for tensor in method.pack(state).values())
    assert packed == method.state_bytes(settings, DATA)


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_one_a_class_and_cell_and_highest_for_a_class_that_was_seen(name: str) -> None:
    method = find_method(name)
    settings = small(method)
    pair, state = frozen(method, settings)
    views = [view._replace(labels=torch.where(view.labels > 2, 3, 1)) for view in views_of(0)]
    state = one_step(method, pair, state, views, settings, rng_of(0)).state
    known = method.known_prototypes(state, settings)
    with torch.no_grad():
        scores = method.class_scores(pair, state, views[0].images, settings)
    if scores is not None:
        assert scores.shape == (4, CLASSES, 4, 4)
        assert torch.equal(scores, pure_call(method.class_scores, pair, state, views[0].images, settings))
    images = method.prototype_images(state, settings)
    assert (images is None) == (known is None)
    assert method.temperature(settings) == getattr(settings, "temperature", None)
    if known is not None and images is not None:
        assert known.present.tolist() == (images > 0).tolist() == [False, True, False, True, False]
        assert int(images.max()) <= sum(len(view.images) for view in views)
        assert scores is not None
        assert torch.isin(scores.argmax(1), torch.tensor([1, 3])).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0},
        {"key_momentum": 1.5},
        {"embedding": 0},
        {"hidden": 0},
        {"queue": 0},
        {"groups": 0},
        {"bank_batches": 0},
        {"bank_images": 0},
        {"denominator": "positives"},
        {"heads": "classes"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_settings_that_make_no_sense_are_refused(name: str, wrong: dict[str, Any]) -> None:
    (key,) = wrong
    Settings = find_method(name).Settings
    if key in {field.name for field in fields(Settings)}:
        with pytest.raises(ValueError, match=key):
            Settings(**wrong)
    else:
        with pytest.raises(TypeError, match=key):
            Settings(**wrong)


@pytest.mark.parametrize("name", NAMES)
def test_a_pair_that_is_settled_stays_as_it_is(name: str) -> None:
    method = find_method(name)
    settings = small(method)
    pair, _ = fresh(method, settings)
    method.settle_(pair, settings)
    once = [tensor.clone() for network in pair for tensor in network.state_dict().values()]
    method.settle_(pair, settings)
    torch.testing.assert_close([tensor for network in pair for tensor in network.state_dict().values()], once)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_a_schedule_and_gives_way_to_what_is_asked_for(name: str) -> None:
    preset = find_method(name).PRESET
    assert preset.keys() <= {"pretrain", "run", "model"}  # a method's own settings have their defaults
    own = resolve({"method": {"name": name}})
    assert resolve(preset, {"method": {"name": name}}) == own
    asked: Layer = {"pretrain": {"lr": 0.125, "epochs": 3}, "run": {"precision": "bf16"}}
    recipe = resolve(asked, {"method": {"name": name}})
    assert (recipe.pretrain.lr, recipe.pretrain.epochs, recipe.run.precision) == (0.125, 3, "bf16")


def test_the_preset_of_a_method_lies_between_the_defaults_and_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(moco, "PRESET", {"pretrain": {"steps": 9, "lr": 0.3, "batch_size": 256}})
    recipe = resolve({"method": {"name": "moco"}}, {"pretrain": {"epochs": 4, "lr": 0.1}})
    assert (recipe.pretrain.steps, recipe.pretrain.epochs) == (None, 4)
    assert (recipe.pretrain.lr, recipe.pretrain.batch_size) == (0.1, 256)
    assert resolve({}).pretrain.batch_size == 64  # of another method
    assert "batch_size: 256" in recipe_yaml(None, "", "moco")


VARIANTS: list[tuple[Method, dict[str, Any]]] = [
    (multi_dataset, {}),
    (multi_dataset, {"mix": MixSettings(region=True, pixel=True)}),
    (multi_dataset, {"sparse": multi_dataset.SparseSettings(variant="csc2", weight=0.5)}),
    (pixel_pairs, {}),
    (region_bank, {"queue": 3}),
    (moco, {"queue": 6}),
    (supervised, {"heads": "union"}),
    (supervised, {"heads": "datasets"}),
]
IN_THE_MIDDLE: list[tuple[Method, dict[str, Any]]] = [  # these ask in the middle of a loss, of a part of the batch
    (swav, {"queue": 8, "queue_epoch": 0}),
    (swav, {"queue": None, "frozen_steps": 9}),
    (pass_s, {"queue": 8, "queue_epoch": 0}),
    (pass_s, {"p2p": "contrast", "p2p_projector": False, "stages": (2, 3), "d2s_from": "same"}),
    (pass_s, {"p2p": "clusters", "d2s_view": "same"}),
    (pixel_attention, {"queue": 8}),
]
HALVES = (slice(0, 2), slice(2, 4))
SHARES = {"accuracy", "positive_cosine", "loss", "prototypes_used"}  # metrics that add up over processes
SHARES |= {"swapped_loss", "stage2_loss", "stage3_loss", "p2p_loss"}


def named(method: Method, changes: dict[str, Any]) -> str:
    return f"{method.__name__.rpartition('.')[2]} {' '.join(changes)}"


IDS = [named(*variant) for variant in VARIANTS]


def gradients_of(pair: EncoderPair, step: Step) -> list[Tensor]:
    parameters = [parameter for parameter in pair.query.parameters() if parameter.requires_grad]
    return [torch.zeros_like(p) if g is None else g for p, g in zip(
        parameters, torch.autograd.grad(step.loss, parameters, allow_unused=True), strict=True
    )]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "changes"), VARIANTS + IN_THE_MIDDLE, ids=[*IDS, *(named(*variant) for variant in IN_THE_MIDDLE)]
)
@pytest.mark.parametrize("images", [(2, 2), (1, 3), (2, 1, 1)], ids=str)
def test_a_batch_split_over_processes_gives_the_step_of_one(
    method: Method, changes: dict[str, Any], images: tuple[int, ...]
) -> None:
    """With fixed normalisation statistics.  The first image is half ignored, so that the parts weigh unlike."""
    settings = small(method, **changes)
    pair, state = frozen(method, settings)
    for number in range(3):
        state = one_step(method, pair, state, views_of(number), settings, rng_of(number)).state
    views = views_of(3)
    whole = one_step(method, pair, state, views, settings, rng_of(0))

    def work(processes: Processes) -> Step:
        return one_step(method, pair, state, part_of(views, processes.own), settings, rng_of(0), processes)

    steps = together(images, work)
    torch.testing.assert_close(torch.stack([step.loss for step in steps]).sum(), whole.loss)
    for name in SHARES & whole.metrics.keys():
        torch.testing.assert_close(torch.stack([step.metrics[name] for step in steps]).sum(), whole.metrics[name])
    for name in whole.metrics.keys() - SHARES:
        assert all(torch.equal(step.metrics[name], whole.metrics[name]) for step in steps), name
    parts = zip(*[gradients_of(pair, step) for step in steps], strict=True)
    for expected, shares in zip(gradients_of(pair, whole), parts, strict=True):
        torch.testing.assert_close(torch.stack(shares).sum(0), expected, rtol=1e-4, atol=1e-6)
    expected_state = method.pack(whole.state)
    for step in steps:
        for name, tensor in method.pack(step.state).items():
            torch.testing.assert_close(tensor, expected_state[name], rtol=1e-6, atol=1e-6)
            assert torch.equal(tensor, method.pack(steps[0].state)[name])


@pytest.mark.parametrize(("method", "changes"), VARIANTS, ids=IDS)
@pytest.mark.parametrize("accumulate", [2, 3, 9])
def test_accumulated_parts_give_the_step_of_the_whole_batch(
    method: Method, changes: dict[str, Any], accumulate: int
) -> None:
    settings = small(method, **changes)
    pair, state = frozen(method, settings)
    views = views_of(3)
    whole, parts = (
        one_step(method, pair, state, views, settings, rng_of(0), accumulate=count) for count in (1, accumulate)
    )
    torch.testing.assert_close(parts.loss, whole.loss)
    for share, expected in zip(gradients_of(pair, parts), gradients_of(pair, whole), strict=True):
        torch.testing.assert_close(share, expected, rtol=1e-4, atol=1e-6)
    assert parts.metrics.keys() == whole.metrics.keys()
    torch.testing.assert_close(dict(parts.metrics), dict(whole.metrics))


@pytest.mark.parametrize(("method", "changes"), IN_THE_MIDDLE, ids=[named(*variant) for variant in IN_THE_MIDDLE])
def test_a_part_of_a_batch_whose_loss_asks_in_its_middle_counts_as_a_batch_of_its_own(
    method: Method, changes: dict[str, Any]
) -> None:
    settings = small(method, **changes)
    pair, state = frozen(method, settings)
    for number in range(3):
        state = one_step(method, pair, state, views_of(number), settings, rng_of(number)).state
    views = views_of(3)
    whole = one_step(method, pair, state, views, settings, rng_of(0), accumulate=2)
    halves = [one_step(method, pair, state, part_of(views, part), settings, rng_of(0)) for part in HALVES]
    torch.testing.assert_close(whole.loss, (halves[0].loss + halves[1].loss) / 2)
    packed = method.pack(one_step(method, pair, state, views, settings, rng_of(0)).state)  # what is kept is of all
    torch.testing.assert_close(method.pack(whole.state), packed)


@given(st.integers(1, 40), st.integers(1, 40))
def test_even_parts_add_up_and_differ_by_one_at_most(count: int, parts: int) -> None:
    found = pure_call(even_parts, count, parts)
    assert (sum(found), len(found)) == (count, parts)
    assert max(found) - min(found) <= 1


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 9), seeds)
def test_parts_put_side_by_side_again_are_the_images_of_each_process(
    images: list[int], accumulate: int, seed: int
) -> None:
    rows = torch.randn(sum(images), 2, generator=rng_of(seed))

    def work(processes: Processes) -> int:
        own = (rows[processes.own], (Batch(rows[processes.own], rows[processes.own, 0]), ()))
        turns = split(own, processes, accumulate)
        assert all(len(part[0]) == among.images[among.rank] > 0 for part, among in turns)
        whole = join_rows([part for part, _ in turns])
        torch.testing.assert_close(whole, own, rtol=0, atol=0)
        assert isinstance(whole[1][0], Batch)
        gathered = [among.gather(part[0]) for part, among in turns]  # as many as there are, on every process
        assert [len(part) for part in gathered] == [among.total for _, among in turns]
        assert all(
            torch.equal(part[0], of_all[among.own]) for (part, among), of_all in zip(turns, gathered, strict=True)
        )
        return len(turns)

    assert together(tuple(images), work) == [min(accumulate, *images)] * len(images)


# multi_dataset


def test_a_one_class_image_in_a_fresh_bank_has_loss_zero() -> None:
    """The bank is pushed before the loss: the only prototype is the class's own."""
    settings = multi_dataset.Settings(embedding=8, hidden=8)
    pair, state = fresh(multi_dataset, settings)
    views = [view._replace(labels=torch.full_like(view.labels, 2)) for view in views_of(0)]
    step = one_step(multi_dataset, pair, state, views, settings, rng_of(0))
    assert step.loss.item() == pytest.approx(0, abs=1e-6)
    assert step.metrics["classes_in_bank"].item() == 1


def test_the_bank_holds_both_clean_views_of_the_batch() -> None:
    settings = multi_dataset.Settings(embedding=8, hidden=8, mix=MixSettings(region=True, pixel=True))
    pair, state = fresh(multi_dataset, settings)
    pair.key.eval()
    views = views_of(0)
    step = one_step(multi_dataset, pair, state, views, settings, rng_of(0))
    keys = pair.key(torch.cat([view.images for view in views]))
    expected = class_sums(keys, torch.cat([view.labels for view in views])[:, ::8, ::8], CLASSES)
    (entry,) = step.state.bank.window
    assert torch.allclose(entry.sums, expected.sums, atol=1e-5)
    assert torch.equal(entry.counts, expected.counts)


def test_small_views_are_queries_alone_and_count_as_much_as_large_ones() -> None:
    settings = multi_dataset.Settings(embedding=8, hidden=8)
    pair, state = frozen(multi_dataset, settings)
    views, (small, _) = views_of(0), views_of(1, size=16)
    plain = one_step(multi_dataset, pair, state, views, settings, rng_of(0))
    step = one_step(multi_dataset, pair, state, [*views, small], replace(settings, small_count=1), rng_of(0))
    assert torch.equal(step.state.bank.total.sums, plain.state.bank.total.sums)
    known = multi_dataset.known_prototypes(step.state, settings)
    assert known.present.all()
    own = prototype_nce(pair.query(small.images), known, hard_targets(small.labels[:, ::8, ::8]), settings.temperature)
    assert step.loss.item() == pytest.approx((2 * plain.loss.item() + own.mean().item()) / 3, rel=1e-5)
    alone = [view._replace(labels=torch.full_like(view.labels, 2)) for view in views]  # the small view has others too
    assert one_step(
        multi_dataset, pair, state, [*alone, small], replace(settings, small_count=1), rng_of(0)
    ).loss.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("variant", ["csc1", "csc2"])
@pytest.mark.parametrize("source", ["pixel", "prototype"])
@pytest.mark.parametrize(
    "mix", [MixSettings(), MixSettings(region=True), MixSettings(pixel=True), MixSettings(region=True, pixel=True)]
)
def test_every_switch_gives_a_finite_loss_and_gradient(variant: str, source: str, mix: MixSettings) -> None:
    sparse = multi_dataset.SparseSettings(variant=variant, source=source)
    settings = multi_dataset.Settings(embedding=8, hidden=8, mix=mix, sparse=sparse)
    pair, state = fresh(multi_dataset, settings)
    step = one_step(multi_dataset, pair, state, views_of(0), settings, rng_of(0))
    step.loss.backward()  # type: ignore[no-untyped-call]
    assert math.isfinite(step.loss.item())
    assert all(p.grad is None or p.grad.isfinite().all() for p in pair.query.parameters())


def test_csc2_adds_to_the_loss_and_csc1_takes_away() -> None:
    settings = multi_dataset.Settings(embedding=8, hidden=8)
    pair, state = fresh(multi_dataset, settings)
    pair.query.eval()
    pair.key.eval()
    loss = {}
    for variant in ("off", "csc1", "csc2"):
        chosen = replace(settings, sparse=multi_dataset.SparseSettings(variant=variant))
        loss[variant] = one_step(multi_dataset, pair, state, views_of(0), chosen, rng_of(0)).loss.item()
    assert loss["csc1"] < loss["off"] < loss["csc2"]


def test_sparse_settings_that_make_no_sense_are_refused() -> None:
    for wrong in ({"variant": "csc3"}, {"source": "class"}, {"k": 0}, {"weight": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            multi_dataset.SparseSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("images", "batches"), [(4, 1), (7, 1), (8, 2), (40, 10), (1, 1)])
def test_a_bank_counted_in_images_keeps_whole_batches_and_at_least_one(images: int, batches: int) -> None:
    settings = small(multi_dataset, bank_images=images)
    pair, state = fresh(multi_dataset, settings)
    assert state.bank.size == batches
    for number in range(batches + 1):
        state = one_step(multi_dataset, pair, state, views_of(number, size=16), settings, rng_of(number)).state
    assert len(state.bank.window) == batches
    assert multi_dataset.unpack(multi_dataset.pack(state), settings, DATA).bank.size == batches


def test_a_bank_is_one_epoch_long_unless_told_otherwise() -> None:
    lengths = [
        fresh(multi_dataset, small(multi_dataset, **changes))[1].bank.size
        for changes in ({}, {"bank_batches": 7}, {"bank_images": 20})
    ]
    assert lengths == [3, 7, 5]
    short = DATA._replace(epoch_batches=0)
    assert multi_dataset.initial_state(small(multi_dataset), short, rng_of(0), CPU).bank.size == 1


def test_a_bank_counted_in_images_and_in_batches_is_refused() -> None:
    with pytest.raises(ValueError, match="bank_batches and bank_images"):
        multi_dataset.Settings(bank_batches=2, bank_images=8)


# pixel_pairs


def test_a_batch_of_two_is_the_mean_of_its_images_weighted_by_their_anchors() -> None:
    settings = small(pixel_pairs)
    pair, state = frozen(pixel_pairs, settings)
    views = views_of(0, count=2)
    whole = one_step(pixel_pairs, pair, state, views, settings, rng_of(0))
    parts = [part_of(views, part) for part in (slice(0, 1), slice(1, 2))]
    losses = [one_step(pixel_pairs, pair, state, part, settings, rng_of(0)).loss for part in parts]
    anchors = [(part[0].labels[:, ::8, ::8] != IGNORE).sum() for part in parts]  # both views have the same labels
    assert anchors[0] < anchors[1]
    expected = (anchors[0] * losses[0] + anchors[1] * losses[1]) / (anchors[0] + anchors[1])
    torch.testing.assert_close(whole.loss, expected)


def test_the_loss_of_pixel_pairs_is_the_mean_over_both_directions() -> None:
    settings = small(pixel_pairs)
    pair, state = frozen(pixel_pairs, settings)
    first, second = views_of(0)[0], views_of(1)[1]  # the views differ in labels
    step = one_step(pixel_pairs, pair, state, [first, second], settings, rng_of(0))
    grids = [view.labels[:, ::8, ::8] for view in (first, second)]
    there = pixel_nce(pair.query(first.images), pair.key(second.images), *grids, 0.07)
    back = pixel_nce(pair.query(second.images), pair.key(first.images), *grids[::-1], 0.07)
    torch.testing.assert_close(step.loss, (there.mean() + back.mean()) / 2)
    expected = (there.weight + back.weight) / (2 * grids[0].numel())
    torch.testing.assert_close(step.metrics["anchor_share"], expected)


def test_views_of_one_class_each_that_do_not_meet_have_loss_zero() -> None:
    settings = small(pixel_pairs)
    pair, state = fresh(pixel_pairs, settings)
    views = [view._replace(labels=torch.full_like(view.labels, c)) for c, view in enumerate(views_of(0))]
    step = one_step(pixel_pairs, pair, state, views, settings, rng_of(0))
    assert step.loss.item() == 0
    assert step.metrics["anchor_share"].item() == 0


# region_bank


@pytest.mark.parametrize(("denominator", "queue"), [("all", 1), ("negatives", 32)])
def test_a_one_class_batch_in_fresh_queues_has_loss_zero(denominator: str, queue: int) -> None:
    """The queues are filled before the loss: all that competes is the class's own."""
    settings = small(region_bank, denominator=denominator, queue=queue)
    pair, state = fresh(region_bank, settings)
    views = [view._replace(labels=torch.full_like(view.labels, 2)) for view in views_of(0)]
    step = one_step(region_bank, pair, state, views, settings, rng_of(0))
    assert step.loss.item() == pytest.approx(0, abs=1e-5)
    assert step.metrics["classes_in_queues"].item() == 1
    assert step.metrics["rows_in_queues"].item() == min(queue, 8)


@pytest.mark.parametrize("denominator", ["all", "negatives"])
def test_the_loss_of_regions_is_against_queues_that_hold_both_views(denominator: str) -> None:
    settings = small(region_bank, denominator=denominator)
    pair, state = frozen(region_bank, settings)
    views = views_of(0)
    step = one_step(region_bank, pair, state, views, settings, rng_of(0))
    labels = [view.labels[:, ::8, ::8] for view in views]
    keys = pair.key(torch.cat([view.images for view in views]))
    queues = enqueue_classes(empty_queues(CLASSES, 32, 8), *class_means(keys, torch.cat(labels), CLASSES))
    losses = [
        region_nce(pair.query(view.images), own, queues, 0.07, denominator).mean()
        for view, own in zip(views, labels, strict=True)
    ]
    torch.testing.assert_close(step.loss, sum(losses) / 2, rtol=1e-4, atol=1e-4)
    assert torch.allclose(step.state.rows, queues.rows, atol=1e-5)
    assert torch.equal(step.state.pushed, queues.pushed)


def test_queues_longer_than_all_batches_keep_every_image() -> None:
    settings = small(region_bank)
    pair, state = fresh(region_bank, settings)
    expected = torch.zeros(CLASSES, dtype=torch.long)
    for number in range(3):
        views = views_of(number)
        state = one_step(region_bank, pair, state, views, settings, rng_of(number)).state
        grids = torch.cat([view.labels[:, ::8, ::8] for view in views]).flatten(1)
        expected += torch.tensor([int((grids == c).any(1).sum()) for c in range(CLASSES)])
    assert torch.equal(state.pushed, expected)
    assert torch.equal(state.filled.sum(1), expected.clamp(max=32))


# moco


class Sums(nn.Module):
    """Embeds an image by its first numbers, and remembers what it was given."""

    grid = Grid(32)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.given: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.given.append(images)
        return F.normalize(self.scale * images.flatten(1)[:, :8], dim=1)


def constant_(network: nn.Module) -> None:
    nn.init.zeros_(network.projection_head[-1].weight)
    nn.init.ones_(network.projection_head[-1].bias)


def test_equal_keys_and_queue_give_the_log_of_one_and_the_queue() -> None:
    settings = small(moco)
    pair, state = fresh(moco, settings)
    constant_(pair.query)
    constant_(pair.key)
    queue = torch.ones_like(state) / 8**0.5
    step = one_step(moco, pair, queue, views_of(0), settings, rng_of(0))
    assert step.loss.item() == pytest.approx(math.log(1 + 32), abs=1e-5)
    assert step.metrics["positive_cosine"].item() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(step.state, queue)


def test_the_queue_moves_by_a_batch_and_ends_with_the_keys_of_the_second_view() -> None:
    settings = small(moco)
    pair, state = frozen(moco, settings)
    views = views_of(0)
    after = one_step(moco, pair, state, views, settings, rng_of(0)).state
    assert torch.equal(after[:-4], state[4:])
    torch.testing.assert_close(after[-4:], pair.key(views[1].images))
    follow_(pair._replace(query=moco.build(settings, NETWORK, DATA, rng_of(7)).query), 0.5)
    moved = one_step(moco, pair, state, views, settings, rng_of(0)).state
    assert not torch.allclose(after[-4:], moved[-4:])


@given(seeds, st.integers(2, 9), st.integers(1, 4))
def test_keys_are_shuffled_among_groups_and_come_back_in_order(seed: int, count: int, groups: int) -> None:
    groups = min(groups, count)
    rng = rng_of(seed)
    views = [Batch(torch.randn(count, 3, 2, 2, generator=rng), torch.zeros(count, 2, 2)) for _ in range(2)]
    pair, state = EncoderPair(Sums(), Sums()), torch.zeros(count, 8)
    step = one_step(moco, pair, state, views, small(moco, groups=groups), rng_of(seed))
    for network, images in ((pair.query, views[0].images), (pair.key, views[1].images)):
        assert [len(part) for part in network.given] == [len(part) for part in images.tensor_split(groups)]
    order = torch.randperm(count, generator=rng_of(seed))
    assert torch.equal(torch.cat(pair.query.given), views[0].images)
    assert torch.equal(torch.cat(pair.key.given), views[1].images[order])
    keys = F.normalize(views[1].images.flatten(1)[:, :8], dim=1)
    torch.testing.assert_close(step.state, keys)
    positive = (F.normalize(views[0].images.flatten(1)[:, :8], dim=1) * keys).sum(1) / 0.2
    expected = (positive.exp() + count).log() - positive  # the queue is zeros
    torch.testing.assert_close(step.loss.detach(), expected.mean(), rtol=1e-4, atol=1e-5)


def test_without_batch_statistics_shuffling_changes_nothing() -> None:
    settings = small(moco)
    pair, state = frozen(moco, settings)
    views = views_of(0, count=5)
    steps = [one_step(moco, pair, state, views, settings, rng_of(seed)) for seed in range(4)]
    for step in steps[1:]:
        torch.testing.assert_close(step.loss, steps[0].loss)
        torch.testing.assert_close(step.state, steps[0].state)


def test_the_statistics_of_one_group_do_not_reach_another() -> None:
    pair, _ = fresh(moco, small(moco))
    images, others = views_of(0)[0].images, views_of(1)[0].images
    changed = torch.cat([images[:2], others[2:]])
    first, second = (moco._in_groups(pair.query, some, 2, 4) for some in (images, changed))
    assert torch.equal(first[:2], second[:2])
    assert not torch.allclose(first[2:], second[2:])
    one = moco._in_groups(pair.query, images, 1, 4)
    assert not torch.allclose(one, first)


@pytest.mark.parametrize(("batch", "groups"), [(3, 2), (1, 1), (15, 8)])
def test_a_batch_too_small_for_its_groups_is_refused(batch: int, groups: int) -> None:
    settings = small(moco, groups=groups)
    with pytest.raises(ValueError, match=f"groups: {groups} .* a batch of {batch}"):
        moco.initial_state(settings, DATA._replace(batch_size=batch), rng_of(0), CPU)
    queue = moco.initial_state(settings, DATA._replace(batch_size=2 * groups), rng_of(0), CPU)
    assert queue.shape == (32, 8)


# supervised


class Fixed(nn.Module):
    """Logits that are parameters, whatever the images."""

    grid = Grid(8)

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.clone())

    def forward(self, images: Tensor) -> Tensor:
        return self.logits * 1.0


def supervised_step(
    logits: Tensor, views: list[Batch], heads: str, data: Data = DATA
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Loss, gradient and metrics of logits (V B, C, h, w)."""
    settings, network = supervised.Settings(heads=heads), Fixed(logits)
    state = supervised.initial_state(settings, data, rng_of(0), CPU)
    step = pure_call(one_step, supervised, EncoderPair(network, network), state, views, settings, rng_of(0))
    step.loss.backward()
    assert network.logits.grad is not None
    return step.loss.detach(), network.logits.grad, dict(step.metrics)


def scored_views(seed: int) -> tuple[Tensor, list[Batch], Tensor]:
    """Random logits, views, and the labels of both on the feature grid."""
    views = views_of(seed, count=2)
    logits = 2 * torch.randn(4, CLASSES, 4, 4, generator=rng_of(seed))
    return logits, views, torch.cat([view.labels[:, ::8, ::8] for view in views])


@given(seeds)
def test_the_union_loss_is_torchs_cross_entropy_on_the_feature_grid(seed: int) -> None:
    logits, views, labels = scored_views(seed)
    loss, gradient, metrics = supervised_step(logits, views, "union")
    leaf = logits.clone().requires_grad_()
    expected = F.cross_entropy(leaf, labels, ignore_index=IGNORE)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, leaf.grad)
    valid = labels != IGNORE
    torch.testing.assert_close(metrics["accuracy"], (logits.argmax(1) == labels)[valid].float().mean())


@given(seeds)
def test_the_loss_of_a_head_for_each_dataset_is_cross_entropy_within_the_pixels_own(seed: int) -> None:
    logits, views, labels = scored_views(seed)
    loss, _, metrics = supervised_step(logits, views, "datasets")
    total, hits, count = 0.0, 0, 0
    for row, label in zip(logits.double().movedim(1, 3).reshape(-1, CLASSES), labels.flatten().tolist(), strict=True):
        if label != IGNORE:
            own = range(2) if label < 2 else range(2, 5)
            exponentials = {c: math.exp(float(row[c])) for c in own}
            total -= math.log(exponentials[label] / sum(exponentials.values()))
            hits += max(own, key=exponentials.__getitem__) == label
            count += 1
    assert math.isclose(float(loss), total / count, rel_tol=1e-5)
    assert math.isclose(float(metrics["accuracy"]), hits / count, rel_tol=1e-5)


@given(seeds)
def test_logits_of_other_datasets_count_in_the_union_only(seed: int) -> None:
    logits, views, labels = scored_views(seed)
    views = [view._replace(labels=view.labels.clamp(max=1)) for view in views]  # dataset a alone
    changed = logits.clone()
    changed[:, 2:] += 1 + torch.rand(4, 3, 4, 4, generator=rng_of(seed))
    (loss, gradient, _), (other, same, _) = (supervised_step(x, views, "datasets") for x in (logits, changed))
    assert torch.equal(loss, other)
    assert torch.equal(gradient, same)
    assert gradient[:, 2:].eq(0).all()
    (loss, gradient, _), (other, same, _) = (supervised_step(x, views, "union") for x in (logits, changed))
    assert other > loss
    assert not torch.equal(gradient, same)
    assert gradient[:, 2:].movedim(1, 3)[labels != IGNORE].gt(0).all()


@given(seeds)
def test_with_one_dataset_its_head_is_the_unions(seed: int) -> None:
    logits, views, _ = scored_views(seed)
    one = DATA._replace(union=LabelUnion([LabelSpace(name="all", classes=tuple("abcde"))]))
    union, datasets = (supervised_step(logits, views, heads, one) for heads in ("union", "datasets"))
    assert torch.equal(union[0], datasets[0])
    assert torch.equal(union[1], datasets[1])


@pytest.mark.parametrize(("heads", "label", "rivals"), [("union", 0, 5), ("datasets", 0, 2), ("datasets", 4, 3)])
def test_equal_logits_give_the_log_of_the_number_of_classes(heads: str, label: int, rivals: int) -> None:
    views = [view._replace(labels=torch.full_like(view.labels, label)) for view in views_of(0, count=2)]
    loss, _, _ = supervised_step(torch.zeros(4, CLASSES, 4, 4), views, heads)
    assert math.isclose(float(loss), math.log(rivals), abs_tol=1e-6)


def test_supervised_training_has_no_key_encoder() -> None:
    pair, _ = fresh(supervised, supervised.Settings())
    assert pair.key is pair.query
    assert supervised.key_momentum(supervised.Settings(), Progress(0, 1, 1)) == 0


def test_the_scores_of_supervised_training_are_its_logits() -> None:
    settings = supervised.Settings()
    pair, state = frozen(supervised, settings)
    images = views_of(0)[0].images
    assert torch.equal(supervised.class_scores(pair, state, images, settings), pair.query(images))
