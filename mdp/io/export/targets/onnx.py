"""An ONNX file, which needs none of our code to run: a backbone's features, or logits at the input's resolution."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mdp.core.networks.parameter_names import BARE, MMSEG, Layout
from mdp.io.errors import CheckpointError
from mdp.io.export.card import texts_of
from mdp.io.export.content import Content
from mdp.io.export.onnx_file import OPSET, onnx_bytes, run_onnx
from mdp.io.export.onnx_file import expect_onnx as expect
from mdp.io.export.source import Source
from mdp.io.export.targets import _common
from mdp.io.export.targets._common import Function, Library, enlarged
from mdp.io.export.targets._common import any_source as refuse
from mdp.io.export.targets._common import trained_stride as strides
from mdp.io.files.writing import write_atomically

__all__ = [
    "LIBRARY", "SUFFIX", "expect", "layout", "load_line", "misfit", "read", "refuse", "sidecar", "strides", "write",
]  # fmt: skip

SUFFIX = ".onnx"


def misfit(content: Content) -> str:
    """It holds whatever there is."""
    return _common.misfit(content, deep=True, timm=True, narrow=True, heads=None)


def layout(content: Content) -> Layout:
    """Nothing outside the file reads these names; they say how many tensors it has."""
    return MMSEG if content.head else BARE


def write(path: Path, source: Source, tensors: dict[str, Tensor], known: Mapping[str, Any]) -> None:
    """The network itself, with the facts and what it expects as the file's metadata."""
    texts = {**texts_of(known), "format": "onnx", "opset": str(OPSET), "input": json.dumps(known["input"])}
    output, channels = "logits" if source.content.head else "features", source.content.image_channels
    write_atomically(path, [onnx_bytes(source.rebuilt(), output, texts, channels, source.size)])


def read(path: Path) -> dict[str, Tensor]:
    """Never: the file is a program, which onnxruntime runs."""
    raise CheckpointError(f"{path.name}: only onnxruntime reads it")


def sidecar(known: Mapping[str, Any]) -> dict[str, Any]:
    """The version of ONNX's operators, and that logits are enlarged."""
    return {"opset": OPSET, **enlarged(known)}


def _load(path: Path, source: Source, stride: int) -> Function:
    return run_onnx(path)


LIBRARY = Library("onnxruntime", "onnxruntime", _load, program=True)


def load_line(path: Path, content: Content) -> str:
    """A session of onnxruntime."""
    return f"import onnxruntime; session = onnxruntime.InferenceSession({str(path)!r})"
