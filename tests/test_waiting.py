"""Nothing in a step waits for a GPU, as far as a machine without one can tell (see `elsewhere`)."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from mdp.core.batches import Batch
from mdp.core.chance import generator
from mdp.core.criteria.lovasz import lovasz_softmax
from mdp.core.labels import LabelSpace, LabelUnion
from mdp.core.methods import Data, Progress
from mdp.core.methods.knn_moco import NeighbourSettings
from mdp.core.methods.multi_dataset import SparseSettings
from mdp.core.mixing import MixSettings
from mdp.core.networks import NetworkSettings
from mdp.core.photometry import PhotometrySettings, apply_photometry, draw_photometry, normalise, stack_draws
from mdp.core.processes import alone
from mdp.core.queues import ClassQueues, empty_queues, enqueue_rows
from mdp.io.data.crops import crop_batch, finished_batch
from mdp.io.data.views import finished_views, view_batches
from mdp.io.recipe.methods import find_method
from mdp.io.training.update import _numbers
from tests.elsewhere import DEVICE, Elsewhere, moved_, pretended
from tests.whole_steps import Sizes, made_crops, made_views

BATCH, CLASSES, SIDE = 4, 9, 32
MIX = MixSettings(region=True, pixel=True)
SMALL = {"embedding": 8, "hidden": 8, "bank_batches": 2}
SETTING_UP = {"noise_queue", "initial_state"}  # before the first step, waiting is free
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "multi_dataset": ("multi_dataset", SMALL),
    "mixed": ("multi_dataset", {**SMALL, "mix": MIX}),
    "csc1": ("multi_dataset", {**SMALL, "sparse": SparseSettings(variant="csc1")}),
    "csc2": ("multi_dataset", {**SMALL, "mix": MIX, "sparse": SparseSettings(variant="csc2", source="prototype")}),
    "pixel_pairs": ("pixel_pairs", {"embedding": 8, "hidden": 8}),
    "region_bank": ("region_bank", {"embedding": 8, "hidden": 8, "queue": 5}),
    "region_bank, negatives": (
        "region_bank",
        {"embedding": 8, "hidden": 8, "queue": 5, "denominator": "negatives"},
    ),
    "moco": ("moco", {"embedding": 8, "queue": 12, "groups": 2}),
    "knn_moco": (
        "knn_moco",
        {"embedding": 8, "queue": 12, "groups": 2, "neighbours": NeighbourSettings(k=3, warmup_epochs=0)},
    ),
    "supervised": ("supervised", {}),
    "pass_s": ("pass_s", {"embedding": 8, "hidden": 8, "prototypes": 6, "frozen_steps": 0}),
    "p2p clusters": ("pass_s", {"embedding": 8, "hidden": 8, "prototypes": 6, "frozen_steps": 0, "p2p": "clusters"}),
    "pixel_attention": ("pixel_attention", {"embedding": 8, "hidden": 8, "prototypes": 6, "queue": 4}),
    "swav": ("swav", {"embedding": 8, "hidden": 8, "prototypes": 6, "queue": 4, "queue_epoch": 0, "frozen_steps": 0}),
}


def losses(name: str, there: bool) -> list[Tensor]:
    """The losses of three steps of a method and the last gradients, on the device that is not there or on the CPU."""
    kind, given = METHODS[name]
    method = find_method(kind)
    settings = method.Settings(**given)
    network = NetworkSettings(backbone="resnet18", width=8, channels=8, output_stride=8, dilations=(1, 2))
    union = LabelUnion([LabelSpace(name="a", classes=tuple(map(str, range(CLASSES))))])
    data = Data(union, BATCH, 2, network.last_channels)
    pair = method.build(settings, network, data, generator(0))
    views = []
    for view in range(2):
        rng = generator(1, view)
        images = torch.randn(BATCH, 3, SIDE, SIDE, generator=rng)
        labels = torch.randint(-1, CLASSES, (BATCH, SIDE, SIDE), generator=rng)
        frames = torch.tensor([[0, view, SIDE, SIDE, view]]).repeat(BATCH, 1)
        views.append(Batch(*(Elsewhere(t) if there else t for t in (images, labels, frames))))
    if there:
        for one in dict.fromkeys(pair):
            moved_(one)
    state = method.initial_state(settings, data, generator(2), DEVICE if there else torch.device("cpu"))
    found = []
    for step in range(3):
        torch.manual_seed(0)
        ready = method.prepare(pair, state, views, settings, generator(3, step), alone(BATCH), Progress(step, 3, 2))
        loss = method.loss(pair, ready.shared, ready.parts, settings, alone(BATCH))
        found.append(loss.value.detach())
        if step == 2:
            loss.value.backward()  # type: ignore[no-untyped-call]
        state = method.remember(ready.state, loss.kept, settings, alone(BATCH), {})
    return [*found, *(parameter.grad for parameter in pair.query.parameters() if parameter.grad is not None)]


@pytest.mark.parametrize("name", METHODS)
def test_a_step_of_a_method_reads_no_number_from_the_device(name: str) -> None:
    expected = losses(name, there=False)
    with pretended() as waits, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = losses(name, there=True)
        assert all(isinstance(loss, Elsewhere) for loss in found[:3])
        places = {wait.split()[2].rstrip(":") for wait in waits}
        assert places <= SETTING_UP, waits
    found = [tensor.inner if isinstance(tensor, Elsewhere) else tensor for tensor in found]
    torch.testing.assert_close(torch.stack(found[:3]), torch.stack(expected[:3]))
    for own, other in zip(found[3:], expected[3:], strict=True):
        assert (own - other).norm() <= 1e-4 * max(1.0, float(other.norm()))


def test_photometry_reads_no_number_from_the_device() -> None:
    draws = stack_draws([draw_photometry(generator(i), PhotometrySettings()) for i in range(8)])
    images = torch.randint(0, 256, (8, 3, 16, 16), generator=generator(0)).to(torch.uint8)
    expected = normalise(apply_photometry(images, draws))
    with pretended() as waits:
        found = normalise(apply_photometry(Elsewhere(images), draws))
        assert waits == []
    torch.testing.assert_close(found.inner, expected)


def test_lovasz_reads_only_which_classes_there_are() -> None:
    logits = torch.randn(2, 4, 5, 6, generator=generator(0))
    labels = torch.randint(-1, 3, (2, 5, 6), generator=generator(1))
    for own in (labels, torch.full_like(labels, -1)):
        leaf = logits.clone().requires_grad_()
        expected = lovasz_softmax(leaf, own)
        expected.backward()
        with pretended() as waits:
            there = Elsewhere(logits).requires_grad_()
            found = lovasz_softmax(there, Elsewhere(own))
            assert len(waits) == 1, waits
            found.backward()
        torch.testing.assert_close(found.inner, expected.detach())
        slope = there.grad.inner if isinstance(there.grad, Elsewhere) else there.grad
        torch.testing.assert_close(slope, leaf.grad)


def test_queues_of_a_device_hold_the_rows_that_those_of_a_cpu_do() -> None:
    here, labels = empty_queues(3, 4, 2), torch.tensor([2, -1, 0, 2, 2, -1, 2, 2, 0])
    with pretended() as waits:
        there = ClassQueues(*map(Elsewhere, here))
        for step in range(3):
            rows = torch.randn(9, 2, generator=generator(step))
            here = enqueue_rows(here, rows[labels >= 0], labels[labels >= 0])
            there = enqueue_rows(there, Elsewhere(rows), Elsewhere(labels))
            for own, other in zip(there, here, strict=True):
                assert torch.equal(own.inner, other)
        assert waits == []


def test_views_finished_ahead_on_a_device_are_those_that_workers_finish() -> None:
    items = made_views(Sizes(batch=5, crop=16), 0)
    expected = view_batches(items, torch.device("cpu"))
    with pretended() as waits:
        moved = items._replace(images=tuple(map(Elsewhere, items.images)), labels=tuple(map(Elsewhere, items.labels)))
        found = view_batches(finished_views(moved, DEVICE), DEVICE)
        assert waits == []
    for view, other in zip(found, expected, strict=True):
        for own, tensor in zip(view, other, strict=True):
            torch.testing.assert_close(own.inner, tensor)


def test_crops_finished_ahead_on_a_device_are_those_that_workers_finish() -> None:
    crops = made_crops(5, (16, 24), 9)._replace(inside=[(16, 24), (1, 24), (16, 3), (7, 9), (16, 23)])
    expected = crop_batch(crops, torch.device("cpu"))
    with pretended() as waits:
        moved = crops._replace(images=Elsewhere(crops.images), labels=Elsewhere(crops.labels))
        found = crop_batch(finished_batch(moved, DEVICE), DEVICE)
        assert waits == []
    torch.testing.assert_close(found.images.inner, expected.images)
    assert torch.equal(found.images.inner == 0, expected.images == 0)


def test_all_numbers_of_a_step_are_waited_for_once_and_counts_stay_whole_numbers() -> None:
    tensors = {"loss": torch.tensor(0.25), "classes": torch.tensor(7), "norm": torch.tensor(2.0, dtype=torch.float64)}
    with pretended() as waits:
        found = _numbers({name: Elsewhere(tensor) for name, tensor in tensors.items()})
        assert len(waits) == 1
    assert found == {"loss": 0.25, "classes": 7, "norm": 2.0}
    assert [type(value) for value in found.values()] == [float, int, float]


def test_the_played_device_tells_of_everything_that_waits() -> None:
    """Otherwise the tests above would pass whatever a step does."""
    x, mask = Elsewhere(torch.tensor([1.0, 2.0])), Elsewhere(torch.tensor([True, False]))
    ways = [
        lambda: x.sum().item(),
        lambda: float(x[0]),
        lambda: bool((x > 0).all()),
        x.tolist,
        x.cpu,
        x.nonzero,
        x.unique,
        lambda: x[mask],
        lambda: torch.ones(2).to(DEVICE),
        lambda: torch.tensor(1.0, device=DEVICE),
        lambda: x.new_tensor(1.0),
    ]
    with pretended() as waits:
        for number, way in enumerate(ways, 1):
            way()
            assert len(waits) == number, waits
        for quiet in (
            lambda: torch.ones(2).to(DEVICE, non_blocking=True),
            lambda: x[:1] + 1,
            lambda: x.new_full((), 3),
        ):
            quiet()
        assert len(waits) == len(ways), waits
