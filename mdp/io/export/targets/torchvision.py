"""torchvision's ResNets, and its DeepLab: a `.pth` file of a state dict."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdp.core.networks.parameter_names import BARE, TORCHVISION_DEEPLAB, Layout
from mdp.io.export.content import BOTTLENECKS, Content
from mdp.io.export.source import Source
from mdp.io.export.targets import _common
from mdp.io.export.targets._common import Function, Library
from mdp.io.export.targets._common import any_source as refuse
from mdp.io.export.targets._common import nothing_to_install as expect
from mdp.io.export.targets._common import read_pickle as read
from mdp.io.export.targets._common import write_pickle as write

__all__ = [
    "LIBRARY", "SUFFIX", "expect", "layout", "load_line", "misfit", "read", "refuse", "sidecar", "strides", "write",
]  # fmt: skip

SUFFIX = ".pth"


def misfit(content: Content) -> str:
    """Its backbones have the usual stem and width, and of heads it has DeepLab-v3's with its own numbers."""
    heads = ("deeplabv3_torchvision",)
    reason = _common.misfit(content, deep=False, timm=False, narrow=False, heads=heads, rgb=True)
    return reason or (_not_deeplab(content) if content.head else "")


def _not_deeplab(content: Content) -> str:
    """Why a network with torchvision's head is none of those that torchvision builds; "" when it is."""
    if content.backbone not in BOTTLENECKS:
        return f"it builds DeepLab on {' and '.join(BOTTLENECKS)}, this one is on {content.backbone}"
    if content.stride != 8:
        return f"its DeepLab has output stride 8, this one {content.stride} (model.output_stride)"
    if content.first_dilation != "before":
        return "its DeepLab keeps the dilation before a stage in its first block (model.first_dilation: before)"
    if content.channels not in (None, 256):
        return f"its head has 256 channels, this one {content.channels} (model.channels)"
    if content.dilations not in (None, (1, 12, 24, 36)):
        return f"its head has the dilations 1, 12, 24, 36, this one {content.dilations} (model.dilations)"
    return ""


def layout(content: Content) -> Layout:
    """Its names, of which ours are the same below the backbone."""
    return TORCHVISION_DEEPLAB if content.head else BARE


def strides(content: Content) -> tuple[int, ...]:
    """It does not dilate basic blocks, and the first block of a stage by the dilation before it."""
    dilates = _common.has_bottlenecks(content) and content.first_dilation == "before"
    return _common.library_strides(content, dilates)


def sidecar(known: Mapping[str, Any]) -> dict[str, Any]:
    """Its DeepLab enlarges its logits."""
    return {"output": f"{known['output']} at the input's resolution"} if "output" in known else {}


def _load(path: Path, source: Source, stride: int) -> Function:
    models: Any = importlib.import_module("torchvision.models")
    state, content = torch.load(path, map_location="cpu", weights_only=True), source.content
    if content.head:
        name, classes = f"deeplabv3_{content.backbone}", content.classes
        segmentor = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes).eval()
        segmentor.load_state_dict(state)
        return lambda images: segmentor(images)["out"]
    dilated = {8: [False, True, True], 16: [False, False, True]}.get(stride)
    settings = {"replace_stride_with_dilation": dilated} if dilated else {}
    network = models.get_model(content.backbone, weights=None, **settings).eval()
    network.fc = nn.Identity()
    network.load_state_dict(state)
    return nn.Sequential(*list(network.children())[:-2])  # up to the pooling


LIBRARY = Library("torchvision", "torchvision", _load)


def load_line(path: Path, content: Content) -> str:
    """A whole network, or a ResNet without its classifier."""
    quoted = repr(str(path))
    if content.head:
        return (
            f"import torch, torchvision; network = torchvision.models.segmentation.deeplabv3_{content.backbone}"
            f"(weights=None, weights_backbone=None, num_classes={content.classes}); "
            f"network.load_state_dict(torch.load({quoted}, weights_only=True))"
        )
    return (
        f"import torch, torchvision; network = torchvision.models.{content.backbone}(weights=None); "
        f"network.fc = torch.nn.Identity(); network.load_state_dict(torch.load({quoted}, weights_only=True))"
    )
