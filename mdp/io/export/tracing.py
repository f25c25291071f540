"""A network as a program of torch's: of images of any size, or of one.

Shape legend: B images, K channels, H x W image.
"""

import importlib
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from mdp.io.export.windows import cuts_windows, rewrite_windows_

_OBLIVIOUS = "backed_size_oblivious"  # torch 2.7: a number of windows that may be 1 is not taken for more
_ONE_SIZE = {  # windows that timm cuts in ways that are not rewritten
    "timm.models.swin_transformer_v2": "Swin v2",
    "timm.models.swin_transformer_v2_cr": "Swin v2 (CR)",
}
HINT = "--size HEIGHT WIDTH makes a program for images of one size"
_TRACED = (224, 256)  # whole numbers of all patches but DINOv2's, for which mdp pads
_WINDOWED = (256, 320)  # no whole number of windows of 7 or 12 at any stage, which would hide that there may be others


def traced(network: nn.Module, channels: int, size: tuple[int, int] | None) -> ExportedProgram:
    """The program of a network in evaluation, of images (B, K, H, W) of any B, and of that size (None: any).

    Windows of its attention are rewritten in place.  Raises whatever a network raises that cannot be traced.
    """
    windowed = cuts_windows(network)
    rewrite_windows_(network)
    images = torch.zeros(3, channels, *(size or (_WINDOWED if windowed else _TRACED)))  # 1 would be taken for fixed
    sizes = {0: Dim.DYNAMIC} if size else {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    with torch.no_grad(), _whatever_the_size() if windowed else nullcontext():
        return torch.export.export(network, (images,), dynamic_shapes=(sizes,), strict=False)


def one_size_reason(network: nn.Module) -> str:
    """Why torch can trace a network for images of one size only; "" where it can for all, as far as is known."""
    for module in network.modules():
        if (family := _ONE_SIZE.get(type(module).__module__)) is not None:
            return f"tracing the windows of {family} for every size does not end"
    if cuts_windows(network) and not hasattr(_config(), _OBLIVIOUS):
        return f"torch {torch.__version__} cannot trace windows for every size, later versions can"
    return ""


def _config() -> Any:
    return importlib.import_module("torch.fx.experimental._config")


def _whatever_the_size() -> AbstractContextManager[Any]:
    changed: AbstractContextManager[Any] = (
        _config().patch(**{_OBLIVIOUS: True}) if hasattr(_config(), _OBLIVIOUS) else nullcontext()
    )
    return changed
