"""Exports: bare tensors by the library's names, files that are what they say, and nothing left of what fails."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mdp
from mdp.cli import cli, main
from mdp.io.datasets import load as load_dataset
from mdp.io.errors import CheckpointError, MdpError, RecipeError
from mdp.io.export import job as export_job
from mdp.io.export.asked import ExportQuestion
from mdp.io.export.card import UNKNOWN, facts, stem_of
from mdp.io.export.check import difference
from mdp.io.export.job import Export, run_export
from mdp.io.export.onnx_file import PoolByProducts
from mdp.io.export.source import exported, read_source
from mdp.io.export.targets import find
from mdp.io.export.targets.hub import model_card
from mdp.io.run.checkpoint import load, read_tensors, save
from mdp.io.training.job import run_finetuning
from tests.export_runs import make_run
from tests.small_runs import request, tensors_of

HEX = torch.hub.HASH_REGEX


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet-18 at its full width, trained at stride 8."""
    return make_run(tmp_path_factory.mktemp("runs") / "pre", "pretrain", ("model.output_stride", 8))


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuned network small enough for many exports."""
    return make_run(tmp_path_factory.mktemp("runs") / "narrow", "finetune", ("model.width", 8))


@pytest.fixture(scope="module")
def for_torchvision(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """An export to look at."""
    return export(pretrained, "torchvision", tmp_path_factory.mktemp("exports"))


def export(run: Path, target: str, out: Path, **others: Any) -> Export:
    return run_export(ExportQuestion(run=run, library=target, out=out, **others))


@pytest.mark.parametrize("target", ["torchvision", "timm", "mmseg", "hub"])
def test_an_export_holds_the_query_backbone_bit_for_bit(target: str, pretrained: Path, tmp_path: Path) -> None:
    found = export(pretrained, target, tmp_path)
    tensors = find(target).read(found.path)
    query = tensors_of(pretrained)
    expected = {name.removeprefix("query.backbone."): t for name, t in query.items() if ".backbone." in name}
    start = "backbone." if target == "mmseg" else ""
    assert tensors.keys() == {start + name for name in expected}
    assert len(tensors) == found.tensors == 120
    assert found.parameters == 11_176_512  # ResNet-18's 11,689,512 without the classifier's 513,000
    for name, tensor in expected.items():
        assert torch.equal(tensors[start + name], tensor), name
        assert tensors[start + name].dtype == tensor.dtype
    assert "conv1.weight" in expected
    assert int(expected["bn1.num_batches_tracked"]) == 7


def test_tensors_are_contiguous_and_each_has_its_own_memory(for_torchvision: Export) -> None:
    tensors = find("torchvision").read(for_torchvision.path)
    for name, tensor in tensors.items():
        assert tensor.is_contiguous(), name
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size(), name
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors.values()}) == len(tensors)


def test_what_leaves_is_float32_and_shares_nothing_with_what_came() -> None:
    large = torch.arange(24, dtype=torch.float64).reshape(4, 6)
    weights = {"backbone.a": large[:, 1], "backbone.b": large.half().t(), "backbone.n": torch.tensor(3)}
    found = exported(weights, (("backbone.", ""),))
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        "a": torch.float32, "b": torch.float32, "n": torch.int64,
    }  # fmt: skip
    assert found["a"].untyped_storage().nbytes() == 16
    assert found["b"].is_contiguous()
    found["n"].add_(1)
    assert int(weights["backbone.n"]) == 3


def test_the_name_ends_in_the_hash_that_torch_hub_looks_for(for_torchvision: Export) -> None:
    found = for_torchvision
    assert found.path.name == f"shapes_coarse+my_site_resnet18_torchvision-{found.sha256[:8]}.pth"
    match = HEX.search(found.path.name)
    assert match
    assert match[1] == found.sha256[:8]
    assert found.sha256 == export_job._sha256(found.path)
    assert torch.load(found.path, weights_only=True).keys() == find("torchvision").read(found.path).keys()


def test_a_second_export_has_the_same_bytes_and_leaves_the_file_alone(narrow: Path, tmp_path: Path) -> None:
    first = export(narrow, "safetensors", tmp_path)
    written = os.stat(first.path).st_mtime_ns, os.stat(first.sidecar).st_mtime_ns
    second = export(narrow, "safetensors", tmp_path)
    assert (first.state, second.state, second.note) == ("new", "already there", "")
    assert (os.stat(first.path).st_mtime_ns, os.stat(first.sidecar).st_mtime_ns) == written
    assert sorted(path.name for path in tmp_path.iterdir()) == [first.sidecar.name, first.path.name]


def test_pickled_weights_have_the_same_bytes_for_every_library_and_folder(
    pretrained: Path, for_torchvision: Export, tmp_path: Path
) -> None:
    assert export(pretrained, "smp", tmp_path).sha256 == for_torchvision.sha256


def test_the_bytes_depend_on_the_checkpoint_alone(narrow: Path, tmp_path: Path) -> None:
    first = export(narrow, "safetensors", tmp_path)
    lone = tmp_path / "lone.safetensors"
    lone.write_bytes((narrow / "checkpoints" / "last.safetensors").read_bytes())
    assert export(lone, "safetensors", tmp_path / "other").sha256 == first.sha256


def test_something_else_of_the_same_name_is_kept_until_overwrite(narrow: Path, tmp_path: Path) -> None:
    first = export(narrow, "safetensors", tmp_path)
    whole = first.path.read_bytes()
    first.path.write_bytes(b"mine")
    with pytest.raises(RecipeError, match="something else has this name"):
        export(narrow, "safetensors", tmp_path)
    assert first.path.read_bytes() == b"mine"
    assert export(narrow, "safetensors", tmp_path, overwrite=True).state == "replaced"
    assert first.path.read_bytes() == whole


def test_an_edited_side_car_is_kept_until_overwrite(narrow: Path, tmp_path: Path) -> None:
    first = export(narrow, "safetensors", tmp_path)
    card = first.sidecar.read_text()
    first.sidecar.write_text("mine")
    assert "--overwrite replaces it" in export(narrow, "safetensors", tmp_path).note
    assert first.sidecar.read_text() == "mine"
    assert export(narrow, "safetensors", tmp_path, overwrite=True).note == ""
    assert first.sidecar.read_text() == card


# What the check catches


def swapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    one, two = "layer1.0.conv1.weight", "layer1.0.conv2.weight"
    return {**tensors, one: tensors[two], two: tensors[one]}


FAULTS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "two layers swapped": swapped,
    "statistics forgotten": lambda t: {**t, "bn1.running_mean": torch.zeros_like(t["bn1.running_mean"])},
    "one number off": lambda t: {**t, "layer4.1.bn2.bias": t["layer4.1.bn2.bias"] + 0.01},
    "a tensor left out": lambda t: {name: x for name, x in t.items() if name != "bn1.running_var"},
    "a tensor too many": lambda t: {**t, "fc.weight": torch.zeros(2)},
    "rounded to half precision": lambda t: {n: x.half().float() if x.is_floating_point() else x for n, x in t.items()},
    "a wrapper's name": lambda t: {f"module.{name}": x for name, x in t.items()},
    "not a number": lambda t: {**t, "bn1.bias": t["bn1.bias"] * float("nan")},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_gives_other_features_is_removed(
    fault: str, narrow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_job, "exported", lambda *given: FAULTS[fault](exported(*given)))
    with pytest.raises(CheckpointError, match="removed") as caught:
        export(narrow, "safetensors", tmp_path)
    assert caught.value.exit_code == 5
    assert list(tmp_path.iterdir()) == []


def test_what_torch_load_gives_is_checked_too(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_job, "exported", lambda *given: swapped(exported(*given)))
    with pytest.raises(CheckpointError, match="other features at stride 32"):
        export(pretrained, "torchvision", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_difference_is_part_of_the_largest_value() -> None:
    assert difference(torch.tensor([3.0, -5.0]), torch.tensor([4.0, -8.0])) == 3 / 8
    assert not difference(torch.tensor([float("nan"), 0.0]), torch.tensor([1.0, 0.0])) <= 1
    assert not difference(torch.zeros(3), torch.zeros(3)) <= 1  # a dead network cannot be compared


@pytest.mark.parametrize(("side", "size"), [(6, (4, 5)), (3, (7, 10)), (2, (2, 9)), (6, (13, 6))])
def test_pooling_by_products_is_adaptive_pooling(side: int, size: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(PoolByProducts(side)(maps), torch.nn.functional.adaptive_avg_pool2d(maps, side))


# What is taken, and what is refused


def test_a_whole_network_keeps_its_names_and_its_logits(narrow: Path, tmp_path: Path) -> None:
    found = export(narrow, "safetensors", tmp_path, segmentor=True)
    network = {name.removeprefix("network."): t for name, t in tensors_of(narrow).items() if "network." in name}
    tensors, texts = read_tensors(found.path)
    assert tensors.keys() == network.keys()
    assert found.path.name.startswith("shapes_coarse+my_site_resnet18_deeplabv3_safetensors-")
    assert texts["format"] == "pt"
    assert json.loads(texts["mdp"])["classes"] == ["disc", "box", "road", "car", "tree"]
    card = json.loads(found.sidecar.read_text())
    assert card["classes"] == ["disc", "box", "road", "car", "tree"]
    assert card["output"] == "logits of 5 classes at the feature grid"
    assert "logits of a 2x3x97x65 input" in export_job.report(found)


def test_a_whole_network_goes_to_mmsegmentation_with_its_classes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "finetune", ("model.output_stride", 32))
    found = export(run, "mmseg", tmp_path / "out", segmentor=True)
    loaded = torch.load(found.path, weights_only=True)
    assert {name.split(".")[0] for name in loaded["state_dict"]} == {"backbone", "decode_head"}
    assert loaded["meta"]["dataset_meta"] == {
        "classes": ["disc", "box", "road", "car", "tree"],
        "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 1, 0], [0, 0, 2]],
    }
    assert plain(loaded["meta"])
    assert found.line == f"load_from = {str(found.path)!r}"


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(item) for key, item in value.items())
    return all(map(plain, value)) if isinstance(value, list) else isinstance(value, str | int | float)


@pytest.mark.parametrize("method", ["supervised", "moco", "pixel_pairs"])
def test_every_method_has_a_backbone_to_export(method: str, tmp_path: Path) -> None:
    changes: list[tuple[str, Any]] = [("model.width", 8), ("method", {"name": method})]
    run = make_run(tmp_path / "run", "pretrain", *changes)
    found = export(run, "safetensors", tmp_path / "out")
    card = json.loads(found.sidecar.read_text())
    assert card["method"] == method
    assert card["output_stride"] == (32 if method == "moco" else 16)
    assert found.tensors == 120


@pytest.mark.parametrize(("kind", "part"), [("finetune", "network"), ("pretrain", "query")])
def test_of_a_run_with_an_average_that_is_exported_unless_the_others_are_asked_for(
    kind: str, part: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", kind, ("model.width", 8))
    with pytest.raises(CheckpointError, match="trained without an average of its weights"):
        export(run, "safetensors", tmp_path, weights="ema")
    path = run / "checkpoints" / "last.safetensors"
    whole = load(path)
    average = {f"ema.{n.removeprefix(part + '.')}": t + (t * 0.1).to(t.dtype) for n, t in whole.tensors.items()}
    save(path, {**whole.tensors, **average}, whole.about)
    for asked, expected in ((None, "ema"), ("ema", "ema"), ("raw", part)):
        found = export(run, "safetensors", tmp_path, weights=asked)
        tensors = find("safetensors").read(found.path)
        source = {**whole.tensors, **average}
        assert torch.equal(tensors["conv1.weight"], source[f"{expected}.backbone.conv1.weight"])
        assert json.loads(found.sidecar.read_text())["weights"] == (asked or "ema")
        assert f"weights  {'raw weights, not their EMA' if asked == 'raw' else 'EMA weights'}\n" in (
            export_job.report(found)
        )


def best_only(folder: Path) -> Path:
    return make_run(folder, "pretrain", ("model.width", 8), name="best")


def test_the_checkpoint_asked_for_is_the_one_that_is_taken(tmp_path: Path) -> None:
    run = best_only(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"no checkpoints/last\.safetensors in it; it has best\.safetensors"):
        export(run, "safetensors", tmp_path / "out")
    assert json.loads(export(run, "safetensors", tmp_path, which="best").sidecar.read_text())["checkpoint"] == (
        "best.safetensors"
    )
    assert not (tmp_path / "out").exists()


def foreign(folder: Path) -> Path:
    path = folder / "weights.pth"
    torch.save({"conv1.weight": torch.zeros(2)}, path)
    return path


def other_kind(folder: Path) -> Path:
    save(folder / "a.safetensors", {"x": torch.zeros(1)}, {"kind": "statistics"})
    return folder / "a.safetensors"


def other_layout(folder: Path) -> Path:
    return export(best_only(folder / "run"), "safetensors", folder, which="best").path


def not_finite(folder: Path) -> Path:
    run = make_run(folder / "run", "finetune", ("model.width", 8))
    whole = load(run / "checkpoints" / "last.safetensors")
    whole.tensors["network.backbone.bn1.bias"][1] = float("inf")
    save(run / "checkpoints" / "last.safetensors", whole.tensors, whole.about)
    return run


def dead(folder: Path) -> Path:
    run = make_run(folder / "run", "finetune", ("model.width", 8))
    whole = load(run / "checkpoints" / "last.safetensors")
    zeros = {name: tensor * 0 for name, tensor in whole.tensors.items()}
    save(run / "checkpoints" / "last.safetensors", zeros, whole.about)
    return run


def damaged(folder: Path) -> Path:
    run = best_only(folder / "run")
    path = run / "checkpoints" / "best.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    return path


@pytest.mark.parametrize(
    ("make", "target", "segmentor", "code", "words"),
    [
        (lambda folder: folder / "nothing", "timm", False, 5, "found nothing"),
        (foreign, "timm", False, 5, "expected a checkpoint of an mdp run"),
        (other_layout, "timm", False, 5, "expected a checkpoint of an mdp run"),
        (other_kind, "timm", False, 5, "its kind is 'statistics'"),
        (damaged, "timm", False, 5, "damaged or not a checkpoint"),
        (not_finite, "safetensors", False, 5, "1 tensors hold numbers that are not finite, such as backbone.bn1.bias"),
        (dead, "safetensors", False, 5, "they differ by nan of the largest value"),
        (lambda folder: best_only(folder) / "checkpoints" / "best.safetensors", "onnx", True, 2, "no segmentor"),
        (lambda folder: best_only(folder) / "checkpoints" / "best.safetensors", "timm", False, 2, "this one has 8"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(
    make: Callable[[Path], Path],
    target: str,
    segmentor: bool,
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mdp.io.export.targets.onnx.expect", lambda: None)
    path = make(tmp_path)
    with pytest.raises(MdpError) as caught:
        export(path, target, tmp_path / "out", segmentor=segmentor)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == code
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_a_folder_that_cannot_be_written_is_named(narrow: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MdpError, match="file") as caught:
        export(narrow, "safetensors", tmp_path / "file")
    assert caught.value.exit_code == 6


# What is said of it


def test_the_side_car_says_what_is_known(for_torchvision: Export) -> None:
    found = for_torchvision
    card = json.loads(found.sidecar.read_text())
    assert found.sidecar == found.path.with_suffix(".json")
    assert {key: card[key] for key in ("file", "to", "sha256", "bytes", "tensors", "parameters")} == {
        "file": found.path.name, "to": "torchvision", "sha256": found.sha256, "bytes": found.path.stat().st_size,
        "tensors": 120, "parameters": 11_176_512,
    }  # fmt: skip
    assert card["datasets"] == [
        {
            "name": "shapes-coarse", "images": 3, "classes": 2,
            "licence": load_dataset("shapes-coarse").terms or UNKNOWN,
        },
        {"name": "my.site", "images": None, "classes": 3, "licence": UNKNOWN},
    ]  # fmt: skip
    assert card["metrics"] == {
        "last_validation": {"kind": "validate", "step": 7, "miou": {"shapes-coarse": 0.7}}, "best": 0.5,
    }  # fmt: skip
    assert card["command"] == "mdp pretrain --datasets shapes-coarse,gone/my.yaml"
    assert card["started_from"] == "loaded backbone 3 tensors from x.pth"
    assert (card["kind"], card["method"], card["step"], card["steps"]) == ("pretrain", "multi_dataset", 7, 9)
    assert (card["backbone"], card["output_stride"], card["head"]) == ("resnet18", 8, None)
    assert card["input"]["mean"] == [0.485, 0.456, 0.406]
    assert card["input"]["std"] == [0.229, 0.224, 0.225]
    assert card["input"]["channels"] == "RGB"
    assert card["checked"]["difference"] <= 1e-5
    assert card["checked"]["strides"] == [32]
    assert (card["mdp"], card["torch"]) == (mdp.__version__, torch.__version__)
    assert found.path.name in card["load"]
    assert str(found.path.parent) not in found.sidecar.read_text()


def test_a_dataset_states_its_licence(pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Known:
        name = "shapes-coarse"
        terms = "CC0 | of ours"

    def named(text: str) -> tuple[Any, None]:
        if text.startswith("gone"):
            raise RecipeError("gone")
        return Known, None

    monkeypatch.setattr("mdp.io.export.card.named", named)
    source = read_source(pretrained, "last", False)
    known = facts(source)
    assert [entry["licence"] for entry in known["datasets"]] == ["CC0 | of ours", UNKNOWN]
    assert r"| shapes-coarse | 3 | 2 | CC0 \| of ours |" in model_card(known, stem_of(source, "hub"))


def test_facts_that_are_not_there_are_null(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "finetune", ("model.width", 8))
    lone = tmp_path / "lone.safetensors"
    (run / "checkpoints" / "last.safetensors").rename(lone)
    known = facts(read_source(lone, "last", False))
    assert [known[key] for key in ("command", "steps", "started_from")] == [None] * 3
    assert known["metrics"] == {"last_validation": None, "best": 0.5}
    assert [entry["images"] for entry in known["datasets"]] == [None, None]


def test_a_hub_folder_is_what_timm_reads(pretrained: Path, tmp_path: Path) -> None:
    found = export(pretrained, "hub", tmp_path)
    assert sorted(path.name for path in found.path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((found.path / "config.json").read_text())
    assert (config["architecture"], config["num_classes"]) == ("resnet18", 0)
    assert (config["pretrained_cfg"]["first_conv"], config["pretrained_cfg"]["num_classes"]) == ("conv1", 0)
    assert config["pretrained_cfg"]["mean"] == [0.485, 0.456, 0.406]
    assert found.sha256 == export_job._sha256(found.path / "model.safetensors")
    assert json.loads(found.sidecar.read_text())["sha256_of"] == f"{found.path.name}/model.safetensors"
    card = (found.path / "README.md").read_text()
    assert "| my.site | ? | 3 | unknown: state it yourself |" in card
    assert card.startswith("---\nlibrary_name: timm\n")
    (found.path / "README.md").write_text(card + "mine")
    with pytest.raises(RecipeError, match="something else"):
        export(pretrained, "hub", tmp_path)


# The command


def test_the_command_prints_what_it_did_and_how_to_load_it(
    narrow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["export", str(narrow), "--to", "safetensors", "--out", str(tmp_path)], standalone_mode=False)
    out = capsys.readouterr().out
    path = next(tmp_path.glob("*.safetensors"))
    assert f"file     {path} (new)\n" in out
    assert f"load     from safetensors.torch import load_file; weights = load_file('{path}')\n" in out
    cli.main(["export", str(narrow), "--to", "safetensors", "--out", str(tmp_path), "--json"], standalone_mode=False)
    again: Mapping[str, Any] = json.loads(capsys.readouterr().out)
    assert (again["path"], again["state"]) == (str(path), "already there")


def test_without_out_it_goes_to_the_run(tmp_path: Path) -> None:
    run = best_only(tmp_path / "run")
    found = run_export(ExportQuestion(run=run / "checkpoints" / "best.safetensors", library="safetensors"))
    assert found.path.parent == run / "export"


def test_a_refusal_ends_with_its_code(
    narrow: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["mdp", "export", str(narrow), "--to", "timm"])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "error: --to timm: its networks have 64 channels in the first stage, this one has 8 (model.width); "
        "what can hold it: safetensors, onnx, torch_export\n"
    )
    assert not (narrow / "export").exists()


# And back


@pytest.mark.usefixtures("bare_runs")
@pytest.mark.parametrize("target", ["torchvision", "mmseg", "hub"])
def test_an_export_comes_back_by_init(target: str, pretrained: Path, tmp_path: Path) -> None:
    path = export(pretrained, target, tmp_path).path
    path = path / "model.safetensors" if path.is_dir() else path
    changes: list[tuple[str, Any]] = [
        ("model.width", 64), ("finetune.steps", 1), ("finetune.lr", 0.0), ("finetune.min_lr", 0.0),
        ("finetune.batch_size", 2), ("finetune.validate_steps", 0), ("eval.images", 1),
        ("finetune.load", ["backbone"]), ("run.check", False),
    ]  # fmt: skip
    run = run_finetuning(request(*changes, init=str(path), out=tmp_path / "run"))
    given, found = tensors_of(pretrained), tensors_of(run)
    names = [name.removeprefix("query.") for name in given if name.startswith("query.backbone.")]
    trained = [name for name in names if name.endswith(("weight", "bias"))]
    assert len(trained) == 60
    for name in trained:  # at a learning rate of 0
        assert torch.equal(found[f"network.{name}"], given[f"query.{name}"]), name


def test_a_program_of_one_size_takes_that_size_and_says_so(narrow: Path, tmp_path: Path) -> None:
    found = export(narrow, "torch_export", tmp_path, size=(48, 80))
    assert found.checked.sizes == ((2, 3, 48, 80), (1, 3, 48, 80))
    assert "images   of 48 x 80 only, as --size asks" in export_job.report(found)
    assert json.loads(found.sidecar.read_text())["input"]["layout"] == "B x 3 x 48 x 80, float32"
    program = torch.export.load(found.path).module()
    assert program(torch.zeros(4, 3, 48, 80)).shape == (4, 64, 3, 5)
    with pytest.raises((AssertionError, RuntimeError)):  # by its version
        program(torch.zeros(1, 3, 48, 96))


def test_a_size_of_images_is_refused_for_files_of_weights(narrow: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--size: a file for safetensors holds weights.*leave it out"):
        export(narrow, "safetensors", tmp_path, size=(48, 80))


def test_windows_that_cannot_be_traced_for_every_size_are_exported_for_the_crop(
    narrow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_job, "TIMM", "resnet")
    monkeypatch.setattr(export_job, "one_size_reason", lambda network: "it has windows")
    found = export(narrow, "torch_export", tmp_path)
    assert found.images == (512, 512)
    assert "images   of 512 x 512 only, the run's crop: it has windows; --size HEIGHT WIDTH takes another" in (
        export_job.report(found)
    )
