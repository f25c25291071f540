"""Weights under the names of Hugging Face's transformers, given those of torchvision (ResNet) and timm (the others).

Its releases name the same layers differently (`attention.attention.query`, `attention.q_proj`), and both are read.
Queries, keys and values, which it keeps apart, become one tensor as timm has them.
Shape legend: C channels of the embedding, N patches, R register tokens.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Translated(NamedTuple):
    """A file's weights under names that backbones here have."""

    family: str  # ResNet | ViT | DINOv2 | Swin | SegFormer
    weights: dict[str, Tensor]
    backbone: str  # the one of its shapes, as `model.backbone` names it; "" when there is none or none is known
    words: str  # what it is


_TRANSFORMER = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"embeddings\.norm\.", "patch_embed.norm."),
    (r"layernorm\.", "norm."),
)
_BLOCK = (
    (r"attention\.(?:attention\.|self\.)?(query|key|value)\.", r"attn.\1."),
    (r"attention\.([qkv])_proj\.", r"attn.\1."),
    (r"attention\.(?:output\.dense|o_proj)\.", "attn.proj."),
    (r"attention\.(?:self|relative_position_bias)\.relative_position_bias_table", "attn.relative_position_bias_table"),
    (r"(?:layernorm_before|norm1)\.", "norm1."),
    (r"(?:layernorm_after|norm2)\.", "norm2."),
    (r"(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in)\.", "mlp.fc1."),
    (r"(?:output\.dense|mlp\.fc2|mlp\.weights_out)\.", "mlp.fc2."),
    (r"layer_scale([12])\.lambda1", r"ls\1.gamma"),
)
_JOINED = ("query", "key", "value"), ("q", "k", "v")
# family -> a name that only it has, after the prefix of the backbone
_MARKS = {
    "ResNet": r"embedder\.embedder\.convolution\.weight",
    "SegFormer": r"(?:encoder\.patch_embeddings\.0|stages\.0\.patch_embeddings)\.proj\.weight",
    "Swin": r"encoder\.layers\.0\.blocks\.0\.attention\.(?:self\.query|q_proj)\.weight",
    "DINOv2": r"encoder\.layer\.0\.layer_scale1\.lambda1",
    "ViT": r"(?:encoder\.layer|layers)\.0\.attention\.(?:attention\.query|q_proj)\.weight",
}
_VITS = {(12, 192): "tiny", (12, 384): "small", (12, 768): "base", (24, 1024): "large"}  # blocks, width
_DINOS = {**_VITS, (40, 1536): "giant"}
_SWINS: dict[tuple[tuple[int, ...], int], str] = {
    ((2, 2, 6, 2), 96): "tiny", ((2, 2, 18, 2), 96): "small", ((2, 2, 18, 2), 128): "base",
    ((2, 2, 18, 2), 192): "large",
}  # fmt: skip


def from_transformers(weights: Mapping[str, Tensor]) -> Translated | None:
    """The weights under the names of torchvision and timm; None where they have none of transformers'.

    What is not renamed keeps its name, as does what stands beside the backbone, such as a classifier.

    >>> file = {f"{name}.weight": torch.zeros(8) for name in ("resnet.embedder.embedder.convolution", "classifier.1")}
    >>> list(from_transformers(file).weights)
    ['resnet.conv1.weight', 'classifier.1.weight']
    """
    for family, mark in _MARKS.items():
        found = next((match for name in weights if (match := re.search(rf"(?:^|(?<=\.)){mark}$", name))), None)
        if found is None or (family == "ViT" and not _is_vit(weights, found.string[: found.start()])):
            continue
        prefix = found.string[: found.start()]
        inside = {name.removeprefix(prefix): one for name, one in weights.items() if name.startswith(prefix)}
        outside = {name: one for name, one in weights.items() if not name.startswith(prefix)}
        renamed = {_renamed(name, family): one for name, one in inside.items()}
        if len(renamed) < len(inside):  # both releases' names in one file: no file that a library wrote
            return None
        joined = _registers_apart(_joined(renamed))
        backbone, words = _described(family, joined)
        return Translated(family, {**{prefix + name: one for name, one in joined.items()}, **outside}, backbone, words)
    return None


def _is_vit(weights: Mapping[str, Tensor], prefix: str) -> bool:
    """Whether a transformer with such layers looks at patches, as those for texts do not."""
    return f"{prefix}embeddings.patch_embeddings.projection.weight" in weights


def _renamed(name: str, family: str) -> str:
    if family == "ResNet":
        return _of_resnet(name)
    if family == "SegFormer":
        return name
    block = re.match(r"(?:encoder\.layer|layers)\.(\d+)\.", name) if family in ("ViT", "DINOv2") else None
    start = f"blocks.{block[1]}." if block else ""
    if family == "Swin":
        block = re.match(r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.", name)
        start = f"layers.{block[1]}.blocks.{block[2]}." if block else ""
        between = re.match(r"encoder\.layers\.(\d+)\.downsample\.", name)
        if between:  # timm has it at the start of the next stage
            return f"layers.{int(between[1]) + 1}.downsample.{name[between.end() :]}"
    rest = name[block.end() :] if block else name
    for pattern, own in _BLOCK if block else _TRANSFORMER:
        renamed, changed = re.subn(f"^{pattern}", own, rest)
        if changed:
            return start + renamed
    return name


def _of_resnet(name: str) -> str:
    """
    >>> _of_resnet("encoder.stages.2.layers.5.layer.1.normalization.bias")
    'layer3.5.bn2.bias'
    """
    name = re.sub(r"^embedder\.embedder\.convolution\.", "conv1.", name)
    name = re.sub(r"^embedder\.embedder\.normalization\.", "bn1.", name)
    found = re.match(
        r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(layer\.\d+|shortcut)\.(convolution|normalization)\.", name
    )
    if found is None:
        return name
    stage, block, layer, kind = found.groups()
    if layer == "shortcut":
        part = f"downsample.{int(kind == 'normalization')}"
    else:
        part = f"{'conv' if kind == 'convolution' else 'bn'}{int(layer.removeprefix('layer.')) + 1}"
    return f"layer{int(stage) + 1}.{block}.{part}.{name[found.end() :]}"


def _joined(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values of a block as one tensor (3C, C) or (3C,), where all three are there."""
    out: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        found = re.fullmatch(r"(.*\.attn\.)(query|key|value|q|k|v)\.(weight|bias)", name)
        if found is None:
            out[name] = tensor
            continue
        start, which, kind = found.groups()
        names = [f"{start}{one}.{kind}" for one in (_JOINED[0] if len(which) > 1 else _JOINED[1])]
        parts = [weights[one] for one in names if one in weights]
        if len(parts) < 3 or not tensor.dim() or len({(part.shape, part.dtype) for part in parts}) > 1:
            out[name] = tensor
        elif name == names[0]:
            out[f"{start}qkv.{kind}"] = torch.cat(parts)
    return out


def _registers_apart(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """With register tokens timm adds no position to the class token: its position goes into the token itself."""
    position, token = weights.get("pos_embed"), weights.get("cls_token")
    if "reg_token" not in weights or position is None or token is None:
        return weights
    if position.dim() != 3 or token.shape != position[:, :1].shape:
        return weights
    return {**weights, "cls_token": token + position[:, :1], "pos_embed": position[:, 1:]}  # (1, 1, C), (1, N, C)


# Which network it is


def _described(family: str, weights: Mapping[str, Tensor]) -> tuple[str, str]:
    """The backbone of these shapes, as `model.backbone` names it ("": none), and what it is in words."""
    if family in ("ViT", "DINOv2"):
        return _vit(family, weights)
    if family == "Swin":
        return _swin(weights)
    if family == "SegFormer":
        return "", "Hugging Face's SegFormer; its backbone (MiT) is none that timm or mdp has"
    return "", f"Hugging Face's {family}"


def _vit(family: str, weights: Mapping[str, Tensor]) -> tuple[str, str]:
    blocks = sum(bool(re.fullmatch(r"blocks\.\d+\.norm1\.weight", name)) for name in weights)
    patches = weights.get("patch_embed.proj.weight", torch.empty(0, 0, 0, 0)).shape
    width, patch = (patches[0], patches[2]) if len(patches) == 4 else (0, 0)
    words = f"Hugging Face's {family}: {blocks} blocks of width {width}, patches of {patch}"
    if family == "DINOv2":
        size, registers = _DINOS.get((blocks, width)), "reg4_" if "reg_token" in weights else ""
        return f"timm:vit_{size}_patch14_{registers}dinov2" if size and size != "tiny" and patch == 14 else "", words
    size, position = _VITS.get((blocks, width)), weights.get("pos_embed", torch.empty(0)).shape
    side = next((side for side in (224, 384) if len(position) == 3 and position[1] == (side // 16) ** 2 + 1), None)
    return f"timm:vit_{size}_patch16_{side}" if size and side and patch == 16 else "", words


def _swin(weights: Mapping[str, Tensor]) -> tuple[str, str]:
    blocks = [re.match(r"layers\.(\d+)\.blocks\.\d+\.norm1\.weight", name) for name in weights]
    depths = tuple(sum(bool(one and int(one[1]) == stage) for one in blocks) for stage in range(4))
    width = weights.get("patch_embed.norm.weight", torch.empty(0)).numel()
    table = weights.get("layers.0.blocks.0.attn.relative_position_bias_table", torch.empty(0)).shape
    window = (round(table[0] ** 0.5) + 1) // 2 if table else 0  # (2 w - 1) ** 2 places
    words = f"Hugging Face's Swin: {'-'.join(map(str, depths))} blocks from width {width}, windows of {window}"
    swin, windows = _SWINS.get((depths, width)), (7, 12) if width > 96 else (7,)
    return f"timm:swin_{swin}_patch4_window{window}_{32 * window}" if swin and window in windows else "", words
