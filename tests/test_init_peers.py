"""Weights that torchvision and timm save start a run: their networks, ours and the file agree bit for bit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mdp.core.networks import NetworkSettings, Segmentor
from mdp.core.networks.resnet import ResNet
from mdp.io.training.job import run_pretraining
from mdp.io.weights.init import take
from mdp.io.weights.inspect import inspect
from tests.peers import library_or_skip
from tests.small_runs import losses, tensors_of
from tests.small_runs import request as run_of
from tests.tensors import rng_of

pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")


@pytest.fixture
def from_torchvision() -> Callable[[str], torch.nn.Module]:
    torchvision = library_or_skip("torchvision")
    return lambda name: randomised(getattr(torchvision.models, name)())


@pytest.fixture
def from_timm() -> Callable[[str], torch.nn.Module]:
    timm = library_or_skip("timm")
    return lambda name: randomised(timm.create_model(name))


def randomised(network: torch.nn.Module) -> torch.nn.Module:
    """With running statistics that are none of a fresh network's."""
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5, generator=rng_of(len(name)))
    return network.eval()


@pytest.mark.parametrize("source", ["from_torchvision", "from_timm"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_our_backbone_computes_what_theirs_does(
    tmp_path: Path, source: str, name: str, request: pytest.FixtureRequest
) -> None:
    theirs = request.getfixturevalue(source)(name)
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    network = Segmentor(NetworkSettings(backbone=name, channels=8), 2)
    weights, (line,) = take(tmp_path / "x.pth", network, ("backbone",))
    assert "in the file, not used: fc" in line
    ours = ResNet(name, output_stride=32).eval()
    ours.load_state_dict({key.removeprefix("backbone."): tensor for key, tensor in weights.items()})
    images = torch.randn(1, 3, 48, 40, generator=rng_of(0))
    with torch.no_grad():
        x = theirs.conv1(images)
        x = theirs.maxpool((theirs.relu if source == "from_torchvision" else theirs.act1)(theirs.bn1(x)))
        expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(x))))
        torch.testing.assert_close(ours(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("source", ["from_torchvision", "from_timm"])
def test_pretraining_goes_on_from_their_resnet18(tmp_path: Path, source: str, request: pytest.FixtureRequest) -> None:
    theirs = request.getfixturevalue(source)("resnet18").state_dict()
    torch.save(theirs, tmp_path / "x.pth")
    model = [("model.width", 64), ("pretrain.steps", 2)]
    folder = run_pretraining(run_of(*model, init=str(tmp_path / "x.pth")))
    start, end = tensors_of(folder, "previous"), tensors_of(folder)
    body = [name for name in theirs if not name.startswith("fc.")]
    assert len(body) == 120
    assert all(torch.equal(start[f"query.backbone.{name}"], theirs[name]) for name in body)
    assert all(torch.equal(start[f"key.backbone.{name}"], theirs[name]) for name in body)
    moved = [name for name in body if not torch.equal(end[f"query.backbone.{name}"], theirs[name])]
    assert len(moved) > 110
    assert len(losses(folder)) >= 1
    assert "loaded 120 of 120 backbone tensors from" in (folder / "log.txt").read_text()


def test_timms_deep_stem_is_told_and_not_taken_for_the_plain_one(
    tmp_path: Path, from_timm: Callable[[str], torch.nn.Module]
) -> None:
    for name, words in (
        ("resnet50c", "stem of three"),
        ("resnet50d", "pooling in its"),
        ("resnext50_32x4d", "ResNeXt"),
    ):
        torch.save(from_timm(name).state_dict(), tmp_path / f"{name}.pth")
        found = inspect(tmp_path / f"{name}.pth", {"model": {"backbone": "resnet50"}})
        assert words in found["holds"]
        assert found["problem"]
