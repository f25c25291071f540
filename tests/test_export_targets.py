"""What each library can hold, and the line that loads it there."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mdp.core.networks.decode_heads import HEADS
from mdp.core.networks.parameter_names import BARE, DEEP_STEM, TORCHVISION_DEEPLAB
from mdp.io.errors import RecipeError
from mdp.io.export import targets
from mdp.io.export.content import Content
from mdp.io.export.targets import find, names, refuse_misfit
from mdp.io.export.targets.mmseg import backbone_of
from mdp.io.export.targets.timm import model_of
from tests.conftest import ROOT

TARGETS = names()
PLAIN = Content("resnet50", 64, 8)
DEEP = PLAIN._replace(backbone="resnet50_v1c")
FOREIGN = PLAIN._replace(backbone="timm:convnext_tiny")
WHOLE = PLAIN._replace(head="deeplabv3", classes=3)
TORCHVISIONS = WHOLE._replace(head="deeplabv3_torchvision")


def test_mypy_holds_every_file_against_the_protocol() -> None:
    source = Path(str(targets.__file__)).read_text(encoding="utf-8")
    listed = re.search(r"_TARGETS: list\[Target\] = \[(.*)\]", source)
    assert listed
    assert listed[1].split(", ") == TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_holds_a_plain_backbone(target: str) -> None:
    refuse_misfit(target, PLAIN)


@pytest.mark.parametrize(
    ("target", "content", "reason", "can"),
    [
        ("torchvision", DEEP, "begin with a 7x7", "timm, mmseg, safetensors, onnx, torch_export, hub"),
        ("smp", DEEP, "begin with a 7x7", "timm, mmseg, safetensors, onnx, torch_export, hub"),
        ("mmseg", FOREIGN, "convnext_tiny", "timm, safetensors, onnx, torch_export, hub"),
        ("torchvision", FOREIGN, "convnext_tiny", "timm, safetensors, onnx, torch_export, hub"),
        ("timm", PLAIN._replace(width=16), "this one has 16", "safetensors, onnx, torch_export"),
        ("hub", PLAIN._replace(width=16), "this one has 16", "safetensors, onnx, torch_export"),
        ("timm", WHOLE, "backbones only", "mmseg, safetensors, onnx, torch_export"),
        ("smp", TORCHVISIONS, "backbones only", "torchvision, safetensors, onnx, torch_export"),
        ("torchvision", WHOLE, "deeplabv3 has other layers", "mmseg, safetensors, onnx, torch_export"),
        (
            "mmseg",
            TORCHVISIONS,
            "deeplabv3_torchvision has other layers",
            "torchvision, safetensors, onnx, torch_export",
        ),
        (
            "mmseg",
            WHOLE._replace(head="fcn_dilated", dilations=(1, 2)),
            "one dilation for all convolutions",
            "safetensors, onnx, torch_export",
        ),
        ("mmseg", WHOLE._replace(backbone="resnet18"), "other convolutions", "safetensors, onnx, torch_export"),
        ("torchvision", TORCHVISIONS._replace(backbone="resnet34"), "on resnet34", "safetensors, onnx, torch_export"),
        ("torchvision", TORCHVISIONS._replace(stride=16), "stride 8, this one 16", "safetensors, onnx, torch_export"),
        (
            "torchvision",
            TORCHVISIONS._replace(first_dilation="own"),
            "in its first block",
            "safetensors, onnx, torch_export",
        ),
        (
            "torchvision",
            TORCHVISIONS._replace(channels=512),
            "256 channels, this one 512",
            "safetensors, onnx, torch_export",
        ),
        (
            "torchvision",
            TORCHVISIONS._replace(dilations=(1, 6, 12, 18)),
            "dilations 1, 12",
            "safetensors, onnx, torch_export",
        ),
    ],
)
def test_what_a_library_cannot_hold_is_refused_with_what_can(
    target: str, content: Content, reason: str, can: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        refuse_misfit(target, content)
    assert reason in str(caught.value)
    assert str(caught.value).endswith(f"what can hold it: {can}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "content"),
    [
        ("mmseg", WHOLE),
        ("mmseg", WHOLE._replace(head="fcn", backbone="resnet101_v1c")),
        ("mmseg", WHOLE._replace(backbone="resnet18", stride=32)),
        *(("mmseg", WHOLE._replace(head=head)) for head in HEADS if head != "deeplabv3_torchvision"),
        *((target, WHOLE._replace(head=head)) for head in HEADS for target in ("safetensors", "onnx", "torch_export")),
        ("torchvision", TORCHVISIONS),
        ("torchvision", TORCHVISIONS._replace(channels=256, dilations=(1, 12, 24, 36), backbone="resnet101")),
        ("onnx", TORCHVISIONS._replace(width=4)),
        ("timm", DEEP),
        ("hub", FOREIGN),
    ],
)
def test_what_a_library_can_hold_is_taken(target: str, content: Content) -> None:
    refuse_misfit(target, content)


def test_only_what_runs_alike_is_compared_at_the_trained_stride() -> None:
    basic = PLAIN._replace(backbone="resnet18")
    ours = {"safetensors": (8,), "onnx": (8,), "torch_export": (8,)}  # our own network, or itself
    both = dict.fromkeys(TARGETS, (32, 8)) | ours
    assert {t: find(t).strides(PLAIN) for t in TARGETS} == {**both, "smp": (32,)}
    other = dict.fromkeys(("smp", "torchvision", "mmseg"), (32,))
    assert {t: find(t).strides(basic) for t in TARGETS} == {**both, **other}
    assert {find(t).strides(basic._replace(stride=32)) for t in TARGETS} == {(32,)}
    own = PLAIN._replace(first_dilation="own")
    assert {t for t in TARGETS if 8 in find(t).strides(own)} == {*ours, "smp", "mmseg"}
    assert {find(t).strides(FOREIGN) for t in ("timm", "hub", "onnx")} == {(8,)}
    assert {find(t).strides(TORCHVISIONS) for t in ("torchvision", "safetensors")} == {(8,)}


def test_names_follow_the_library_and_the_stem() -> None:
    assert [find(t).layout(DEEP) for t in ("timm", "hub", "safetensors")] == [DEEP_STEM, DEEP_STEM, BARE]
    assert find("mmseg").layout(DEEP) == (("backbone.", "backbone."),)
    assert find("torchvision").layout(TORCHVISIONS) == TORCHVISION_DEEPLAB


@pytest.mark.parametrize(
    ("backbone", "found"),
    [
        ("resnet34", ("resnet34", {})),
        ("resnet101_v1c", ("resnet101c", {})),
        ("resnet34_v1c", ("resnet34", {"stem_type": "deep", "stem_width": 32})),
        ("timm:convnext_tiny.in12k", ("convnext_tiny.in12k", {})),
    ],
)
def test_a_backbone_has_a_name_in_timm(backbone: str, found: tuple[str, dict[str, Any]]) -> None:
    assert model_of(PLAIN._replace(backbone=backbone)) == found


def test_a_configuration_of_mmsegmentation_names_kind_and_depth() -> None:
    assert backbone_of(PLAIN) == 'type="ResNet", depth=50'
    assert backbone_of(PLAIN._replace(backbone="resnet101_v1c")) == 'type="ResNetV1c", depth=101'


@pytest.mark.parametrize("target", TARGETS)
def test_the_line_is_one_statement_line_whatever_the_path(target: str) -> None:
    path = Path('/a b/it\'s "so"/\n\u00fc.pth')
    line = find(target).load_line(path, PLAIN)
    compile(line, "line", "exec")
    assert "\n" not in line
    assert repr(str(path)).strip("'\"") in line


def test_the_page_on_libraries_has_every_target_and_python_that_compiles() -> None:
    page = (ROOT / "docs" / "interop.md").read_text()
    assert [target for target in TARGETS if f"| `{target}` |" not in page] == []
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 7
    for block in blocks:
        compile(block, "interop.md", "exec")


def test_help_names_the_targets_without_torch() -> None:
    code = (
        "import sys\nfrom mdp.cli import cli\ncli.main(['export', '--help'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[torchvision|timm|smp|mmseg|safetensors|onnx|torch_export|hub]" in done.stdout
