"""`mdp inspect` and what `mdp compare` asks of its starts: what a file is, what would be taken, and honest names."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from mdp.cli import cli
from mdp.core.networks import NetworkSettings, build_segmentor
from mdp.core.networks.resnet import ResNet
from mdp.io.errors import CheckpointError, RecipeError
from mdp.io.recipe.layers import resolve
from mdp.io.studies.compare import Comparison, parse_shares, parse_start, run_comparison
from mdp.io.studies.starts import check_start
from mdp.io.training.job import run_pretraining
from mdp.io.weights.inspect import inspect
from tests.small_runs import PlainRuns, request
from tests.tensors import rng_of

pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")

MODEL = {"model": {"backbone": "resnet18", "width": 8, "channels": 8, "dilations": [1, 2]}}
BARE = ResNet("resnet18", 8).state_dict()
HEAD = {"fc.weight": torch.zeros(1000, 64), "fc.bias": torch.zeros(1000)}


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["inspect", *words])


def test_the_text_says_what_the_file_is_and_what_would_be_taken() -> None:
    content = {f"module.encoder_q.{name}": tensor for name, tensor in {**BARE, **HEAD}.items()}
    content |= {f"module.encoder_k.{name}": tensor + 1 for name, tensor in BARE.items()}
    torch.save({"epoch": 200, "state_dict": content}, "moco.pth.tar")
    digest = hashlib.sha256(Path("moco.pth.tar").read_bytes()).hexdigest()[:8]
    done = run("moco.pth.tar")
    lines = done.output.splitlines()
    assert done.exit_code == 0
    assert lines[0].startswith("moco.pth.tar: torch.save, ")
    assert lines[0].endswith(f" MiB, SHA-256 begins with {digest}")
    assert lines[1].startswith("tensors  242 with ")
    assert lines[1].endswith("(202 float32, 40 int64)")
    assert lines[2:7] == [
        "beside   epoch",
        "holds    resnet18 of width 8",
        "taken    dictionary state_dict, names after module.encoder_q.: a backbone with a classifier or projection `fc`",  # noqa: E501
        "left     state_dict.module.encoder_k. (120 tensors fit there); --init-from chooses",
        "network  resnet18 of width 8: guessed from the shapes in the file; --backbone NAME chooses",
    ]
    assert lines[8:] == [
        "part         network  matched  missing  wrong shape",
        "stem               6        6        0            0",
        "layer1            24       24        0            0",
        "layer2            30       30        0            0",
        "layer3            30       30        0            0",
        "layer4            30       30        0            0",
        "decode_head       36        0       36            0",
        "in all           156      120       36            0",
        "missing: all of decode_head (36)",
        "not used: fc (2), state_dict.module.encoder_k (120)",
        "",
        "--init takes 120 of 120 backbone tensors",
    ]


def test_json_has_every_name_and_the_whole_hash() -> None:
    torch.save({**BARE, "layer4.1.bn2.bias": torch.ones(7), "queue": torch.tensor([torch.nan])}, "x.pth")
    found = json.loads(run("x.pth", "--json").output)
    assert found["sha256"] == hashlib.sha256(Path("x.pth").read_bytes()).hexdigest()
    assert found["wrong_shape"] == {"backbone.layer4.1.bn2.bias": {"file": [7], "network": [64]}}
    assert found["unexpected"] == ["queue"]
    assert found["not_finite"] == ["queue"]
    assert found["parts"][4] == {"part": "layer4", "own": 30, "matched": 29, "missing": 0, "wrong_shape": 1}
    assert len(found["missing"]) == 36
    assert found["types"] == {"float32": 101, "int64": 20}
    assert found["numbers"] == sum(tensor.numel() for tensor in BARE.values()) - 64 + 7 + 1
    assert found["problem"] == ""


def test_a_file_that_init_would_refuse_has_exit_code_5_and_its_table_all_the_same() -> None:
    torch.save(BARE, "x.pth")
    with pytest.raises(CheckpointError, match=r"^x\.pth: --init refuses it$") as error:
        CliRunner().invoke(cli, ["inspect", "x.pth", "--backbone", "resnet34"], catch_exceptions=False)
    assert error.value.exit_code == 5
    done = run("x.pth", "--backbone", "resnet34", "--set", "model.width=8")
    assert "network  resnet34 of width 8: as asked for" in done.output
    assert "layer3            78       30       48            0" in done.output
    assert "--init refuses it: only 120 of the 216 backbone tensors are in the file" in done.output
    assert "set model.backbone=resnet18 and model.width=8" in done.output


def test_the_place_can_be_chosen() -> None:
    torch.save(
        {f"{place}.{name}": t + number for number, place in enumerate("ab") for name, t in BARE.items()}, "x.pth"
    )
    assert "two different backbones fit equally well" in inspect(Path("x.pth"), {})["problem"]
    assert inspect(Path("x.pth"), {}, "b")["prefix"] == "b."


def test_a_file_without_a_resnet_is_held_against_the_default_and_says_so() -> None:
    torch.save({"blocks.0.attn.qkv.weight": torch.ones(3, 3)}, "vit.pth")
    found = inspect(Path("vit.pth"), {})
    assert found["holds"] is None
    assert found["network"]["source"] == "the default: the file holds no ResNet; --backbone NAME chooses"
    assert found["problem"].startswith("none of its tensors has a name of the network's backbone")
    torch.save({**BARE, "conv1.0.weight": torch.ones(2, 3, 3, 3)}, "deep.pth")
    assert "stem of three convolutions" in inspect(Path("deep.pth"), {})["holds"]


@pytest.mark.parametrize(("mark", "layout"), [
    ("decode_head.x", "MMSegmentation's or mdp's network"), ("classifier.4.bias", "torchvision's segmentation network"),
    ("head.weight", "a backbone with a head"), ("other", "a backbone without a head"),
])  # fmt: skip
def test_whose_names_they_are_is_told(mark: str, layout: str) -> None:
    content = {f"m.backbone.{name}": tensor for name, tensor in BARE.items()}
    torch.save({**content, f"m.{mark}": torch.ones(1)}, "x.pth")
    assert inspect(Path("x.pth"), {})["layout"] == layout


def test_runs_of_mdp_are_held_against_their_own_network(plain_runs: PlainRuns) -> None:
    pretrained, tuned = (plain_runs(kind, Path(kind)) for kind in ("pretrain", "finetune"))
    for folder, kind in ((pretrained, "pretrain"), (tuned, "finetune")):
        done = run(str(folder))
        assert done.exit_code == 0, done.output
        assert f"{kind} checkpoint of mdp" in done.output
        assert "network  resnet18 of width 8: of the run that wrote it" in done.output
        assert "--init takes 120 of 120 backbone tensors and 24 of the head" in done.output
        assert f"mdp checkpoint show {folder}/checkpoints/last.safetensors" in done.output.splitlines()[-1]


def test_names_are_printed_so_that_a_terminal_obeys_none() -> None:
    bad = "\x1b[2J\r\u202e"
    torch.save(
        {f"ta{bad}": {**{f"{bad}.{name}": t for name, t in BARE.items()}, f"{bad}x.y": HEAD["fc.bias"]}}, "x.pth"
    )
    done = run("x.pth")
    assert done.exit_code == 0
    assert all(line.isprintable() for line in done.output.splitlines())


@pytest.mark.parametrize(
    "words", [("nothing.pth",), (".",), ("x.pth", "--backbone", "resnet1"), ("x.pth", "--set", "a=1")]
)
def test_mistakes_are_one_clear_line(words: tuple[str, ...]) -> None:
    torch.save(BARE, "x.pth")
    done = run(*words)
    assert isinstance(done.exception, CheckpointError | RecipeError)
    assert "\n" not in str(done.exception)
    assert done.output == ""


# What a comparison starts from


def test_imagenet_names_only_what_can_be_one() -> None:
    recipe = resolve(MODEL, {"finetune": {"load": ["backbone"]}})
    torch.save({**BARE, **HEAD}, "tv.pth")
    assert len(check_start("imagenet", Path("tv.pth"), recipe)) == 1
    torch.save(BARE, "moco.pth")
    assert check_start("imagenet", Path("moco.pth"), recipe)[1] == (
        "note: moco.pth: no classifier of ImageNet's classes in it; that it was trained on ImageNet is your word"
    )
    assert len(check_start("weights", Path("moco.pth"), recipe)) == 1
    network = build_segmentor(NetworkSettings(backbone="resnet18", width=8, channels=8, dilations=(1, 2)), 4, rng_of(0))
    torch.save(network.state_dict(), "seg.pth")
    with pytest.raises(RecipeError, match=r"found one with a segmentation head \(decode_head\.\*\); use weights:FILE"):
        check_start("imagenet", Path("seg.pth"), recipe)
    run_folder = run_pretraining(request())
    with pytest.raises(RecipeError, match="expected a network trained on ImageNet, found a pretrain checkpoint of mdp"):
        check_start("imagenet", run_folder / "checkpoints" / "last.safetensors", resolve(request().asked))


def asked(*starts: str) -> Comparison:
    return Comparison(
        starts=tuple(map(parse_start, starts)), shares=parse_shares("1"), seeds=1, split=None, against=(), keep=False
    )


def test_a_start_that_does_not_fit_stops_the_comparison_before_its_first_cell() -> None:
    torch.save(ResNet("resnet34", 8).state_dict(), "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth: only 0 of the|other\.pth: .*resnet34"):
        run_comparison(request(("model.width", 12), out=Path("c")), asked("scratch", "weights:other.pth"))
    assert not Path("c").exists()


def test_a_start_may_say_where_its_weights_are_and_the_table_remembers() -> None:
    torch.save(
        {f"{place}.{name}": t + number for number, place in enumerate("ab") for name, t in BARE.items()}, "x.pth"
    )
    chosen = asked("scratch", "b=imagenet:x.pth?run.init_from=b")
    folder = run_comparison(request(("finetune.steps", 1), out=Path("c")), chosen)
    assert json.loads((folder / "cells/b/1-1_seed0.json").read_text())["recipe"]["run"]["init_from"] == "b"
    assert "init_from" not in json.loads((folder / "cells/scratch/1-1_seed0.json").read_text())["recipe"]["run"]
    assert "(names after b.)" in (folder / "cells/b/1-1_seed0/log.txt").read_text()
    with pytest.raises(RecipeError, match=r"made with other settings \(recipe\.run\.init_from\)"):
        run_comparison(
            request(("finetune.steps", 1), out=Path("c")), asked("scratch", "b=imagenet:x.pth?run.init_from=a")
        )
