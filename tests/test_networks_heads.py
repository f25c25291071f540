"""The heads besides DeepLab-v3, and the three-convolution stem: names, sizes, equations, and every method on them."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from mdp.core.criteria import Part
from mdp.core.methods import Loss
from mdp.core.networks import (
    EmbeddingNetwork,
    NetworkSettings,
    Segmentor,
    build_embedding_network,
    build_segmentor,
    match,
)
from mdp.core.networks.decode_heads import HEADS
from mdp.core.networks.parameter_names import DEEP_STEM, TORCHVISION_DEEPLAB, to_foreign, to_own
from mdp.core.networks.resnet import ResNet
from mdp.io.errors import CheckpointError, RecipeError
from mdp.io.recipe.layers import as_layer, resolve
from mdp.io.recipe.methods import find_method, method_names
from mdp.io.recipe.request import Request
from mdp.io.run.checkpoint import load
from mdp.io.run.opened import new_segmentor
from mdp.io.training.finetuning import Finetuning, finetune_recipe
from mdp.io.training.job import run_finetuning, run_pretraining
from tests.small_runs import TINY, request, tensors_of
from tests.tensors import rng_of
from tests.test_method_runs import layer_of
from tests.test_methods import trained_two_steps
from tests.test_networks import params, scramble_, shapes

pytestmark = pytest.mark.usefixtures("bare_runs")

NAMES = method_names()
PRETRAINED = [name for name, head in HEADS.items() if not head.auxiliary]
NEW = [name for name in PRETRAINED if name != "deeplabv3"]


def narrow(head: str, **changes: Any) -> NetworkSettings:
    dilations = (1, 2) if HEADS[head].dilations else None
    channels = None if head == "linear" else 8
    given = {"backbone": "resnet18", "width": 8, "head": head, "channels": channels, "dilations": dilations}
    return NetworkSettings(**{**given, **changes})


def on_meta(head: str, backbone: str = "resnet50") -> Segmentor:
    with torch.device("meta"):
        return Segmentor(NetworkSettings(backbone=backbone, head=head), 21)


@pytest.fixture(autouse=True)
def seeded_dropout() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


# Names, shapes, totals


@pytest.mark.parametrize(
    ("head", "total"),
    [
        ("deeplabv3", 65_730_133),
        ("deeplabv3plus", 41_206_981),
        ("deeplabv3_torchvision", 39_638_869),
        # 23,508,032 + (2048 + 512 + 2560) x 512 x 9 + 3 x 1024 + 513 x 21
        ("fcn", 47_114_837),
        # 23,508,032 + (2048 + 256) x 256 x 9 + 2 x 512 + 257 x 21
        ("fcn_dilated", 28_822_869),
        # 23,508,032 + 2049 x 21
        ("linear", 23_551_061),
        # MMSegmentation's 66.4 million of upernet_r50 without its auxiliary head
        ("upernet", 64_032_341),
        # 23,508,032 + 3840 x 256 + 4 x 512 + 1024 x 256 + 512 + 257 x 21
        ("segformer", 24_761_173),
        # 23,508,032 + 3840 x 3840 + 2 x 3840 + 3841 x 21 + 3840 x 512 x 9 + 2 x 512 + 4 x (512 x 256) + 2 x 256 x 256
        # + 10 x 256 + 2 x 512 + 1024 x 512 + 2 x 512 + 513 x 21
        ("ocr", 57_232_746),
        # 23,508,032 + 3840 x 3840 + 2 x 3840 + 3841 x 21
        ("hrnet", 38_341_973),
    ],
)
def test_a_segmentor_has_as_many_parameters_as_the_library_that_its_head_is_from(head: str, total: int) -> None:
    assert params(on_meta(head)) == total


def test_torchvisions_head_has_torchvisions_names_by_the_table_of_names(real_data: Path) -> None:
    file = real_data.parent / "facts" / "state_dict_keys.yaml"
    if not file.is_file():
        pytest.skip(f"no list of published names at {file}")
    facts = yaml.safe_load(file.read_text())
    theirs = {f"backbone.{n}": s for n, s in facts["resnet50"]["keys"].items() if not n.startswith("fc.")}
    head = facts["torchvision_deeplabv3_resnet50"]["head_keys_21"]
    theirs |= {name: shape for name, shape in head.items() if name.startswith("classifier.")}
    own = shapes(on_meta("deeplabv3_torchvision"))
    assert {to_foreign(name, TORCHVISION_DEEPLAB): shape for name, shape in own.items()} == theirs
    assert {to_own(name, TORCHVISION_DEEPLAB) for name in theirs} == own.keys()


def conv_module(prefix: str, outputs: int, inputs: int, kernel: int) -> dict[str, list[int]]:
    """The learnt entries of what MMSegmentation calls a ConvModule."""
    norm = {f"{prefix}.bn.{name}": [outputs] for name in ("weight", "bias")}
    return {f"{prefix}.conv.weight": [outputs, inputs, kernel, kernel], **norm}


def separable(prefix: str, outputs: int, inputs: int) -> dict[str, list[int]]:
    depthwise = conv_module(f"{prefix}.depthwise_conv", inputs, 1, 3)
    return {**depthwise, **conv_module(f"{prefix}.pointwise_conv", outputs, inputs, 1)}


CLASSIFIER = {"conv_seg.weight": [21, 512, 1, 1], "conv_seg.bias": [21]}
PLUS = {
    **conv_module("image_pool.1", 512, 2048, 1),
    **conv_module("aspp_modules.0", 512, 2048, 1),
    **separable("aspp_modules.1", 512, 2048),
    **separable("aspp_modules.2", 512, 2048),
    **separable("aspp_modules.3", 512, 2048),
    **conv_module("bottleneck", 512, 2560, 3),
    **conv_module("c1_bottleneck", 48, 256, 1),
    **separable("sep_bottleneck.0", 512, 560),
    **separable("sep_bottleneck.1", 512, 512),
    **CLASSIFIER,
}
PLAIN = {
    **conv_module("convs.0", 512, 2048, 3),
    **conv_module("convs.1", 512, 512, 3),
    **conv_module("conv_cat", 512, 2560, 3),
    **CLASSIFIER,
}


# MMSegmentation 1.2.2: mmseg/models/decode_heads/uper_head.py with configs/_base_/models/upernet_r50.py, ...
POOLS_AND_PYRAMID = {
    **{k: s for n in range(4) for k, s in conv_module(f"psp_modules.{n}.1", 512, 2048, 1).items()},
    **conv_module("bottleneck", 512, 4096, 3),
    **{k: s for n in range(3) for k, s in conv_module(f"lateral_convs.{n}", 512, 256 * 2**n, 1).items()},
    **{k: s for n in range(3) for k, s in conv_module(f"fpn_convs.{n}", 512, 512, 3).items()},
    **conv_module("fpn_bottleneck", 512, 2048, 3),
    **CLASSIFIER,
}
# ... segformer_head.py with segformer_mit-b0.py, on a ResNet-50's widths
MLPS = {
    **{k: s for n in range(4) for k, s in conv_module(f"convs.{n}", 256, 256 * 2**n, 1).items()},
    **conv_module("fusion_conv", 256, 1024, 1),
    "conv_seg.weight": [21, 256, 1, 1],
    "conv_seg.bias": [21],
}
# ... fcn_head.py with fcn_hr18.py (resize_concat, num_convs 1, concat_input False), on a ResNet-50's widths
JOINED = {
    **conv_module("convs.0", 3840, 3840, 1),
    "conv_seg.weight": [21, 3840, 1, 1],
    "conv_seg.bias": [21],
}
# ... ocr_head.py with ocrnet_hr18.py, whose first head is the one above, on a ResNet-50's widths
OBJECTS = {
    **{f"regions.{name}": shape for name, shape in JOINED.items()},
    **conv_module("bottleneck", 512, 3840, 3),
    **{
        k: s
        for project in ("key_project", "query_project")
        for n, inputs in ((0, 512), (1, 256))
        for k, s in conv_module(f"object_context_block.{project}.{n}", 256, inputs, 1).items()
    },
    **conv_module("object_context_block.value_project", 256, 512, 1),
    **conv_module("object_context_block.out_project", 512, 256, 1),
    **conv_module("object_context_block.bottleneck", 512, 1024, 1),
    **CLASSIFIER,
}
# ... fcn_head.py with num_convs 2, concat_input False, channels 256, dilation 6
DILATED = {
    **conv_module("convs.0", 256, 2048, 3),
    **conv_module("convs.1", 256, 256, 3),
    "conv_seg.weight": [21, 256, 1, 1],
    "conv_seg.bias": [21],
}
NAMED = [
    ("deeplabv3plus", PLUS), ("fcn", PLAIN), ("upernet", POOLS_AND_PYRAMID), ("segformer", MLPS), ("hrnet", JOINED),
    ("fcn_dilated", DILATED), ("ocr", OBJECTS),
    ("linear", {"conv_seg.weight": [21, 2048, 1, 1], "conv_seg.bias": [21]}),
]  # fmt: skip


@pytest.mark.parametrize(("head", "names"), NAMED)
def test_the_heads_name_their_weights_as_mmsegmentation_does(head: str, names: dict[str, list[int]]) -> None:
    own = {name: list(p.shape) for name, p in on_meta(head).decode_head.named_parameters()}
    assert own == names


@pytest.mark.parametrize(("name", "more"), [("resnet18", 19_232), ("resnet50", 19_232), ("resnet101", 19_232)])
def test_a_v1c_backbone_differs_from_the_plain_one_in_its_stem_alone(name: str, more: int) -> None:
    with torch.device("meta"):
        plain, deep = ResNet(name), ResNet(f"{name}_v1c")
    stem = {n: shape for n, shape in shapes(deep).items() if n.startswith("stem.")}
    convolutions = {n: shape for n, shape in stem.items() if len(shape) == 4}
    assert convolutions == {
        "stem.0.weight": [32, 3, 3, 3],
        "stem.3.weight": [32, 32, 3, 3],
        "stem.6.weight": [64, 32, 3, 3],
    }
    assert {n.split(".")[1] for n in stem} == {"0", "1", "3", "4", "6", "7"}
    rest = {n: shape for n, shape in shapes(plain).items() if n.split(".")[0] not in ("conv1", "bn1")}
    assert {n: shape for n, shape in shapes(deep).items() if n not in stem} == rest
    # 3x32x9 + 32x32x9 + 32x64x9 + 64 + 64 in place of 3x64x49
    assert params(deep) - params(plain) == 864 + 9216 + 18432 + 128 - 9408 == more
    assert all(to_foreign(f"backbone.{n}", DEEP_STEM) for n in stem)


def test_a_v1c_stem_is_three_convolutions_the_first_with_stride_two() -> None:
    backbone = ResNet("resnet18_v1c", 8).eval()
    scramble_(backbone, rng_of(0))
    images = torch.randn(1, 3, 21, 18, generator=rng_of(1))
    weights = backbone.state_dict()
    x = images
    for conv, norm, stride in ((0, 1, 2), (3, 4, 1), (6, 7, 1)):
        x = bn_relu(F.conv2d(x, weights[f"stem.{conv}.weight"], None, stride, 1), weights, f"stem.{norm}")
    with torch.no_grad():
        torch.testing.assert_close(backbone.stem(images), x)
        expected = backbone.layer1(F.max_pool2d(x, 3, 2, 1))
        torch.testing.assert_close(backbone.maps(images).low, expected)
    assert backbone(images).shape == (1, 64, 3, 3)


@pytest.mark.parametrize("head", PRETRAINED)
def test_pretraining_and_fine_tuning_share_all_of_a_head_but_its_classifier(head: str) -> None:
    with torch.device("meta"):
        pretraining = shapes(EmbeddingNetwork(NetworkSettings(head=head), 256, 512))
    fine_tuning = shapes(on_meta(head))
    assert {n for n in pretraining if not n.startswith("projection_head.")} <= fine_tuning.keys()
    assert fine_tuning.keys() - pretraining.keys() == {"decode_head.conv_seg.weight", "decode_head.conv_seg.bias"}
    assert all(fine_tuning[n] == shape for n, shape in pretraining.items() if n in fine_tuning)


# Equations


def bn_relu(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """BatchNorm in evaluation, and ReLU, of the named weights."""
    mean, spread = weights[f"{name}.running_mean"], (weights[f"{name}.running_var"] + 1e-5).sqrt()
    normed = (x - mean[:, None, None]) / spread[:, None, None]
    return (normed * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]).relu()


def module(x: Tensor, weights: dict[str, Tensor], name: str, dilation: int = 1) -> Tensor:
    kernel = weights[f"{name}.conv.weight"]
    groups, reach = x.shape[1] // kernel.shape[1], dilation * (kernel.shape[-1] // 2)
    return bn_relu(F.conv2d(x, kernel, None, 1, reach, dilation, groups), weights, f"{name}.bn")


def pair_of(x: Tensor, weights: dict[str, Tensor], name: str, dilation: int = 1) -> Tensor:
    x = module(x, weights, f"{name}.depthwise_conv", dilation)
    return module(x, weights, f"{name}.pointwise_conv")


def plus(last: Tensor, low: Tensor, w: dict[str, Tensor]) -> Tensor:
    pooled = module(last.mean((2, 3), keepdim=True), w, "image_pool.1").expand(-1, -1, *last.shape[2:])
    branches = [pooled, module(last, w, "aspp_modules.0"), pair_of(last, w, "aspp_modules.1", 2)]
    coarse = module(torch.cat(branches, 1), w, "bottleneck")
    coarse = F.interpolate(coarse, low.shape[2:], mode="bilinear", align_corners=False)
    joined = torch.cat([coarse, module(low, w, "c1_bottleneck")], 1)
    return pair_of(pair_of(joined, w, "sep_bottleneck.0"), w, "sep_bottleneck.1")


def plain(last: Tensor, low: Tensor, w: dict[str, Tensor]) -> Tensor:
    inner = module(module(last, w, "convs.0"), w, "convs.1")
    return module(torch.cat([last, inner], 1), w, "conv_cat")


def torchvisions(last: Tensor, low: Tensor, w: dict[str, Tensor]) -> Tensor:
    def conv(x: Tensor, name: str, first: int, padding: int) -> Tensor:
        kernel = w[f"{name}.{first}.weight"]
        found = F.conv2d(x, kernel, None, 1, padding, max(1, padding))
        return bn_relu(found, w, f"{name}.{first + 1}")

    pooled = conv(last.mean((2, 3), keepdim=True), "aspp.convs.2", 1, 0).expand(-1, -1, *last.shape[2:])
    branches = [conv(last, "aspp.convs.0", 0, 0), conv(last, "aspp.convs.1", 0, 2), pooled]
    projected = conv(torch.cat(branches, 1), "aspp.project", 0, 0)
    return bn_relu(F.conv2d(projected, w["conv.weight"], None, 1, 1), w, "bn")


@pytest.mark.parametrize(
    ("head", "equation"), [("deeplabv3plus", plus), ("fcn", plain), ("deeplabv3_torchvision", torchvisions)]
)
@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
def test_a_head_is_its_equation(head: str, equation: Any, size: tuple[int, int]) -> None:
    network = build_segmentor(narrow(head), 3, rng_of(0)).eval()
    scramble_(network, rng_of(1))
    images = torch.randn(2, 3, *size, generator=rng_of(2))
    with torch.no_grad():
        maps = network.backbone.maps(images)
        expected = equation(maps.last, maps.low, network.decode_head.state_dict())
        torch.testing.assert_close(network.features(images), expected, rtol=1e-4, atol=1e-4)
        logits = F.conv2d(expected, network.classifier.weight, network.classifier.bias)
        torch.testing.assert_close(network(images), logits, rtol=1e-4, atol=1e-4)


def bigger(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


def pools_and_pyramid(stages: tuple[Tensor, ...], w: dict[str, Tensor]) -> Tensor:
    one, two, three, four = stages
    pools = [module(F.adaptive_avg_pool2d(four, n), w, f"psp_modules.{i}.1") for i, n in enumerate((1, 2, 3, 6))]
    top = module(torch.cat([four, *(bigger(pool, four) for pool in pools)], 1), w, "bottleneck")
    third = module(three, w, "lateral_convs.2") + bigger(top, three)
    second = module(two, w, "lateral_convs.1") + bigger(third, two)
    first = module(one, w, "lateral_convs.0") + bigger(second, one)
    maps = [module(m, w, f"fpn_convs.{i}") for i, m in enumerate((first, second, third))]
    return module(torch.cat([maps[0], *(bigger(m, one) for m in (maps[1], maps[2], top))], 1), w, "fpn_bottleneck")


def mlps(stages: tuple[Tensor, ...], w: dict[str, Tensor]) -> Tensor:
    maps = [bigger(module(stage, w, f"convs.{i}"), stages[0]) for i, stage in enumerate(stages)]
    return module(torch.cat(maps, 1), w, "fusion_conv")


def joined(stages: tuple[Tensor, ...], w: dict[str, Tensor]) -> Tensor:
    return module(torch.cat([bigger(stage, stages[0]) for stage in stages], 1), w, "convs.0")


def shares(x: Tensor, axis: int) -> Tensor:
    powers = (x.double() - x.double().amax(axis, keepdim=True)).exp()
    return (powers / powers.sum(axis, keepdim=True)).float()


def objects(stages: tuple[Tensor, ...], w: dict[str, Tensor]) -> Tensor:
    """Region by region, and pixel by pixel of one image after the other."""
    both = torch.cat([bigger(stage, stages[0]) for stage in stages], 1)
    coarse = F.conv2d(module(both, w, "regions.convs.0"), w["regions.conv_seg.weight"], w["regions.conv_seg.bias"])
    pixels, block = module(both, w, "bottleneck"), "object_context_block"
    where = shares(coarse.flatten(2), 2)  # (B, C, N)
    regions = torch.stack([(one[:, None] * pixels.flatten(2)).sum(2) for one in where.unbind(1)], 2)[..., None]
    keys = module(module(regions, w, f"{block}.key_project.0"), w, f"{block}.key_project.1").flatten(2)
    queries = module(module(pixels, w, f"{block}.query_project.0"), w, f"{block}.query_project.1")
    values = module(regions, w, f"{block}.value_project").flatten(2)
    like = torch.einsum("bkhw,bkc->bchw", queries, keys) / keys.shape[1] ** 0.5
    context = torch.einsum("bchw,bkc->bkhw", shares(like, 1), values)
    context = module(context, w, f"{block}.out_project")
    return module(torch.cat([context, pixels], 1), w, f"{block}.bottleneck")


def dilated(stages: tuple[Tensor, ...], w: dict[str, Tensor]) -> Tensor:
    return module(module(stages[-1], w, "convs.0", 1), w, "convs.1", 2)


@pytest.mark.parametrize(
    ("head", "equation"),
    [("upernet", pools_and_pyramid), ("segformer", mlps), ("hrnet", joined), ("fcn_dilated", dilated),
     ("ocr", objects), ("linear", lambda stages, _: stages[-1])],
)  # fmt: skip
@pytest.mark.parametrize("size", [(64, 64), (65, 47)])
def test_a_head_of_four_stages_is_its_equation(head: str, equation: Any, size: tuple[int, int]) -> None:
    network = build_segmentor(narrow(head), 3, rng_of(0)).eval()
    scramble_(network, rng_of(1))
    images = torch.randn(2, 3, *size, generator=rng_of(2))
    with torch.no_grad():
        stages = network.backbone.stages(images).stages
        expected = equation(stages, network.decode_head.state_dict())
        torch.testing.assert_close(network.features(images), expected, rtol=1e-4, atol=1e-4)


def test_coarse_logits_say_where_regions_are_and_start_like_a_classifier() -> None:
    network = build_segmentor(narrow("ocr"), 3, rng_of(0))
    head = network.decode_head
    for classifier in (network.classifier, head.regions.conv_seg):
        assert float(classifier.weight.detach().std()) == pytest.approx(0.01, rel=0.3)
    with torch.no_grad():
        stages = network.eval().backbone.stages(torch.randn(2, 3, 64, 64, generator=rng_of(0))).stages
        features, coarse = head.with_coarse(stages[-1], None, stages)
    assert (tuple(features.shape), tuple(coarse.shape)) == ((2, 8, 16, 16), (2, 3, 16, 16))


def test_pretraining_has_no_regions_of_classes() -> None:
    with pytest.raises(ValueError, match="head: ocr looks at regions of classes, which pretraining has none of"):
        build_embedding_network(narrow("ocr"), 3, 4, rng_of(0))
    with pytest.raises(RecipeError, match=r"model\.head: ocr looks at regions .* such as hrnet, and --head ocr in"):
        run_pretraining(request(("model.head", "ocr"), ("model.dilations", None)))


@pytest.mark.parametrize("name", ["resnet18", "resnet50_v1c"])
def test_the_stages_of_a_resnet_are_the_maps_it_gives_anyway(name: str) -> None:
    backbone = ResNet(name, 8, 16).eval()
    scramble_(backbone, rng_of(0))
    images = torch.randn(2, 3, 45, 33, generator=rng_of(1))
    with torch.no_grad():
        found, maps = backbone.stages(images), backbone.maps(images)
    assert maps.low is not None
    assert torch.equal(found.last, maps.last)
    assert torch.equal(found.stages[0], maps.low)
    assert torch.equal(found.stages[3], maps.last)
    assert tuple(stage.shape[1] for stage in found.stages) == backbone.stage_channels
    assert [tuple(stage.shape[2:]) for stage in found.stages] == [(12, 9), (6, 5), (3, 3), (3, 3)]


STRIDES = [
    ("deeplabv3plus", 4), ("fcn", 16), ("deeplabv3_torchvision", 16), ("fcn_dilated", 16), ("linear", 16),
    ("upernet", 4), ("segformer", 4), ("hrnet", 4), ("ocr", 4),
]  # fmt: skip


@pytest.mark.parametrize(("head", "stride"), STRIDES)
@pytest.mark.parametrize("size", [(64, 48), (37, 50)])
def test_networks_say_the_stride_that_their_grids_have(head: str, stride: int, size: tuple[int, int]) -> None:
    settings = narrow(head, output_stride=16)
    images = torch.randn(2, 3, *size, generator=rng_of(0))
    grid = tuple(-(-side // stride) for side in size)
    pretraining = [build_embedding_network(settings, 3, 4, rng_of(0))] if head in PRETRAINED else []
    for network in (build_segmentor(settings, 3, rng_of(0)), *pretraining):
        assert network.output_stride == stride
        assert tuple(network(images).shape[2:]) == grid


def test_torchvisions_dropout_belongs_to_training_a_classifier_only() -> None:
    settings = narrow("deeplabv3_torchvision")
    images = torch.randn(2, 3, 32, 32, generator=rng_of(0))
    pretraining, fine_tuning = (
        build_embedding_network(settings, 3, 4, rng_of(0)),
        build_segmentor(settings, 3, rng_of(0)),
    )
    with torch.random.fork_rng(devices=[]):
        state = torch.get_rng_state()
        pretraining.train()(images)
        assert torch.equal(torch.get_rng_state(), state)
        first, second = fine_tuning.train().features(images), fine_tuning.features(images)
    assert not torch.equal(first, second)
    dropouts = [m.p for m in fine_tuning.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)]
    assert sorted(dropouts) == [0.0, 0.5]


@pytest.mark.parametrize("head", ["deeplabv3plus", "deeplabv3_torchvision", "upernet"])
def test_one_image_is_too_few_for_heads_that_pool(head: str) -> None:
    network, image = build_segmentor(narrow(head), 3, rng_of(0)), torch.randn(1, 3, 32, 32, generator=rng_of(0))
    with pytest.raises(ValueError, match="two images or more"):
        network.train()(image)
    assert network.eval()(image).isfinite().all()


# One head of each kind of maps, and the one with coarse logits: of the others what is their own is compiled, the head.
COMPILED_WHOLE = ("deeplabv3", "deeplabv3plus", "upernet", "ocr")


@pytest.mark.parametrize("head", HEADS)
def test_heads_run_in_reduced_precision_channels_last_and_as_one_graph(head: str) -> None:
    torch.compiler.reset()  # torch gives up compiling one function after eight networks
    network = build_segmentor(narrow(head, backbone="resnet18_v1c"), 3, rng_of(0)).eval()
    scramble_(network, rng_of(0))
    images = torch.randn(2, 3, 40, 33, generator=rng_of(1))
    with torch.no_grad():
        expected = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(images)
        last = network.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
        maps = network._maps(network.backbone, images)
        whole = head in COMPILED_WHOLE
        part, given = (network, (images,)) if whole else (network.decode_head, tuple(maps))
        compiled = torch.compile(part, backend="eager", fullgraph=True)(*given)
        features = network.decode_head(*maps)
    assert half.dtype == torch.bfloat16
    assert (half.float() - expected).norm() < 0.05 * expected.norm()
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(compiled, expected if whole else features, rtol=1e-4, atol=1e-4)


# Methods, transfer, recipes


# What a method that learns pixels sees of a head are its features and their stride: each has a fine and a coarse one,
# and each head has a method.  The others have the backbone alone, whatever the head.
PIXELS = [name for name in NAMES if find_method(name).NEEDS_LABELS]
GRIDS = [[head for head, stride in STRIDES if stride == wanted and head in NEW] for wanted in (4, 16)]
PAIRS = [
    *((PIXELS[n % len(PIXELS)], heads[n % len(heads)]) for heads in GRIDS for n in range(max(len(PIXELS), len(heads)))),
    *((name, NEW[n % len(NEW)]) for n, name in enumerate(name for name in NAMES if name not in PIXELS)),
]


def test_every_method_and_every_head_is_among_those_that_are_trained() -> None:
    assert ({name for name, _ in PAIRS}, {head for _, head in PAIRS}) == (set(NAMES), set(NEW))


@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_methods_train_heads(name: str, head: str) -> None:
    trained_two_steps(name, narrow(head, backbone="resnet18_v1c"))


@pytest.mark.parametrize("head", NEW)
def test_what_pretraining_learns_of_a_head_arrives_in_the_segmentor(head: str) -> None:
    pretrained = build_embedding_network(narrow(head), 3, 4, rng_of(0)).eval()
    scramble_(pretrained, rng_of(1))
    network = build_segmentor(narrow(head), 4, rng_of(2)).eval()
    found = match(pretrained.state_dict(), network.state_dict(), ("backbone", "decode_head"))
    assert found.missing == ["decode_head.conv_seg.weight", "decode_head.conv_seg.bias"]
    assert found.wrong_shape == {}
    network.load_state_dict(found.tensors, strict=False)
    images = torch.randn(2, 3, 33, 32, generator=rng_of(3))
    with torch.no_grad():
        assert torch.equal(pretrained.features(images), network.features(images))


def test_every_head_has_its_own_defaults_and_given_numbers_win() -> None:
    found = {head: (s.head_channels, s.head_dilations) for head in HEADS for s in [NetworkSettings(head=head)]}
    assert found == {
        "deeplabv3": (512, (1, 12, 24, 36)),
        "deeplabv3plus": (512, (1, 12, 24, 36)),
        "fcn": (512, ()),
        "deeplabv3_torchvision": (256, (1, 12, 24, 36)),
        "fcn_dilated": (256, (6, 6)),
        "hrnet": (3840, ()),
        "linear": (2048, ()),
        "ocr": (512, ()),
        "segformer": (256, ()),
        "upernet": (512, ()),
    }
    given = NetworkSettings(head="deeplabv3_torchvision", channels=32, dilations=(1, 6))
    assert (given.head_channels, given.head_dilations) == (32, (1, 6))
    network = build_segmentor(replace(given, backbone="resnet18", width=8), 3, rng_of(0))
    assert network.classifier.in_channels == 32
    assert len(network.decode_head.aspp.convs) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": "deeplabv4"}, "head: expected one of deeplabv3, deeplabv3plus, fcn, deeplabv3_torchvision"),
        ({"head": "fcn", "dilations": (1, 2)}, "dilations: the head fcn has none; leave them out"),
        ({"backbone": "resnet50_v1d"}, "backbone: expected one of resnet18"),
        ({"head": "upernet", "dilations": (1, 2)}, "dilations: the head upernet has none; leave them out"),
        ({"head": "linear", "channels": 8}, "channels: the head linear has those of the backbone"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkSettings(**change)


@pytest.mark.parametrize("head", HEADS)
def test_a_recipe_comes_back_from_its_layer_with_its_head(head: str) -> None:
    recipe = resolve({"model": asdict(narrow(head)) | {"backbone": "resnet34_v1c"}})
    assert resolve(as_layer(recipe)) == recipe
    assert resolve(as_layer(recipe)).model.head == head


def test_a_recipe_from_before_there_were_heads_means_deeplab() -> None:
    old = {"backbone": "resnet50", "width": 64, "output_stride": 8, "channels": 512, "dilations": [1, 12, 24, 36]}
    model = resolve({"model": old}).model
    assert (model.head, model.head_channels, model.head_dilations) == ("deeplabv3", 512, (1, 12, 24, 36))
    with pytest.raises(RecipeError, match=r"model\.dilations: the head fcn has none"):
        resolve({"model": old}, {"model": {"head": "fcn"}})
    assert resolve({"model": old}, {"model": {"head": "fcn", "dilations": None}}).model.head == "fcn"


@pytest.mark.usefixtures("in_an_empty_folder")
def test_a_head_passes_from_a_pretraining_run_and_another_is_not_loaded_in_part() -> None:
    plus_run = ("model.head", "deeplabv3plus")
    run = run_pretraining(request(plus_run, ("pretrain.steps", 1), out=Path("pre")))
    tuned = run_finetuning(request(plus_run, ("finetune.steps", 1), out=Path("tuned"), init=str(run)))
    assert re.search(r"loaded \d+ of \d+ backbone tensors", (tuned / "log.txt").read_text())
    names = {name.removeprefix("network.") for name in tensors_of(tuned)}
    assert "decode_head.sep_bottleneck.1.pointwise_conv.conv.weight" in names
    assert (
        finetune_recipe(Request(layers=({"finetune": {"target": "voc"}},), init=str(run)))[0].model.head == plus_run[1]
    )
    other = ("model.head", "deeplabv3")
    with pytest.raises(CheckpointError, match=r"only \d+ of the \d+ decode_head tensors .*--backbone-only"):
        run_finetuning(request(other, ("finetune.steps", 1), out=Path("other"), init=str(run)))
    alone = ("finetune.load", ["backbone"])
    run_finetuning(request(other, alone, ("finetune.steps", 1), out=Path("alone"), init=str(run)))
    layer = layer_of("moco") | {"pretrain": TINY["pretrain"] | {"steps": 1}}
    moco = run_pretraining(Request(layers=(layer,), quiet=True, out=Path("moco")))  # it has no head to disagree with
    run_finetuning(request(plus_run, ("finetune.steps", 1), out=Path("from_moco"), init=str(moco)))


@pytest.mark.whole_runs
def test_coarse_logits_are_trained_beside_the_criterion_by_four_tenths() -> None:
    coarse, labels = torch.randn(2, 3, 4, 5, generator=rng_of(0)), torch.randint(-1, 3, (2, 8, 10), generator=rng_of(1))
    logits = F.interpolate(coarse, (8, 10), mode="bilinear", align_corners=False)

    class Described:
        recipe = resolve({"model": asdict(narrow("ocr"))})

    part = Part(labels, logits, (labels >= 0).sum(), 2, labels)
    found = Finetuning._with_coarse(Described, Loss(torch.tensor(2.0), {"a": torch.ones(())}), coarse, part)  # type: ignore[arg-type]
    wanted = F.cross_entropy(logits, labels, ignore_index=-1)
    torch.testing.assert_close(found.value, 2 + 0.4 * wanted)
    torch.testing.assert_close(found.metrics["auxiliary"], wanted)
    assert found.metrics.keys() == {"a", "auxiliary"}


@pytest.mark.usefixtures("in_an_empty_folder")
def test_fine_tuning_learns_object_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(("model.head", "ocr"), ("model.dilations", None), ("finetune.steps", 2), init="scratch")
    run = run_finetuning(replace(asked, out=Path("run")))
    told = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    trained = [record for record in told if record["kind"] == "train"]
    assert all(record["loss"] > 0.4 * record["auxiliary"] > 0 for record in trained)
    about = load(run / "checkpoints" / "last.safetensors").about
    start = new_segmentor(resolve(about["recipe"]), len(about["labels"][0]["classes"])).state_dict()
    for name in (
        "regions.conv_seg.bias",
        "regions.convs.0.conv.weight",
        "object_context_block.key_project.0.conv.weight",
    ):
        assert not torch.equal(tensors_of(run)[f"network.decode_head.{name}"], start[f"decode_head.{name}"]), name
