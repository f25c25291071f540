"""channels_last, and the networks that are kept out of it since torch corrupts memory there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mdp.core.networks import NetworkSettings, build_segmentor
from mdp.core.networks.memory_layout import to_channels_last_, unsafe_in_channels_last
from mdp.io.errors import RecipeError
from mdp.io.training.job import run_pretraining
from tests.conftest import ROOT
from tests.small_runs import request
from tests.tensors import rng_of

pytestmark = pytest.mark.usefixtures("bare_runs")


# trains the layer of the report, alone and in a network, as often as killed the process without the rule
TRAINING = """
import torch
from torch import nn
from mdp.core.networks.memory_layout import to_channels_last_
torch.set_num_threads(1)
for inputs, size in ((4, 8), (8, 48)):
    network = nn.Sequential(nn.Conv2d(3, inputs, 1), nn.Conv2d(inputs, 8, 1, stride=2))
    to_channels_last_(network)
    for _ in range(60):
        network(torch.randn(8, 3, size, size)).sum().backward()
print("alive")
"""


def is_channels_last(network: nn.Module) -> bool:
    weights = [part.weight for part in network.modules() if isinstance(part, nn.Conv2d) and part.kernel_size != (1, 1)]
    return all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


@pytest.mark.parametrize(
    ("layer", "unsafe"),
    [
        (nn.Conv2d(4, 8, 1, stride=2), True),
        (nn.Conv2d(15, 8, 1, stride=2), True),
        (nn.Conv2d(3, 64, 1, stride=(1, 2)), True),
        (nn.Conv2d(16, 32, 1, stride=2), False),
        (nn.Conv2d(4, 8, 1), False),
        (nn.Conv2d(3, 64, 7, stride=2, padding=3), False),  # the stem of every network
        (nn.Conv2d(8, 8, 1, stride=2, groups=8), False),
        (nn.Linear(4, 8), False),
    ],
    ids=str,
)
def test_unsafe_are_strided_1x1_convolutions_of_few_channels(layer: nn.Module, unsafe: bool) -> None:
    assert unsafe_in_channels_last(layer) == unsafe


@pytest.mark.parametrize(("width", "taken"), [(4, False), (8, False), (15, False), (16, True), (64, True)])
def test_narrow_networks_stay_as_they_are_on_a_cpu(width: int, taken: bool) -> None:
    network = build_segmentor(
        NetworkSettings(backbone="resnet18", width=width, channels=16, dilations=(1,)), 3, rng_of(0)
    )
    assert to_channels_last_(network) == taken
    assert is_channels_last(network) == taken


def test_other_devices_take_narrow_networks_too() -> None:
    with torch.device("meta"):
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 1, stride=2))
    assert to_channels_last_(network)
    assert is_channels_last(network)


@pytest.mark.usefixtures("in_an_empty_folder")
def test_asking_for_it_where_it_is_unsafe_is_refused_and_not_asking_is_not() -> None:
    narrow = [("model.width", 8), ("pretrain.steps", 1), ("run.channels_last", True)]
    with pytest.raises(RecipeError, match=r"run.channels_last: true: .* take model.width=16"):
        run_pretraining(request(*narrow, out=Path("asked")))
    assert json.loads(Path("asked/status.json").read_text())["exit_code"] == 2
    run_pretraining(request(*narrow[:2], out=Path("not_asked")))


@pytest.mark.parametrize("instructions", ["AVX2", "ALL"])
def test_training_narrow_layers_survives(instructions: str) -> None:
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    command = [sys.executable, "-c", TRAINING]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
