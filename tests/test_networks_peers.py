"""Networks beside those of torchvision and timm: the same weights give the same answers; timm's models as backbones."""

import re
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from mdp.core.networks import (
    EmbeddingNetwork,
    NetworkSettings,
    build_embedding_network,
    build_instance_network,
    build_segmentor,
    follow_,
    make_pair,
    match,
)
from mdp.core.networks.backbones import build_backbone
from mdp.core.networks.batchnorm import Synchronised, over_processes_
from mdp.core.networks.parameter_names import BARE, DEEP_STEM, TORCHVISION_DEEPLAB, Layout, to_foreign
from mdp.core.networks.resnet import ResNet
from mdp.core.networks.timm_backbone import describe
from mdp.io.errors import RecipeError
from mdp.io.recipe.layers import as_layer, resolve
from mdp.io.recipe.methods import method_names
from mdp.io.recipe.request import Request
from mdp.io.training.job import run_finetuning
from tests.laws import pure_call
from tests.peers import library_or_skip
from tests.small_runs import assert_resumes_exactly, assert_same, request, tensors_of
from tests.tensors import rng_of
from tests.test_method_runs import layer_of
from tests.test_methods import trained_two_steps
from tests.test_networks import scramble_

pytestmark = pytest.mark.usefixtures("bare_runs")

NAMES = method_names()
SIZES = [(64, 64), (65, 41), (33, 40)]


@pytest.fixture
def timm() -> ModuleType:
    return library_or_skip("timm")


@pytest.fixture(autouse=True)
def seeded_dropout() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def tiny(name: str, **changes: Any) -> NetworkSettings:
    given = {"output_stride": 32, "channels": 8, "dilations": (1, 2)}
    return NetworkSettings(**{"backbone": f"timm:{name}", **given, **changes})


def copy_(peer: nn.Module, own: nn.Module, prefix: str, layout: Layout) -> None:
    """Gives the peer our weights by the table of names; nothing of either may be left over."""
    named = {to_foreign(f"{prefix}{name}", layout): tensor for name, tensor in own.state_dict().items()}
    peer.load_state_dict(named)


# Parity


def test_our_network_is_torchvisions_deeplab() -> None:
    torchvision = library_or_skip("torchvision")
    own = build_segmentor(NetworkSettings(head="deeplabv3_torchvision"), 5, rng_of(0)).eval()
    scramble_(own, rng_of(1))
    own.classifier.weight.data.normal_(0, 0.05, generator=rng_of(2))
    peer = torchvision.models.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=5)
    copy_(peer.eval(), own, "", TORCHVISION_DEEPLAB)
    for size in SIZES:
        images = torch.randn(2, 3, *size, generator=rng_of(3))
        with torch.no_grad():
            expected = peer.double()(images.double())["out"]  # at the images' size
            logits = own.double()(images.double())
        found = nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)
        assert tuple(logits.shape[2:]) == tuple(-(-side // 8) for side in size)
        assert expected.abs().mean() > 1e-3
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "stride"), [("resnet18", 8), ("resnet50", 8), ("resnet50", 16)])
def test_with_its_own_first_dilation_a_backbone_is_smps(name: str, stride: int) -> None:
    own = ResNet(name, output_stride=stride, first_dilation="own").eval()
    scramble_(own, rng_of(0))
    smp = library_or_skip("segmentation_models_pytorch")
    peer = smp.encoders.get_encoder(name, weights=None, output_stride=stride).eval()
    peer.load_state_dict(own.state_dict())
    images = torch.randn(1, 3, 65, 41, generator=rng_of(1))
    with torch.no_grad():
        found, expected = own(images), peer(images)[-1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize(
    ("name", "theirs", "layout"), [("resnet50", "resnet50", BARE), ("resnet50_v1c", "resnet50c", DEEP_STEM)]
)
def test_our_backbone_is_timms(timm: ModuleType, name: str, theirs: str, layout: Layout, stride: int) -> None:
    own = ResNet(name, output_stride=stride).eval()
    scramble_(own, rng_of(0))
    peer = timm.create_model(theirs, pretrained=False, num_classes=0, output_stride=stride).eval()
    copy_(peer, own, "backbone.", layout)
    for size in SIZES:
        images = torch.randn(1, 3, *size, generator=rng_of(1))
        with torch.no_grad():
            low, last = peer.forward_intermediates(images, indices=[1, 4], intermediates_only=True)
            found = own.maps(images)
        torch.testing.assert_close(found.last, last, rtol=1e-4, atol=1e-4 * float(last.abs().max()))
        torch.testing.assert_close(found.low, low, rtol=1e-4, atol=1e-4 * float(low.abs().max()))


def whole_model(timm: ModuleType, name: str, own: nn.Module) -> nn.Module:
    """timm's model for 224 pixels with our backbone's weights; what it has besides is its last norm and its head."""
    arguments = {"img_size": 224} if "vit" in name or "swin" in name else {}
    whole: nn.Module = timm.create_model(name, pretrained=False, num_classes=7, **arguments).eval()
    left = whole.load_state_dict(own.state_dict(), strict=False)
    assert left.unexpected_keys == []
    assert {key.split(".")[0] for key in left.missing_keys} <= {"head", "norm", "fc", "bn2", "conv_head", "classifier"}
    return whole


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_convolutional_features_are_those_that_timm_gives_its_classifier(timm: ModuleType, name: str) -> None:
    built = build_backbone(f"timm:{name}", 64, None, "last")
    whole = whole_model(timm, name, built.module.eval())
    images = torch.randn(2, 3, 224, 224, generator=rng_of(1))
    with torch.no_grad():
        torch.testing.assert_close(built.maps(built.module, images).last, whole.forward_features(images))


@pytest.mark.parametrize("name", ["test_vit", "swin_s3_tiny_224"])
def test_a_transformers_features_are_those_that_timm_norms_for_its_classifier(timm: ModuleType, name: str) -> None:
    size = 160 if name == "test_vit" else 224  # what its positions are learnt at
    own = timm.create_model(name, pretrained=False, num_classes=0)
    built = build_backbone(f"timm:{name}", 64, None, "last")
    own.load_state_dict(built.module.state_dict(), strict=False)
    images = torch.randn(2, 3, size, size, generator=rng_of(1))
    with torch.no_grad():
        found = built.maps(built.module.eval(), images).last  # (2, channels, h, w)
        normed = own.norm(found.flatten(2).transpose(1, 2))  # (2, h w, channels)
        expected = own.eval().forward_features(images)
    expected = expected[:, 1:] if name == "test_vit" else expected.flatten(1, 2)  # without the class token
    assert found.shape[1:] == (built.channels, size // built.stride, size // built.stride)
    torch.testing.assert_close(normed, expected, rtol=1e-4, atol=1e-5)


def test_batchnorm_with_an_activation_gives_the_features_that_timm_extracts(timm: ModuleType) -> None:
    built = build_backbone("timm:test_efficientnet", 64, 16, "low")
    peer = timm.create_model("test_efficientnet", features_only=True, pretrained=False, output_stride=16).eval()
    left = peer.load_state_dict(built.module.eval().state_dict(), strict=False)
    assert not left.missing_keys
    images = torch.randn(2, 3, 97, 64, generator=rng_of(1))
    with torch.no_grad():
        maps = dict(zip(peer.feature_info.reduction(), peer(images), strict=False))  # the first of each stride
        found = built.maps(built.module, images)
        last = peer(images)[-1]
    torch.testing.assert_close(found.last, last)
    torch.testing.assert_close(found.low, maps[4])


# timm's models as backbones


def test_a_torchvision_from_another_source_than_torch_is_told_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Elsewhere:
        """A finder of modules, as the import of a torchvision built for CUDA beside a torch for the CPU ends."""

        def find_spec(self, name: str, *_: Any) -> None:
            if name == "timm":
                raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Elsewhere(), *sys.meta_path])
    with pytest.raises(ValueError, match=r"different sources; .*: pip install --force-reinstall torch torchvision"):
        describe("test_vit", None, 17)


MODELS = [("test_convnext", 32), ("test_convnext", 8), ("test_efficientnet", 16), ("test_resnet", 32), ("test_vit", 16)]


@cache
def embedding_network(name: str, stride: int) -> EmbeddingNetwork:
    return build_embedding_network(tiny(name, output_stride=stride), 3, 4, rng_of(0)).eval()


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(("name", "stride"), MODELS)
@pytest.mark.parametrize("size", [(64, 96), (70, 131), (33, 65)])
def test_the_grid_is_the_image_over_the_stride_rounded_up(name: str, stride: int, size: tuple[int, int]) -> None:
    network = embedding_network(name, stride)
    with torch.no_grad():
        embeddings = network(torch.randn(1, 3, *size, generator=rng_of(0)))
    assert network.output_stride == stride
    assert tuple(embeddings.shape[2:]) == tuple(-(-side // stride) for side in size)
    assert embeddings.isfinite().all()


@pytest.mark.usefixtures("timm")
def test_deeplab_plus_joins_the_finer_map_of_a_model_out_of_timm() -> None:
    settings = tiny("test_convnext", head="deeplabv3plus", output_stride=16)
    network = build_segmentor(settings, 3, rng_of(0)).eval()
    assert network.output_stride == 4
    assert tuple(network(torch.randn(1, 3, 64, 66)).shape[2:]) == (16, 20)  # 66 is padded to 80
    with pytest.raises(ValueError, match=r"head: it joins features of stride 4, and those of timm:test_vit have 16"):
        tiny("test_vit", head="deeplabv3plus", output_stride=16)


STAGED = {  # strides of four stages
    "test_resnet": (4, 8, 16, 32), "test_convnext": (4, 8, 16, 32), "test_efficientnet": (4, 8, 16, 32),
    "pvt_v2_b0": (4, 8, 16, 32), "swin_s3_tiny_224": (4, 8, 16, 32), "vit_tiny_patch16_224": (16, 16, 16, 16),
}  # fmt: skip


@pytest.mark.parametrize("name", STAGED)
def test_the_stages_are_those_that_timm_extracts(timm: ModuleType, name: str) -> None:
    built = build_backbone(f"timm:{name}", 64, None, "stages")
    images = torch.randn(2, 3, 70, 131, generator=rng_of(1))
    with torch.no_grad():
        found = built.maps(built.module.eval(), images)
    assert tuple(stage.shape[1] for stage in found.stages) == built.stage_channels
    assert [tuple(stage.shape[2:]) for stage in found.stages] == [
        (-(-70 // stride), -(-131 // stride)) for stride in STAGED[name]
    ]
    assert built.finest == STAGED[name][0]
    assert found.last is found.stages[-1]
    if name.startswith(("vit", "swin")):
        return  # timm extracts them at one size only
    peer = timm.create_model(name, features_only=True, pretrained=False).eval()
    own = {key.replace(".", "_"): tensor for key, tensor in built.module.state_dict().items()}  # it flattens names
    peer.load_state_dict({key: own[key.replace(".", "_")] for key in peer.state_dict()})
    whole = torch.randn(2, 3, 96, 64, generator=rng_of(2))
    with torch.no_grad():
        for stage, expected in zip(built.maps(built.module, whole).stages, peer(whole)[-4:], strict=True):
            torch.testing.assert_close(stage, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("head", ["upernet", "segformer", "hrnet"])
@pytest.mark.parametrize("name", ["test_convnext", "test_vit"])
def test_heads_of_four_stages_take_timms(head: str, name: str) -> None:
    stride, grid = (4, (18, 33)) if name == "test_convnext" else (16, (5, 9))
    settings = tiny(name, head=head, output_stride=32 if name == "test_convnext" else 16, dilations=None)
    network = build_segmentor(settings, 3, rng_of(0)).eval()
    assert network.output_stride == stride
    assert tuple(network(torch.randn(1, 3, 70, 131)).shape[2:]) == grid


@pytest.mark.usefixtures("timm")
def test_the_finer_map_is_the_deepest_of_its_stride() -> None:
    found = describe("test_vit", None, 16)  # all its maps have stride 16
    assert found.low == found.last > 0


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(("name", "stride"), [*MODELS, ("swin_s3_tiny_224", 32), ("xcit_nano_12_p8_224", 8)])
def test_every_parameter_in_training_has_a_gradient(name: str, stride: int) -> None:
    network = build_segmentor(tiny(name, output_stride=stride), 3, rng_of(0)).train()
    network(torch.randn(2, 3, 64, 64, generator=rng_of(0))).square().sum().backward()
    silent = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    frozen = [n for n, p in network.named_parameters() if not p.requires_grad]
    assert silent == []
    assert frozen == (["backbone.cls_token"] if name.startswith("xcit") else [])


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("name", ["test_convnext", "test_vit", "test_efficientnet"])
def test_weights_are_a_function_of_the_generator_alone(name: str) -> None:
    settings = tiny(name, output_stride=16)
    first = pure_call(build_segmentor, settings, 4, rng_of(0))
    torch.manual_seed(17)
    again, other = build_segmentor(settings, 4, rng_of(0)), build_segmentor(settings, 4, rng_of(1))
    pretraining = pure_call(build_embedding_network, settings, 3, 4, rng_of(0))
    pure_call(build_instance_network, settings, 3, rng_of(0))
    assert_same(first.state_dict(), again.state_dict())
    assert_same(first.backbone.state_dict(), pretraining.backbone.state_dict())
    spread = [n for n, p in first.backbone.named_parameters() if p.ndim > 1 and p.std() > 0]
    changed = other.state_dict()
    assert spread
    assert not any(torch.equal(first.state_dict()[f"backbone.{n}"], changed[f"backbone.{n}"]) for n in spread)


@pytest.mark.usefixtures("timm")
def test_moco_takes_a_model_of_timms_at_its_own_stride() -> None:
    for name, stride in [("test_convnext", 32), ("test_vit", 16)]:
        network = build_instance_network(tiny(name, output_stride=16), 5, rng_of(0)).eval()
        assert network.output_stride == stride
        torch.testing.assert_close(network(torch.randn(2, 3, 64, 70)).norm(dim=1), torch.ones(2))


@pytest.mark.usefixtures("timm")
def test_a_key_encoder_out_of_timm_follows() -> None:
    pair = make_pair(build_embedding_network(tiny("test_convnext"), 3, 4, rng_of(0)))
    with torch.no_grad():
        for parameter in pair.query.parameters():
            parameter.add_(1)
    expected = [0.75 * k + 0.25 * q for k, q in zip(pair.key.parameters(), pair.query.parameters(), strict=True)]
    follow_(pair, 0.75)
    for now, then in zip(pair.key.parameters(), expected, strict=True):
        torch.testing.assert_close(now, then.detach())
    images = torch.randn(2, 3, 64, 64, generator=rng_of(0))
    assert not torch.equal(pair.key.eval()(images), pair.query.eval()(images))


@pytest.mark.usefixtures("timm")
def test_synchronised_batchnorm_keeps_activations_and_leaves_other_norms() -> None:
    for name in ("test_efficientnet", "test_convnext"):
        network = build_segmentor(tiny(name), 3, rng_of(0)).eval()
        images = torch.randn(2, 3, 64, 64, generator=rng_of(0))
        layers = [m for m in network.modules() if isinstance(m, nn.LayerNorm)]
        with torch.no_grad():
            before = network(images)
            over_processes_(network, torch.clone)
            torch.testing.assert_close(network.eval()(images), before)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
        assert layers == [m for m in network.modules() if isinstance(m, nn.LayerNorm)]
        assert any(isinstance(m, Synchronised) for m in network.decode_head.modules())


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("name", ["test_convnext", "test_vit"])
def test_models_of_timms_run_in_reduced_precision_channels_last_and_as_one_graph(name: str) -> None:
    network = build_segmentor(tiny(name, output_stride=16), 3, rng_of(0)).eval()
    images = torch.randn(2, 3, 64, 70, generator=rng_of(1))
    with torch.no_grad():
        expected = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(images)
        last = network.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
        compiled = torch.compile(network, backend="eager")(images)
    assert half.dtype == torch.bfloat16
    assert (half.float() - expected).norm() < 0.05 * expected.norm()
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("name", NAMES)
def test_every_method_trains_a_model_of_timms(name: str) -> None:
    trained = trained_two_steps(name, tiny("test_convnext", output_stride=16))
    frozen = {part.partition(".")[0] for part, p in trained.named_parameters() if not p.requires_grad}
    assert ("backbone" in frozen) == (name == "pixel_attention")


@pytest.mark.usefixtures("timm")
def test_what_pretraining_learns_arrives_exactly() -> None:
    settings = tiny("test_efficientnet", head="deeplabv3plus")
    pretrained = build_embedding_network(settings, 3, 4, rng_of(0)).eval()
    network = build_segmentor(settings, 4, rng_of(2)).eval()
    found = match(pretrained.state_dict(), network.state_dict(), ("backbone", "decode_head"))
    assert found.missing == ["decode_head.conv_seg.weight", "decode_head.conv_seg.bias"]
    network.load_state_dict(found.tensors, strict=False)
    images = torch.randn(2, 3, 64, 65, generator=rng_of(3))
    with torch.no_grad():
        assert torch.equal(pretrained.features(images), network.features(images))


# What is refused


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"backbone": "timm:convnext_tniy"},
            r"^backbone: timm \S+ has no model 'convnext_tniy'; near it: timm:convnext_tiny",
        ),
        ({"backbone": "timm:test_vit.nothing"}, r"^backbone: .* near it: timm:test_vit, timm:test_vit\.r160_in1k$"),
        ({"backbone": "timm:"}, r"^backbone: timm \S+ has no model ''"),
        (
            {"backbone": "timm:hf-hub:timm/test_vit.r160_in1k"},
            r"^backbone: timm \S+ has no model 'hf-hub:timm/test_vit'",
        ),
        ({"backbone": "timm:test_convnext", "width": 32}, r"^width: timm:test_convnext has a width of its own"),
        ({"backbone": "timm:test_vit", "first_dilation": "own"}, r"^first_dilation: timm:test_vit has its own"),
        (
            {"backbone": "timm:test_vit", "output_stride": 8},
            r"^output_stride: timm:test_vit has features of stride 16, got 8$",
        ),
        ({"backbone": "timm:test_resnet", "output_stride": 4}, r"^output_stride: .* of stride 8 or 16 or 32, got 4$"),
        ({"backbone": "timm:test_vit_relpos", "output_stride": 16}, r"^backbone: .* does not take images of any size"),
        ({"backbone": "timm:inception_v3", "output_stride": 32}, r"^backbone: .* do not lie on a regular grid"),
        ({"backbone": "timm:test_byobnet", "drop_path": 1.0}, r"^drop_path: expected "),
        ({"backbone": "timm:vgg11", "drop_path": 0.1}, r"^drop_path: timm:vgg11 has no blocks that can be passed by"),
        ({"backbone": "resnet18", "drop_path": 0.1}, r"^drop_path: only backbones timm:NAME have it"),
    ],
)
def test_what_timm_cannot_give_is_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        NetworkSettings(**change)
    assert "\n" not in str(error.value)
    with pytest.raises(RecipeError, match="recipe: model"):
        resolve({"model": change})


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ValueError, match=r"needs the extra timm.*pip install 'mdp-segmentation\[timm\]'"):
        NetworkSettings(backbone="timm:a_model_that_no_test_has_asked_for")


@pytest.mark.usefixtures("timm")
def test_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    build_segmentor(tiny("test_convnext.r160_in1k"), 3, rng_of(0))


# Whole runs


@pytest.mark.usefixtures("timm", "in_an_empty_folder")
def test_a_run_on_a_model_of_timms_is_resumed_exactly_and_fine_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"backbone": "timm:test_convnext", "output_stride": 16, "channels": 8, "dilations": [1, 2]}
    layer = layer_of("multi_dataset") | {"model": model}
    assert resolve(as_layer(resolve(layer))) == resolve(layer)
    assert asdict(resolve(layer).model)["backbone"] == "timm:test_convnext"
    whole = assert_resumes_exactly(monkeypatch, layer)
    changes = request(("model", None), ("finetune.steps", 2), ("finetune.head_init", "prototypes"))
    own = {key: value for key, value in changes.layers[0].items() if key != "model"}
    tuned = run_finetuning(Request(layers=(own,), quiet=True, out=Path("tuned"), init=str(whole)))
    assert re.search(r"loaded (\d+) of \1 backbone tensors", (tuned / "log.txt").read_text())
    assert "classifier from prototypes" in (tuned / "log.txt").read_text()
    assert "network.backbone.stages.0.blocks.0.conv_dw.weight" in tensors_of(tuned)


@pytest.mark.usefixtures("timm", "in_an_empty_folder")
def test_stochastic_depth_in_the_key_encoder_is_resumed_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"backbone": "timm:test_convnext2", "drop_path": 0.5, "channels": 8, "dilations": [1, 2]}
    layer = layer_of("multi_dataset") | {"model": model}
    assert_resumes_exactly(monkeypatch, layer)


def test_embedding_networks_say_their_own_stride_before_any_image() -> None:
    with torch.device("meta"):
        assert EmbeddingNetwork(NetworkSettings(output_stride=16), 4, 4).output_stride == 16
