"""Pixel contrast as a criterion: what its memory holds, warm-up, the split over processes and parts, whole runs."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from mdp.core.chance import generator
from mdp.core.contrast import pixel_rows
from mdp.core.criteria import Part, Source, pixel_contrast
from mdp.core.criteria._pixel_head import PixelHead
from mdp.core.criteria.cross_entropy import cross_entropy
from mdp.core.criteria.pixel_contrast import Settings
from mdp.core.geometry import Grid
from mdp.core.labels import IGNORE
from mdp.core.methods import Progress
from mdp.core.networks import Grids, Look, NetworkSettings
from mdp.core.networks.resnet import initialise_
from mdp.core.processes import alone
from mdp.core.prototype_bank import Prototypes
from mdp.io.data.crops import CropItem, stack_crops
from mdp.io.errors import Preempted, RecipeError
from mdp.io.evaluation.job import run_evaluation
from mdp.io.processes.world import ALONE, World
from mdp.io.recipe.layers import Layer, merge, resolve
from mdp.io.recipe.request import Request
from mdp.io.run.opened import new_segmentor
from mdp.io.training import classifier_init
from mdp.io.training.finetuning import describe_finetuning
from mdp.io.training.job import run_finetuning, run_pretraining
from tests.laws import pure_call
from tests.small_runs import TINY, assert_same, losses, signal_after, tensors_of
from tests.tensors import rng_of, seeds
from tests.test_criterion_runs import run_of
from tests.together import worlds

CONTRAST: Layer = {
    "criterion": {"name": "pixel_contrast", "embedding": 8, "max_views": 2, "capacity": 6, "pixels": 3},
    "finetune": {"batch_size": 5, "steps": 4, "crop": [48, 48]},
    "model": {"output_stride": 8},
}
IN_BATCH: Layer = {"criterion": {"memory": "off"}}
MINED: Layer = {"criterion": {"positives": 2, "negatives": 3}}


def whole_run(name: str, *layers: Layer) -> Path:
    layer = merge(TINY, CONTRAST, {"finetune": {"validate_steps": 0}, "eval": {"images": 2}}, *layers)
    return run_finetuning(Request(layers=(layer,), quiet=True, report=False, out=Path(name), init="scratch"))


def steps_of(world: World, layer: Layer, folder: Path) -> tuple[list[dict[str, float]], Tensor, dict[str, Tensor]]:
    """Values, weights and memory of two steps in a world of some processes, with fixed normalisation."""
    run = run_of(merge(CONTRAST, {"criterion": {"warmup_steps": 0}}, layer), world, folder)
    run.trained.eval()
    values = []
    for step, keys in enumerate(run.keys(0, 2)):
        items = [run.items[key] for key in keys]
        own = [item for item in items if isinstance(item, CropItem)][run.processes.own]
        values.append(run.advance(stack_crops(own), step))
    weights = torch.cat([parameter.detach().flatten() for parameter in run.trained.parameters()])
    return values, weights, run.criterion.pack(run.state)


@pytest.mark.parametrize(
    ("size", "parts", "layer"),
    [(2, 1, IN_BATCH), (4, 1, IN_BATCH), (2, 2, MINED), (4, 1, {}), (1, 2, {})],
    ids=["two-batch", "four-batch", "two-in-parts-mined", "four-memory", "parts-memory"],
)
def test_processes_draw_the_same_pixels_and_have_loss_gradient_and_memory_of_one(
    size: int, parts: int, layer: Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tensor, "float", Tensor.double)  # in float32 a ReLU at its kink may fall to either side of it
    torch.set_default_dtype(torch.float64)
    try:
        values, weights, memory = steps_of(ALONE, layer, tmp_path)
        split = merge(layer, {"run": {"accumulate": parts}})
        found = worlds(size, lambda world: steps_of(world, split, tmp_path))
    finally:
        torch.set_default_dtype(torch.float32)
    assert values[1]["anchors"] > 10
    assert values[1]["pixel_contrast"] > 0
    for others, other, held in found:
        for mine, theirs in zip(values, others, strict=True):
            assert theirs == pytest.approx(mine, rel=1e-9)
        torch.testing.assert_close(other, weights, rtol=1e-9, atol=1e-12)
        assert held.keys() == memory.keys()
        for name, tensor in held.items():
            torch.testing.assert_close(tensor, memory[name], rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")
def test_in_the_warm_up_and_with_weight_0_a_run_has_the_bits_of_cross_entropy_while_the_memory_fills() -> None:
    plain = tensors_of(whole_run("plain", {"criterion": {"weight": 0}}))
    assert not any(name.startswith(("criterion.", "state.")) for name in plain)
    waiting = tensors_of(whole_run("waiting", {"criterion": {"warmup_steps": 4}}))
    for name, tensor in plain.items():
        if name.startswith("network."):
            assert torch.equal(tensor, waiting[name]), name
    assert waiting["state.pixel_contrast.pixels.pushed"].sum() > 6
    assert waiting["state.pixel_contrast.regions.pushed"].sum() > 6
    counting = tensors_of(whole_run("counting", {"criterion": {"warmup_steps": 1}}))
    assert not torch.equal(counting["network.backbone.conv1.weight"], plain["network.backbone.conv1.weight"])


@pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")
def test_a_run_with_a_memory_is_resumed_exactly_and_scored_without_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = merge(MINED, {"criterion": {"warmup_steps": 1, "plus": {"dice": 1}}})
    whole = whole_run("whole", layer)
    with monkeypatch.context() as patch:
        signal_after(patch, 2)
        with pytest.raises(Preempted):
            whole_run("stopped", layer)
    resumed = run_finetuning(Request(resume="stopped", quiet=True, report=False))
    assert_same(tensors_of(whole), tensors_of(resumed))
    assert losses(whole) == losses(resumed)
    scores, _ = run_evaluation(Request(init=str(whole), quiet=True), "last", keep=False)
    assert 0 <= scores["miou"] <= 1


@given(seeds)
@settings(max_examples=10)
def test_a_memory_holds_embeddings_of_its_classes_own_pixels_and_regions_and_nothing_else(seed: int) -> None:
    own = Settings(memory="both", capacity=3, pixels=2, warmup_steps=9, embedding=4)
    state = pixel_contrast.initial_state(own, 4, torch.device("cpu"))
    given_pixels, given_regions = torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)
    for step in range(3):
        labels = torch.randint(IGNORE, 4, (2, 3, 4), generator=rng_of(seed + step))
        embeddings = torch.eye(5)[labels, :4].movedim(3, 1)  # (2, 4, 3, 4): a pixel is the unit vector of its class
        shared = pixel_contrast.prepare(state, labels, own, alone(2), Progress(step, 9, 9), Grids(Grid(1), Grid(1)))
        part = Part(labels, embeddings, torch.tensor(24), 2, labels)
        look = Look(embeddings, embeddings, embeddings)
        kept = pixel_contrast.loss(look, embeddings, shared, part, own, partial(generator, seed, step), alone(2)).kept
        state = pure_call(pixel_contrast.remember, state, kept, own, alone(2))
        counts = torch.stack([(labels == label).flatten(1).sum(1) for label in range(4)])  # (4, 2)
        given_pixels += counts.clamp(max=2).sum(1)
        given_regions += (counts > 0).sum(1)
    for queues, given_rows in ((state.pixels, given_pixels), (state.regions, given_regions)):
        assert queues is not None
        assert torch.equal(queues.pushed, given_rows)
        for label in range(4):
            held = queues.rows[label][queues.filled[label]]
            torch.testing.assert_close(held, torch.eye(4)[label].expand_as(held))


# From a pretraining run


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layer = merge(TINY, {"model": {"output_stride": 8}, "method": {"embedding": 8, "hidden": 12}})
    layer = merge(layer, {"pretrain": {"steps": 2, "validate_images": 1}})
    return run_pretraining(
        Request(layers=(layer,), quiet=True, report=False, out=tmp_path_factory.mktemp("runs") / "pre")
    )


@pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")
def test_prototypes_of_source_classes_count_from_the_first_step_and_a_run_with_them_is_resumed_exactly(
    pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier_init, "_CROPS", 20)
    layer = merge(TINY, CONTRAST, {"finetune": {"validate_steps": 0}, "eval": {"images": 2}})
    layer = merge(layer, {"criterion": {"source_prototypes": True, "warmup_steps": 0, "embedding": None}})
    request = partial(Request, layers=(layer,), quiet=True, report=False, init=str(pretrained))
    whole = run_finetuning(request(out=Path("whole")))
    with monkeypatch.context() as patch:
        signal_after(patch, 2)
        with pytest.raises(Preempted):
            run_finetuning(request(out=Path("stopped")))
    resumed = run_finetuning(Request(resume="stopped", quiet=True, report=False))
    found = tensors_of(whole)
    assert_same(found, tensors_of(resumed))
    first = json.loads((whole / "metrics.jsonl").read_text().splitlines()[0])
    assert first["pixel_contrast"] > 0  # no memory has anything yet
    known = tensors_of(pretrained)["state.total_counts"] > 0
    assert found["state.pixel_contrast.sources"].shape == (int(known.sum()), 8)
    assert found["state.pixel_contrast.related"].any(1).all()
    assert found["criterion.pixel_contrast.layers.0.weight"].shape == (12, 8, 1, 1)
    assert "prototypes of" in (whole / "log.txt").read_text()


def test_the_head_starts_from_the_projection_head_of_pretraining_and_prototypes_are_those_of_the_run(
    pretrained: Path,
) -> None:
    projection = {
        name.removeprefix("query.projection_head."): tensor
        for name, tensor in tensors_of(pretrained).items()
        if name.startswith("query.projection_head.")
    }
    own = Settings(source_prototypes=True, embedding=8, hidden=12)
    head = pixel_contrast.build(own, resolve(TINY).model, 64, 3, rng_of(0))
    known = Prototypes(torch.tensor([[2.0] + 7 * [0.0], 8 * [0.0], 8 * [1.0]]), torch.tensor([True, False, True]))
    related = torch.tensor([[True, False, False], [False, True, True], [True, False, True]])
    assert isinstance(head, PixelHead)
    state = pixel_contrast.start_(
        pixel_contrast.initial_state(own, 3, torch.device("cpu")), head, Source(known, related, projection), own
    )
    assert_same(head.layers.state_dict(), projection)
    torch.testing.assert_close(state.sources.norm(dim=1), torch.ones(2))
    assert state.related.tolist() == [[True, False], [False, True], [True, True]]


@pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")
@pytest.mark.parametrize(
    ("changes", "init", "words"),
    [
        ({}, "scratch", r"criterion\.source_prototypes: true: random weights have no prototypes; give --init RUN"),
        ({"embedding": 9}, "pre", "criterion.embedding: expected 8, as the pretraining run has it, got 9"),
        ({"hidden": 9}, "pre", r"criterion.hidden: the pretraining's projection head has \[12, 8, 1, 1\] as 0.weight"),
        (
            {"max_views": 16},
            "pre",
            "criterion.max_views: .* more than 16 of the 16 cells of a crop of 32 x 32 are its own",
        ),
        ({"features": "last"}, "pre", "criterion.features: the pretraining's projection head sees head, got 'last'"),
    ],
    ids=["scratch", "embedding", "hidden", "max_views", "features"],
)
def test_what_a_pretraining_run_does_not_have_is_told_in_a_line_before_there_is_a_folder(
    pretrained: Path, changes: Layer, init: str, words: str
) -> None:
    layer = merge(TINY, {"model": {"output_stride": 8}, "finetune": {"steps": 1, "batch_size": 64}})
    layer = merge(
        layer, {"criterion": {"name": "pixel_contrast", "source_prototypes": True, "max_views": 2, **changes}}
    )
    with pytest.raises(RecipeError, match=words) as error:
        run_finetuning(
            Request(layers=(layer,), quiet=True, out=Path("none"), init=init.replace("pre", str(pretrained)))
        )
    assert "\n" not in str(error.value)
    assert not Path("none").exists()


# Settings


def test_a_memory_of_many_classes_is_capped_and_its_bytes_are_told() -> None:
    assert pixel_contrast.capacity(Settings(), 19) == 5000
    assert pixel_contrast.state_bytes(Settings(), 19) == 2 * 19 * (5000 * 256 * 4 + 8)
    for classes in (20, 171, 919):
        assert 2 * classes * pixel_contrast.capacity(Settings(), classes) <= 200_000
    assert pixel_contrast.state_bytes(Settings(memory="off"), 19) == 0
    asked = merge(
        TINY,
        {"criterion": {"name": "pixel_contrast", "memory": "region", "capacity": 7, "embedding": 16, "max_views": 3}},
    )
    told = describe_finetuning(Request(layers=(asked,), init="scratch"))
    assert told["state_bytes"] == 8 * (7 * 16 * 4 + 8)


@pytest.mark.parametrize("head", ["hrnet", "deeplabv3"])
def test_stages_are_embedded_where_the_head_takes_them_and_the_last_map_elsewhere(head: str) -> None:
    model = NetworkSettings(backbone="resnet18", width=8, head=head, output_stride=32, channels=None)
    network = new_segmentor(resolve({"model": asdict(model)}), 3)
    built = pixel_contrast.build(Settings(embedding=8), model, model.last_channels, 3, rng_of(0))
    look = network.eval().look(torch.randn(2, 3, 64, 64, generator=rng_of(1)))
    embeddings = built.eval()(look)
    grid = network.grids.features if head == "hrnet" else network.grids.last
    assert embeddings.shape == (2, 8, 64 // grid.stride, 64 // grid.stride)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones_like(embeddings[:, 0]))
    if head == "deeplabv3":
        with pytest.raises(ValueError, match="features: the head deeplabv3 takes no stages"):
            pixel_contrast.build(Settings(features="stages"), model, model.last_channels, 3, rng_of(0))


# What it is for


def textures(seed: int) -> tuple[Tensor, Tensor]:
    """Images (4, 3, 16, 16) of stripes that lie or stand, in noise, and which of these each pixel is of (4, 16, 16)."""
    rng = rng_of(seed)
    labels = torch.randint(2, (4, 2, 2), generator=rng).repeat_interleave(8, 1).repeat_interleave(8, 2)
    stripes = (torch.arange(16) % 2).float()
    lying = torch.where(labels == 0, stripes[:, None], stripes[None]).unsqueeze(1)  # (4, 1, 16, 16)
    return lying + 0.3 * torch.randn(4, 3, 16, 16, generator=rng), labels


def trained_cosines(memory: str | None) -> tuple[float, float]:
    """The mean cosine of embeddings of the same and of different classes, after 40 steps with contrast or without."""
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1))
    classifier, own = nn.Conv2d(8, 2, 1), Settings(memory=memory or "off", max_views=8, embedding=8, warmup_steps=0)
    head = pixel_contrast.build(own, resolve(TINY).model, 8, 2, rng_of(0))
    for module in (network, classifier):
        initialise_(module, rng_of(1))
    parameters = [p for module in (network, classifier, head) for p in module.parameters()]
    optimizer, state = torch.optim.Adam(parameters, 0.01), pixel_contrast.initial_state(own, 2, torch.device("cpu"))
    for step in range(40):
        images, labels = textures(step)
        last = network(images)
        look, pixels = Look(last, last, classifier(last)), torch.tensor(labels.numel())
        value = cross_entropy(look.logits, labels, pixels)
        if memory is not None:
            shared = pixel_contrast.prepare(
                state, labels, own, alone(4), Progress(step, 40, 40), Grids(Grid(1), Grid(1))
            )
            part = Part(labels, look.logits, pixels, 4, labels)
            found = pixel_contrast.loss(look, head(look), shared, part, own, partial(generator, step), alone(4))
            value = value + found.value
            state = pixel_contrast.remember(state, found.kept, own, alone(4))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    images, labels = textures(1000)
    last = network(images)
    rows = pixel_rows(head(Look(last, last, last)).detach())
    alike, cosines = labels.flatten()[:, None] == labels.flatten(), rows @ rows.T
    return float(cosines[alike].mean()), float(cosines[~alike].mean())


def test_with_contrast_embeddings_of_a_class_are_more_alike_and_of_others_less_than_with_cross_entropy_alone() -> None:
    plain = trained_cosines(None)
    for memory in ("off", "both"):
        within, between = trained_cosines(memory)
        assert within > plain[0] + 0.2
        assert between < plain[1]
