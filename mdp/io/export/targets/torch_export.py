"""A program of torch.export's, which torch alone runs: a backbone's features, or logits at the input's resolution."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from mdp.core.networks.parameter_names import BARE, MMSEG, Layout
from mdp.io.errors import CheckpointError
from mdp.io.export.card import texts_of
from mdp.io.export.content import Content
from mdp.io.export.source import Source
from mdp.io.export.targets import _common
from mdp.io.export.targets._common import Function, Library
from mdp.io.export.targets._common import any_source as refuse
from mdp.io.export.targets._common import enlarged as sidecar
from mdp.io.export.targets._common import nothing_to_install as expect
from mdp.io.export.targets._common import trained_stride as strides
from mdp.io.export.tracing import HINT, traced
from mdp.io.files.writing import write_atomically

__all__ = [
    "LIBRARY", "SUFFIX", "expect", "layout", "load_line", "misfit", "read", "refuse", "sidecar", "strides", "write",
]  # fmt: skip

SUFFIX = ".pt2"
FACTS = "mdp.json"  # beside the program, in the same file
_TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn")


def misfit(content: Content) -> str:
    """It holds whatever there is."""
    return _common.misfit(content, deep=True, timm=True, narrow=True, heads=None)


def layout(content: Content) -> Layout:
    """Nothing outside the file reads these names; they say how many tensors it has."""
    return MMSEG if content.head else BARE


def write(path: Path, source: Source, tensors: dict[str, Tensor], known: Mapping[str, Any]) -> None:
    """The network itself, of any batch, and of images of any size or of one; the same bytes for the same network."""
    try:
        program = traced(source.rebuilt(), source.content.image_channels, source.size)
    except Exception as error:  # whatever a network does that cannot be traced
        reason, hint = " ".join(str(error).split())[:300], "" if source.size else f"; {HINT}"
        raise CheckpointError(
            f"--to torch_export: torch {torch.__version__} cannot export the network: {reason}{hint}"
        ) from error
    _forget_traces_(program)
    stream = io.BytesIO()  # in memory, because the file's name would become part of it
    torch.export.save(program, stream, extra_files={FACTS: texts_of(known)["mdp"]})
    write_atomically(path, [stream.getvalue()])


def _forget_traces_(program: ExportedProgram) -> None:
    """Takes out what torch notes of the Python that it read: paths of this machine among it."""
    for node in program.graph.nodes:
        for key in _TRACES:
            node.meta.pop(key, None)


def read(path: Path) -> dict[str, Tensor]:
    """Never: the file is a program, which torch runs."""
    raise CheckpointError(f"{path.name}: only torch.export reads it")


def _load(path: Path, source: Source, stride: int) -> Function:
    program: Function = torch.export.load(path).module()
    return program


LIBRARY = Library("torch.export", "torch", _load, program=True)


def load_line(path: Path, content: Content) -> str:
    """The program as a module, and the facts: classes, their colours, what the input must be."""
    return (
        f"import json, torch; beside = {{{FACTS!r}: ''}}; "
        f"network = torch.export.load({str(path)!r}, extra_files=beside).module(); "
        f"facts = json.loads(beside[{FACTS!r}])"
    )
