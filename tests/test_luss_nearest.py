"""`mdp luss nearest`: distance matching of a run, of files of other projects and of controls, as a user has it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mdp.core.networks.backbones import build_backbone
from mdp.io.errors import MdpError, RecipeError
from mdp.io.recipe.request import Request
from mdp.io.unsupervised.asked import Nearest
from mdp.io.unsupervised.nearest import run_nearest
from tests.preloaded import run

NARROW: dict[str, Any] = {"model": {"backbone": "resnet18", "width": 8}}
DATA = """\
classes: {0: other, 1: cup, 2: dog}
splits:
  train: {images: train, labels: train_labels}
  val: {images: val, labels: val_labels}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos whose class is their colour, and which other labels hardly know."""
    folder = tmp_path_factory.mktemp("nearest")
    (folder / "own.yaml").write_text(DATA)
    colors = torch.tensor([[20, 20, 20], [220, 30, 30], [30, 30, 220]])
    for split in ("train", "val"):
        for number in range(4):
            labels = torch.zeros(48, 64, dtype=torch.uint8)
            labels[8:40, 8:56] = 1 + number % 2
            for name, values in ((split, colors[labels.long()].to(torch.uint8)), (f"{split}_labels", labels)):
                (folder / name).mkdir(exist_ok=True)
                Image.fromarray(values.numpy()).save(folder / name / f"{number}.png")
    return folder


def scored(data: Path, source: str, **asked: Any) -> dict[str, Any]:
    layers = (NARROW, {"run": {"workers": 0}, "luss": {"short_side": 64}}, asked.pop("layer", {}))
    request = Request(layers=layers, quiet=True, out=asked.pop("out", None))
    return run_nearest(Nearest(source=source, target=str(data / "own.yaml"), **asked), request)


def test_colours_that_are_classes_are_matched_and_both_splits_are_said(data: Path, tmp_path: Path) -> None:
    found = scored(data, "colors", layer={"model": {"output_stride": 8}}, out=tmp_path / "out")
    assert (found["images"], found["matched_with"], found["vectors"], found["image_accuracy"]) == (4, 4, 8, 1)
    assert found["miou"] > 0.8
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == json.loads(json.dumps(found))


def test_the_weights_of_a_file_are_what_is_scored_wherever_they_lie_in_it(data: Path, tmp_path: Path) -> None:
    backbone = build_backbone("resnet18", 8, None, "last", 3).module
    bare = {name: tensor + 0.01 * torch.ones_like(tensor) for name, tensor in backbone.state_dict().items()
            if tensor.is_floating_point()}  # fmt: skip
    torch.save(bare, tmp_path / "bare.pth")
    prefixed = {f"module.encoder_q.{name}": tensor for name, tensor in bare.items()}
    torch.save({"epoch": 1, "state_dict": prefixed}, tmp_path / "moco.pth.tar")
    one, other = (scored(data, str(tmp_path / name)) for name in ("bare.pth", "moco.pth.tar"))
    assert {**one, "features": 0} == {**other, "features": 0}
    assert scored(data, "scratch")["miou"] != one["miou"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"layer": {"luss": {"neighbours": 0}}}, r"luss\.neighbours: expected 1 or more"),
        ({"ratios": (3.0,)}, r"--boundary: expected numbers in \[0, 1\]"),
        ({"labelled": "nope"}, "nope"),
        ({"source": "nothing.pth"}, "nothing.pth"),
    ],
    ids=["neighbours", "boundary", "split", "file"],
)
def test_what_cannot_be_scored_is_refused_in_one_line(data: Path, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(MdpError, match=words) as raised:
        scored(data, asked.pop("source", "colors"), **asked)
    assert "\n" not in str(raised.value)


def test_a_split_without_labels_is_refused_by_name() -> None:
    with pytest.raises(RecipeError, match="the split train has no label maps to match with"):
        run_nearest(Nearest(source="colors", target="shapes-objects", labelled="train"), Request(quiet=True))


def test_the_command_prints_a_table(data: Path) -> None:
    done = run(
        ["-m", "mdp", "luss", "nearest", "colors", "--target", "own.yaml", "--short-side", "64", "--workers", "0"], data
    )
    assert done.code == 0
    assert done.err.splitlines()[0].startswith("histograms of")
    assert "for 2\nmIoU" in done.out
