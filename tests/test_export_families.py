"""Backbones out of timm and all heads: trained by the command line, exported, and loaded by the printed line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from mdp.cli import cli
from mdp.core.networks.decode_heads import HEADS
from mdp.io.datasets.shapes_target import CLASSES
from mdp.io.export.asked import ExportQuestion
from mdp.io.export.check import difference
from mdp.io.export.job import run_export
from mdp.io.export.source import read_source
from mdp.io.export.targets import find
from tests.export_runs import make_run
from tests.peers import library_or_skip, quiet

pytestmark = pytest.mark.usefixtures("bare_runs")

FAMILIES = {  # the smallest of a family, at their own strides
    "test_vit": 16, "pvt_v2_b0": 32, "test_convnext": 32, "test_efficientnet": 32, "test_resnet": 32,
}  # fmt: skip
DEEPLABS = ("model.channels", "model.dilations")
TINY = {
    "model.channels": 8, "model.dilations": "[1,2]", "run.workers": 0, "run.threads": 1, "run.check": "false",
    "finetune.crop": "[64,64]", "finetune.batch_size": 2, "finetune.validate_steps": 0, "eval.images": 1,
}  # fmt: skip


def command(*words: str) -> str:
    """What a command prints, which has to end well."""
    with quiet():
        done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def train(folder: Path, name: str, stride: int, others: dict[str, str] | None = None) -> Path:
    """A fine-tuning run of one step from random weights; `others` are further settings."""
    library_or_skip("timm")
    settings = {**TINY, "model.output_stride": stride, "model.backbone": f"timm:{name}", **(others or {})}
    sets = [f"--set={key}={value}" for key, value in settings.items()]
    command("finetune", "--target", "shapes-target", "--init", "scratch", "--steps", "1",
            "--out", str(folder), "-q", *sets)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for runs of backbones at their own strides, each made by the first test that looks at it."""
    return tmp_path_factory.mktemp("trained")


def copy_of_run(trained: Path, name: str, folder: Path) -> Path:
    if not (trained / name).exists():
        train(trained / name, name, FAMILIES[name])
    return Path(shutil.copytree(trained / name, folder))


def exported(run: Path, target: str, *words: str) -> dict[str, Any]:
    """What `mdp export` says of it as JSON, and what its line defines, executed as it is printed."""
    told: dict[str, Any] = json.loads(command("export", str(run), "--to", target, "--json", *words))
    scope: dict[str, Any] = {}
    with quiet():
        exec(told["load"], scope)
    return {**scope, "told": told}


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_backbone_of_timms_is_exported_after_a_run_and_gives_its_features(
    name: str, trained: Path, tmp_path: Path
) -> None:
    run = copy_of_run(trained, name, tmp_path / "run")
    network, given = read_source(run, "last", False).rebuilt(), images(1, 3, 96, 160)  # (B, 3, H, W)
    with torch.no_grad():
        wanted = network(given)
        assert wanted.shape[2:] == (96 // FAMILIES[name], 160 // FAMILIES[name])
        for target in ("timm", "hub") if name != "test_efficientnet" else ("timm",):
            found = exported(run, target)
            assert found["told"]["checked"]["instead"] == ""
            theirs = found["network"].eval().forward_intermediates(given, intermediates_only=True, output_fmt="NCHW")
            assert difference(theirs[-1], wanted) <= 1e-5
        pytest.importorskip("safetensors")
        weights = exported(run, "safetensors")["weights"]
        network.load_state_dict({f"backbone.{key}": torch.zeros_like(tensor) for key, tensor in weights.items()})
        network.load_state_dict({f"backbone.{key}": tensor for key, tensor in weights.items()})
        assert torch.equal(network(given), wanted)


def test_a_model_with_a_layer_behind_its_features_is_refused_as_a_folder(trained: Path, tmp_path: Path) -> None:
    run = copy_of_run(trained, "test_efficientnet", tmp_path / "run")
    done = CliRunner().invoke(cli, ["export", str(run), "--to", "hub"])
    assert "conv_head.weight, which gives no features, was not trained" in str(done.exception)


def test_a_folder_says_which_of_its_parameters_were_never_trained(trained: Path, tmp_path: Path) -> None:
    folder = Path(exported(copy_of_run(trained, "test_vit", tmp_path / "run"), "hub")["told"]["path"])
    assert "Not trained, as timm starts them" in (folder / "README.md").read_text()
    assert "norm.weight, norm.bias" in (folder / "README.md").read_text()
    config = json.loads((folder / "config.json").read_text())
    assert config["model_args"] == {"dynamic_img_size": True, "img_size": [160, 160]}


def test_a_segmentor_is_loaded_by_one_line_of_torch_with_all_it_needs(tmp_path: Path) -> None:
    run = train(tmp_path / "run", "test_vit", 16, {"model.head": "linear", **dict.fromkeys(DEEPLABS, "null")})
    found = exported(run, "torch_export", "--segmentor")
    network, facts, classes = read_source(run, "last", True).rebuilt(), found["facts"], len(CLASSES)
    for shape in ((1, 3, 97, 65), (3, 3, 64, 192)):  # any batch, any size
        with torch.no_grad():
            theirs, wanted = found["network"](images(*shape)), network(images(*shape))
        assert theirs.shape == wanted.shape == (shape[0], classes, *shape[2:])
        assert difference(theirs, wanted) <= 1e-5
    assert (facts["backbone"], facts["head"]) == ("timm:test_vit", "linear")
    assert facts["classes"] == list(CLASSES)
    assert len(facts["palette"]) == classes
    assert facts["input"]["mean"] == json.loads(Path(found["told"]["sidecar"]).read_text())["input"]["mean"]
    assert [len(size) for size in found["told"]["checked"]["sizes"]] == [4, 4]
    assert "mdp" not in found["told"]["load"].replace("mdp.json", "").replace(str(tmp_path), "")
    data = Path(found["told"]["path"]).read_bytes()
    assert b"site-packages" not in data  # nothing of this machine
    assert b"/mdp/core/" not in data


# Heads


@pytest.mark.parametrize("head", HEADS)
def test_segmentors_with_every_head_keep_their_logits(head: str, tmp_path: Path) -> None:
    changes: list[tuple[str, Any]] = [("model.width", 8), ("model.head", head)]
    changes += [] if HEADS[head].dilations else [("model.dilations", None)]
    changes += [("model.channels", None)] if head == "linear" else []
    run = make_run(tmp_path / "run", "finetune", *changes)
    found = run_export(ExportQuestion(run=run, library="safetensors", segmentor=True))
    assert found.checked.difference <= 1e-5
    tensors = find("safetensors").read(found.path)
    assert tensors.keys() == read_source(run, "last", True).weights.keys()
    assert json.loads(found.sidecar.read_text())["palette"][0] == [1, 2, 3]
