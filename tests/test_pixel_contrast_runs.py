"""Pixel contrast as a criterion: what its memory holds, warm-up, the split over processes and parts, whole runs."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mdp.io.data.crops import CropItem, stack_crops
from mdp.io.errors import Preempted
from mdp.io.evaluation.job import run_evaluation
from mdp.io.processes.world import ALONE, World
from mdp.io.recipe.layers import Layer, merge
from mdp.io.recipe.request import Request
from mdp.io.training.job import run_finetuning
from tests.small_runs import TINY, assert_same, losses, signal_after, tensors_of
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
    return run_finetuning(Request(layers=(layer,), quiet=True, out=Path(name), init="scratch"))


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


@pytest.mark.usefixtures("in_an_empty_folder")
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


@pytest.mark.usefixtures("in_an_empty_folder")
def test_a_run_with_a_memory_is_resumed_exactly_and_scored_without_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = merge(MINED, {"criterion": {"warmup_steps": 1, "plus": {"dice": 1}}})
    whole = whole_run("whole", layer)
    with monkeypatch.context() as patch:
        signal_after(patch, 2)
        with pytest.raises(Preempted):
            whole_run("stopped", layer)
    resumed = run_finetuning(Request(resume="stopped", quiet=True))
    assert_same(tensors_of(whole), tensors_of(resumed))
    assert losses(whole) == losses(resumed)
    scores, _ = run_evaluation(Request(init=str(whole), quiet=True), "last", keep=False)
    assert 0 <= scores["miou"] <= 1
