"""MMSegmentation: a `.pth` file as its own checkpoints are, with a state dict and `meta`.

It is not among the libraries that a file is tried with: it needs builds of its own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdp.core.networks.parameter_names import MMSEG, MMSEG_CASCADE, Layout
from mdp.io.export.content import UNDILATED, Content
from mdp.io.export.source import Source
from mdp.io.export.targets import _common
from mdp.io.export.targets._common import Library, pickled
from mdp.io.export.targets._common import any_source as refuse
from mdp.io.export.targets._common import at_the_grid as sidecar
from mdp.io.export.targets._common import nothing_to_install as expect
from mdp.io.files.writing import write_atomically

__all__ = [
    "LIBRARY", "SUFFIX", "expect", "layout", "load_line", "misfit", "read", "refuse", "sidecar", "strides", "write",
]  # fmt: skip

SUFFIX = ".pth"
LIBRARY: Library | None = None


def misfit(content: Content) -> str:
    """It has both stems of ResNet and our heads; what it dilates otherwise gives other logits."""
    heads = ("deeplabv3", "deeplabv3plus", "fcn", "fcn_dilated", "hrnet", "linear", "ocr", "segformer", "upernet")
    reason = _common.misfit(content, deep=True, timm=False, narrow=False, heads=heads)
    if not reason and content.head and content.stride != UNDILATED and not _common.has_bottlenecks(content):
        reason = f"it dilates {content.backbone} in other convolutions, so that the same weights give other logits"
    if not reason and content.head == "fcn_dilated" and len(set(content.dilations or ())) > 1:
        reason = f"its FCNHead has one dilation for all convolutions, this one {content.dilations} (model.dilations)"
    return reason


def layout(content: Content) -> Layout:
    """Its names are ours; those of a head are left out of a bare backbone."""
    if content.head == "ocr":  # its CascadeEncoderDecoder
        return MMSEG_CASCADE
    return MMSEG if content.head else (("backbone.", "backbone."),)


def strides(content: Content) -> tuple[int, ...]:
    """It dilates the first convolution of basic blocks, where we dilate the second."""
    return _common.library_strides(content, dilates=_common.has_bottlenecks(content))


def write(path: Path, source: Source, tensors: dict[str, Tensor], known: Mapping[str, Any]) -> None:
    """The file, as its own checkpoints are."""
    write_atomically(path, [pickled({"state_dict": tensors, "meta": _meta(source, known)})])


def _meta(source: Source, known: Mapping[str, Any]) -> dict[str, Any]:
    """Strings and numbers, and for a whole network its classes and their colours."""
    names = [entry["name"] for entry in known["datasets"]]
    meta = {key: known[key] for key in ("mdp", "what", "backbone", "kind", "method", "step")}
    meta |= {"datasets": ", ".join(names), **{key: known["input"][key] for key in ("mean", "std", "channels")}}
    if source.content.head:
        colors = [list(color) for space in source.record.labels for color in space.colors]
        meta["dataset_meta"] = {"classes": list(known["classes"]), **({"palette": colors} if colors else {})}
    return meta


def read(path: Path) -> dict[str, Tensor]:
    """The state dict."""
    return dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])


def load_line(path: Path, content: Content) -> str:
    """A line of a configuration, which is where it takes the path of weights from."""
    quoted = repr(str(path))
    if content.head:
        return f"load_from = {quoted}"
    return (
        f"model = dict(backbone=dict({backbone_of(content)}, "
        f'init_cfg=dict(type="Pretrained", checkpoint={quoted}, prefix="backbone.")))'
    )


def backbone_of(content: Content) -> str:
    """The backbone as a configuration has it.

    >>> backbone_of(Content("resnet50_v1c", 64, 8))
    'type="ResNetV1c", depth=50'
    """
    kind = "ResNet" if content.plain == content.backbone else "ResNetV1c"
    images = f", in_channels={content.image_channels}" if content.image_channels != 3 else ""
    return f'type="{kind}", depth={content.plain.removeprefix("resnet")}{images}'
