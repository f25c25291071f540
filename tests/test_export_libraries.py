"""The libraries that exports are for load them by the printed line, and give the features of the run's network."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mdp.io.errors import CheckpointError, RecipeError
from mdp.io.export import check as export_check
from mdp.io.export import job as export_job
from mdp.io.export.asked import ExportQuestion
from mdp.io.export.check import difference
from mdp.io.export.content import Content
from mdp.io.export.job import Export, run_export
from mdp.io.export.source import Source, exported, read_source
from mdp.io.export.targets import hub, torchvision
from mdp.io.export.targets.timm import filled
from tests.export_runs import make_run
from tests.peers import library_or_skip, quiet

IMAGES = torch.randn((3, 3, 70, 101), generator=torch.Generator().manual_seed(3))  # (B, 3, H, W)


def need(*modules: str) -> None:
    """Skips the test where torchvision or another library is missing."""
    for module in ("torchvision", *modules):
        library_or_skip(module)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuned ResNet-18 at stride 8; in a folder whose name has what paths may have."""
    return make_run(tmp_path_factory.mktemp("it's a run") / "fine", "finetune", ("model.output_stride", 8))


def export(run: Path, target: str, segmentor: bool = False) -> Export:
    with quiet():
        return run_export(ExportQuestion(run=run, library=target, segmentor=segmentor, overwrite=True))


def executed(line: str) -> dict[str, Any]:
    """What the line defines, executed as it is printed."""
    scope: dict[str, Any] = {}
    with quiet():
        exec(line, scope)
    return scope


def printed(found: Export) -> str:
    """The last line of the report, without its label."""
    label, line = export_job.report(found).splitlines()[-1].split(maxsplit=1)
    assert label == "load"
    return line


def source_of(run: Path, segmentor: bool = False) -> Source:
    return read_source(run, "last", segmentor)


def assert_same(theirs: Callable[[Tensor], Tensor], source: Source, stride: int) -> None:
    with torch.no_grad():
        found, wanted = theirs(IMAGES), source.rebuilt(stride=stride)(IMAGES)
    assert found.shape == wanted.shape
    assert difference(found, wanted) <= 1e-5


def assert_checked(found: Export, package: str, *strides: int) -> None:
    assert found.checked.reader.startswith(f"{package} ")
    assert found.checked.instead == ""
    assert found.checked.strides == strides


def test_torchvision(run: Path) -> None:
    need("torchvision")
    found = export(run, "torchvision")
    assert_checked(found, "torchvision", 32)
    network = executed(printed(found))["network"].eval()
    assert_same(torch.nn.Sequential(*list(network.children())[:-2]), source_of(run), 32)
    models: Any = importlib.import_module("torchvision.models")
    missing = models.resnet18(weights=None).load_state_dict(torch.load(found.path, weights_only=True), strict=False)
    assert missing.missing_keys == ["fc.weight", "fc.bias"]
    assert missing.unexpected_keys == []


def test_torchvision_with_dilated_bottlenecks(tmp_path: Path) -> None:
    need("torchvision")
    found = export(make_run(tmp_path, "finetune", ("model.backbone", "resnet50")), "torchvision")
    assert_checked(found, "torchvision", 32, 16)


def test_timm(run: Path) -> None:
    need("timm")
    found = export(run, "timm")
    assert_checked(found, "timm", 32, 8)
    network = executed(printed(found))["network"].eval()
    assert_same(network.forward_features, source_of(run), 32)


def test_hub_is_a_folder_that_timm_loads_offline(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("timm")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("network access"))
    found = export(run, "hub")
    assert_checked(found, "timm", 32, 8)
    network = executed(printed(found))["network"].eval()
    assert_same(network.forward_features, source_of(run), 32)
    timm: Any = importlib.import_module("timm")
    with quiet():
        classifier = timm.create_model(f"local-dir:{found.path}", pretrained=True, num_classes=4).eval()
        maps = timm.create_model(f"local-dir:{found.path}", pretrained=True, features_only=True).eval()
    assert_same(classifier.forward_features, source_of(run), 32)
    assert_same(lambda images: maps(images)[-1], source_of(run), 32)
    assert tuple(timm.data.resolve_data_config({}, model=network)["mean"]) == (0.485, 0.456, 0.406)


def test_segmentation_models_pytorch(run: Path) -> None:
    need("segmentation_models_pytorch")
    found = export(run, "smp")
    assert_checked(found, "segmentation-models-pytorch", 32)
    network = executed(printed(found))["network"].eval()
    assert_same(lambda images: network.encoder(images)[-1], source_of(run), 32)


def test_segmentation_models_pytorch_at_the_trained_stride(tmp_path: Path) -> None:
    need("segmentation_models_pytorch")
    run = make_run(tmp_path / "fine", "finetune", ("model.first_dilation", "own"), ("model.output_stride", 8))
    found = export(run, "smp")
    assert_checked(found, "segmentation-models-pytorch", 32, 8)
    assert json.loads(found.sidecar.read_text())["first_dilation"] == "own"


def test_safetensors(run: Path) -> None:
    pytest.importorskip("safetensors")
    found = export(run, "safetensors")
    assert_checked(found, "safetensors", 8)
    weights = executed(printed(found))["weights"]
    own = {f"backbone.{name}": tensor for name, tensor in weights.items()}
    assert_same(source_of(run).rebuilt(own, 8), source_of(run), 8)
    safe_open: Any = importlib.import_module("safetensors").safe_open
    with safe_open(str(found.path), "pt") as file:
        assert json.loads(file.metadata()["mdp"])["input"]["channels"] == "RGB"


def test_a_whole_network_as_safetensors(run: Path) -> None:
    pytest.importorskip("safetensors")
    found = export(run, "safetensors", segmentor=True)
    weights = executed(printed(found))["weights"]
    source = source_of(run, segmentor=True)
    assert_same(source.rebuilt(weights), source, 8)


def test_mmsegmentation_takes_the_line_as_configuration(run: Path) -> None:
    found = export(run, "mmseg")
    backbone = executed(printed(found))["model"]["backbone"]
    init = backbone["init_cfg"]
    assert (backbone["type"], backbone["depth"], init["type"]) == ("ResNet", 18, "Pretrained")
    state = torch.load(init["checkpoint"], weights_only=True)["state_dict"]  # as its `Pretrained` does:
    bare = {name.removeprefix(init["prefix"]): t for name, t in state.items() if name.startswith(init["prefix"])}
    assert bare.keys() == source_of(run).rebuilt(stride=32).backbone.state_dict().keys()  # type: ignore[union-attr]


@pytest.mark.parametrize("segmentor", [False, True])
def test_onnx_takes_any_batch_and_size(segmentor: bool, tmp_path: Path) -> None:
    need("onnx", "onnxscript", "onnxruntime")
    run = make_run(tmp_path / "fine", "finetune", ("model.width", 8), ("model.output_stride", 8))
    found = export(run, "onnx", segmentor)
    assert_checked(found, "onnxruntime", 8)
    session, source = executed(printed(found))["session"], source_of(run, segmentor)
    output = "logits" if segmentor else "features"
    assert [put.name for put in (*session.get_inputs(), *session.get_outputs())] == ["images", output]
    for shape in ((1, 3, 64, 64), (3, 3, 33, 130)):
        images = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            wanted = source.rebuilt()(images)
        theirs = torch.from_numpy(session.run([output], {"images": images.numpy()})[0])
        assert theirs.shape == wanted.shape
        assert difference(theirs, wanted) <= 1e-5
        assert not segmentor or theirs.shape == (shape[0], 5, *shape[2:])
    texts = session.get_modelmeta().custom_metadata_map
    assert json.loads(texts["input"])["mean"] == [0.485, 0.456, 0.406]
    assert texts["opset"] == "18"
    data = found.path.read_bytes()
    assert b"site-packages" not in data
    assert b"stack_trace" not in data
    if segmentor:
        assert json.loads(texts["mdp"])["classes"] == ["disc", "box", "road", "car", "tree"]
        assert json.loads(found.sidecar.read_text())["output"].endswith(
            "input's resolution (bilinear, align_corners false)"
        )
    else:
        assert export(run, "onnx").state == "already there"  # the same bytes again


def test_a_library_that_cannot_be_imported_is_named_and_replaced(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist\nand more")
        return imported(name)

    imported = importlib.import_module

    monkeypatch.setattr(export_check.importlib, "import_module", broken)
    found = export(run, "torchvision")
    assert found.checked.reader == "mdp's own network"
    assert found.checked.instead == (
        "torchvision is installed and cannot be imported: operator torchvision::nms does not exist"
    )
    assert f"({found.checked.instead})" in export_job.report(found)


@pytest.mark.parametrize("target", ["torchvision", "timm", "smp", "hub"])
def test_a_library_that_does_not_take_the_file_removes_it(
    target: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("timm", "segmentation_models_pytorch")

    def short(*given: Any) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in exported(*given).items() if name != "layer3.0.bn1.running_var"}

    monkeypatch.setattr(export_job, "exported", short)
    with quiet(), pytest.raises(CheckpointError, match=r"does not load.*running_var"):
        run_export(ExportQuestion(run=run, library=target, out=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_for_onnx_is_an_error_that_names_the_extra(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        if name == "onnx":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return imported(name)

    imported = importlib.import_module

    monkeypatch.setattr("mdp.io.export.onnx_file.importlib.import_module", missing)
    with pytest.raises(Exception, match=r"No module named 'onnx'.*mdp-segmentation\[onnx\]"):
        run_export(ExportQuestion(run=run, library="onnx", out=tmp_path))


def test_a_deeplab_of_torchvisions_is_rebuilt_there(tmp_path: Path) -> None:
    need("torchvision")
    models: Any = importlib.import_module("torchvision.models")
    theirs = models.get_model("deeplabv3_resnet50", weights=None, weights_backbone=None, num_classes=4).eval()
    torch.save(theirs.state_dict(), tmp_path / "a.pth")

    class Described:
        content = Content("resnet50", 64, 8, head="deeplabv3_torchvision", classes=4)

    loaded = torchvision._load(tmp_path / "a.pth", Described, 8)  # type: ignore[arg-type]
    with torch.no_grad():
        assert torch.equal(loaded(IMAGES[:1]), theirs(IMAGES[:1])["out"])


def test_a_folder_for_timm_is_refused_where_it_would_lack_parameters() -> None:
    need("timm")

    class Described:
        content = Content("timm:convnext_atto", 64, 32)
        weights: dict[str, Tensor]

    timm: Any = importlib.import_module("timm")
    whole = timm.create_model("convnext_atto", num_classes=0).state_dict()
    Described.weights = {f"backbone.{name}": tensor for name, tensor in whole.items()}
    hub.refuse(Described)  # type: ignore[arg-type]
    del Described.weights["backbone.head.norm.weight"]  # a norm, which timm starts with ones
    hub.refuse(Described)  # type: ignore[arg-type]
    assert hub.untrained(Described).keys() == {"head.norm.weight"}  # type: ignore[arg-type]
    del Described.weights["backbone.stem.0.weight"]
    with pytest.raises(RecipeError, match=r"stem\.0\.weight, which gives no features, was not trained"):
        hub.refuse(Described)  # type: ignore[arg-type]


def test_a_backbone_of_timms_is_read_back_without_its_last_norm(tmp_path: Path) -> None:
    need("timm")
    timm: Any = importlib.import_module("timm")
    network = timm.create_model("convnext_atto", num_classes=0).eval()
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("head.")}
    images = torch.randn((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    loaded = filled(timm.create_model("convnext_atto", num_classes=0), state)
    with torch.no_grad():
        wanted = network.forward_intermediates(images, intermediates_only=True)[-1]
        assert torch.equal(loaded(images), wanted)
    with pytest.raises(CheckpointError, match=r"timm has no conv1\.weight"):
        filled(network, {"conv1.weight": images})
