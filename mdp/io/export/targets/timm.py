"""timm's ResNets, and its own backbones back to it: a safetensors file."""

import importlib
from pathlib import Path
from typing import Any

from torch import Tensor

from mdp.io.errors import CheckpointError
from mdp.io.export.content import TIMM, WIDTH, Content
from mdp.io.export.source import Source
from mdp.io.export.targets import _common
from mdp.io.export.targets._common import Function, Library
from mdp.io.export.targets._common import any_source as refuse
from mdp.io.export.targets._common import at_the_grid as sidecar
from mdp.io.export.targets._common import bare_or_deep as layout
from mdp.io.export.targets._common import nothing_to_install as expect
from mdp.io.export.targets._common import read_safetensors as read
from mdp.io.export.targets._common import write_safetensors as write

__all__ = [
    "LIBRARY", "SUFFIX", "expect", "layout", "load_line", "misfit", "read", "refuse", "sidecar", "strides", "write",
]  # fmt: skip

SUFFIX = ".safetensors"


def misfit(content: Content) -> str:
    """It has both stems of ResNet, and its own backbones."""
    return _common.misfit(content, deep=True, timm=True, narrow=False, heads=())


def strides(content: Content) -> tuple[int, ...]:
    """It dilates all ResNets as we do, the first block of a stage by the dilation before it."""
    return _common.library_strides(content, dilates=content.first_dilation == "before")


def model_of(content: Content) -> tuple[str, dict[str, object]]:
    """timm's name of the backbone, and further arguments of `timm.create_model`.

    >>> model_of(Content("resnet50_v1c", 64, 8)), model_of(Content("resnet18_v1c", 64, 8))
    (('resnet50c', {}), ('resnet18', {'stem_type': 'deep', 'stem_width': 32}))
    """
    images: dict[str, object] = {"in_chans": content.image_channels} if content.image_channels != 3 else {}
    if content.backbone.startswith(TIMM):
        return content.backbone.removeprefix(TIMM), dict(content.arguments)
    if content.plain == content.backbone:
        return content.plain, images
    if _common.has_bottlenecks(content):
        return f"{content.plain}c", images
    return content.plain, {"stem_type": "deep", "stem_width": WIDTH // 2, **images}


def _load(path: Path, source: Source, stride: int) -> Function:
    timm: Any = importlib.import_module("timm")
    name, settings = model_of(source.content)
    if source.content.backbone.startswith(TIMM):
        return filled(timm.create_model(name, **settings, num_classes=0), read(path))
    network = timm.create_model(name, **settings, num_classes=0, output_stride=stride, checkpoint_path=str(path))
    forward: Function = network.eval().forward_features
    return forward


def filled(network: Any, state: dict[str, Tensor]) -> Function:
    """A backbone of timm's back in timm: what gives no features, such as a last norm, was never in the run."""
    unknown = network.load_state_dict(state, strict=False).unexpected_keys
    if unknown:
        raise CheckpointError(f"timm has no {unknown[0]}")
    return last_map(network)


def last_map(network: Any) -> Function:
    """The last feature map of one of timm's models, before any norm."""
    network.eval()
    return lambda images: network.forward_intermediates(images, intermediates_only=True, output_fmt="NCHW")[-1]


LIBRARY = Library("timm", "timm", _load)


def load_line(path: Path, content: Content) -> str:
    """A model without its classifier."""
    model, others = model_of(content)
    quoted, settings = repr(str(path)), "".join(f", {key}={value!r}" for key, value in others.items())
    if content.backbone.startswith(TIMM):  # parts that give no features, such as a last norm, are not in the file
        return (
            f"import timm, safetensors.torch; network = timm.create_model({model!r}{settings}, num_classes=0); "
            f"network.load_state_dict(safetensors.torch.load_file({quoted}), strict=False)"
        )
    return f"import timm; network = timm.create_model({model!r}{settings}, num_classes=0, checkpoint_path={quoted})"
