"""Frozen features: of which weights, on which grid, normalised how, and what is refused."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mdp.core.geometry import Grid
from mdp.core.networks.resnet import ResNet
from mdp.core.photometry import normalise
from mdp.io.errors import CheckpointError, RecipeError
from mdp.io.unsupervised import features as module
from mdp.io.unsupervised.features import open_features, results_folder
from tests.tensors import rng_of

NETWORK = ResNet("resnet18", 8, 32).eval()
SCRATCH = {"model": {"backbone": "resnet18", "width": 8}}
IMAGES = torch.randint(0, 256, (2, 3, 48, 64), generator=rng_of(1), dtype=torch.uint8)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "moco.pth"
    weights = {f"module.encoder_q.{name}": tensor for name, tensor in NETWORK.state_dict().items()}
    torch.save({"state_dict": {**weights, "module.encoder_q.fc.weight": torch.zeros(10, 64)}}, path)
    return str(path)


def last_stage_dilations(network: nn.Module) -> list[int]:
    convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3)]
    return [convolution.dilation[0] for convolution in convolutions[-4:]]


def test_features_of_a_file_are_those_of_the_network_that_it_holds(file: str) -> None:
    found = open_features(file)
    assert (found.channels, found.stride, found.image_channels) == (64, 32, 3)
    with torch.no_grad():
        expected = NETWORK(normalise(IMAGES / 255))
    assert torch.allclose(found.maps(IMAGES), expected, atol=1e-5)
    assert torch.allclose(found.pooled(IMAGES), expected.mean((2, 3)), atol=1e-5)
    assert torch.allclose(found.maps(IMAGES / 255), expected, atol=1e-5)
    assert found.lines[0].startswith("loaded 120 of 120 backbone tensors")


def test_at_a_smaller_stride_the_whole_last_stage_is_dilated_unless_asked_otherwise(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[nn.Module] = []

    def kept(network: nn.Module) -> bool:
        built.append(network)
        return False

    monkeypatch.setattr(module, "to_channels_last_", kept)
    found = open_features(file, stride=16)
    assert found.grid == Grid(16)
    assert found.maps(IMAGES).shape == (2, 64, 3, 4)
    open_features(file, {"model": {"first_dilation": "before"}}, stride=16)
    assert [last_stage_dilations(network) for network in built] == [[2, 2, 2, 2], [1, 2, 2, 2]]
    assert not any(parameter.requires_grad for parameter in built[0].parameters())
    assert not built[0].training


def test_the_stride_of_the_settings_wins(file: str) -> None:
    assert open_features(file, {"model": {"output_stride": 8}}, stride=16).stride == 8


def test_random_weights_are_a_function_of_the_seed_and_no_global_generator_is_touched() -> None:
    before = torch.get_rng_state()

    def map_of(seed: int) -> Tensor:
        return open_features("scratch", {**SCRATCH, "run": {"seed": seed}}).maps(IMAGES)

    assert torch.equal(map_of(1), map_of(1))
    assert not torch.equal(map_of(1), map_of(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_colors_need_no_weights() -> None:
    found = open_features("colors", stride=16)
    assert (found.channels, found.grid) == (64, Grid(16, 7))
    assert torch.allclose(found.maps(IMAGES).sum(1), torch.ones(2, 3, 4))


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("nowhere.pth", CheckpointError, "expected a run folder or a weights file, found nothing"),
        ("empty", CheckpointError, "no checkpoints/last.safetensors in it"),
        ("text.pth", CheckpointError, "cannot be read as plain weights"),
        ("other.pth", CheckpointError, "the network is the default: the file holds no ResNet; --backbone NAME chooses"),
    ],
)
def test_what_cannot_be_opened_is_refused_in_one_line(
    tmp_path: Path, source: str, error: type[Exception], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"stem.conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(error, match=words) as caught:
        open_features(str(tmp_path / source))
    assert "\n" not in str(caught.value)
    assert "--init-partial" not in str(caught.value)


def test_a_backbone_that_does_not_exist_is_refused() -> None:
    with pytest.raises(RecipeError, match="backbone: expected one of resnet18, "):
        open_features("scratch", {"model": {"backbone": "resnet19"}})


def test_results_go_into_the_folder_of_the_run_unless_another_is_named(tmp_path: Path, file: str) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    checkpoint = run / "checkpoints" / "last.safetensors"
    checkpoint.touch()
    for source in (run, checkpoint):
        assert results_folder(None, str(source), "probe", "voc-val") == run / "probe" / "voc-val"
    assert results_folder(tmp_path / "out", str(run), "probe", "voc-val") == tmp_path / "out"
    assert [results_folder(None, source, "probe", "voc-val") for source in (file, "colors")] == [None, None]
