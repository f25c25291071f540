"""Hugging Face's names: the tensors they name are those that torchvision's and timm's name, and the networks agree."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from mdp.core.networks import NetworkSettings, build_segmentor
from mdp.core.networks.resnet import ResNet
from mdp.io.errors import CheckpointError
from mdp.io.weights.init import take
from mdp.io.weights.inspect import inspect, inspection
from mdp.io.weights.transformers_names import _DINOS, _SWINS, _VITS, from_transformers
from tests.laws import pure_call
from tests.peers import library_or_skip, quiet
from tests.tensors import rng_of

Weights = dict[str, Tensor]


def theirs_of_resnet(name: str) -> str:
    """torchvision's name as transformers has it."""
    words = name.split(".")
    if not words[0].startswith("layer"):
        return f"embedder.embedder.{'convolution' if words[0] == 'conv1' else 'normalization'}.{words[1]}"
    start = f"encoder.stages.{int(words[0][5:]) - 1}.layers.{words[1]}."
    if words[2] == "downsample":
        return f"{start}shortcut.{('convolution', 'normalization')[int(words[3])]}.{words[4]}"
    kind = "convolution" if words[2].startswith("conv") else "normalization"
    return f"{start}layer.{int(words[2][-1]) - 1}.{kind}.{words[3]}"


def vit(
    width: int = 8, blocks: int = 2, new: bool = False, extra: dict[str, tuple[int, ...]] | None = None,
    patches: int = 4, patch: int = 16,
) -> Weights:  # fmt: skip
    """A ViT or, with `extra` for each block, a DINOv2, under the names of older or newer releases of transformers."""
    q, k, v = ("q_proj", "k_proj", "v_proj") if new else ("attention.query", "attention.key", "attention.value")
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, width), "embeddings.position_embeddings": (1, patches + 1, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, patch, patch), "layernorm.weight": (width,),
    }  # fmt: skip
    for block in range(blocks):
        start = f"{'layers' if new and not extra else 'encoder.layer'}.{block}."
        shapes |= {f"{start}attention.{name}.weight": (width, width) for name in (q, k, v)}
        shapes |= {f"{start}attention.{name}.bias": (width,) for name in (q, k, v)}
        shapes[f"{start}attention.{'o_proj' if new else 'output.dense'}.weight"] = (width, width)
        shapes[f"{start}{'norm1' if extra else 'layernorm_before'}.weight"] = (width,)
        shapes[f"{start}{'norm2' if extra else 'layernorm_after'}.weight"] = (width,)
        shapes[f"{start}{'mlp.fc1' if new or extra else 'intermediate.dense'}.weight"] = (4 * width, width)
        shapes[f"{start}{'mlp.fc2' if new or extra else 'output.dense'}.weight"] = (width, 4 * width)
        shapes |= {f"{start}{name}": shape for name, shape in (extra or {}).items()}
    return {name: torch.randn(shape, generator=rng_of(place)) for place, (name, shape) in enumerate(shapes.items())}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("prefix", ["", "resnet.", "model.resnet."])
def test_a_resnet_is_taken_whole(tmp_path: Path, name: str, prefix: str) -> None:
    own = ResNet(name, 8).state_dict()
    own = {n: torch.full_like(t, place) for place, (n, t) in enumerate(own.items())}
    file = {prefix + theirs_of_resnet(n): tensor for n, tensor in own.items()}
    torch.save({**file, "classifier.1.weight": torch.zeros(3, 64)}, tmp_path / "x.pth")
    network = build_segmentor(NetworkSettings(backbone=name, width=8, channels=8, dilations=(1, 2)), 3, rng_of(0))
    weights, lines = take(tmp_path / "x.pth", network, ("backbone",))
    assert weights.keys() == {f"backbone.{n}" for n in own}
    assert all(torch.equal(weights[f"backbone.{n}"], tensor) for n, tensor in own.items())
    assert lines[1].endswith("its names are those of Hugging Face's ResNet; they are read as torchvision's")
    report = inspect(tmp_path / "x.pth", {})
    assert report["holds"] == f"{name} of width 8"
    assert report["problem"] == ""


@pytest.mark.parametrize("new", [True, False])
def test_queries_keys_and_values_of_a_vit_become_one_tensor_in_that_order(new: bool) -> None:
    file = vit(new=new)
    found = pure_call(from_transformers, {f"vit.{name}": tensor for name, tensor in file.items()})
    assert found is not None
    start = "layers.1.attention." if new else "encoder.layer.1.attention.attention."
    names = ["q_proj", "k_proj", "v_proj"] if new else ["query", "key", "value"]
    for kind in ("weight", "bias"):
        expected = torch.cat([file[f"{start}{name}.{kind}"] for name in names])
        assert torch.equal(found.weights[f"vit.blocks.1.attn.qkv.{kind}"], expected)
    assert found.family == "ViT"
    rest = {f"vit.blocks.{n}.{part}.weight" for n in (0, 1) for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")}
    rest |= {f"vit.blocks.{n}.attn.{part}" for n in (0, 1) for part in ("qkv.weight", "qkv.bias", "proj.weight")}
    outer = ("cls_token", "pos_embed", "patch_embed.proj.weight", "norm.weight")
    assert found.weights.keys() == {*rest, *(f"vit.{name}" for name in outer)}


def test_both_releases_names_are_the_same_tensors() -> None:
    old, new = from_transformers(vit()), from_transformers(vit(new=True))
    assert old is not None
    assert new is not None
    assert {name: tensor.shape for name, tensor in old.weights.items()} == {
        name: tensor.shape for name, tensor in new.weights.items()
    }


def test_the_class_token_of_a_dinov2_with_registers_takes_its_position_along() -> None:
    extra = {"layer_scale1.lambda1": (8,), "layer_scale2.lambda1": (8,)}
    file = {**vit(extra=extra), "embeddings.register_tokens": torch.randn(1, 4, 8, generator=rng_of(99))}
    found = from_transformers(file)
    assert found is not None
    assert found.family == "DINOv2"
    position = file["embeddings.position_embeddings"]
    assert torch.equal(found.weights["cls_token"], file["embeddings.cls_token"] + position[:, :1])
    assert torch.equal(found.weights["pos_embed"], position[:, 1:])
    assert torch.equal(found.weights["blocks.1.ls2.gamma"], file["encoder.layer.1.layer_scale2.lambda1"])


SCALE = {"layer_scale1.lambda1": (384,)}
TOLD: list[tuple[Weights, str]] = [
    (vit(192, 12, patches=196), "timm:vit_tiny_patch16_224"),
    (vit(384, 12, True, patches=576), "timm:vit_small_patch16_384"),
    (vit(8, 2, patches=196), ""), (vit(192, 12), ""),
    (vit(384, 12, extra=SCALE, patch=14), "timm:vit_small_patch14_dinov2"),
    ({**vit(384, 12, extra=SCALE, patch=14), "embeddings.register_tokens": torch.zeros(1, 4, 384)},
     "timm:vit_small_patch14_reg4_dinov2"),
    (vit(384, 12, extra=SCALE), ""),
]  # fmt: skip


@pytest.mark.parametrize(("file", "backbone"), TOLD)
def test_the_backbone_is_told_from_the_shapes(tmp_path: Path, file: Weights, backbone: str) -> None:
    found = from_transformers(file)
    assert found is not None
    assert found.backbone == backbone
    torch.save(file, tmp_path / "x.pth")
    text = inspection(inspect(tmp_path / "x.pth", {}))
    assert "holds    Hugging Face's " in text
    assert (f"--backbone {backbone} is like it" in text) == (backbone != "")


def test_a_segformer_is_refused_by_its_name(tmp_path: Path) -> None:
    for name in ("segformer.encoder.patch_embeddings.0.proj", "segformer.stages.0.patch_embeddings.proj"):
        torch.save({f"{name}.weight": torch.zeros(32, 3, 7, 7)}, tmp_path / "x.pth")
        network = build_segmentor(NetworkSettings(backbone="resnet18", width=8, channels=8), 3, rng_of(0))
        with pytest.raises(CheckpointError, match=r"Hugging Face's SegFormer; its backbone \(MiT\) is none that timm"):
            take(tmp_path / "x.pth", network, ("backbone",))


@pytest.mark.parametrize("file", [
    {"encoder.layer.0.attention.attention.query.weight": torch.zeros(2, 2)},  # BERT's and others' for texts
    {"conv1.weight": torch.zeros(1)}, {},
    {**vit(), **vit(new=True)},  # both at once: which would be meant?
])  # fmt: skip
def test_other_files_are_left_as_they_are(file: Weights) -> None:
    assert from_transformers(file) is None


def test_tensors_of_odd_shapes_are_no_reason_to_stop() -> None:
    for shape in ((), (0,), (2, 3, 4, 5, 6)):
        extra = {"layer_scale1.lambda1": (1,)}
        file = {name: torch.zeros(shape) for name in (*vit(extra=extra), "embeddings.register_tokens")}
        assert from_transformers(file) is not None
        swin = {"embeddings.norm.weight", "encoder.layers.0.blocks.0.attention.self.query.weight",
                "encoder.layers.0.blocks.0.attention.self.relative_position_bias_table"}  # fmt: skip
        assert from_transformers(dict.fromkeys(swin, torch.zeros(shape))) is not None


# The libraries themselves


@pytest.fixture
def libraries() -> tuple[ModuleType, ModuleType]:
    library_or_skip("torchvision")
    return library_or_skip("transformers"), library_or_skip("timm")


# transformers' model and its settings, timm's and its settings
PAIRS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "ViT": (
        "ViT", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128,
                "image_size": 64},
        "vit_tiny_patch16_224", {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 64},
    ),
    "DINOv2": (
        "Dinov2", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56},
        "vit_small_patch14_dinov2", {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 56},
    ),
    "DINOv2 with registers": (
        "Dinov2WithRegisters",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56, "patch_size": 14},
        "vit_small_patch14_reg4_dinov2", {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 56},
    ),
    "Swin": (
        "Swin", {"embed_dim": 16, "depths": [2, 2], "num_heads": [1, 2], "image_size": 56},
        "swin_tiny_patch4_window7_224", {"embed_dim": 16, "depths": (2, 2), "num_heads": (1, 2), "img_size": 56},
    ),
}  # fmt: skip


def test_every_backbone_that_is_named_exists(libraries: tuple[ModuleType, ModuleType]) -> None:
    known = libraries[1].list_models()
    heads = {f"vit_{size}_patch16_{side}" for size in _VITS.values() for side in (224, 384)}
    heads |= {f"vit_{size}_patch14_{reg}dinov2" for size in {*_DINOS.values()} - {"tiny"} for reg in ("", "reg4_")}
    heads |= {f"swin_{size}_patch4_window7_224" for size in _SWINS.values()}
    heads |= {f"swin_{size}_patch4_window12_384" for (_, width), size in _SWINS.items() if width > 96}
    assert heads <= set(known)


@pytest.mark.parametrize("family", PAIRS)
def test_timms_network_with_the_weights_gives_what_theirs_does(
    libraries: tuple[ModuleType, ModuleType], family: str
) -> None:
    transformers, timm = libraries
    name, settings, own, changes = PAIRS[family]
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**settings)
        theirs = getattr(transformers, f"{name}Model")(config).eval()
        for parameter in theirs.parameters():  # biases and positions start at zero, and hide mistakes
            parameter.data.normal_(0, 0.1)
        ours = timm.create_model(own, pretrained=False, num_classes=0, **changes).eval()
    found = from_transformers(theirs.state_dict())
    assert found is not None
    assert found.family == family.partition(" ")[0]
    missing = ours.load_state_dict(found.weights, strict=False).missing_keys
    assert missing == []
    size = settings["image_size"]
    images = torch.randn(2, 3, size, size, generator=rng_of(1))
    with torch.no_grad():
        expected = theirs(images).last_hidden_state
        features = ours.forward_features(images)
    torch.testing.assert_close(features.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)
