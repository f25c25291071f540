"""Networks: names and sizes of the published ones, and the laws that dilation, heads, pairs and transfer obey."""

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mdp.core.networks import (
    EmbeddingNetwork,
    EncoderPair,
    InstanceNetwork,
    NetworkSettings,
    Segmentor,
    build_embedding_network,
    build_instance_network,
    build_segmentor,
    follow_,
    make_pair,
    match,
    upsample,
)
from mdp.core.networks.heads.deeplabv3 import ASPP
from mdp.core.networks.projection_heads import instance_head, projection, projection_head
from mdp.core.networks.resnet import LAYOUTS, BasicBlock, Bottleneck, ResNet, initialise_
from mdp.core.networks.undrawn import ALL, Undrawn
from tests.laws import pure_call
from tests.tensors import rng_of, seeds

FEW = settings(max_examples=5)  # networks take tenths of a second to build
NARROW = NetworkSettings(backbone="resnet18", width=8, channels=8, dilations=(1, 2))


def params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shapes(module: nn.Module) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in module.state_dict().items()}


def on_meta(classes: int) -> Segmentor:
    """The published segmentor without memory: names and shapes only."""
    with torch.device("meta"):
        return Segmentor(NetworkSettings(), classes)


def scramble_(network: nn.Module, rng: torch.Generator) -> None:
    """Weights and statistics as after some training, so that no branch is silent."""
    initialise_(network, rng)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=rng)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.1, generator=rng)


# Names, shapes, totals


@pytest.mark.parametrize(("classes", "total"), [(19, 65_729_107), (21, 65_730_133), (150, 65_796_310)])
def test_the_segmentor_has_as_many_parameters_as_mmsegmentations(classes: int, total: int) -> None:
    assert params(on_meta(classes)) == total


@pytest.mark.parametrize(
    ("name", "with_fc"),
    [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032), ("resnet101", 44_549_160)],
)
def test_backbones_have_as_many_parameters_as_torchvision_publishes(name: str, with_fc: int) -> None:
    with torch.device("meta"):
        backbone = ResNet(name)
    assert params(backbone) + 1000 * backbone.channels + 1000 == with_fc


def test_the_backbone_has_the_entries_of_torchvisions() -> None:
    backbone = on_meta(21).backbone
    assert params(backbone) == 23_508_032
    assert len(backbone.state_dict()) == 318


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("backbone.conv1.weight", [64, 3, 7, 7]),
        ("backbone.bn1.num_batches_tracked", []),
        ("backbone.layer1.0.downsample.0.weight", [256, 64, 1, 1]),
        ("backbone.layer1.0.downsample.1.running_mean", [256]),
        ("backbone.layer2.3.conv2.weight", [128, 128, 3, 3]),
        ("backbone.layer3.5.bn3.bias", [1024]),
        ("backbone.layer4.2.conv3.weight", [2048, 512, 1, 1]),
        ("decode_head.image_pool.1.conv.weight", [512, 2048, 1, 1]),
        ("decode_head.image_pool.1.bn.running_var", [512]),
        ("decode_head.aspp_modules.0.conv.weight", [512, 2048, 1, 1]),
        ("decode_head.aspp_modules.3.conv.weight", [512, 2048, 3, 3]),
        ("decode_head.bottleneck.conv.weight", [512, 2560, 3, 3]),
        ("decode_head.conv_seg.weight", [21, 512, 1, 1]),
        ("decode_head.conv_seg.bias", [21]),
    ],
)
def test_the_segmentor_names_its_weights_as_mmsegmentation_does(name: str, shape: list[int]) -> None:
    assert shapes(on_meta(21))[name] == shape


def test_every_name_and_shape_is_torchvisions_or_mmsegmentations(real_data: Path) -> None:
    file = real_data.parent / "facts" / "state_dict_keys.yaml"
    if not file.is_file():
        pytest.skip(f"no list of published names at {file}")
    facts = yaml.safe_load(file.read_text())
    backbone, head = facts["resnet50"]["keys"], facts["mmseg_deeplabv3_r50_d8"]["head_keys_21"]
    expected = {f"backbone.{name}": shape for name, shape in backbone.items() if not name.startswith("fc.")}
    expected |= {name: shape for name, shape in head.items() if name.startswith("decode_head.")}
    assert shapes(on_meta(21)) == expected


def test_pretraining_and_fine_tuning_share_all_names_but_their_last_layers() -> None:
    with torch.device("meta"):
        pretraining = shapes(EmbeddingNetwork(NetworkSettings(), 256, 512))
    fine_tuning = shapes(on_meta(21))
    assert {n for n in pretraining.keys() - fine_tuning.keys() if not n.startswith("projection_head.")} == set()
    assert fine_tuning.keys() - pretraining.keys() == {"decode_head.conv_seg.weight", "decode_head.conv_seg.bias"}
    assert all(fine_tuning[n] == shape for n, shape in pretraining.items() if n in fine_tuning)


def test_weights_are_those_drawn_after_torchs_constructors_and_none_are_where_all_are_restored() -> None:
    rng = rng_of(0)
    found = build_segmentor(NARROW, 3, rng).state_dict()
    with torch.random.fork_rng(devices=[]):
        plain, after = Segmentor(NARROW, 3), rng_of(0)  # by torch's constructors
    for part in plain.children():
        initialise_(part, after)
    nn.init.normal_(plain.classifier.weight, std=0.01, generator=after)
    assert all(torch.equal(found[name], tensor) for name, tensor in plain.state_dict().items())
    assert torch.equal(rng.get_state(), after.get_state())
    with Undrawn(*ALL):
        network = build_segmentor(NARROW, 3, rng)
    assert torch.equal(rng.get_state(), after.get_state())
    network.load_state_dict(found)
    assert all(torch.equal(found[name], tensor) for name, tensor in network.state_dict().items())


def test_the_projection_head_has_four_layers_and_bias_in_the_last_only() -> None:
    head = projection_head(512, 512, 256)
    convolutions = [module for module in head if isinstance(module, nn.Conv2d)]
    assert params(head) == 920_832
    assert [conv.bias is not None for conv in convolutions] == [False, False, False, True]
    assert isinstance(head[-1], nn.Conv2d)


def test_the_instance_head_has_two_linear_layers_as_wide_inside_as_the_features() -> None:
    head = instance_head(512, 128)
    assert [(m.in_features, m.out_features) for m in head if isinstance(m, nn.Linear)] == [(512, 512), (512, 128)]
    assert params(head) == 512 * 512 + 512 + 512 * 128 + 128


@pytest.mark.parametrize("conv", [True, False])
@pytest.mark.parametrize(("norm", "last_norm"), [(True, "none"), (True, "plain"), (False, "affine"), (False, "none")])
def test_a_projection_is_layers_with_a_bias_where_no_norm_follows(conv: bool, norm: bool, last_norm: str) -> None:
    head = projection((8, 16, 12, 9), conv, norm, last_norm)
    rows = torch.randn(5, 8, generator=rng_of(0))
    found = head(rows[:, :, None, None] if conv else rows).flatten(1)
    layers = [module for module in head if isinstance(module, nn.Conv2d | nn.Linear)]
    assert [layer.bias is None for layer in layers] == [norm, norm, last_norm != "none"]
    expected = rows
    for number, layer in enumerate(layers):
        expected = expected @ layer.weight.flatten(1).T + (0 if layer.bias is None else layer.bias)
        if norm if number < 2 else last_norm != "none":  # a fresh BatchNorm scales by 1 and shifts by 0
            centred = expected - expected.mean(0)
            expected = centred / (centred.square().mean(0) + 1e-5).sqrt()
        expected = expected.relu() if number < 2 else expected
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert params(nn.Sequential(*(m for m in head if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)))) == (
        norm * 2 * (16 + 12) + (last_norm == "affine") * 2 * 9
    )


@pytest.mark.parametrize(("dims", "last_norm", "words"), [((8,), "none", "dims: "), ((8, 8), "batch", "last_norm: ")])
def test_a_projection_that_makes_no_sense_is_refused(dims: tuple[int, ...], last_norm: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        projection(dims, conv=False, norm=False, last_norm=last_norm)


@pytest.mark.parametrize("name", LAYOUTS)
def test_all_networks_name_their_backbones_alike(name: str) -> None:
    with torch.device("meta"):
        chosen = NetworkSettings(backbone=name)
        instance = shapes(InstanceNetwork(chosen, 128))
        others = [shapes(EmbeddingNetwork(chosen, 256, 512)), shapes(Segmentor(chosen, 21))]
    backbone = {n: shape for n, shape in instance.items() if n.startswith("backbone.")}
    assert {n for n in instance if not n.startswith("projection_head.")} == backbone.keys()
    assert all({n: s for n, s in other.items() if n.startswith("backbone.")} == backbone for other in others)


# Backbone


@pytest.mark.parametrize(
    ("stride", "size"), [*product((8, 16, 32), [(224, 224), (97, 65), (33, 40), (8, 1)]), (8, (512, 1024))]
)
def test_the_feature_grid_is_the_image_over_the_stride_rounded_up(stride: int, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        backbone = ResNet("resnet50", 8, stride).eval()
        features = backbone(torch.empty(1, 3, *size))
    assert features.shape == (1, 256, *(math.ceil(n / stride) for n in size))


def dilations(backbone: ResNet) -> list[list[int]]:
    return [[block.conv2.dilation[0] for block in stage] for stage in (backbone.layer3, backbone.layer4)]


def test_the_first_block_of_a_dilated_stage_keeps_the_dilation_before_it() -> None:
    with torch.device("meta"):
        assert dilations(ResNet("resnet50", 8, 8)) == [[1, 2, 2, 2, 2, 2], [2, 4, 4]]
        assert dilations(ResNet("resnet50", 8, 16)) == [[1] * 6, [1, 2, 2]]
        assert dilations(ResNet("resnet50", 8, 32)) == [[1] * 6, [1, 1, 1]]


def test_all_of_a_dilated_stage_has_its_own_dilation_where_that_is_asked_for() -> None:
    with torch.device("meta"):
        assert dilations(ResNet("resnet50", 8, 8, first_dilation="own")) == [[2] * 6, [4, 4, 4]]
        assert dilations(ResNet("resnet50", 8, 16, first_dilation="own")) == [[1] * 6, [2, 2, 2]]
        assert dilations(ResNet("resnet50", 8, 32, first_dilation="own")) == [[1] * 6, [1, 1, 1]]
        chosen = Segmentor(NetworkSettings(output_stride=16, first_dilation="own"), 2)
        assert dilations(chosen.backbone) == [[1] * 6, [2, 2, 2]]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="first_dilation: expected before or own, got 'other'"):
        NetworkSettings(first_dilation="other")


@pytest.mark.parametrize(("name", "stride"), [*product(("resnet18", "resnet50"), (8, 16))])
@FEW
@given(seed=seeds, height=st.integers(1, 70), width=st.integers(1, 70))
def test_a_dilated_network_samples_what_the_strided_one_does(
    name: str, stride: int, seed: int, height: int, width: int
) -> None:
    dilated, strided = ResNet(name, 2, stride).eval(), ResNet(name, 2, 32).eval()
    scramble_(dilated, rng_of(seed))
    strided.load_state_dict(dilated.state_dict())
    images = torch.randn(1, 3, height, width, generator=rng_of(seed))
    with torch.no_grad():
        fine, coarse = pure_call(ResNet.forward, dilated, images), strided(images)
    step = 32 // stride
    torch.testing.assert_close(fine[:, :, ::step, ::step], coarse, rtol=1e-4, atol=1e-4 * float(coarse.abs().max()))


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_residual_branch_starts_at_zero(name: str) -> None:
    backbone = ResNet(name, 4)
    initialise_(backbone, rng_of(0))
    blocks = [module for module in backbone.modules() if isinstance(module, BasicBlock | Bottleneck)]
    for block in blocks[:1] + blocks[-1:]:
        x = torch.rand(2, block.conv1.in_channels, 5, 5, generator=rng_of(1))
        shortcut = x if block.downsample is None else block.eval().downsample(x)
        torch.testing.assert_close(block(x), shortcut.relu())


def test_convolutions_start_with_kaimings_spread_over_fan_out() -> None:
    network = build_segmentor(NetworkSettings(backbone="resnet18", width=32, channels=64), 5, rng_of(0))
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and not name.endswith("conv_seg"):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.08), name
            assert abs(module.weight.mean().item()) < 0.1 * math.sqrt(2 / fan_out), name
    classifier = network.classifier
    assert classifier.weight.std().item() == pytest.approx(0.01, rel=0.15)
    assert not classifier.bias.any()


def test_a_module_without_a_rule_cannot_be_initialised_by_accident() -> None:
    with pytest.raises(ValueError, match="got LayerNorm"):
        initialise_(nn.Sequential(nn.Conv2d(1, 1, 1), nn.LayerNorm(2)), rng_of(0))


@given(seeds, st.integers(1, 9), st.integers(1, 9))
def test_linear_layers_start_as_torch_starts_them(seed: int, inputs: int, outputs: int) -> None:
    ours = nn.Linear(inputs, outputs)
    initialise_(ours, rng_of(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        theirs = nn.Linear(inputs, outputs)
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)


@FEW
@given(seed=seeds)
def test_weights_are_a_function_of_the_generator_alone(seed: int) -> None:
    pretraining = pure_call(build_embedding_network, NARROW, 3, 5, rng_of(seed))
    fine_tuning = pure_call(build_segmentor, NARROW, 4, rng_of(seed))
    instances = pure_call(build_instance_network, NARROW, 3, rng_of(seed))
    for name, tensor in pretraining.backbone.state_dict().items():
        assert torch.equal(tensor, fine_tuning.backbone.state_dict()[name])
        assert torch.equal(tensor, instances.backbone.state_dict()[name])


def test_one_image_is_enough_for_the_backbone_in_training() -> None:
    assert ResNet("resnet18", 8).train()(torch.randn(1, 3, 32, 32, generator=rng_of(0))).isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "resnet51"}, "backbone: expected one of resnet18"),
        ({"output_stride": 4}, "output_stride: expected 8, 16 or 32, got 4"),
        ({"width": 0}, "1 or more"),
        ({"channels": 0}, "1 or more"),
        ({"dilations": ()}, "1 or more"),
        ({"dilations": (1, 0)}, "1 or more"),
    ],
)
def test_settings_that_build_no_network_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkSettings(**change)  # type: ignore[arg-type]


# DeepLab head


def naive_conv_bn_relu(branch: nn.Module, x: Tensor, dilation: int) -> Tensor:
    """One pixel, one tap at a time, in float64; the edge is padded with zeros."""
    weight = branch.conv.weight.double()  # (O, I, k, k)
    _, height, width = x.shape
    reach = weight.shape[-1] // 2
    out = torch.zeros(weight.shape[0], height, width, dtype=torch.float64)
    for i, j, u, v in product(range(height), range(width), range(weight.shape[2]), range(weight.shape[3])):
        row, column = i + dilation * (u - reach), j + dilation * (v - reach)
        if 0 <= row < height and 0 <= column < width:
            out[:, i, j] += weight[:, :, u, v] @ x[:, row, column]
    bn = branch.bn
    scale = bn.weight.double() / (bn.running_var.double() + 1e-5).sqrt()
    shift = bn.bias.double() - bn.running_mean.double() * scale
    return (out * scale[:, None, None] + shift[:, None, None]).relu()


@settings(max_examples=15)
@given(seed=seeds, height=st.integers(1, 5), width=st.integers(1, 5))
def test_aspp_is_pool_then_branches_then_bottleneck(seed: int, height: int, width: int) -> None:
    aspp = ASPP(2, 3, (1, 2, 3)).eval()
    scramble_(aspp, rng_of(seed))
    features = torch.randn(1, 2, height, width, generator=rng_of(seed))
    with torch.no_grad():
        x = features[0].double()
        pooled = naive_conv_bn_relu(aspp.image_pool[1], x.mean((1, 2), keepdim=True), 1).expand(-1, height, width)
        parts = [naive_conv_bn_relu(b, x, d) for b, d in zip(aspp.aspp_modules, (1, 2, 3), strict=True)]
        expected = naive_conv_bn_relu(aspp.bottleneck, torch.cat([pooled, *parts]), 1)
        answer = pure_call(ASPP.forward, aspp, features)
    torch.testing.assert_close(answer[0].double(), expected, rtol=1e-4, atol=1e-4)


def test_one_image_is_too_few_for_aspp_in_training_and_enough_otherwise() -> None:
    aspp, features = ASPP(2, 3, (1, 2)), torch.randn(1, 2, 4, 4, generator=rng_of(0))
    with pytest.raises(ValueError, match="two images or more"):
        aspp.train()(features)
    assert aspp.eval()(features).shape == (1, 3, 4, 4)


def test_aspp_keeps_the_channels_last_layout() -> None:
    aspp = ASPP(8, 8, (1, 2)).eval().to(memory_format=torch.channels_last)
    layouts: list[bool] = []
    aspp.bottleneck.register_forward_pre_hook(
        lambda _, inputs: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    aspp(torch.randn(2, 8, 5, 5).to(memory_format=torch.channels_last))
    assert layouts == [True]


def test_dropout_follows_the_seed_that_the_shell_sets() -> None:
    network = build_segmentor(NARROW, 3, rng_of(0)).train()
    images = torch.randn(2, 3, 16, 16, generator=rng_of(1))
    with torch.random.fork_rng(devices=[]):
        answers = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            answers.append(network(images))
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


# Embeddings and logits


@FEW
@given(seed=seeds, half=st.booleans())
def test_pixel_embeddings_have_unit_length_in_float32(seed: int, half: bool) -> None:
    network = build_embedding_network(NARROW, 5, 6, rng_of(seed)).eval()
    nn.init.normal_(network.projection_head[-1].bias, generator=rng_of(seed))  # no pixel of so narrow a net is all zero
    images = torch.randn(2, 3, 20, 33, generator=rng_of(seed))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        embeddings = pure_call(EmbeddingNetwork.forward, network, images)
    assert embeddings.dtype == torch.float32
    assert embeddings.shape == (2, 5, 3, 5)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2, 3, 5))


@FEW
@given(seed=seeds, half=st.booleans(), batch=st.integers(1, 3))
def test_an_image_has_one_embedding_of_unit_length_in_float32(seed: int, half: bool, batch: int) -> None:
    network = build_instance_network(NARROW, 5, rng_of(seed)).eval()
    images = torch.randn(batch, 3, 40, 33, generator=rng_of(seed))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        embeddings = pure_call(InstanceNetwork.forward, network, images)
    assert embeddings.dtype == torch.float32
    assert embeddings.shape == (batch, 5)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(batch))


def test_an_instance_embedding_is_the_head_of_the_mean_feature() -> None:
    network = build_instance_network(NARROW, 5, rng_of(0)).eval()
    images = torch.randn(2, 3, 70, 40, generator=rng_of(1))
    with torch.no_grad():
        features = network.backbone(images)
        first, _, last = network.projection_head
        mean = features.double().sum((2, 3)) / (3 * 2)
        inner = (mean @ first.weight.double().T + first.bias.double()).relu()
        expected = inner @ last.weight.double().T + last.bias.double()
        expected = expected / expected.square().sum(1, keepdim=True).sqrt()
        assert features.shape[2:] == (3, 2)  # stride 32 whatever the settings say
        torch.testing.assert_close(network(images).double(), expected, rtol=1e-4, atol=1e-5)
        embeddings, pooled = network(images, features=True)
        assert torch.equal(embeddings, network(images))
        torch.testing.assert_close(pooled.double(), mean, rtol=1e-4, atol=1e-5)


def test_a_zero_vector_gives_a_zero_embedding_and_a_bounded_gradient() -> None:
    network = build_embedding_network(NARROW, 5, 6, rng_of(0)).eval()
    nn.init.zeros_(network.projection_head[-1].weight)
    embeddings = network(torch.randn(1, 3, 16, 16, generator=rng_of(0)))
    embeddings.sum().backward()
    gradient = network.projection_head[-1].bias.grad
    assert not embeddings.any()
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 1e8


def test_logits_lie_on_the_feature_grid_and_upsample_in_float32() -> None:
    network = build_segmentor(NARROW, 7, rng_of(0)).eval()
    logits = network(torch.randn(1, 3, 17, 24, generator=rng_of(0)))
    assert logits.shape == (1, 7, 3, 3)
    assert upsample(logits.bfloat16(), (17, 24)).dtype == torch.float32
    torch.testing.assert_close(upsample(logits, (3, 3)), logits)


def test_upsampling_aligns_pixel_centres() -> None:
    ramp = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    assert upsample(ramp, (1, 4)).flatten().tolist() == [0.0, 0.25, 0.75, 1.0]


# Pairs


def buffers(network: nn.Module) -> Iterator[Tensor]:
    return (buffer.clone() for buffer in network.buffers())


@FEW
@given(seed=seeds, momentum=st.sampled_from([0.0, 0.3, 0.9, 0.999, 1.0]))
def test_the_key_encoder_is_the_weighted_mean_of_itself_and_the_query_encoder(seed: int, momentum: float) -> None:
    pair = make_pair(build_embedding_network(NARROW, 3, 4, rng_of(seed)))
    scramble_(pair.query, rng_of(seed + 1))
    query = [parameter.detach().double() for parameter in pair.query.parameters()]
    key = [parameter.detach().double() for parameter in pair.key.parameters()]
    statistics = list(buffers(pair.key))
    follow_(pair, momentum)
    for now, k, q in zip(pair.key.parameters(), key, query, strict=True):
        torch.testing.assert_close(now.double(), momentum * k + (1 - momentum) * q, rtol=1e-6, atol=1e-7)
    assert all(torch.equal(now, q.float()) for now, q in zip(pair.query.parameters(), query, strict=True))
    assert all(torch.equal(now, then) for now, then in zip(pair.key.buffers(), statistics, strict=True))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_network_that_follows_itself_stays_as_it_is(momentum: float) -> None:
    network = build_segmentor(NARROW, 3, rng_of(0))
    before = {name: (tensor.clone(), tensor._version) for name, tensor in network.state_dict().items()}
    follow_(EncoderPair(network, network), momentum)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name][0])
        assert tensor._version == before[name][1]
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_an_instance_network_is_followed_like_any_other() -> None:
    pair = make_pair(build_instance_network(NARROW, 3, rng_of(0)))
    scramble_(pair.query, rng_of(1))
    expected = [0.75 * k + 0.25 * q for k, q in zip(pair.key.parameters(), pair.query.parameters(), strict=True)]
    follow_(pair, 0.75)
    for now, then in zip(pair.key.parameters(), expected, strict=True):
        torch.testing.assert_close(now, then.detach())


def test_a_pair_starts_equal_shares_no_memory_and_gives_the_key_no_gradient() -> None:
    pair = make_pair(build_embedding_network(NARROW, 3, 4, rng_of(0)))
    query, key = pair.query.state_dict(), pair.key.state_dict()
    assert all(torch.equal(query[name], key[name]) for name in query)
    assert not {t.data_ptr() for t in query.values()} & {t.data_ptr() for t in key.values()}
    assert not any(parameter.requires_grad for parameter in pair.key.parameters())
    assert all(parameter.requires_grad for parameter in pair.query.parameters())


# Transfer

PARTS = ("backbone", "decode_head")


@FEW
@given(seed=seeds)
def test_backbone_and_aspp_pass_from_pretraining_to_fine_tuning(seed: int) -> None:
    pretrained = build_embedding_network(NARROW, 3, 4, rng_of(seed)).eval()
    scramble_(pretrained, rng_of(seed))
    network = build_segmentor(NARROW, 4, rng_of(seed + 1)).eval()
    found = pure_call(match, pretrained.state_dict(), network.state_dict(), PARTS)
    network.load_state_dict(found.tensors, strict=False)
    assert found.missing == ["decode_head.conv_seg.weight", "decode_head.conv_seg.bias"]
    assert all(name.startswith("projection_head.") for name in found.unexpected)
    assert found.wrong_shape == {}
    images = torch.randn(1, 3, 16, 16, generator=rng_of(seed))
    with torch.no_grad():
        before = pretrained.decode_head(pretrained.backbone(images))
        after = network.features(images)
    assert torch.equal(before, after)


def test_the_backbone_of_instances_passes_to_fine_tuning_and_to_pixel_embeddings() -> None:
    weights = build_instance_network(NARROW, 3, rng_of(0)).state_dict()
    for network in (build_segmentor(NARROW, 4, rng_of(1)), build_embedding_network(NARROW, 3, 4, rng_of(1))):
        found = pure_call(match, weights, network.state_dict(), ("backbone",))
        assert found.missing == []
        assert found.wrong_shape == {}
        network.load_state_dict(found.tensors, strict=False)
        own = network.backbone.state_dict()
        assert all(torch.equal(own[name.removeprefix("backbone.")], tensor) for name, tensor in found.tensors.items())
        assert all(name.startswith("projection_head.") for name in found.unexpected)


@given(prefixes=st.lists(st.sampled_from(["module.", "_orig_mod.", "encoder_q."]), max_size=3))
def test_wrapper_prefixes_are_stripped_in_any_order(prefixes: list[str]) -> None:
    own = {"backbone.conv1.weight": torch.zeros(2)}
    for inner in ("backbone.conv1.weight", "conv1.weight"):
        found = pure_call(match, {"".join(prefixes) + inner: torch.ones(2)}, own, PARTS)
        assert list(found.tensors) == ["backbone.conv1.weight"]


def test_the_report_tells_missing_unexpected_and_wrong_shapes_apart() -> None:
    own = {"backbone.a": torch.zeros(1), "backbone.b": torch.zeros(2), "decode_head.c": torch.zeros(3)}
    weights = {"backbone.b": torch.ones(2), "decode_head.c": torch.ones(4), "backbone.d": torch.ones(1)}
    found = match(weights, own, PARTS)
    assert list(found.tensors) == ["backbone.b"]
    assert found[1:] == (["backbone.a"], ["backbone.d"], {"decode_head.c": (4,)}, ())


def test_a_classifier_of_other_classes_does_not_fit() -> None:
    theirs = build_segmentor(NARROW, 4, rng_of(0)).state_dict()
    found = match(theirs, build_segmentor(NARROW, 5, rng_of(0)).state_dict(), PARTS)
    assert list(found.wrong_shape) == ["decode_head.conv_seg.weight", "decode_head.conv_seg.bias"]


def test_parts_that_are_not_named_stay_as_they_are() -> None:
    weights = build_segmentor(NARROW, 4, rng_of(0)).state_dict()
    found = match(weights, weights, ("backbone",))
    assert {name.split(".")[0] for name in found.tensors} == {"backbone"}
    assert found.missing == []


def test_a_moco_checkpoint_gives_its_query_backbone() -> None:
    own = {f"backbone.{name}": tensor for name, tensor in ResNet("resnet18", 8).state_dict().items()}
    weights = {f"module.encoder_q.{n.removeprefix('backbone.')}": t + 1 for n, t in own.items()}
    weights |= {n.replace("encoder_q", "encoder_k"): t + 2 for n, t in weights.items()}
    weights |= {"module.encoder_q.fc.0.weight": torch.ones(2, 2), "module.queue": torch.ones(2, 3)}
    found = match(weights, own, PARTS)
    assert found.missing == []
    assert all(torch.equal(found.tensors[name], tensor + 1) for name, tensor in own.items())
