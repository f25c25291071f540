"""Names of parameters in other libraries: both directions agree, and the libraries have the names that we give them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mdp.core.networks.parameter_names import (
    BARE,
    DEEP_STEM,
    MMSEG,
    TORCHVISION_DEEPLAB,
    Layout,
    foreign_names,
    to_foreign,
    to_own,
)
from mdp.core.networks.resnet import LAYOUTS, ResNet
from tests.peers import library_or_skip, quiet

BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
STEM = [f"backbone.stem.{i}.weight" for i in (0, 3, 6)] + [
    f"backbone.stem.{i}.{part}" for i in (1, 4, 7) for part in BATCH_NORM
]


def names_of(name: str) -> list[str]:
    """The parameters of a backbone as our networks have them."""
    with torch.device("meta"):
        return [f"backbone.{part}" for part in ResNet(name).state_dict()]


def with_deep_stem(names: list[str]) -> list[str]:
    return [*STEM, *(name for name in names if not name.startswith(("backbone.conv1.", "backbone.bn1.")))]


HEAD = [f"decode_head.{layer}.{part}" for layer in ("aspp.convs.0.1", "aspp.project.1", "bn") for part in BATCH_NORM]
HEAD += [f"decode_head.{name}.weight" for name in ("aspp.convs.0.0", "aspp.convs.4.1", "conv", "conv_seg")]


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        (BARE, names_of("resnet50")),
        (DEEP_STEM, with_deep_stem(names_of("resnet50"))),
        (DEEP_STEM, with_deep_stem(names_of("resnet18"))),
        (MMSEG, names_of("resnet18") + HEAD),
        (TORCHVISION_DEEPLAB, names_of("resnet50") + HEAD),
    ],
)
def test_every_name_comes_back_from_the_other_library(layout: Layout, names: list[str]) -> None:
    found = foreign_names(names, layout)
    assert list(found) == names
    assert [to_own(foreign, layout) for foreign in found.values()] == names


def test_what_the_other_library_lacks_is_left_out() -> None:
    assert foreign_names(["projection_head.0.weight", "decode_head.bn.bias"], BARE) == {}
    assert to_foreign("projection_head.0.weight", MMSEG) is None


def test_two_parameters_never_get_one_name() -> None:
    with pytest.raises(ValueError, match=r"conv1\.weight"):
        foreign_names(["backbone.conv1.weight", "decode_head.conv1.weight"], (("backbone.", ""), ("decode_head.", "")))


def names_in(make: Callable[..., Any], *arguments: Any, **settings: Any) -> set[str]:
    with quiet(), torch.device("meta"):
        return set(make(*arguments, **settings).state_dict())


@pytest.mark.parametrize("name", sorted(name for name in LAYOUTS if name.count("_") == 0))
def test_a_bare_backbone_has_the_names_of_torchvision_timm_and_smp(name: str) -> None:
    torchvision, timm = library_or_skip("torchvision"), library_or_skip("timm")
    ours = set(foreign_names(names_of(name), BARE).values())
    fc = {"fc.weight", "fc.bias"}
    assert names_in(torchvision.models.get_model, name, weights=None) - fc == ours
    assert names_in(timm.create_model, name, num_classes=0) == ours
    smp = library_or_skip("segmentation_models_pytorch")
    assert names_in(smp.encoders.get_encoder, name, weights=None) == ours


@pytest.mark.parametrize(
    ("name", "theirs", "settings"),
    [("resnet50", "resnet50c", {}), ("resnet18", "resnet18", {"stem_type": "deep", "stem_width": 32})],
)
def test_a_deep_stem_has_the_names_of_timm(name: str, theirs: str, settings: dict[str, Any]) -> None:
    timm = library_or_skip("timm")
    ours = set(foreign_names(with_deep_stem(names_of(name)), DEEP_STEM).values())
    assert names_in(timm.create_model, theirs, num_classes=0, **settings) == ours


def test_a_deeplab_has_the_names_of_torchvision() -> None:
    torchvision = library_or_skip("torchvision")
    theirs = names_in(
        torchvision.models.get_model, "deeplabv3_resnet50", weights=None, weights_backbone=None, num_classes=3
    )
    own = {to_own(name, TORCHVISION_DEEPLAB) for name in theirs}
    assert None not in own
    assert {name for name in own if name and name.startswith("backbone.")} == set(names_of("resnet50"))
    assert {*HEAD, "decode_head.conv_seg.bias"} <= own
    assert {name.split(".")[1] for name in own if name and name.startswith("decode_head.")} == {
        "aspp", "conv", "bn", "conv_seg",
    }  # fmt: skip
