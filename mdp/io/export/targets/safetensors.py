"""A safetensors file by torchvision's names, or by ours for a whole network: for whoever wants the numbers only."""

import importlib
from pathlib import Path
from typing import Any

from mdp.core.networks.parameter_names import BARE, MMSEG, Layout, to_own
from mdp.io.export.content import Content
from mdp.io.export.source import Source
from mdp.io.export.targets import _common
from mdp.io.export.targets._common import Function, Library
from mdp.io.export.targets._common import any_source as refuse
from mdp.io.export.targets._common import at_the_grid as sidecar
from mdp.io.export.targets._common import nothing_to_install as expect
from mdp.io.export.targets._common import read_safetensors as read
from mdp.io.export.targets._common import trained_stride as strides
from mdp.io.export.targets._common import write_safetensors as write

__all__ = [
    "LIBRARY", "SUFFIX", "expect", "layout", "load_line", "misfit", "read", "refuse", "sidecar", "strides", "write",
]  # fmt: skip

SUFFIX = ".safetensors"


def misfit(content: Content) -> str:
    """It holds whatever there is."""
    return _common.misfit(content, deep=True, timm=True, narrow=True, heads=None)


def layout(content: Content) -> Layout:
    """torchvision's names of a backbone, ours of a whole network."""
    return MMSEG if content.head else BARE


def _load(path: Path, source: Source, stride: int) -> Function:
    library: Any = importlib.import_module("safetensors.torch")
    state, names = library.load_file(str(path)), layout(source.content)
    return source.rebuilt({to_own(name, names) or name: tensor for name, tensor in state.items()}, stride)


LIBRARY = Library("safetensors.torch", "safetensors", _load)


def load_line(path: Path, content: Content) -> str:
    """The tensors by name."""
    return f"from safetensors.torch import load_file; weights = load_file({str(path)!r})"
