"""The libraries that weights are exported to: one file each, found by its name, with all that is particular to it.

A backbone is what pretraining is for; a whole network (`--segmentor`) needs a head with the same layers in the library.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any, Protocol, cast

from mdp.io.errors import RecipeError

if TYPE_CHECKING:  # the command line asks for the names, without torch
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from mdp.core.networks.parameter_names import Layout
    from mdp.io.export.content import Content
    from mdp.io.export.source import Source
    from mdp.io.export.targets import hub, mmseg, onnx, safetensors, smp, timm, torch_export, torchvision
    from mdp.io.export.targets._common import Library

_ORDER = (
    "torchvision",
    "timm",
    "smp",
    "mmseg",
    "safetensors",
    "onnx",
    "torch_export",
    "hub",
)  # of a listing; others follow


class Target(Protocol):
    """The functions of a target's file; `_common.py` has those that several share."""

    @property
    def SUFFIX(self) -> str:
        """Of what is written; "" for a folder."""

    @property
    def LIBRARY(self) -> Library | None:
        """The library that loads it; None where our own network stands in for it."""

    def expect(self) -> None:
        """Raises RecipeError, naming the extra, unless what writes the file is installed."""

    def misfit(self, content: Content) -> str:
        """Why the library cannot hold the network; "" when it can."""

    def refuse(self, source: Source) -> None:
        """Raises RecipeError for what only the weights show."""

    def layout(self, content: Content) -> Layout:
        """The library's names for our parameters."""

    def strides(self, content: Content) -> tuple[int, ...]:
        """The strides at which its features are compared with the network's."""

    def write(self, path: Path, source: Source, tensors: dict[str, Tensor], known: Mapping[str, Any]) -> None:
        """Writes the file, or folder, of those tensors by the library's names; `known` are the card's facts."""

    def read(self, path: Path) -> dict[str, Tensor]:
        """The tensors of what was written."""

    def sidecar(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Facts for the side-car besides those of the run, or in place of one of them."""

    def load_line(self, path: Path, content: Content) -> str:
        """One line of Python that loads the file or folder in the library."""


if TYPE_CHECKING:  # mypy holds every file against the Protocol
    _TARGETS: list[Target] = [torchvision, timm, smp, mmseg, safetensors, onnx, torch_export, hub]


def names() -> list[str]:
    """The targets by file name; nothing is imported."""
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return sorted(modules, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))


def find(name: str) -> Target:
    """The target of that name, which is one of `names()`."""
    return cast(Target, importlib.import_module(f"{__name__}.{name}"))


def refuse_misfit(target: str, content: Content) -> None:
    """Raises RecipeError, in one line that says which targets can, when the library cannot hold the network."""
    reason = find(target).misfit(content)
    if reason:
        can = ", ".join(name for name in names() if not find(name).misfit(content))
        raise RecipeError(f"--to {target}: {reason}; what can hold it: {can}")
