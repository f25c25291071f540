"""Encoders of segmentation_models_pytorch: a `.pth` file of a state dict."""

import importlib
from pathlib import Path
from typing import Any

import torch

from mdp.io.export.content import Content
from mdp.io.export.source import Source
from mdp.io.export.targets import _common
from mdp.io.export.targets._common import Function, Library
from mdp.io.export.targets._common import any_source as refuse
from mdp.io.export.targets._common import at_the_grid as sidecar
from mdp.io.export.targets._common import bare as layout
from mdp.io.export.targets._common import nothing_to_install as expect
from mdp.io.export.targets._common import read_pickle as read
from mdp.io.export.targets._common import write_pickle as write

__all__ = [
    "LIBRARY", "SUFFIX", "expect", "layout", "load_line", "misfit", "read", "refuse", "sidecar", "strides", "write",
]  # fmt: skip

SUFFIX = ".pth"


def misfit(content: Content) -> str:
    """Its encoders are torchvision's ResNets."""
    return _common.misfit(content, deep=False, timm=False, narrow=False, heads=())


def strides(content: Content) -> tuple[int, ...]:
    """It dilates the first block of a stage like the others, as we do where that is asked for."""
    return _common.library_strides(content, dilates=content.first_dilation == "own")


def _load(path: Path, source: Source, stride: int) -> Function:
    library: Any = importlib.import_module("segmentation_models_pytorch")
    content = source.content
    encoder = library.encoders.get_encoder(
        content.backbone, in_channels=content.image_channels, weights=None, output_stride=stride
    ).eval()
    encoder.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return lambda images: encoder(images)[-1]


LIBRARY = Library("segmentation_models_pytorch", "segmentation-models-pytorch", _load)


def load_line(path: Path, content: Content) -> str:
    """A Unet, whose encoder it is."""
    images = f", in_channels={content.image_channels}" if content.image_channels != 3 else ""
    return (
        "import torch, segmentation_models_pytorch as smp; "
        f"network = smp.Unet({content.backbone!r}, encoder_weights=None{images}); "
        f"network.encoder.load_state_dict(torch.load({str(path)!r}, weights_only=True))"
    )
