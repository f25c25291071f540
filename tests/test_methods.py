"""Every method in mdp/core/methods goes through the same laws; then the laws of each."""

import math
import pkgutil
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import mdp.core.methods
from mdp.core.batches import Batch
from mdp.core.labels import IGNORE
from mdp.core.methods import Method, multi_dataset
from mdp.core.mixing import MixSettings
from mdp.core.networks import NetworkSettings, follow_
from mdp.core.networks.pair import EncoderPair
from mdp.core.prototypes import class_sums
from mdp.io.recipe import find_method
from tests.laws import pure_call
from tests.tensors import rng_of

NAMES = [module.name for module in pkgutil.iter_modules(mdp.core.methods.__path__)]
NETWORK = NetworkSettings(backbone="resnet18", width=4, output_stride=8, channels=8, dilations=(1, 2))
CPU = torch.device("cpu")
CLASSES = 5


def alone(tensor: Tensor) -> Tensor:
    return tensor


def views_of(seed: int, count: int = 4, size: int = 32) -> list[Batch]:
    """Two views of images whose colour says the class: learnable in a few steps."""
    rng = rng_of(seed)
    palette = torch.linspace(-2, 2, CLASSES)
    views = []
    for _ in range(2):
        labels = torch.randint(0, CLASSES, (count, 2, 2), generator=rng)
        labels = labels.repeat_interleave(size // 2, 1).repeat_interleave(size // 2, 2)
        labels[0, :8] = IGNORE
        images = palette[labels.clamp(min=0)][:, None].expand(-1, 3, -1, -1)
        views.append(Batch(images + 0.1 * torch.randn(count, 3, size, size, generator=rng), labels))
    return views


def small(method: Method) -> Any:
    return method.Settings(embedding=8, hidden=8)


def fresh(method: Method, settings: Any) -> tuple[EncoderPair, Any]:
    return method.build(settings, NETWORK, rng_of(0)), method.initial_state(settings, CLASSES, 3, CPU)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_a_function_of_its_arguments(name: str) -> None:
    method = find_method(name)
    settings = small(method)
    pair, state = fresh(method, settings)
    pair.query.eval()  # in training mode BatchNorm's running statistics are written
    pair.key.eval()
    step = pure_call(method.step, pair, state, views_of(1), settings, rng_of(2), alone)
    assert step.loss.requires_grad
    assert step.loss.isfinite()
    assert all(not value.requires_grad for value in step.metrics.values())


@pytest.mark.parametrize("name", NAMES)
def test_training_lowers_the_loss(name: str) -> None:
    method = find_method(name)
    settings = small(method)
    pair, state = fresh(method, settings)
    optimizer = torch.optim.SGD(pair.query.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for number in range(25):
        step = method.step(pair, state, views_of(number), settings, rng_of(number), alone)
        optimizer.zero_grad()
        step.loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        follow_(pair, 0.9)
        state = step.state
        losses.append(step.loss.item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.parametrize("name", NAMES)
def test_a_packed_state_gives_the_same_next_step(name: str) -> None:
    method = find_method(name)
    settings = small(method)
    pair, state = fresh(method, settings)
    for number in range(4):
        state = method.step(pair, state, views_of(number), settings, rng_of(number), alone).state
    back = method.unpack(method.pack(state), settings, 3)
    pair.query.eval()
    pair.key.eval()
    first = method.step(pair, state, views_of(9), settings, rng_of(9), alone)
    second = method.step(pair, back, views_of(9), settings, rng_of(9), alone)
    assert torch.equal(first.loss, second.loss)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_ignored_pixels_gives_zero_loss_and_finite_gradients(name: str) -> None:
    method = find_method(name)
    settings = small(method)
    pair, state = fresh(method, settings)
    views = [view._replace(labels=torch.full_like(view.labels, IGNORE)) for view in views_of(0)]
    step = method.step(pair, state, views, settings, rng_of(0), alone)
    step.loss.backward()  # type: ignore[no-untyped-call]
    assert step.loss.item() == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in pair.query.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_only_the_query_encoder_receives_gradients(name: str) -> None:
    method = find_method(name)
    settings = small(method)
    pair, state = fresh(method, settings)
    step = method.step(pair, state, views_of(0), settings, rng_of(0), alone)
    step.loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in pair.key.parameters())
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in pair.query.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_full_state_takes_the_memory_that_was_planned(name: str) -> None:
    method = find_method(name)
    settings = small(method)
    pair, state = fresh(method, settings)
    for number in range(5):
        state = method.step(pair, state, views_of(number), settings, rng_of(number), alone).state
    packed = sum(tensor.numel() * tensor.element_size() for tensor in method.pack(state).values())
    assert packed == method.state_bytes(settings, CLASSES, 3)


# multi_dataset


def test_a_one_class_image_in_a_fresh_bank_has_loss_zero() -> None:
    """The bank is pushed before the loss: the only prototype is the class's own."""
    settings = multi_dataset.Settings(embedding=8, hidden=8)
    pair, state = fresh(multi_dataset, settings)
    views = [view._replace(labels=torch.full_like(view.labels, 2)) for view in views_of(0)]
    step = multi_dataset.step(pair, state, views, settings, rng_of(0), alone)
    assert step.loss.item() == pytest.approx(0, abs=1e-6)
    assert step.metrics["classes_in_bank"].item() == 1


def test_the_bank_holds_both_clean_views_of_the_batch() -> None:
    settings = multi_dataset.Settings(embedding=8, hidden=8, mix=MixSettings(region=True, pixel=True))
    pair, state = fresh(multi_dataset, settings)
    pair.key.eval()
    views = views_of(0)
    step = multi_dataset.step(pair, state, views, settings, rng_of(0), alone)
    keys = pair.key(torch.cat([view.images for view in views]))
    expected = class_sums(keys, torch.cat([view.labels for view in views])[:, ::8, ::8], CLASSES)
    (entry,) = step.state.window
    assert torch.allclose(entry.sums, expected.sums, atol=1e-5)
    assert torch.equal(entry.counts, expected.counts)


def test_two_processes_with_half_the_batch_equal_one_with_the_whole() -> None:
    """`all_sum` is all that other processes are: class sums and valid counts add, BatchNorm statistics are fixed."""
    settings = multi_dataset.Settings(embedding=8, hidden=8)
    pair, state = fresh(multi_dataset, settings)
    pair.query.eval()
    pair.key.eval()
    views = views_of(3)
    whole = multi_dataset.step(pair, state, views, settings, rng_of(0), alone)
    halves = [[Batch(view.images[part], view.labels[part]) for view in views] for part in (slice(0, 2), slice(2, 4))]
    sent: list[list[Tensor]] = []
    for half in halves:  # what each rank would send, in order
        mine: list[Tensor] = []
        multi_dataset.step(pair, state, half, settings, rng_of(0), lambda t, mine=mine: mine.append(t) or t)  # type: ignore[func-returns-value,misc]
        sent.append(mine)
    # class sums first; the counts of valid pixels follow, one a view
    losses = []
    for half in halves:
        answers = iter([a + b for a, b in zip(*sent, strict=True)])
        losses.append(multi_dataset.step(pair, state, half, settings, rng_of(0), lambda _: next(answers)))  # noqa: B023
    assert torch.allclose(losses[0].loss + losses[1].loss, whole.loss, atol=1e-5)
    assert torch.allclose(losses[0].state.total.sums, whole.state.total.sums, atol=1e-5)
    assert torch.equal(losses[0].state.total.counts, whole.state.total.counts)


@pytest.mark.parametrize("variant", ["csc1", "csc2"])
@pytest.mark.parametrize("source", ["pixel", "prototype"])
@pytest.mark.parametrize(
    "mix", [MixSettings(), MixSettings(region=True), MixSettings(pixel=True), MixSettings(region=True, pixel=True)]
)
def test_every_switch_gives_a_finite_loss_and_gradient(variant: str, source: str, mix: MixSettings) -> None:
    sparse = multi_dataset.SparseSettings(variant=variant, source=source)
    settings = multi_dataset.Settings(embedding=8, hidden=8, mix=mix, sparse=sparse)
    pair, state = fresh(multi_dataset, settings)
    step = multi_dataset.step(pair, state, views_of(0), settings, rng_of(0), alone)
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
        loss[variant] = multi_dataset.step(pair, state, views_of(0), chosen, rng_of(0), alone).loss.item()
    assert loss["csc1"] < loss["off"] < loss["csc2"]


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": 0.0}, {"key_momentum": 1.5}, {"embedding": 0}, {"bank_batches": 0}],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        multi_dataset.Settings(**wrong)
    with pytest.raises(ValueError, match="variant"):
        multi_dataset.SparseSettings(variant="csc3")
